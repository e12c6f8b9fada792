"""Lines that a web page says on every page: menus, cookie notices, buttons, copyright.

Not for judging documents; a line goes only when all of it is such a phrase.
"""

from __future__ import annotations

import re

_MAX_CHARACTERS = 200
_PHRASES = (
    # English
    r"(?:skip|jump) to (?:main )?(?:content|navigation|search)", r"toggle navigation", r"menu",
    r"(?:log|sign) ?(?:in|out|up)", r"register", r"search", r"subscribe(?: now)?",
    r"newsletter", r"read more", r"show (?:more|less)", r"load more", r"click here",
    r"learn more", r"share(?: (?:this|on).{0,40})?", r"tweet", r"pin it", r"like this:?",
    r"follow us(?: on.{0,40})?", r"back to top", r"previous", r"next", r"home",
    r"print(?: this page)?", r"leave a (?:comment|reply)",
    r"related (?:posts|articles|stories)", r"advertisements?", r"sponsored(?: content)?",
    r"all rights reserved", r"(?:copyright|©|\(c\)) .{0,80}", r"privacy policy",
    r"terms (?:of|and) .{0,30}", r"powered by .{0,40}", r"accept (?:all )?cookies",
    r"(?:we|this (?:web)?site) uses? cookies.*",
    r"by (?:continuing|using) (?:to )?.{0,40}you (?:agree|accept).*",
    r"posted (?:on|by) .{0,60}", r"filed under:?.{0,60}", r"tags?:.{0,80}",
    # 中文
    r"首页|首頁", r"登录|登錄|登入|注册|註冊", r"上一[页頁篇].{0,40}", r"下一[页頁篇].{0,40}",
    r"返回(?:顶部|頂部|首页|首頁)",
    r"(?:点击|點擊)(?:这里|這裡|查看|进入|進入|阅读|閱讀).{0,20}",
    r"阅读(?:全文|更多)|閱讀(?:全文|更多)", r"更多(?:>>|»)?", r"分享到?[:：]?.{0,30}",
    r"版权所有.{0,80}|版權所有.{0,80}", r".{0,12}ICP[备備]\S{0,30}", r"关注我们|關注我們",
    r"(?:相关|相關)(?:文章|阅读|閱讀|推荐|推薦)[:：]?", r"隐私政策|隱私(?:權)?政策",
    r"使用条款|使用條款", r"免责声明|免責聲明", r"广告|廣告", r"收藏|打印|列印",
    r"责任编辑[:：].{0,20}|責任編輯[:：].{0,20}", r"(?:扫|掃)[一码碼描]{1,2}.{0,20}",
    r"本文(?:来源|來源|转自|轉自)[:：].{0,40}",
)  # fmt: skip
_LINE = re.compile(rf"[\s|•·*>»›-]*(?:{'|'.join(_PHRASES)})[\s|•·*>»›.!。！-]*", re.IGNORECASE)


def is_boilerplate(line: str) -> bool:
    """Whether a line, on its own, is one of the phrases every page repeats."""
    return len(line) <= _MAX_CHARACTERS and _LINE.fullmatch(line) is not None


def without_boilerplate(text: str) -> str:
    """The text without its boilerplate lines."""
    return "\n".join(line for line in text.split("\n") if not line or not is_boilerplate(line))
