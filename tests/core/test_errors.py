"""Errors: one paragraph, and whole across processes."""

from __future__ import annotations

import pickle

import pytest

from isoflop.core.errors import DataError, IsoflopError, RecipeError


@pytest.mark.parametrize(
    ("error", "paragraph"),
    [
        (IsoflopError("it broke"), "it broke."),
        (IsoflopError("it broke.", where="a.toml:3"), "a.toml:3: it broke."),
        (IsoflopError("it broke", where="a", fix="Mend it."), "a: it broke. Mend it."),
        (IsoflopError("no `x`", fix="Did you mean `y`?"), "no `x`. Did you mean `y`?"),
    ],
)
def test_a_paragraph_says_where_what_and_the_way_out_with_one_stop_each(error, paragraph) -> None:
    assert error.paragraph() == str(error) == paragraph


def test_an_error_keeps_its_kind_and_parts_when_pickled() -> None:
    back = pickle.loads(pickle.dumps(RecipeError("what", where="where", fix="fix")))
    assert (type(back), back.what, back.where, back.fix) == (RecipeError, "what", "where", "fix")
    assert not isinstance(back, DataError)
