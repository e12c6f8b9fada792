"""The section on a law: its formula, parameters, noise, verdict and figures; reads no files."""

from __future__ import annotations

from dataclasses import replace

from isoflop.reporting import numbers
from isoflop.reporting.law_drawings import Drawing, law_drawings
from isoflop.reporting.markup import Column, Section, both, figure, fixed, table, text
from isoflop.reporting.records import Law, Report, Rung

_FEWEST_RESIDUALS = 20
"""Below, the residuals against compute (in the section on the ladder) show all there is."""
_MEANING = {
    "E": "loss no size and no amount of data removes, nats/token",
    "A": "weight of the size term",
    "B": "weight of the data term",
    "alpha": "how fast loss falls with parameters",
    "beta": "how fast loss falls with tokens",
    "a": "how fast loss falls with parameters",
    "b": "how fast loss falls with tokens",
    "g": "how the two terms combine (1: they add)",
}
_GREEK = {"alpha": "α", "beta": "β", "gamma": "γ"}
_NOISE = {
    "run_to_run": ("Noise between runs", "standard deviation of ln loss from chance alone"),
    "degrees_of_freedom": ("Degrees of freedom", "behind that estimate, its prior included"),
    "drift": ("Drift", "error per e-fold of compute beyond the ladder, in ln loss"),
}


def law(report: Report) -> Section | None:
    """The fitted formula, its parameters and what its interval is made of."""
    found = report.law
    if found is None:
        return None
    parameters = table(
        f"Fitted to {found.n_runs} runs ({found.objective} objective)",
        [Column("Parameter"), Column("Value", True), Column("Std. error", True), Column("Meaning")],
        [
            [
                f"<i>{text(_GREEK.get(p.name, p.name))}</i>",
                numbers.significant(p.value, 4),
                "–" if p.stderr is None else numbers.significant(p.stderr, 2),
                fixed(_MEANING.get(p.name, "")),
            ]
            for p in found.parameters
        ],
        f"由 {found.n_runs} 次运行拟合（目标函数 {found.objective}）",
    )
    parts = [formula(found), parameters]
    if found.noise:
        rows = [_noise_row(name, value) for name, value in found.noise.items()]
        columns = [Column("Part"), Column("Value", True), Column("Meaning")]
        parts.append(table("What the interval is made of", columns, rows, "区间由什么构成"))
    if found.domain:
        spans = "; ".join(
            f"{name} {_span(name, low, high)}" for name, (low, high) in found.domain.items()
        )
        inside = both(
            f"Fitted inside {text(spans)}. Beyond that it extrapolates.",
            f"拟合范围：{text(spans)}。超出即为外推。",
        )
        parts.append(f"<p>{inside}</p>")
    if found.verdict and found.verdict != "supported":
        parts.append(f'<p class="warning">{text(found.verdict)}</p>')
    parts += [f'<p class="warning">{text(w)}</p>' for w in found.warnings]
    parts += [drawn(drawing) for drawing in law_drawings(found.figures, _residuals(report))]
    return Section("law", both("The law", "定律"), "".join(parts))


def _residuals(report: Report) -> tuple[Rung, ...]:
    """The runs, without residuals where there are too few to show a pattern."""
    if len(report.rungs) >= _FEWEST_RESIDUALS:
        return report.rungs
    return tuple(replace(r, predicted=None) for r in report.rungs)


def caption_of(drawing: Drawing) -> str:
    """What stands under a drawing, in both languages where both are known."""
    english = f"<b>{text(drawing.title)}.</b> {text(drawing.says)}"
    if drawing.chinese is None:
        return f"<b>{fixed(drawing.title)}.</b> {text(drawing.says)}"
    title, says = drawing.chinese
    return both(english, f"<b>{text(title)}。</b>{text(says)}")


def drawn(drawing: Drawing) -> str:
    """A drawing with what it says under it."""
    caption = caption_of(drawing)
    return figure(drawing.draw, caption, height=drawing.height)


def _noise_row(name: str, value: float) -> list[str]:
    title, meaning = _NOISE.get(name, (name.replace("_", " "), ""))
    return [fixed(title), numbers.significant(value, 3), fixed(meaning)]


def _span(name: str, low: float, high: float) -> str:
    write = numbers.scientific if name == "flops" else numbers.count
    return f"{write(low)} to {write(high)}"


def formula(found: Law) -> str:
    """The law with its numbers, as MathML; other forms as their plain formula."""
    value = {p.name: numbers.significant(p.value, 3) for p in found.parameters}
    left = "<mi>L</mi><mo>(</mo><mi>N</mi><mo>,</mo><mi>D</mi><mo>)</mo><mo>=</mo>"

    def over(weight: str, base: str, power: str) -> str:
        return (
            f"<mfrac><mn>{value[weight]}</mn>"
            f"<msup><mi>{base}</mi><mn>{value[power]}</mn></msup></mfrac>"
        )

    names = set(value)
    if found.form == "chinchilla" and names >= {"E", "A", "B", "alpha", "beta"}:
        right = f"{over('A', 'N', 'alpha')}<mo>+</mo>{over('B', 'D', 'beta')}"
    elif found.form == "gamma" and names >= {"E", "A", "B", "a", "b", "g"}:
        inner = f"{over('A', 'N', 'a')}<mo>+</mo>{over('B', 'D', 'b')}"
        right = f"<msup><mrow><mo>(</mo>{inner}<mo>)</mo></mrow><mn>{value['g']}</mn></msup>"
    else:
        return f"<p><code>{text(found.formula)}</code></p>"
    plain = text(found.formula)
    return (
        f'<math display="block" aria-label="L = {plain}">{left}'
        f"<mn>{value['E']}</mn><mo>+</mo>{right}</math>"
    )
