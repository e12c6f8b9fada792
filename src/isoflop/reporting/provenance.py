"""Sections on how it was made: samples, cost, data, lineage; not on whether the promise held."""

from __future__ import annotations

import re
from collections.abc import Sequence

from isoflop.reporting import numbers
from isoflop.reporting.markup import Column, Section, both, code, details, table, text
from isoflop.reporting.records import Artifact, Cost, Report, Sample

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
        old = "".join(_sample(s, dated=True) for s in earlier)
        body += details("How it wrote earlier", old, "更早时写的")
    tokens = numbers.count(max(s.tokens for s in final))
    lead = both(
        f"Written by the model after {tokens} tokens. Grey: the prompt it was given.",
        f"模型在 {tokens} 个词元之后写的。灰色：给它的提示。",
    )
    return Section("samples", both("Samples", "样例"), f"<p>{lead}</p>{shading(final)}{body}")


def _sample(sample: Sample, *, dated: bool = False) -> str:
    name = language(sample.prompt + sample.text)
    written = sample.text.removeprefix(sample.prompt)
    when = f" · step {sample.step:,}" if dated else ""
    code_or_not = ' class="code"' if name == "Python" else ""
    tag = ' lang="zh"' if name == "中文" else ' lang="en"' if name == "English" else ""
    return (
        f'<div class="sample"><h3{tag}>{text(name)}{when}</h3><pre{code_or_not}{tag}>'
        f'<span class="prompt">{text(sample.prompt)}</span>{_shaded(sample, written)}</pre></div>'
    )


def shading(samples: Sequence[Sample]) -> str:
    """The key to the shading, where there is any."""
    if not any(s.surprisal for s in samples):
        return ""
    steps = "".join(f'<span class="u{i}">{words}</span> ' for i, words in enumerate(_SHADES))
    key = both("Shaded by surprise, bits per token:", "底色：惊异度（比特/词元）：")
    return f'<p class="shades">{key} {steps}</p>'


_SHADES = ("< 1", "1 – 3", "3 – 6", "6 – 10", "&gt; 10")
_SHADE_ENDS = (1.0, 3.0, 6.0, 10.0)


def _shaded(sample: Sample, written: str) -> str:
    """The text with its tokens shaded by how much the model was surprised to write them."""
    if not sample.surprisal or "".join(piece for piece, _ in sample.surprisal) != written:
        return text(written)
    parts = []
    for piece, bits in sample.surprisal:
        shade = sum(bits >= end for end in _SHADE_ENDS)
        parts.append(f'<span class="u{shade}" title="{bits:.1f} bits">{text(piece)}</span>')
    return "".join(parts)


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
        said = both(
            f"This machine’s measured peak is {numbers.significant(peak)} GFLOP/s "
            "(large matrix products); shares are of that, not of a data sheet.",
            f"本机实测峰值为 {numbers.significant(peak)} GFLOP/s（大矩阵乘法）；"
            "占比以此计，而非数据手册。",
        )
        lead = f"<p>{said}</p>"
    spent = table("Where the time went", columns, rows, "时间用在何处")
    return Section("cost", both("Cost", "开销"), lead + spent)


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
        rows.append(
            [f"<b>{both('All', '合计')}</b>", f"<b>{seconds}</b>", "", f"<b>{total}</b>", "", ""]
        )
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
    rows = [
        [
            f"<b>{both('Found', '读入')}</b>",
            *_amount(found.documents_in, found.bytes_in, whole, "in"),
        ]
    ]
    for row in found.dropped:
        name = f"{both('dropped:', '丢弃：')} {text(row.name.replace('_', ' '))}"
        rows.append([name, *_amount(row.documents, row.bytes, whole, "out")])
    rows.append(
        [f"<b>{both('Kept', '保留')}</b>", *_amount(kept_documents, kept_bytes, whole, "in")]
    )
    for row in found.kept:
        rows.append(
            [
                f"{both('from', '来自')} {text(row.name)}",
                *_amount(row.documents, row.bytes, whole, "in"),
            ]
        )
    columns = [Column("Fate"), Column("Documents", True), Column("Bytes", True), Column("Share")]
    body = table("What became of every document", columns, rows, "每篇文档的去向")
    examples = "".join(
        f"<h3>{text(row.name.replace('_', ' '))}</h3><ul>"
        + "".join(f"<li><code>{text(e)}</code></li>" for e in row.examples)
        + "</ul>"
        for row in found.dropped
        if row.examples
    )
    if examples:
        body += details("Examples of what was dropped", examples, "被丢弃文档的例子")
    return Section("data", both("The data", "数据"), body)


def _amount(documents: int, size: int, whole: int, kind: str) -> list[str]:
    share = 100 * size / whole
    bar = f'<span class="share {kind}" style="width:{min(100.0, share):.1f}%"></span>'
    label = numbers.percent(share) if share >= 0.05 or size == 0 else "< 0.1\u202f%"
    track = f'<span class="track" aria-hidden="true">{bar}</span>'
    return [f"{documents:,}", numbers.size(size), f"{track}<small>{label}</small>"]


# --- lineage -------------------------------------------------------------------------------


def lineage(report: Report) -> Section | None:
    """The commands that repeat everything, the artifacts with their hashes, the machine."""
    found = report.lineage
    if found is None:
        return None
    parts = []
    if found.command:
        lead = both("This command repeats all of it:", "这条命令可重现全部：")
        parts.append(f"<p>{lead}</p>{code(found.command)}")
    if found.artifacts:
        names = ("Artifact", "Kind", "Finished", "SHA-256")
        rows = [_artifact(artifact) for artifact in found.artifacts]
        columns = [Column(name) for name in names]
        parts.append(table("Artifacts behind this page", columns, rows, "本页所依据的产物"))
        parts.append(_commands(found.artifacts))
    if found.machine:
        items = "".join(
            f"<div><dt>{text(key.replace('_', ' '))}</dt><dd>{text(value)}</dd></div>"
            for key, value in found.machine.items()
        )
        title = both("Machine and versions", "机器与版本")
        parts.append(f'<h3>{title}</h3><dl class="facts">{items}</dl>')
    return Section("lineage", both("Lineage", "来历"), "".join(parts)) if parts else None


def _artifact(artifact: Artifact) -> list[str]:
    inputs = f"<small>{both('from', '来自')} {text(', '.join(artifact.inputs))}</small>"
    return [
        f"<code>{text(artifact.name)}</code>" + (inputs if artifact.inputs else ""),
        text(artifact.kind),
        f"<time>{text(numbers.moment(artifact.created))}</time>",
        f'<code title="{text(artifact.sha256)}">{text(artifact.sha256[:12])}</code>',
    ]


def _commands(artifacts: Sequence[Artifact]) -> str:
    """How to make each artifact again."""
    made = [a for a in artifacts if a.commands]
    if not made:
        return ""
    steps = "".join(
        f"<h3><code>{text(a.name)}</code></h3>{code(chr(10).join(a.commands))}" for a in made
    )
    return details("The command that repeats each step", steps, "重现每一步的命令")
