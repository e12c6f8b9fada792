"""From MediaWiki's markup to text that reads well; not a renderer: templates are not expanded.

What a template or a table shows is lost, but for a few templates that only mark up their words.
"""

from __future__ import annotations

import html
import re

_MAX_NESTING = 40

_COMMENT = re.compile(r"<!--.*?(?:-->|\Z)", re.S)
_DROPPED = (
    "ref|math|gallery|timeline|score|imagemap|syntaxhighlight|source|hiero|chem|templatestyles"
)
_ELEMENT_EDGE = re.compile(rf"<(/?)(nowiki|{_DROPPED}|references)\b([^<>]*)>", re.I)
_BREAK = re.compile(r"<(?:br|hr|p|/p|/div|/li|/tr)\b[^<>]*>", re.I)
_TAG = re.compile(r"</?[a-zA-Z][^<>]*>")
_TEMPLATE = re.compile(r"\{\{([^{}]*)\}\}")
_PARAMETER = re.compile(r"\{\{\{[^{}]*\}\}\}")
_BRACES = re.compile(r"\{\{|\}\}")
_TABLE_EDGE = re.compile(r"^[ \t:]*(\{\||\|\})", re.M)
_LINK = re.compile(r"\[\[([^\[\]]*)\]\]")
_ADDRESS = re.compile(r"\[(?:https?:|ftp:|mailto:|//)[^\s\[\]]*(?:[ \t]([^\[\]\n]*))?\]")
_VARIANT = re.compile(r"-\{([^{}]*)\}-")
_HEADING = re.compile(r"^(={1,6})(.+?)\1[ \t]*$", re.M)
_LIST = re.compile(r"^([*#:;]+)[ \t]*", re.M)
_QUOTES = re.compile(r"'{2,5}")
_MAGIC = re.compile(r"__[A-Z]{3,24}__")
_BLANK = re.compile(r"\n{3,}")
_HUGE_NUMBER = re.compile(r"&#x?[0-9a-fA-F]{8,};?")
_EMPTY_BRACKETS = re.compile(r" ?(?:\([ \t,;]*\)|（[ \t，；、,;]*）)")
_LANGUAGE = re.compile(r"[a-z]{2,3}(?:-[a-z-]{2,12})?")

# Namespaces whose links show no words in the text, in the languages that we read most.
_HIDDEN = frozenset(
    ("file", "image", "media", "category", "template", "user", "talk", "文件", "檔案", "档案",
     "图像", "圖像", "媒体", "分类", "分類", "模板", "fichier", "catégorie", "datei", "bild",
     "kategorie", "archivo", "categoría", "файл", "изображение", "категория", "ファイル", "画像",
     "カテゴリ", "파일", "분류")
)  # fmt: skip
# Templates that show their first or their last argument.
_FIRST = frozenset(
    ("nowrap", "nobr", "small", "big", "link-en", "internal link helper", "le", "nihongo", "ilh")
)
_LAST = frozenset(
    ("lang", "langwithname", "transl", "transliteration", "tsl", "link-ja", "link-fr", "link-de")
)
_VARIANTS = ("zh-hans", "zh-cn", "zh", "zh-sg", "zh-hant", "zh-tw", "zh-hk")
_TAIL_SECTIONS = frozenset(
    ("references", "notes", "notes and references", "further reading", "external links",
     "see also", "sources", "bibliography", "footnotes", "citations", "参考文献", "參考文獻",
     "参考资料", "參考資料", "参考", "参考来源", "外部链接", "外部連結", "参见", "參見", "参看",
     "參看", "注释", "註釋", "註解", "脚注", "腳註", "扩展阅读", "延伸閱讀", "延伸阅读",
     "相关条目", "相關條目")
)  # fmt: skip


def plain_text(wikitext: str) -> str:
    """The words of an article: headings, paragraphs and lists on lines of their own.

    Dropped are comments, references, formulas, tables, templates, pictures, categories and the
    closing sections that only list links. Of Chinese variants (`-{zh-hans:…;zh-hant:…}-`) the
    simplified one is taken. The time is linear in the text, whatever is nested in it.
    """
    text = _COMMENT.sub("", wikitext)
    text = _without_elements(text)
    text = _repeat(_VARIANT, _variant, text)
    text = _PARAMETER.sub("", text)
    text = _without_nested(_repeat(_TEMPLATE, _template, text), _BRACES, "{{")
    text = _without_nested(text, _TABLE_EDGE, "{|")
    text = _repeat(_LINK, _link, text)
    text = _ADDRESS.sub(lambda found: found.group(1) or "", text)
    text = _TAG.sub("", _BREAK.sub("\n", text))
    text = _MAGIC.sub("", _QUOTES.sub("", text))
    text = _LIST.sub(lambda found: "- " if found.group(1)[-1] in "*#" else "", text)
    text = _sections(text)
    text = _EMPTY_BRACKETS.sub("", html.unescape(_HUGE_NUMBER.sub("", text)))
    text = "\n".join(line.strip() for line in text.split("\n"))
    return _BLANK.sub("\n\n", text).strip()


