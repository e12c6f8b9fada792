"""Sections on how it was made: samples, cost, data, lineage; not on whether the promise held."""

from __future__ import annotations

import re

from isoflop.reporting import numbers
from isoflop.reporting.markup import Column, Section, code, details, table, text
from isoflop.reporting.records import Cost, Report, Sample

_CHINESE = re.compile("[\u3400-\u9fff]")
_PYTHON = re.compile(r"(?m)^\s*(def |class |import |from \w+ import |for \w+ in |>>> |@)")

# --- samples -------------------------------------------------------------------------------


def language(sample: str) -> str:
    """`中文`, `Python` or `English`, by its characters and line beginnings."""
    if len(_CHINESE.findall(sample)) > len(sample) / 10:
        return "中文"
    return "Python" if _PYTHON.search(sample) else "English"


def samples(report: Report) -> Section | None:
    """What the finished model writes, and how it wrote earlier."""
    if not report.samples:
        return None
    last = max(s.step for s in report.samples)
    final = [s for s in report.samples if s.step == last]
    earlier = [s for s in report.samples if s.step != last]
    body = "".join(_sample(s) for s in final)
    if earlier:
        body += details("How it wrote earlier", "".join(_sample(s, dated=True) for s in earlier))
    tokens = numbers.count(max(s.tokens for s in final))
    lead = f"<p>Written by the model after {tokens} tokens. Grey: the prompt it was given.</p>"
    return Section("samples", "Samples", lead + body)


def _sample(sample: Sample, *, dated: bool = False) -> str:
    name = language(sample.prompt + sample.text)
    written = sample.text.removeprefix(sample.prompt)
    when = f" · step {sample.step:,}" if dated else ""
    code_or_not = ' class="code"' if name == "Python" else ""
    tag = ' lang="zh"' if name == "中文" else ' lang="en"' if name == "English" else ""
    return (
        f'<div class="sample"><h3{tag}>{text(name)}{when}</h3><pre{code_or_not}{tag}>'
        f'<span class="prompt">{text(sample.prompt)}</span>{text(written)}</pre></div>'
    )


# --- cost ----------------------------------------------------------------------------------


def cost(report: Report) -> Section | None:
    """Time and arithmetic per stage, against the measured peak."""
    if report.cost is None or not report.cost.stages:
        return None
    rows = _cost_rows(report.cost)
    columns = [Column("Stage")]
    names = ("Time", "Promised", "FLOPs", "GFLOP/s", "Share of peak")
    columns += [Column(name, numeric=True) for name in names]
    peak = report.cost.peak_gflops
    lead = ""
    if peak is not None:
        lead = (
            f"<p>This machine’s measured peak is {numbers.significant(peak)} GFLOP/s "
            "(large matrix products); shares are of that, not of a data sheet.</p>"
        )
    return Section("cost", "Cost", lead + table("Where the time went", columns, rows))


def _cost_rows(found: Cost) -> list[list[str]]:
    rows = []
    for stage in found.stages:
        rate = stage.flops / stage.seconds / 1e9 if stage.flops and stage.seconds > 0 else None
        share = 100 * rate / found.peak_gflops if rate and found.peak_gflops else None
        promised = stage.promised_seconds
        rows.append(
            [
                text(stage.name),
                numbers.seconds(stage.seconds),
                "–" if promised is None else numbers.seconds(promised),
                "–" if stage.flops is None else numbers.scientific(stage.flops),
                "–" if rate is None else numbers.significant(rate),
                "–" if share is None else numbers.percent(share, 0),
            ]
        )
    if len(rows) > 1:
        flops = [s.flops for s in found.stages if s.flops is not None]
        total = numbers.scientific(sum(flops)) if flops else "–"
        seconds = numbers.seconds(sum(s.seconds for s in found.stages))
        rows.append(["<b>All</b>", f"<b>{seconds}</b>", "", f"<b>{total}</b>", "", ""])
    return rows


# --- data ----------------------------------------------------------------------------------


def data(report: Report) -> Section | None:
    """From the documents found to those kept, with the reason for every loss."""
    found = report.funnel
    if found is None:
        return None
    whole = max(1, found.bytes_in)
    kept_documents = sum(r.documents for r in found.kept)
    kept_bytes = sum(r.bytes for r in found.kept)
    rows = [["<b>Found</b>", *_amount(found.documents_in, found.bytes_in, whole, "in")]]
    for row in found.dropped:
        name = f"dropped: {text(row.name.replace('_', ' '))}"
        rows.append([name, *_amount(row.documents, row.bytes, whole, "out")])
    rows.append(["<b>Kept</b>", *_amount(kept_documents, kept_bytes, whole, "in")])
    for row in found.kept:
        rows.append([f"from {text(row.name)}", *_amount(row.documents, row.bytes, whole, "in")])
    columns = [Column("Fate"), Column("Documents", True), Column("Bytes", True), Column("Share")]
    body = table("What became of every document", columns, rows)
    examples = "".join(
        f"<h3>{text(row.name.replace('_', ' '))}</h3><ul>"
        + "".join(f"<li><code>{text(e)}</code></li>" for e in row.examples)
        + "</ul>"
        for row in found.dropped
        if row.examples
    )
    if examples:
        body += details("Examples of what was dropped", examples)
    return Section("data", "The data", body)


def _amount(documents: int, size: int, whole: int, kind: str) -> list[str]:
    share = 100 * size / whole
    bar = f'<span class="share {kind}" style="width:{min(100.0, share):.1f}%"></span>'
    label = numbers.percent(share) if share >= 0.05 or size == 0 else "< 0.1\u202f%"
    track = f'<span class="track" aria-hidden="true">{bar}</span>'
    return [f"{documents:,}", numbers.size(size), f"{track}<small>{label}</small>"]


# --- lineage -------------------------------------------------------------------------------


def lineage(report: Report) -> Section | None:
    """The command that repeats everything, the artifacts with their hashes, the machine."""
    found = report.lineage
    if found is None:
        return None
    parts = []
    if found.command:
        parts.append(f"<p>This command repeats all of it:</p>{code(found.command)}")
    if found.artifacts:
        columns = [Column("Artifact"), Column("Kind"), Column("Finished"), Column("SHA-256")]
        rows = [
            [
                f"<code>{text(a.name)}</code>"
                + (f"<small>from {text(', '.join(a.inputs))}</small>" if a.inputs else ""),
                text(a.kind),
                f"<time>{text(numbers.moment(a.created))}</time>",
                f'<code title="{text(a.sha256)}">{text(a.sha256[:12])}</code>',
            ]
            for a in found.artifacts
        ]
        parts.append(table("Artifacts behind this page", [*columns], rows))
    if found.machine:
        items = "".join(
            f"<div><dt>{text(key.replace('_', ' '))}</dt><dd>{text(value)}</dd></div>"
            for key, value in found.machine.items()
        )
        parts.append(f'<h3>Machine and versions</h3><dl class="facts">{items}</dl>')
    return Section("lineage", "Lineage", "".join(parts)) if parts else None
