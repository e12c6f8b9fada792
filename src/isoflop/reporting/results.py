"""Sections on what was found: verdict, ladder, training, law, ledger; not on how it was made."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from isoflop.core.ledger import Promise, Tally
from isoflop.reporting import charts, numbers, training_charts
from isoflop.reporting.law_drawings import calibration_drawing, fan_drawing
from isoflop.reporting.law_records import Coverage
from isoflop.reporting.law_section import caption_of, drawn
from isoflop.reporting.markup import (
    Column,
    Section,
    both,
    cards,
    details,
    figure,
    fixed,
    legend,
    table,
    text,
)
from isoflop.reporting.mishaps import mishaps
from isoflop.reporting.records import Report, Verdict

_MOST_ROWS = 200
_FEWEST_SETTLED = 10

# --- verdict -------------------------------------------------------------------------------


def verdict_sentence(verdict: Verdict) -> str:
    """What was promised and what came of it, in one sentence of plain words."""
    promised = numbers.with_interval(verdict.value, verdict.low, verdict.high)
    level = numbers.percent(100 * verdict.level, 0)
    start = f"Promised {promised} {verdict.unit} ({level}) before the run"
    if verdict.outcome is None or verdict.error_percent is None:
        return f"{start}; the run has not ended yet."
    decimals = numbers.decimals_for((verdict.high - verdict.low) / 2)
    kept = "held" if verdict.held else "missed"
    off = numbers.percent(abs(verdict.error_percent))
    return f"{start}; it ended at {verdict.outcome:.{decimals}f}: {kept}, {off} off."


def verdict_in_chinese(verdict: Verdict) -> str:
    """`verdict_sentence` in Chinese."""
    promised = numbers.with_interval(verdict.value, verdict.low, verdict.high)
    promised = promised.replace(" to ", " 至 ")
    level = numbers.percent(100 * verdict.level, 0)
    start = f"训练前承诺 {promised} {verdict.unit}（{level}）"
    if verdict.outcome is None or verdict.error_percent is None:
        return f"{start}；运行尚未结束。"
    decimals = numbers.decimals_for((verdict.high - verdict.low) / 2)
    kept = "兑现" if verdict.held else "未兑现"
    off = numbers.percent(abs(verdict.error_percent))
    return f"{start}；实际结果 {verdict.outcome:.{decimals}f}：{kept}，偏差 {off}。"


def heading(report: Report) -> str:
    """The page's first words: the verdict, or the title where nothing was promised."""
    if report.verdict is None:
        english = calibration_sentence(report.tallies)
        if not english:
            return f"<h1>{text(report.title)}</h1>"
        return f"<h1>{both(text(english), text(calibration_in_chinese(report.tallies)))}</h1>"
    sentence = text(verdict_sentence(report.verdict))
    chinese = text(verdict_in_chinese(report.verdict))
    for word, said_in_chinese in (("held", "兑现"), ("missed", "未兑现")):
        sentence = sentence.replace(f": {word},", f': <em class="{word}">{word}</em>,', 1)
        chinese = chinese.replace(
            f"：{said_in_chinese}，", f'：<em class="{word}">{said_in_chinese}</em>，', 1
        )
    strip = figure(
        lambda canvas: charts.promise_strip(report.verdict, canvas) if report.verdict else "",
        both(
            "The bar is the promised interval, sealed in the ledger before the run began.",
            "横条是承诺的区间，在运行开始之前就已写入账本。",
        ),
        height=104,
    )
    return f"<h1>{both(sentence, chinese)}</h1>{strip}"


def summary_cards(report: Report) -> str:
    """Target size, compute, time and memory at a glance; empty where nothing is known."""
    entries: list[tuple[str, str, str]] = []
    if report.target:
        entries += [
            (both("Target", "目标模型"), numbers.count(report.target.params), fixed("parameters")),
            (both("Trained on", "训练数据"), numbers.count(report.target.tokens), fixed("tokens")),
            (both("Compute", "计算量"), numbers.scientific(report.target.flops), "FLOPs"),
        ]
        if report.rungs:
            times = report.target.flops / max(r.flops for r in report.rungs)
            beyond = both("the largest rung", "为最大阶梯运行的倍数")
            value = f"×{numbers.THIN}{times:.1f}"
            entries.append((both("Extrapolation", "外推"), value, beyond))
    if report.seconds is not None:
        remark = _promised(report.promised_seconds, numbers.seconds)
        entries.append((fixed("Time"), numbers.seconds(report.seconds), remark))
    memory = _first_in_bytes(report.promises)
    if memory:
        name = both("Peak memory", "峰值内存")
        if memory.outcome is None:
            entries.append((name, numbers.size(memory.value), fixed("promised")))
        else:
            used = numbers.size(memory.outcome)
            entries.append((name, used, _promised(memory.value, numbers.size)))
    return cards(entries) if entries else ""


