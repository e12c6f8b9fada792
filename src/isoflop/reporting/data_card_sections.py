"""The sections of a data card on what was kept and dropped; not for its documents (samples)."""

from __future__ import annotations

from collections.abc import Sequence

from isoflop.reporting import data_card_words as words
from isoflop.reporting import numbers
from isoflop.reporting.charts import Canvas
from isoflop.reporting.data_card_markup import (
    DOCUMENTS,
    Head,
    Part,
    bar,
    both_in_svg,
    glossed,
    grid,
    missing,
    name,
    percent,
    remark,
    share,
    stranger,
    tiles,
)
from isoflop.reporting.data_card_records import BINS_PER_OCTAVE, Card, Lengths, Row
from isoflop.reporting.markup import figure
from isoflop.reporting.scales import Scale, Tick, linear_ticks
from isoflop.reporting.svg import Frame, element, number, picture
from isoflop.reporting.tongues import both

_MOST_ROWS = 30
_MOST_REASONS = 100
_SPLITS = {"train": ("for training", "训练集"), "held_out": ("held out", "留出集")}
_TEXT = Head(both("Text", "文本量"), True)
_SHARE = Head(both("Share", "占比"))


# --- at a glance ---------------------------------------------------------------------------


def summary(card: Card) -> str:
    """Figures to see at a glance."""
    kept = share(card.kept.bytes, card.read.bytes)
    entries = [
        (both("Documents kept", "保留文档"), f"{card.kept.documents:,}",
         both(f"of {card.read.documents:,} read", f"共读入 {card.read.documents:,} 篇")),
        (both("Text kept", "保留文本"), numbers.size(card.kept.bytes),
         both(f"{percent(kept)} of what was read", f"占读入的 {percent(kept)}")),
    ]  # fmt: skip
    if card.tokens is not None:
        of = f"{card.tokens.vocab_size:,}"
        entries.append(
            (
                both("Tokens", "词元"),
                f"≈\u202f{numbers.count(card.tokens.total)}",
                both(f"vocabulary of {of}", f"词表大小 {of}"),
            )
        )
    entries.append(_duplicates_tile(card))
    entries.append(_contamination_tile(card))
    found = sum(row.bytes for row in card.pii)
    asked = card.pii_action != "keep"
    entries.append(
        (
            both("Personal data", "个人信息"),
            f"{found:,}" if asked else "–",
            both(*words.of_action(card.pii_action)) if asked else both("not looked for", "未查找"),
        )
    )
    return tiles(entries)


def _duplicates_tile(card: Card) -> tuple[str, str, str]:
    title = both("Copies dropped", "去除重复")
    if card.duplicates is not None:
        clusters = f"{card.duplicates.clusters:,}"
        where = both(f"in {clusters} clusters", f"共 {clusters} 组")
        return title, f"{card.duplicates.removed:,}", where
    return title, "–", both("no account of them", "未作统计")


def _contamination_tile(card: Card) -> tuple[str, str, str]:
    title = both("Leaked test items", "泄漏的评测题")
    if card.contamination is None:
        return title, "–", both("not looked for", "未查找")
    items = sum(task.items for task in card.contamination.tasks)
    found = sum(task.contaminated for task in card.contamination.tasks)
    return title, f"{found:,}", both(f"of {items:,} items", f"共 {items:,} 题")


# --- what became of the documents ----------------------------------------------------------


def funnel(card: Card) -> Part:
    """From what was read to what was kept, the bars stepping down as text goes."""
    whole = card.read.bytes
    rows = [[f"<b>{both('Read', '读入')}</b>", *_amount(card.read, whole, "in", 0.0)]]
    gone = 0
    for row in card.dropped[:_MOST_REASONS]:
        gone += row.bytes
        # What is left stands at the left; each loss is cut off its right end.
        offset = max(0.0, 100.0 - share(gone, whole))
        label = glossed(row.name, words.of_reason(row.name))
        rows.append([label, *_amount(row, whole, "out", offset)])
    rest = _others(card.dropped[_MOST_REASONS:])
    if rest is not None:
        rows.append([both("other reasons", "其他原因"), *_amount(rest, whole, "out", 0.0)])
    rows.append([f"<b>{both('Kept', '保留')}</b>", *_amount(card.kept, whole, "in", 0.0)])
    for row in sorted(card.splits, key=lambda split: -split.bytes):
        english, chinese = _SPLITS.get(row.name, (row.name, row.name))
        title = both(stranger(english), stranger(chinese))
        rows.append([title, *_amount(row, whole, "in", 0.0)])
    shrunk = card.read.bytes - sum(row.bytes for row in card.dropped) - card.kept.bytes
    note = ""
    if shrunk > 0.0005 * whole:
        size = numbers.size(shrunk)
        note = remark(
            f"Spelling took another {size} off the documents that were kept (spaces, control "
            "characters, markup, redactions).",
            f"统一写法另使保留的文档减少 {size}（空白、控制字符、标记、脱敏）。",
        )
    if card.rejects:
        note += remark(
            f"{card.rejects:,} files or rows were broken; <code>rejects.jsonl</code> names them.",
            f"{card.rejects:,} 个文件或行已损坏，列于 <code>rejects.jsonl</code>。",
        )
    heads = [Head(both("Fate", "去向")), DOCUMENTS, _TEXT, _SHARE]
    caption = both(
        "What became of every document; a document counts under the first rule it failed",
        "每篇文档的去向；文档计入其违反的第一条规则",
    )
    title = both("The funnel", "漏斗")
    return Part("funnel", title, grid(caption, heads, rows, "funnel") + note)


