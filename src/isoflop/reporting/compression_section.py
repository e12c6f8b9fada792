"""The section on compressed models: size against added loss, promised and measured."""

from __future__ import annotations

from collections.abc import Sequence

from isoflop.reporting import numbers, scales, svg
from isoflop.reporting.charts import Canvas, frame_for
from isoflop.reporting.markup import Column, Section, both, figure, table, text
from isoflop.reporting.records import Report
from isoflop.reporting.stage_records import Compressed


def compression(report: Report) -> Section | None:
    """Every compressed model, and those that no other beats."""
    found = report.compressed
    if not found:
        return None
    best = pareto(found)
    body = figure(
        lambda canvas: pareto_chart(found, canvas),
        both(
            "<b>Size against added loss.</b> Bars: what was promised before the model was "
            "compressed; dots: measured. The line joins the models that no other beats in both.",
            "<b>大小与增加的损失。</b>竖条：压缩前的承诺；圆点：实测。连线：没有其他模型在两方面都更好者。",
        ),
        height=340,
    )
    rows = [
        [
            f"{text(each.name)}<small>{text(each.method)}"
            + (f" · {both('not beaten', '未被超越')}" if each in best else "")
            + "</small>",
            numbers.percent(each.size_percent),
            numbers.signed_percent(each.added_percent),
            f"{numbers.signed_percent(each.low)} – {numbers.signed_percent(each.high)}",
            _held(each.held),
            numbers.percent(100 * each.flipped),
        ]
        for each in sorted(found, key=lambda each: each.size_percent)
    ]
    columns = [Column("Method"), *(Column(name, True) for name in ("Size", "Added loss"))]
    columns += [Column("Promised", True), Column("Verdict"), Column("Tokens changed", True)]
    caption = "Compressed models; size and loss as shares of the full model’s in float32"
    body += table(caption, columns, rows, "压缩模型；大小与损失均为相对 float32 完整模型的百分比")
    return Section("compression", both("Compression", "压缩"), body)


def pareto(found: Sequence[Compressed]) -> tuple[Compressed, ...]:
    """The models that no other beats: none is smaller and loses less."""
    return tuple(
        each
        for each in sorted(found, key=lambda each: (each.size_percent, each.added_percent))
        if not any(
            other.size_percent <= each.size_percent
            and other.added_percent <= each.added_percent
            and (other.size_percent, other.added_percent) != (each.size_percent, each.added_percent)
            for other in found
        )
    )


def pareto_chart(found: Sequence[Compressed], canvas: Canvas) -> str:
    """Added loss against size, with the promised intervals."""
    losses = [v for each in found for v in (each.added_percent, each.low, each.high)]
    frame = frame_for(
        canvas,
        (0.0, max(102.0, 1.02 * max(each.size_percent for each in found))),
        scales.extent([*losses, 0.0], margin=0.12),
        x_log=False,
    )
    zero = frame.y(0.0)
    parts = [
        frame.axes(
            scales.linear_ticks(frame.x, 5),
            scales.linear_ticks(frame.y, 5),
            "size, % of the full model",
            "added loss, %",
        ),
        svg.line(frame.x.start, zero, frame.x.end, zero, "zero"),
    ]
    best = pareto(found)
    parts.append(frame.path([(each.size_percent, each.added_percent) for each in best], "c4 thin"))
    for each in found:
        x = frame.x(each.size_percent)
        colour = "ct" if each.held is False else "c4"
        low, high = frame.y(each.low), frame.y(each.high)
        parts.append(svg.element("g", svg.line(x, low, x, high, "stem"), class_=colour))
        place = frame.at((each.size_percent, each.added_percent))
        tip = f"{each.name}: {each.added_percent:+.2f} % at {each.size_percent:.1f} % of the size"
        parts.append(svg.circle(*place, 5, f"dot {colour}", tip))
        parts.append(svg.words(place[0] + 9, place[1] + 4, each.name, "label"))
    said = "; ".join(
        f"{e.name} {e.added_percent:+.2f} % at {e.size_percent:.0f} % of the size" for e in found
    )
    key = f"pareto-{canvas.name}"
    return svg.picture(
        canvas.width, canvas.height, key, "Size against added loss", f"{said}.", "".join(parts)
    )


def _held(held: bool | None) -> str:
    if held is None:
        return f'<span class="open">{both("open", "未到期")}</span>'
    words = both("held", "兑现") if held else both("missed", "未兑现")
    return f'<em class="{"held" if held else "missed"}">{words}</em>'
