from __future__ import annotations

import pytest

from isoflop.data.boilerplate import is_boilerplate, without_boilerplate


@pytest.mark.parametrize(
    "line",
    [
        "Skip to main content", "  » Read more", "Share on Facebook", "© 2021 Example Ltd.",
        "This website uses cookies to improve your experience.", "Log in", "All rights reserved.",
        "版权所有 © 2020 某某公司", "京ICP备12345678号", "上一篇：春天",
        "分享到：微博", "相关阅读：",
    ],
)  # fmt: skip
def test_lines_of_every_page_are_known(line: str) -> None:
    assert is_boilerplate(line)


@pytest.mark.parametrize(
    "line",
    [
        "Search engines rank pages by their links.", "Home is where the heart is.", "",
        "The printer prints.", "She shared the bread on Sunday.", "他在首页写了一篇文章。",
        "Next morning they left the village.", "广告业在上海发展得很快。",
    ],
)  # fmt: skip
def test_sentences_with_the_same_words_stay(line: str) -> None:
    assert not is_boilerplate(line)


def test_only_the_boilerplate_lines_go_and_paragraphs_stay_apart() -> None:
    assert without_boilerplate("Menu\nA text.\n\nMore text.\nBack to top\n") == (
        "A text.\n\nMore text.\n"
    )
