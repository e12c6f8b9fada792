"""A grokking run as one offline page: accuracy, weight norm and Fourier energy on a log-step axis.

Not for training it. Takes the document of `grokking.json`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from isoflop.reporting import scales, svg
from isoflop.reporting.charts import Canvas, frame_for
from isoflop.reporting.markup import Column, figure, legend, table, text
from isoflop.reporting.page import POLICY, style

_COLOURS = ("c1", "c3", "c5", "c7", "c0", "c2", "c4", "c6")
"""Of the arms without the most decay, which has the accent."""
Document = Mapping[str, Any]
Line = tuple[str, str]
"""(key of a moment, classes beside the arm's colour)."""


def page(document: Document) -> str:
    """One HTML file without scripts; the same document gives the same bytes."""
    recipe = document["recipe"]
    p = recipe["modulus"]
    pairs = int(recipe["train_fraction"] * p * p)
    title = f"Grokking (a + b) mod {p}"
    body = "".join(
        (
            f"<h1>{text(title)}</h1>",
            f"<p>A one-layer model of width {recipe['d_model']} sees {pairs:,} of {p * p:,} pairs; "
            "the others judge it. Solid lines are the pairs it sees, dashed ones those it does "
            "not.</p>",
            _table(document),
            _figure(document, "accuracy", "share of pairs right",
                    (("train_accuracy", ""), ("accuracy", "dashed")), (0.0, 1.02)),
            _figure(document, "norm", "norm of all weights", (("weight_norm", ""),), None),
            _figure(document, "fourier", "embedding energy in five frequencies",
                    (("fourier_top", ""),), (0.0, 1.02)),
            _spectra(document),
        )
    )  # fmt: skip
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        f"<title>{text(title)}</title><style>{style('chart.css', 'style.css')}</style></head>\n"
        f'<body><div class="columns"><main id="content">{body}</main></div></body></html>\n'
    )


def _arms(document: Document) -> list[tuple[Mapping[str, Any], str]]:
    """The arms, by growing decay, each with its colour class."""
    arms = sorted(document["arms"], key=lambda arm: arm["weight_decay"])
    colours = [*_COLOURS[: len(arms) - 1], "ct"]
    return list(zip(arms, colours, strict=False))


def _table(document: Document) -> str:
    columns = [Column("weight decay"), *(Column(name, numeric=True) for name in (
        "99 % of seen pairs at step", "99 % of held-out pairs at step", "held out at the end",
        "norm at the end",
    ))]  # fmt: skip
    rows = [
        [
            f"{arm['weight_decay']:g}",
            *(
                f"{arm[key]:,}" if arm[key] else "never"
                for key in ("memorised_at", "generalised_at")
            ),
            f"{arm['moments'][-1]['accuracy']:.1%}",
            f"{arm['moments'][-1]['weight_norm']:.1f}",
        ]
        for arm, _ in _arms(document)
    ]
    return table("When each arm memorised, and when it understood", columns, rows)


def _figure(
    document: Document, key: str, name: str, lines: Sequence[Line], span: tuple[float, float] | None
) -> str:
    arms = _arms(document)
    entries = [(colour, f"weight decay {arm['weight_decay']:g}") for arm, colour in arms]
    draw: Callable[[Canvas], str] = partial(_chart, arms, key, name, lines, span)
    return figure(draw, text(name), height=300, above=legend(entries))


def _chart(
    arms: Sequence[tuple[Mapping[str, Any], str]],
    key: str,
    name: str,
    lines: Sequence[Line],
    span: tuple[float, float] | None,
    canvas: Canvas,
) -> str:
    moments = [moment for arm, _ in arms for moment in arm["moments"]]
    steps = [moment["step"] for moment in moments]
    values = [moment[which] for moment in moments for which, _ in lines]
    frame = frame_for(
        canvas, (1.0, float(max(2, *steps))), span or scales.extent(values, margin=0.06)
    )
    parts = [
        frame.axes(
            scales.log_ticks(frame.x, scales.count_label, min_gap=44),
            scales.linear_ticks(frame.y, 5),
            "steps",
            name,
        )
    ]
    for arm, colour in arms:
        for which, kind in lines:
            points = [(float(m["step"]), float(m[which])) for m in arm["moments"]]
            parts.append(frame.path(points, f"{colour} {kind}".strip()))
    ends = "; ".join(
        f"weight decay {arm['weight_decay']:g} ends at {arm['moments'][-1][lines[-1][0]]:.3f}"
        for arm, _ in arms
    )
    return svg.picture(
        canvas.width, canvas.height, f"grok-{key}-{canvas.name}", name, f"{ends}.", "".join(parts)
    )


def _spectra(document: Document) -> str:
    arms = _arms(document)
    entries = [(colour, f"weight decay {arm['weight_decay']:g}") for arm, colour in arms]
    return figure(
        partial(_spectrum_chart, arms),
        "share of the embedding’s energy at each frequency, at the end; a model that adds on "
        "circles keeps few (Nanda et al. 2023)",
        height=260,
        above=legend(entries),
    )


def _spectrum_chart(arms: Sequence[tuple[Mapping[str, Any], str]], canvas: Canvas) -> str:
    count = max(len(arm["spectrum"]) for arm, _ in arms)
    top = max(share for arm, _ in arms for share in arm["spectrum"])
    frame = frame_for(canvas, (0.5, count + 0.5), (0.0, top * 1.05), x_log=False)
    parts = [
        frame.axes(
            scales.linear_ticks(frame.x, 6), scales.linear_ticks(frame.y, 4),
            "frequency", "share of energy",
        )
    ]  # fmt: skip
    for number, (arm, colour) in enumerate(arms):
        shift = (number - (len(arms) - 1) / 2) * 0.25
        for frequency, share in enumerate(arm["spectrum"], 1):
            x, y = frame.at((frequency + shift, share))
            parts.append(svg.line(x, frame.y.start, x, y, f"bar {colour}"))
    said = "; ".join(
        f"weight decay {arm['weight_decay']:g}: strongest {max(arm['spectrum']):.2f}"
        for arm, _ in arms
    )
    return svg.picture(
        canvas.width, canvas.height, f"grok-spectrum-{canvas.name}",
        "Fourier energy of the embedding", f"{said}.", "".join(parts),
    )  # fmt: skip
