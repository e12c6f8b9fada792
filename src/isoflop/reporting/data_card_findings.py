"""The sections of a data card on copies, leaked test items and personal data; draws nothing."""

from __future__ import annotations

from isoflop.reporting import data_card_words as words
from isoflop.reporting.data_card_markup import (
    DOCUMENTS,
    Head,
    Part,
    glossed,
    grid,
    missing,
    name,
    percent,
    remark,
    share,
)
from isoflop.reporting.data_card_records import Card
from isoflop.reporting.tongues import both

_MOST_ROWS = 30
_MOST_IDS = 6


def duplicates(card: Card) -> Part:
    """Copies by kind, and the largest clusters."""
    title, found = both("Duplicates", "重复"), card.duplicates
    if found is None:
        return Part(
            "duplicates",
            title,
            missing(
                "There is no account of copies (duplicates.json).",
                "没有重复统计（duplicates.json）。",
            ),
        )
    rows = [
        [
            glossed(kind, words.of_copies(kind)),
            f"{removed:,}",
            percent(share(removed, found.documents)),
        ]
        for kind, removed in found.by_kind.items()
    ]
    rows.append(
        [
            f"<b>{both('All', '合计')}</b>",
            f"{found.removed:,}",
            percent(share(found.removed, found.documents)),
        ]
    )
    heads = [Head(both("Kind", "种类")), Head(both("Dropped", "去除"), True), Head("%", True)]
    caption = both(
        f"Copies among {found.documents:,} documents, in {found.clusters:,} clusters",
        f"{found.documents:,} 篇文档中的重复，共 {found.clusters:,} 组",
    )
    body = grid(caption, heads, rows)
    if found.largest:
        heads = [Head(both("Kept", "保留")), Head(both("Documents", "文档"), True)]
        heads.append(Head(both("Copies", "副本")))
        rows = []
        for cluster in found.largest[:_MOST_ROWS]:
            others = [i for i in cluster.ids if i != cluster.kept]
            listed = "<br>".join(f"<small>{name(i)}</small>" for i in others[:_MOST_IDS])
            more = "<br><small>…</small>" if len(others) > _MOST_IDS else ""
            rows.append(
                [
                    f'<span class="reason">{name(cluster.kept)}</span>',
                    f"{cluster.size:,}",
                    listed + more,
                ]
            )
        body += grid(both("The largest clusters", "最大的重复组"), heads, rows)
    return Part("duplicates", title, body)


def contamination(card: Card) -> Part:
    """Evaluation items found in the text, task by task."""
    title, found = both("Contamination", "评测泄漏"), card.contamination
    if found is None:
        return Part(
            "contamination",
            title,
            missing("The text was not compared with evaluation sets.", "尚未与评测集比对。"),
        )
    rows = [
        [
            f'<span class="reason">{name(task.name)}</span>',
            f"{task.items:,}",
            f"{task.contaminated:,}",
            percent(share(task.contaminated, task.items)),
            f"{task.documents:,}",
        ]
        for task in found.tasks
    ]
    heads = [
        Head(both("Evaluation set", "评测集")),
        Head(both("Items", "题数"), True),
        Head(both("Found", "发现"), True),
        Head("%", True),
        Head(both("In documents", "所在文档"), True),
    ]
    caption = both(
        f"Items found in the text; {found.dropped:,} documents were dropped for them",
        f"在文本中发现的题目；因此丢弃 {found.dropped:,} 篇文档",
    )
    return Part("contamination", title, grid(caption, heads, rows))


def personal(card: Card) -> Part:
    """Personal data and keys by kind."""
    title = both("Personal data", "个人信息")
    if card.pii_action == "keep":
        return Part(
            "personal",
            title,
            missing(
                "Nobody looked: set <code>clean.pii.action</code> in the recipe.",
                "未查找：请在配方中设置 <code>clean.pii.action</code>。",
            ),
        )
    english, chinese = words.of_action(card.pii_action)
    note = remark(f"What was found: {english}.", f"处理方式：{chinese}。")
    rows = [
        [glossed(row.name, words.of_pii(row.name)), f"{row.documents:,}", f"{row.bytes:,}"]
        for row in card.pii
    ]
    if not rows:
        return Part("personal", title, note + missing("Nothing was found.", "未发现。"))
    heads = [Head(both("Kind", "种类")), DOCUMENTS, Head(both("Pieces", "处"), True)]
    return Part("personal", title, note + grid(both("By kind", "按种类"), heads, rows))
