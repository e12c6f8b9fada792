from __future__ import annotations

from isoflop.data.dedup import EXACT, MOSTLY, Deduplicator


def lines(start: int, stop: int) -> str:
    return "\n".join(f"this is the telling line number {n}" for n in range(start, stop)) + "\n"


def test_the_same_text_is_kept_once() -> None:
    seen = Deduplicator()
    assert seen.reason_to_drop("hello\n") is None
    assert seen.reason_to_drop("hello\n") == EXACT
    assert seen.reason_to_drop("hello!\n") is None


def test_more_than_half_of_the_lines_seen_drops_and_half_does_not() -> None:
    seen = Deduplicator()
    assert seen.reason_to_drop(lines(0, 10)) is None
    assert seen.reason_to_drop(lines(4, 14)) == MOSTLY  # 6 of 10 seen
    assert seen.reason_to_drop(lines(5, 15)) is None  # 5 of 10 seen


def test_indentation_and_short_lines_do_not_hide_a_copy() -> None:
    seen = Deduplicator()
    assert seen.reason_to_drop(lines(0, 10)) is None
    disguised = "\n".join(f"    {line}\n    pass" for line in lines(0, 10).splitlines())
    assert seen.reason_to_drop(disguised) == MOSTLY


def test_a_dropped_document_leaves_no_lines_behind() -> None:
    seen = Deduplicator()
    seen.reason_to_drop(lines(0, 10))
    assert seen.reason_to_drop(lines(3, 13)) == MOSTLY  # lines 10 to 12 were never kept
    assert seen.reason_to_drop(lines(10, 20)) is None


def test_short_documents_of_shared_phrases_are_only_matched_exactly() -> None:
    seen = Deduplicator()
    for number in range(20):
        text = f"Question: how much is {number} and one?\nAnswer: it is the next number.\n"
        assert seen.reason_to_drop(text) is None
