"""The section on alignment: reward against divergence, before and after; reads no files."""

from __future__ import annotations

from collections.abc import Sequence

from isoflop.reporting import numbers, scales, svg
from isoflop.reporting.charts import Canvas, frame_for, in_span
from isoflop.reporting.markup import (
    Column,
    Section,
    both,
    details,
    figure,
    fixed,
    legend,
    table,
    text,
)
from isoflop.reporting.records import Report
from isoflop.reporting.stage_records import Aligned, Figure

_NAMES = {
    "sft": ("Fine-tuning", "监督微调"),
    "reward": ("Reward model", "奖励模型"),
    "dpo": ("Preference optimisation", "偏好优化"),
    "ppo": ("PPO", "PPO"),
    "grpo": ("GRPO", "GRPO"),
}
_WORDS = {
    "held-out prompts answered right": "留出题答对",
    "held-out reward": "留出集奖励",
    "bits per byte of text it knew": "原有文本的比特/字节",
    "held-out loss": "留出集损失",
    "held-out pairs ordered right": "留出偏好对排序正确",
    "mean margin of held-out pairs": "留出偏好对的平均间隔",
    "divergence from the reference, nats per answer": "与参考模型的散度（nats/回答）",
}


def alignment(report: Report) -> Section | None:
    """Every run of SFT, reward, DPO, PPO and GRPO."""
    runs = report.aligned
    if not runs:
        return None
    body = _chart(runs) + _table(runs) + "".join(_samples(run) for run in runs)
    return Section("alignment", both("Alignment", "对齐"), body)


def _chart(runs: Sequence[Aligned]) -> str:
    drawn = [run for run in runs if run.path]
    if not drawn:
        return ""
    foretold = any(run.frontier for run in drawn)
    english = (
        "<b>Reward against divergence.</b> Lines: each run, from its first round to the dot at its "
        "last. Up and to the left is better: more reward for less change."
    )
    chinese = (
        "<b>奖励与散度。</b>曲线：各次运行，从第一轮到末轮的圆点。"
        "越靠左上越好：变化更少而奖励更多。"
    )
    if foretold:
        english += (
            " Dashed: the most that any policy can earn at that divergence, foretold from the "
            "reference’s own answers before the run. An estimate from few answers; a run above it "
            "has found answers that the sample did not hold."
        )
        chinese += (
            "虚线：训练前由参考模型自己的回答预告的、该散度下任何策略可得的最大奖励。"
            "样本有限；高于它的运行找到了样本之外的回答。"
        )
    entries = [(f"c{_colour(i, drawn)}", run.name) for i, run in enumerate(drawn)]
    return figure(
        lambda canvas: reward_chart(drawn, canvas),
        both(english, chinese),
        height=380,
        above=legend(entries) if len(drawn) > 1 else "",
    )


def reward_chart(runs: Sequence[Aligned], canvas: Canvas) -> str:
    """Reward against KL: the way of each run, and the frontier that was foretold for it."""
    points = [point for run in runs for point in (*run.path, *run.frontier)]
    reach = max(kl for run in runs for kl, _ in run.path)
    frame = frame_for(
        canvas,
        (0.0, max(1e-6, 1.05 * max(reach, max(kl for kl, _ in points)))),
        scales.extent([reward for _, reward in points], margin=0.08),
        x_log=False,
    )
    parts = [
        frame.axes(
            scales.linear_ticks(frame.x, 5),
            scales.linear_ticks(frame.y, 5),
            "divergence from the reference, nats per answer",
            "reward",
        )
    ]
    for index, run in enumerate(runs):
        colour = f"c{_colour(index, runs)}"
        onward = [*run.frontier, (frame.x.high, run.frontier[-1][1])] if run.frontier else []
        parts.append(frame.path(in_span(onward, frame), f"{colour} dashed"))
        way = in_span(run.path, frame)
        parts.append(frame.path(way, f"{colour} thin"))
        if way:
            kl, reward = way[-1]
            tip = f"{run.name}: reward {reward:.4g} at {kl:.3g} nats"
            parts.append(svg.circle(*frame.at(way[-1]), 5, f"dot {colour}", tip))
    ends = "; ".join(f"{r.name} ended at reward {r.path[-1][1]:.3f}" for r in runs)
    return svg.picture(
        canvas.width, canvas.height, f"reward-{canvas.name}", "Reward against divergence",
        f"{ends}.", "".join(parts),
    )  # fmt: skip


def _colour(index: int, runs: Sequence[Aligned]) -> int:
    return round(7 * index / max(1, len(runs) - 1)) if len(runs) > 1 else 4


def _table(runs: Sequence[Aligned]) -> str:
    rows = []
    for run in runs:
        stage = both(*_NAMES[run.stage])
        for number, each in enumerate(run.figures):
            name = f"{text(run.name)}<small>{stage}</small>" if number == 0 else ""
            words = both(text(each.name), text(_WORDS.get(each.name, each.name)))
            rows.append([name or text(run.name), words, _value(each, each.before),
                         _value(each, each.after)])  # fmt: skip
    columns = [Column("Run"), Column("What was measured"), Column("Before", True),
               Column("After", True)]  # fmt: skip
    return table(
        "What each run changed, on held-out rows", columns, rows, "各次运行在留出集上的变化"
    )


def _value(each: Figure, value: float | None) -> str:
    if value is None:
        return "–"
    return numbers.percent(100 * value) if each.share else numbers.significant(value, 4)


def _samples(run: Aligned) -> str:
    if not run.pairs:
        return ""
    changed = sorted(run.pairs, key=lambda pair: pair.before == pair.after)
    rows = [[_sample(pair.prompt), _sample(pair.before), _sample(pair.after)] for pair in changed]
    columns = [Column("Prompt"), Column("Before"), Column("After")]
    caption = f"The same prompts at the first and the last evaluation of {run.name}"
    grid = table(caption, columns, rows, f"{run.name} 首次与末次评测对同一提示的回答")
    all_, new = len(run.pairs), sum(pair.before != pair.after for pair in run.pairs)
    summary = f"Samples of {run.name}: {new} of {all_} answers changed"
    return details(summary, grid, f"{run.name} 的样例：{all_} 条回答中 {new} 条改变")


def _sample(written: str) -> str:
    return f'<span class="answer">{text(written) or fixed("–")}</span>'