_PROTECTED = {ord(c): f"&#{ord(c)};" for c in "[]{}'*#:;=|_-"}


def _repeat(pattern: re.Pattern[str], replace: object, text: str) -> str:
    """Substitute innermost first, until nothing changes or it is nested absurdly deep."""
    for _ in range(_MAX_NESTING):
        text, count = pattern.subn(replace, text)  # type: ignore[call-overload]
        if not count:
            break
    return text


def _template(found: re.Match[str]) -> str:
    name, *arguments = found.group(1).split("|")
    name = name.strip().casefold().replace("_", " ")
    shown = [argument.strip() for argument in arguments if "=" not in argument]
    if not shown:
        return ""
    if name in _FIRST:
        return shown[0]
    if name in _LAST or name.startswith("lang-"):
        return shown[-1]
    if name in ("convert", "cvt") and len(shown) > 1:
        return f"{shown[0]} {shown[1]}"
    return ""


def _variant(found: re.Match[str]) -> str:
    flags, bar, body = found.group(1).partition("|")
    if not bar:
        flags, body = "", flags
    if set(flags.strip()) & set("HT-+A") - set("A"):
        return ""  # a rule for the whole page, or its title
    choices = {
        key.strip().casefold(): value.strip()
        for key, colon, value in (rule.partition(":") for rule in body.split(";"))
        if colon
    }
    for variant in _VARIANTS:
        if variant in choices:
            return choices[variant]
    return body if not choices or not body.lstrip().startswith("zh") else ""


def _link(found: re.Match[str]) -> str:
    target, *labels = found.group(1).split("|")
    prefix, colon, rest = target.partition(":")
    prefix = prefix.strip().casefold()
    if colon and prefix in _HIDDEN:
        return ""
    if colon and not labels and _LANGUAGE.fullmatch(prefix) and not rest.startswith(" "):
        return ""  # the same article in another language
    if labels and labels[-1].strip():
        return labels[-1]
    shown = target.strip().lstrip(":").partition("#")[0]
    if labels:  # the pipe trick: [[Paris (Texas)|]]
        shown = re.sub(r" ?[(（][^()（）]*[)）]$", "", shown.rpartition(":")[2])
    return shown


def _without_elements(text: str) -> str:
    """Without references, formulas and the like; what `nowiki` holds is protected from us."""
    kept: list[str] = []
    place = 0
    inside = ""
    for found in _ELEMENT_EDGE.finditer(text):
        slash, name, rest = found.group(1), found.group(2).lower(), found.group(3)
        if not inside and not slash:
            kept.append(text[place : found.start()])
            place = found.end()
            inside = "" if rest.endswith("/") else name
        elif slash and name == inside:
            if name == "nowiki":
                kept.append(html.escape(text[place : found.start()]).translate(_PROTECTED))
            inside, place = "", found.end()
    return "".join(kept) + text[place:]


def _without_nested(text: str, edge: re.Pattern[str], opening: str) -> str:
    """The text outside of all pairs; from an opening that nothing closes on, the text stays."""
    kept: list[str] = []
    starts: list[int] = []
    place = 0
    for found in edge.finditer(text):
        if found.group().lstrip(" \t:") == opening:
            if not starts:
                kept.append(text[place : found.start()])
                place = found.start()
            starts.append(found.end())
        elif starts:
            starts.pop()
            place = found.end()
    kept.append(text[place:] if not starts else edge.sub("", text[place:]))
    return "".join(kept)


def _sections(text: str) -> str:
    """Headings as lines; without closing sections, and without sections that are left empty."""
    parts = _HEADING.split(text)
    kept = [parts[0]]
    headings: list[tuple[int, str]] = []  # those waiting for some text
    dropped_level = 0
    for marks, heading, body in zip(parts[1::3], parts[2::3], parts[3::3], strict=True):
        level, title = len(marks), heading.strip()
        if dropped_level and level > dropped_level:
            continue
        dropped_level = level if title.casefold() in _TAIL_SECTIONS else 0
        if dropped_level:
            continue
        headings = [h for h in headings if h[0] < level]
        headings.append((level, title))
        if body.strip():
            kept += [f"\n\n{waiting}\n\n" for _, waiting in headings]
            kept.append(body.strip("\n"))
            headings = []
    return "".join(kept)
