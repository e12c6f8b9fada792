from __future__ import annotations

from pathlib import Path

import pytest

from isoflop.core.errors import DataError
from isoflop.data.toxicity import WordList, read_word_lists


def test_whole_words_and_phrases_count_in_spaced_scripts_and_any_place_in_chinese() -> None:
    words = WordList(["grue", "Big Bad", "坏蛋", "坏蛋们"])
    assert words.count("The GRUE met a big  bad wolf; grues and big, good ones do not count.") == 2
    assert words.count("那些坏蛋们和另一个坏蛋") == 2
    assert words.count("nothing here 没有") == 0
    assert WordList([]).count("anything") == 0


def test_lists_are_text_files_with_comments(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("# mine\ngrue  # eats travellers\n\n坏蛋\n", "utf-8")
    assert read_word_lists((tmp_path / "a.txt",)).count("a grue 坏蛋 mine") == 2
    (tmp_path / "b.txt").write_bytes(b"\xff\xfe\x00")
    for name in ("b.txt", "missing.txt"):
        with pytest.raises(DataError, match=rf"{name}: the word list cannot be read"):
            read_word_lists((tmp_path / name,))