def _promised(value: float | None, write: Callable[[float], str]) -> str:
    if value is None:
        return ""
    return both(f"promised {text(write(value))}", f"承诺 {text(write(value))}")


def _first_in_bytes(promises: Iterable[Promise]) -> Promise | None:
    return next((p for p in promises if p.unit == "bytes" and "memory" in p.quantity), None)


# --- ladder --------------------------------------------------------------------------------


def ladder(report: Report) -> Section | None:
    """The rungs, the law through them, and how far each lies from it."""
    if not report.rungs:
        return None
    law, target, verdict = report.law, report.target, report.verdict
    captions = [
        both(
            "<b>Loss against training compute.</b> Each dot is one finished run.",
            "<b>损失与训练计算量。</b>每个点是一次完成的运行。",
        )
    ]
    if law and law.fits:
        captions.append(both("Lines: the law for each model size.", "曲线：各模型规模的定律。"))
    if law and law.path:
        level = numbers.percent(100 * law.path_level, 0)
        captions.append(
            both(
                "Dashed: the law for runs with the target’s tokens per parameter, "
                f"with its {level} band.",
                f"虚线：每参数词元数与目标相同的运行，及其 {level} 区间。",
            )
        )
    if target and verdict:
        captions.append(
            both(
                "The ring is the promise with its interval; the full dot is the outcome.",
                "圆环是承诺及其区间；实心点是实际结果。",
            )
        )
    body = figure(
        lambda canvas: charts.ladder_chart(report.rungs, law, target, verdict, canvas),
        " ".join(captions),
        height=470,
        above=_size_legend(report, [r.params for r in report.rungs]),
    )
    if any(r.predicted is not None for r in report.rungs):
        body += figure(
            lambda canvas: charts.residual_chart(report.rungs, target, verdict, canvas),
            both(
                "<b>Measured against predicted.</b> The law was fitted to the rungs, so their "
                "residuals show its noise; only the target tests it.",
                "<b>实测与预测。</b>定律由这些阶梯运行拟合，其残差只反映噪声；只有目标运行检验它。",
            ),
            height=250,
        )
    in_numbers = details("All rungs in numbers", _rungs(report), "全部阶梯运行的数值")
    return Section("ladder", both("The ladder", "阶梯"), body + in_numbers)


def _size_legend(report: Report, sizes: Sequence[float]) -> str:
    colours = charts.size_classes(sizes)
    entries = [
        (colours[s], numbers.count(s)) for s in charts.few_of(sorted(colours), charts.MOST_SIZES)
    ]
    if report.target:
        entries.append(("ct", f"target {numbers.count(report.target.params)}"))
    return legend(entries)


def _rungs(report: Report) -> str:
    shown = sorted(report.rungs, key=lambda r: r.flops)[-_MOST_ROWS:]
    columns = [Column("Run")]
    names = ("Parameters", "Tokens", "FLOPs", "Learning rate", "Batch, tokens", "Loss")
    columns += [Column(name, numeric=True) for name in (*names, "Law", "Off")]
    rows = [
        [
            text(r.run_id),
            numbers.count(r.params),
            numbers.count(r.tokens),
            numbers.scientific(r.flops),
            _optional(r.learning_rate, lambda v: numbers.scientific(v)),
            _optional(r.batch_tokens, lambda v: f"{v:,.0f}"),
            f"{r.loss:.4f}",
            _optional(r.predicted, lambda v: f"{v:.4f}"),
            _optional(r.residual_percent, numbers.signed_percent),
        ]
        for r in sorted(shown, key=lambda r: (r.params, r.tokens))
    ]
    which = "Every run" if len(shown) == len(report.rungs) else f"The {len(shown)} largest runs"
    chinese = "全部" if len(shown) == len(report.rungs) else f"最大的 {len(shown)} 次"
    caption = f"{which} of the ladder; loss in nats per token"
    return table(caption, columns, rows, f"阶梯的{chinese}运行；损失单位为 nats/词元")


def _optional(value: float | None, write: object) -> str:
    return "–" if value is None or not callable(write) else str(write(value))


# --- training ------------------------------------------------------------------------------


