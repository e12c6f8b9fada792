"""What the reasons, kinds and languages of a corpus mean, in English and Chinese; no numbers."""

from __future__ import annotations

_REASONS = {
    "empty": ("nothing visible is left", "没有可见的文字"),
    "not UTF-8": ("bytes in no known encoding", "编码无法识别"),
    "unreadable file": ("cut off or damaged", "文件被截断或损坏"),
    "broken JSON line": ("not valid JSON", "JSON 行无效"),
    "not a JSON object": ("a JSON value without keys", "不是 JSON 对象"),
    "language not kept": ("in a language that is not wanted", "不属于要保留的语言"),
    "language unsure": ("its language is uncertain", "语言难以确定"),
    "personal data": ("holds personal data", "含有个人信息"),
    "toxicity.words": ("words of the given lists", "命中词表"),
    "perplexity.high": ("the n-gram model finds it strange", "n 元模型困惑度过高"),
    "classifier.low": ("the quality classifier scores it low", "质量分类器打分过低"),
    "seen before (same text)": ("exact copy", "完全相同的副本"),
    "seen before (same address)": ("another page of the same address", "网址相同"),
    "seen before (nearly the same)": ("near copy", "近似副本"),
    "mostly repeated passages": ("made of passages found elsewhere", "大部分段落别处已有"),
    "evaluation items": ("holds items of evaluation sets", "含有评测题目"),
    "mostly seen lines": ("most of its lines were seen", "大部分行已出现过"),
    "repeated-lines": ("lines said again and again", "重复的行过多"),
    "repeated-line-characters": ("text in repeated lines", "重复行所占字符过多"),
    "repeated-paragraphs": ("paragraphs said again", "重复的段落过多"),
    "repeated-paragraph-characters": ("text in repeated paragraphs", "重复段落所占字符过多"),
    "few-words": ("too few words", "词太少"),
    "many-words": ("too many words", "词太多"),
    "short-words": ("words too short on average", "平均词长过短"),
    "long-words": ("words too long on average", "平均词长过长"),
    "hashes": ("too many #", "# 过多"),
    "ellipses": ("too many …", "省略号过多"),
    "bullet-lines": ("nearly all lines are bullets", "几乎全是列表行"),
    "ellipsis-lines": ("too many lines end in …", "以省略号结尾的行过多"),
    "alphabetic-words": ("too few words with letters", "含字母的词过少"),
    "stop-words": ("hardly any common words", "几乎没有常用词"),
    "lorem-ipsum": ("placeholder text", "占位文字"),
    "curly-brackets": ("holds { like code", "含花括号，像代码"),
    "sentences": ("too few sentences", "句子太少"),
    "unended-lines": ("lines do not end like sentences", "行末缺少句末标点"),
    "short-lines": ("nearly all lines are short", "几乎全是短行"),
    "repeated-full-lines": ("repeated full lines", "重复的整行"),
    "newlines": ("too many line breaks", "换行过多"),
}  # fmt: skip
_LANGUAGES = {
    "en": ("English", "英文"),
    "zh": ("Chinese", "中文"),
    "zh-Hans": ("Chinese, simplified", "简体中文"),
    "zh-Hant": ("Chinese, traditional", "繁体中文"),
    "code": ("source code", "源代码"),
    "und": ("not identified", "未识别"),
    "ja": ("Japanese", "日文"),
    "ko": ("Korean", "韩文"),
    "fr": ("French", "法文"),
    "de": ("German", "德文"),
    "es": ("Spanish", "西班牙文"),
    "pt": ("Portuguese", "葡萄牙文"),
    "it": ("Italian", "意大利文"),
    "ru": ("Russian", "俄文"),
    "ar": ("Arabic", "阿拉伯文"),
}
_PII = {
    "email": ("e-mail addresses", "电子邮箱"),
    "phone": ("telephone numbers", "电话号码"),
    "ip": ("IP addresses", "IP 地址"),
    "cn-mobile": ("mobile numbers (China)", "中国手机号"),
    "cn-id": ("identity numbers (China)", "中国身份证号"),
    "card": ("payment card numbers", "银行卡号"),
    "key": ("keys and tokens", "密钥与令牌"),
}
_ACTIONS = {
    "redact": ("replaced by its kind", "已替换为类别名"),
    "drop": ("the document was dropped", "整篇丢弃"),
    "tag": ("counted in the document’s metadata", "计入文档元数据"),
}
_COPIES = {
    "exact": ("exact copies", "完全相同"),
    "url": ("the same URL", "同一网址"),
    "line": ("mostly the same lines", "大部分行相同"),
    "near": ("near copies", "近似副本"),
    "substring": ("long shared passages", "长段相同文字"),
}
Phrase = tuple[str, str]


def of_reason(reason: str) -> Phrase | None:
    """What a reason for dropping means; None where its name says it."""
    return _REASONS.get(reason) or _REASONS.get(reason.partition(".")[2])


def of_language(tag: str) -> Phrase | None:
    """A language's name; None for one that has no name here."""
    return _LANGUAGES.get(tag)


def of_pii(kind: str) -> Phrase | None:
    """A kind of personal data; None for one that has no name here."""
    return _PII.get(kind)


def of_action(action: str) -> Phrase:
    """What became of personal data."""
    return _ACTIONS.get(action, (action, action))


def of_copies(kind: str) -> Phrase | None:
    """A kind of duplicate; None for one that has no name here."""
    return _COPIES.get(kind)