def _amount(row: Row, whole: float, kind: str, offset: float) -> list[str]:
    part = share(row.bytes, whole)
    drawn = f"{bar(part, kind, offset)} <small>{percent(part)}</small>"
    return [f"{row.documents:,}", numbers.size(row.bytes), drawn]


def _others(rows: Sequence[Row]) -> Row | None:
    if not rows:
        return None
    return Row("", sum(r.documents for r in rows), sum(r.bytes for r in rows))


def languages(card: Card) -> Part:
    """Documents, text and tokens by language."""
    rows = []
    for row in card.languages[:_MOST_ROWS]:
        cells = _amount(row, card.kept.bytes, "in", 0.0)
        if card.tokens is not None:
            tokens, size = card.tokens.by_language.get(row.name, (0.0, 0.0))
            cells[2:2] = [f"≈\u202f{numbers.count(tokens)}", f"{size:.2f}"] if tokens else ["", ""]
        rows.append([glossed(row.name, words.of_language(row.name)), *cells])
    rest = _others(card.languages[_MOST_ROWS:])
    if rest is not None:
        cells = _amount(rest, card.kept.bytes, "in", 0.0)
        cells[2:2] = ["", ""] if card.tokens else []
        rows.append([both("others", "其他"), *cells])
    heads = [Head(both("Language", "语言")), DOCUMENTS, _TEXT]
    note = ""
    if card.tokens is not None:
        heads += [
            Head(both("Tokens", "词元"), True),
            Head(both("Bytes a token", "每词元字节"), True),
        ]
        of = name(card.tokens.tokenizer)
        note = remark(
            f"Tokens of the tokenizer {of}, counted on about 2 MB of each language.",
            f"词元按分词器 {of} 计，每种语言抽取约 2 MB 估计。",
        )
    caption = both("Kept text by language", "各语言的保留文本")
    table = grid(caption, [*heads, _SHARE], rows, "funnel")
    return Part("languages", both("Languages", "语言"), table + note)


# --- lengths -------------------------------------------------------------------------------


def lengths(card: Card) -> Part:
    """A histogram of document lengths and their quantiles."""
    title = both("Length of documents", "文档长度")
    if not card.lengths.documents:
        return Part("lengths", title, missing("There is no document.", "没有文档。"))
    caption = both(
        "Each bar holds documents of lengths within a factor of √2; kept documents only.",
        "每个柱内的长度相差不超过 √2 倍；只含保留的文档。",
    )
    drawn = figure(lambda canvas: histogram(card.lengths, canvas), caption, height=300)
    heads = [Head(both("Quantile", "分位"))] + [Head(q, True) for q in card.lengths.quantiles]
    sizes = [numbers.size(size) for size in card.lengths.quantiles.values()]
    row = [both("documents up to", "文档不超过"), *sizes]
    return Part("lengths", title, drawn + grid(both("Quantiles", "分位数"), heads, [row]))