def training(report: Report) -> Section | None:
    """Loss curves, and their collapse where a law gives the floor."""
    curves = [c for c in report.curves if c.training or c.held_out]
    if not curves:
        return None
    sizes = [c.params for c in curves if c.params is not None and not c.is_target]
    lines = sum(c.lines_read for c in curves)
    body = figure(
        lambda canvas: training_charts.loss_chart(curves, canvas),
        both(
            f"<b>Loss while training</b>, from {lines:,} logged lines. Lines: training loss, "
            "averaged over equal shares of log tokens, with the target’s range shaded. Dots: "
            "held-out loss, of the rungs at their end.",
            f"<b>训练中的损失</b>，来自 {lines:,} 行日志。曲线：训练损失，按对数词元等分取平均，"
            "阴影为目标运行的最小至最大值。点：留出集损失（阶梯运行取其结束时）。",
        ),
        height=440,
        above=_size_legend(report, sizes) if sizes else "",
    )
    if sum(bool(training_charts.normalised(c)) for c in curves) > 1:
        body += figure(
            lambda canvas: training_charts.collapse_chart(curves, canvas),
            both(
                "<b>Do the curves collapse?</b> Loss above what the law gives this size for "
                "endless data, as a share of its last value. Under one good rule for learning rate "
                "and batch all runs fall on one line; a run that strays was trained by a worse "
                "one, and a law fitted through it misleads.",
                "<b>曲线是否重合？</b>损失高出该规模在无限数据下的部分，除以其末值。若学习率与批大小"
                "遵循同一条好规则，所有运行落在一条线上；偏离者训练得更差，据其拟合的定律会误导。",
            ),
            height=320,
        )
    body += "".join(drawn(fan_drawing(fan, i)) for i, fan in enumerate(report.fans))
    return Section("training", both("Training", "训练"), body + mishaps(curves))


# --- ledger --------------------------------------------------------------------------------


def calibration_sentence(tallies: Sequence[Tally]) -> str:
    """`Of 4 promises at 90 %, 3 held (1 still open).`"""
    said = "; ".join(tally.sentence() for tally in tallies)
    return f"{said[:1].upper()}{said[1:]}." if said else ""


def calibration_in_chinese(tallies: Sequence[Tally]) -> str:
    """`calibration_sentence` in Chinese."""
    said = []
    for tally in tallies:
        open_ = tally.promised - tally.settled
        rest = f"（另有 {open_} 项未到期）" if open_ else ""
        said.append(
            f"{tally.level * 100:g} % 的 {tally.settled} 项承诺中兑现 {tally.held} 项{rest}"
        )
    return f"{'；'.join(said)}。" if said else ""


def ledger(report: Report) -> Section | None:
    """Every promise, made before the work and scored after it."""
    if not report.promises:
        return None
    columns = [
        Column("Promise"),
        Column("Verdict"),
        Column("Promised", numeric=True),
        Column("Outcome", numeric=True),
        Column("Interval", numeric=True),
        Column("Level", numeric=True),
        Column("In interval"),
    ]
    rows = [
        [
            f"{text(p.quantity.replace('_', ' '))}<small>{text(p.basis)}<br>"
            f"{both('made', '写于')} {text(numbers.moment(p.made_at))}</small>",
            _held(p.held),
            text(numbers.quantity(p.value, p.unit)),
            "–" if p.outcome is None else text(numbers.quantity(p.outcome, p.unit)),
            text(f"{_bare(p.low, p.unit)} – {_bare(p.high, p.unit)}"),
            numbers.percent(100 * p.level, 0),
            charts.promise_mark(p, f"promise-{i}"),
        ]
        for i, p in enumerate(report.promises)
    ]
    english = text(calibration_sentence(report.tallies))
    lead = f'<p class="lead">{both(english, text(calibration_in_chinese(report.tallies)))}</p>'
    last = f"<code>{text(report.ledger_head[:16])}</code>"
    how = both(
        "Each line was written before the work it speaks of and carries the hash of the line "
        f"before it, so that no promise can be changed after the fact. The last hash is {last}.",
        f"每一行都在相应工作开始之前写下，并带有前一行的哈希，因此事后无法更改。最后的哈希：{last}。",
    )
    listed = table("All promises", columns, rows, "全部承诺")
    body = f"{lead}<p>{how}</p>{_calibration(report.tallies)}{listed}"
    return Section("ledger", both("The ledger", "账本"), body)


def _calibration(tallies: Sequence[Tally]) -> str:
    """How often promises held, once enough of them are settled for a picture to say something."""
    coverages = [Coverage(t.level, t.held, t.settled) for t in tallies if t.settled]
    if sum(c.scored for c in coverages) < _FEWEST_SETTLED:
        return ""
    drawing = calibration_drawing(coverages)
    caption = caption_of(drawing)
    return figure(drawing.draw, caption, height=drawing.height)


def _bare(value: float, unit: str) -> str:
    written = numbers.quantity(value, unit)
    return written.removesuffix(f" {unit}")


def _held(held: bool | None) -> str:
    if held is None:
        return f'<span class="open">{both("open", "未到期")}</span>'
    words = both("held", "兑现") if held else both("missed", "未兑现")
    return f'<em class="{"held" if held else "missed"}">{words}</em>'
