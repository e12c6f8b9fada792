"""Key positions against a writer that knows on which line it put each key."""

from __future__ import annotations

import tomllib
from typing import Any

import hypothesis.strategies as st
from hypothesis import given, settings

from isoflop.core.toml_lines import KeyPath, key_lines

_KEYS = st.text("abcz_-", min_size=1, max_size=4)
_SCALARS = st.sampled_from(
    [
        "1",
        "-2.5e3",
        "true",
        '"a # [x] = \\" }"',
        "'it = {'",
        "1979-05-27 07:32:00",
        "[1, 2]",
        '"""two\nlines = 3\n"""',
        "'''\n[no]\n'''",
        '[\n  "a", # = [\n  "b",\n]',
        "{ p = 1 }",
    ]
)
_TABLE = st.dictionaries(_KEYS, _SCALARS, max_size=4)


@given(_TABLE, st.lists(st.tuples(_KEYS, st.booleans(), _TABLE), max_size=4))
@settings(deadline=None)
def test_every_key_is_found_on_the_line_where_it_was_written(
    top: dict[str, str], tables: list[tuple[str, bool, dict[str, str]]]
) -> None:
    text, expected = "", {}

    def write(line: str, path: KeyPath) -> None:
        nonlocal text
        expected.setdefault(path, text.count("\n") + 1)
        text += line + "\n"

    for key, value in top.items():
        write(f"{key} = {value}", (key,))
    for number, (name, is_array, body) in enumerate(tables):
        name = f"t{number}{name}"
        text += "\n# comment [x]\n"
        for index in range(2 if is_array else 1):
            here: KeyPath = (name, index) if is_array else (name,)
            expected.setdefault((name,), text.count("\n") + 1)
            write(f"[[{name}]]" if is_array else f"[ {name} ]", here)
            for key, value in body.items():
                write(f"  {key} = {value}", (*here, key))
    tomllib.loads(text)  # the text is valid, as the scanner requires
    found = key_lines(text)
    assert {path: found.get(path) for path in expected} == expected


def test_keys_inside_inline_tables_and_dotted_headers_have_their_own_lines() -> None:
    text = 'a.b.c = 1\n[x."y.z"]\nk = [\n { q = 1 },\n { r = 2 },\n]\n[[s]]\n[s.t]\nu = 1\n'
    found: dict[Any, int] = dict(key_lines(text))
    assert found["a", "b", "c"] == 1
    assert found["x", "y.z", "k", 1, "r"] == 5
    assert found["s", 0, "t", "u"] == 9