def histogram(found: Lengths, canvas: Canvas) -> str:
    """Documents over their length, which is on a logarithmic axis."""
    low = 2.0 ** (found.first_bin / BINS_PER_OCTAVE)
    high = 2.0 ** ((found.first_bin + len(found.documents)) / BINS_PER_OCTAVE)
    tallest = max(found.documents)
    frame = Frame(
        canvas.width,
        canvas.height,
        Scale(low, high, start=52, end=canvas.width - 12, log=True),
        Scale(0, tallest * 1.05, start=canvas.height - 48, end=30),
    )
    every = 4 if canvas.width < 500 or high / low > 2**16 else 2
    ticks = [
        Tick(2.0**power, numbers.size(2**power).replace("bytes", "B"), True)
        for power in range(0, 64, every)
        if frame.x.holds(2.0**power)
    ]
    parts = [frame.axes(ticks, _counts(frame.y), "", "")]
    for step, documents in enumerate(found.documents):
        if not documents:
            continue
        left = frame.x(2.0 ** ((found.first_bin + step) / BINS_PER_OCTAVE)) + 0.5
        right = frame.x(2.0 ** ((found.first_bin + step + 1) / BINS_PER_OCTAVE)) - 0.5
        top = min(frame.y(documents), frame.y.start - 1.0)
        tip = element("title", number(documents))
        parts.append(
            element(
                "rect", tip, x=left, y=top, width=right - left, height=frame.y.start - top,
                class_="column c3",
            )
        )  # fmt: skip
    parts.append(both_in_svg(0, 16, "documents", "文档数", "name", "start"))
    at = frame.y.start + 40
    parts.append(both_in_svg(frame.x.end, at, "bytes of text", "文本字节", "name", "end"))
    described = f"{sum(found.documents):,} documents between {low:,.0f} and {high:,.0f} bytes."
    return picture(
        canvas.width, canvas.height, f"lengths-{canvas.name}", "Length of documents · 文档长度",
        described, "".join(parts),
    )  # fmt: skip


def _counts(scale: Scale) -> list[Tick]:
    return [
        Tick(tick.value, numbers.count(tick.value), True)
        for tick in linear_ticks(scale, 4)
        if tick.value == int(tick.value)
    ]


# --- where it is from ----------------------------------------------------------------------


def sources(card: Card) -> Part:
    """The recipe's sources, and the hosts of the documents' URLs."""
    rows = []
    for source in card.sources[:_MOST_ROWS]:
        kept = share(source.kept.bytes, source.read.bytes)
        drawn = f"{bar(kept)} <small>{percent(kept)}</small>"
        read = f"{source.read.documents:,}", numbers.size(source.read.bytes)
        left = f"{source.kept.documents:,}", numbers.size(source.kept.bytes)
        rows.append([f'<span class="reason">{name(source.name)}</span>', *read, *left, drawn])
    heads = [Head(both("Source", "来源")), Head(both("Read", "读入"), True), Head("", True)]
    heads += [
        Head(both("Kept", "保留"), True),
        Head("", True),
        Head(both("Kept of it", "保留比例")),
    ]
    caption = both("The recipe’s sources: documents and text", "配方中的来源：文档数与文本量")
    body = grid(caption, heads, rows, "funnel")
    if card.hosts:
        body += _ranked(
            card,
            card.hosts,
            both("Host", "站点"),
            both(
                f"Hosts with the most text, of {len(card.hosts):,}; "
                f"{card.with_url:,} documents have a URL",
                f"文本最多的站点，共 {len(card.hosts):,} 个；{card.with_url:,} 篇文档带有网址",
            ),
        )
    else:
        body += missing("No document has a URL.", "没有文档带有网址。")
    return Part("sources", both("Sources", "来源"), body)


def licences(card: Card) -> Part:
    """Licences as the documents' metadata states them."""
    title = both("Licences", "许可证")
    if all(not row.name for row in card.licences):
        text = "No document states a licence in its metadata."
        return Part("licences", title, missing(text, "文档元数据中均未注明许可证。"))
    caption = both("Licences that the documents state", "文档注明的许可证")
    return Part("licences", title, _ranked(card, card.licences, both("Licence", "许可证"), caption))


def _ranked(card: Card, rows: Sequence[Row], title: str, caption: str) -> str:
    unnamed = f'<span class="missing">{both("none stated", "未注明")}</span>'
    shown = [
        [
            f'<span class="reason">{name(row.name)}</span>' if row.name else unnamed,
            *_amount(row, card.kept.bytes, "in", 0.0),
        ]
        for row in rows[:_MOST_ROWS]
    ]
    rest = _others(rows[_MOST_ROWS:])
    if rest is not None:
        more = len(rows) - _MOST_ROWS
        label = both(f"{more:,} others", f"其他 {more:,} 个")
        shown.append([label, *_amount(rest, card.kept.bytes, "in", 0.0)])
    return grid(caption, [Head(title), DOCUMENTS, _TEXT, _SHARE], shown, "funnel")
