"""Sections on what was found: verdict, ladder, training, law, ledger; not on how it was made."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from isoflop.core.ledger import Promise, Tally
from isoflop.reporting import charts, numbers, training_charts
from isoflop.reporting.law_drawings import calibration_drawing, fan_drawing
from isoflop.reporting.law_records import Coverage
from isoflop.reporting.law_section import drawn
from isoflop.reporting.markup import (
    Column,
    Section,
    cards,
    details,
    figure,
    legend,
    table,
    text,
)
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


def heading(report: Report) -> str:
    """The page's first words: the verdict, or the title where nothing was promised."""
    if report.verdict is None:
        return f"<h1>{text(report.title)}</h1>"
    sentence = text(verdict_sentence(report.verdict))
    for word in ("held", "missed"):
        sentence = sentence.replace(f": {word},", f': <em class="{word}">{word}</em>,', 1)
    strip = figure(
        lambda canvas: charts.promise_strip(report.verdict, canvas) if report.verdict else "",
        "The bar is the promised interval, sealed in the ledger before the run began.",
        height=104,
    )
    return f"<h1>{sentence}</h1>{strip}"


def summary_cards(report: Report) -> str:
    """Target size, compute, time and memory at a glance; empty where nothing is known."""
    entries: list[tuple[str, str, str]] = []
    if report.target:
        entries += [
            ("Target", numbers.count(report.target.params), "parameters"),
            ("Trained on", numbers.count(report.target.tokens), "tokens"),
            ("Compute", numbers.scientific(report.target.flops), "FLOPs"),
        ]
        if report.rungs:
            times = report.target.flops / max(r.flops for r in report.rungs)
            entries.append(("Extrapolation", f"×{numbers.THIN}{times:.1f}", "the largest rung"))
    if report.seconds is not None:
        promised = report.promised_seconds
        remark = "" if promised is None else f"promised {numbers.seconds(promised)}"
        entries.append(("Time", numbers.seconds(report.seconds), remark))
    memory = _first_in_bytes(report.promises)
    if memory:
        promised_size = numbers.size(memory.value)
        if memory.outcome is None:
            entries.append(("Peak memory", promised_size, "promised"))
        else:
            used = numbers.size(memory.outcome)
            entries.append(("Peak memory", used, f"promised {promised_size}"))
    return cards(entries) if entries else ""


def _first_in_bytes(promises: Iterable[Promise]) -> Promise | None:
    return next((p for p in promises if p.unit == "bytes" and "memory" in p.quantity), None)


# --- ladder --------------------------------------------------------------------------------


def ladder(report: Report) -> Section | None:
    """The rungs, the law through them, and how far each lies from it."""
    if not report.rungs:
        return None
    law, target, verdict = report.law, report.target, report.verdict
    captions = ["<b>Loss against training compute.</b> Each dot is one finished run."]
    if law and law.fits:
        captions.append("Lines: the law for each model size.")
    if law and law.path:
        level = numbers.percent(100 * law.path_level, 0)
        captions.append(
            "Dashed: the law for runs with the target’s tokens per parameter, "
            f"with its {level} band."
        )
    if target and verdict:
        captions.append("The ring is the promise with its interval; the full dot is the outcome.")
    body = figure(
        lambda canvas: charts.ladder_chart(report.rungs, law, target, verdict, canvas),
        " ".join(captions),
        height=470,
        above=_size_legend(report, [r.params for r in report.rungs]),
    )
    if any(r.predicted is not None for r in report.rungs):
        body += figure(
            lambda canvas: charts.residual_chart(report.rungs, target, verdict, canvas),
            "<b>Measured against predicted.</b> The law was fitted to the rungs, so their "
            "residuals show its noise; only the target tests it.",
            height=250,
        )
    return Section("ladder", "The ladder", body + details("All rungs in numbers", _rungs(report)))


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
    return table(f"{which} of the ladder; loss in nats per token", columns, rows)


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
        f"<b>Loss while training</b>, from {lines:,} logged lines. Lines: training loss, averaged "
        "over equal shares of log tokens, with the target’s range shaded. Dots: held-out loss, of "
        "the rungs at their end.",
        height=440,
        above=_size_legend(report, sizes) if sizes else "",
    )
    if sum(bool(training_charts.normalised(c)) for c in curves) > 1:
        body += figure(
            lambda canvas: training_charts.collapse_chart(curves, canvas),
            "<b>Do the curves collapse?</b> Loss above what the law gives this size for endless "
            "data, as a share of its last value. Under one good rule for learning rate and batch "
            "all runs fall on one line; a run that strays was trained by a worse one, and a law "
            "fitted through it misleads.",
            height=320,
        )
    body += "".join(drawn(fan_drawing(fan, i)) for i, fan in enumerate(report.fans))
    return Section("training", "Training", body)


# --- ledger --------------------------------------------------------------------------------


def calibration_sentence(tallies: Sequence[Tally]) -> str:
    """`Of 4 promises at 90 %, 3 held (1 still open).`"""
    said = "; ".join(tally.sentence() for tally in tallies)
    return f"{said[:1].upper()}{said[1:]}." if said else ""


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
            f"made {text(numbers.moment(p.made_at))}</small>",
            _held(p.held),
            text(numbers.quantity(p.value, p.unit)),
            "–" if p.outcome is None else text(numbers.quantity(p.outcome, p.unit)),
            text(f"{_bare(p.low, p.unit)} – {_bare(p.high, p.unit)}"),
            numbers.percent(100 * p.level, 0),
            charts.promise_mark(p, f"promise-{i}"),
        ]
        for i, p in enumerate(report.promises)
    ]
    lead = f'<p class="lead">{text(calibration_sentence(report.tallies))}</p>'
    how = (
        "<p>Each line was written before the work it speaks of and carries the hash of the line "
        "before it, so that no promise can be changed after the fact."
        + (f" The last hash is <code>{text(report.ledger_head[:16])}</code>.</p>")
    )
    body = lead + how + _calibration(report.tallies) + table("All promises", columns, rows)
    return Section("ledger", "The ledger", body)


def _calibration(tallies: Sequence[Tally]) -> str:
    """How often promises held, once enough of them are settled for a picture to say something."""
    coverages = [Coverage(t.level, t.held, t.settled) for t in tallies if t.settled]
    if sum(c.scored for c in coverages) < _FEWEST_SETTLED:
        return ""
    drawing = calibration_drawing(coverages)
    caption = f"<b>{text(drawing.title)}.</b> {text(drawing.says)}"
    return figure(drawing.draw, caption, height=drawing.height)


def _bare(value: float, unit: str) -> str:
    written = numbers.quantity(value, unit)
    return written.removesuffix(f" {unit}")


def _held(held: bool | None) -> str:
    if held is None:
        return '<span class="open">open</span>'
    return '<em class="held">held</em>' if held else '<em class="missed">missed</em>'
