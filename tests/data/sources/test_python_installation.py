from __future__ import annotations

import sysconfig
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import pytest

from isoflop.data.documents import Document, Skipped
from isoflop.data.recipe import SourceConfig
from isoflop.data.sources import read_source

MODULE = '''"""{0}: what this module is about, said at some length so that it counts as prose."""

import os


class Thing:
    """A thing of {0} that is described in a sentence of more than sixty characters."""

    def act(self, times: int) -> str:
        """Act the number of times asked for, and say how that went in a line of text.

        Indented further text about {0}, which a reader would see without the indentation, since
        that is how documentation is shown. It goes on for a while, to be long enough for prose.
        """
        if times:
            def inner() -> None:
                """Do the inner work of {0}, which only the outermost caller would ever notice."""
        return "x" * times
'''


def read_installation(seed: int) -> Iterator[Document | Skipped]:
    return read_source(SourceConfig("python"), seed)


@pytest.fixture
def installation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    stdlib, packages = tmp_path / "lib", tmp_path / "lib" / "site-packages"
    for folder in (
        "json",
        "test",
        "pydoc_data",
        "site-packages/pkg/tests",
        "site-packages/p.dist-info",
    ):
        (stdlib / folder).mkdir(parents=True, exist_ok=True)
    for number in range(40):
        (stdlib / "json" / f"m{number}.py").write_text(MODULE.format(f"subject{number}"))
        (packages / "pkg" / f"n{number}.py").write_text(MODULE.format(f"topic{number}"))
    (stdlib / "test" / "test_x.py").write_text(MODULE.format("tested"))
    (packages / "pkg" / "tests" / "test_y.py").write_text(MODULE.format("tested"))
    (stdlib / "pydoc_data" / "topics.py").write_text(
        f"topics = {{'b': {'text of b ' * 40!r}, 'a': {'text of a ' * 40!r}}}\n" + "#" * 300_000
    )
    (packages / "p.dist-info" / "METADATA").write_text(
        "Name: p\nVersion: 1\n" + "\n" + "# P\n\nIt is a package.\n" * 30
    )
    (packages / "pkg" / "table.py").write_text("x = [" + "1, 2, 3,\n" * 200 + "]")
    (packages / "pkg" / "long.py").write_text("name = 'abcdefghij" * 200 + "'")
    (packages / "pkg" / "short.py").write_text("x = 1")
    (packages / "pkg" / "huge.py").write_text("name = other\n" * 20_000)
    (packages / "pkg" / "latin.py").write_bytes("# café\n".encode("latin-1") * 100)
    (packages / "pkg" / "broken.py").write_text("print 'an old statement of Python two'\n" * 20)
    (packages / "pkg" / "gone.py").symlink_to(tmp_path / "nowhere")
    paths = {"stdlib": str(stdlib), "purelib": str(packages), "platlib": str(packages)}
    monkeypatch.setattr(sysconfig, "get_paths", lambda: paths)
    return tmp_path


def test_each_module_gives_its_source_or_its_docstrings_and_never_both(installation: Path) -> None:
    items = [item for item in read_installation(0) if isinstance(item, Document)]
    modules = [d for d in items if "/m" in d.id or "/n" in d.id]
    assert len(modules) == len({d.id for d in modules}) == 80
    prose = [d for d in modules if d.language == "en"]
    assert 20 <= len(prose) <= 60
    for document in prose:
        assert document.meta == {"part": "docstrings"}
        assert "import os" not in document.text
        assert "\nIndented further text" in document.text
        positions = [document.text.index(w) for w in ("what this", "A thing", "Act the", "Do the")]
        assert positions == sorted(positions)
    for document in modules:
        if document.language == "code":
            assert document.text == MODULE.format(document.text.split('"""')[1].split(":")[0])


def test_the_manual_and_the_descriptions_come_first(installation: Path) -> None:
    first = list(islice(read_installation(0), 3))
    assert {item.id for item in first if isinstance(item, Document)} == {
        "stdlib/pydoc_data/topics.py#a",
        "stdlib/pydoc_data/topics.py#b",
        "site-packages/p.dist-info/METADATA",
    }
    described = next(d for d in first if isinstance(d, Document) and d.id.endswith("METADATA"))
    assert described.text.startswith("# P")


def test_tables_tests_and_giants_are_left_out_with_the_reason(installation: Path) -> None:
    items = list(read_installation(0))
    reasons = {
        item.where.split("/")[-1]: item.reason for item in items if isinstance(item, Skipped)
    }
    assert reasons == {
        "table.py": "mostly not letters (a table)",
        "long.py": "generated: a line over 1,000 characters",
        "short.py": "shorter than 300 bytes",
        "huge.py": "larger than 200 kB",
        "latin.py": "not UTF-8",
        "gone.py": "unreadable file",
    }
    kept = {item.id for item in items if isinstance(item, Document)}
    assert "site-packages/pkg/broken.py" in kept  # text is text, whether or not it runs
    assert not [identity for identity in kept if "test" in identity]


def test_no_path_of_this_machine_is_in_what_comes_out(installation: Path) -> None:
    assert str(installation) not in repr(list(read_installation(0)))


def test_the_order_is_fixed_by_the_seed(installation: Path) -> None:
    def order(seed: int) -> list[str]:
        return [d.id for d in read_installation(seed) if isinstance(d, Document)]

    assert order(1) == order(1)
    assert order(1) != order(2)
    assert sorted(order(1)) == sorted(order(2))


def test_the_real_installation_holds_prose_and_code() -> None:
    items = islice(read_installation(0), 400)
    languages = [item.language for item in items if isinstance(item, Document)]
    assert languages.count("en") > 50
    assert languages.count("code") > 20
