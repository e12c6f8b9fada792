"""`make audit`: which licences pass, and that no answer is not taken for a good one."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).resolve().parents[1] / "tools" / "audit.py"


@pytest.fixture
def audit() -> Any:
    spec = importlib.util.spec_from_file_location("audit", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("licence", "allowed"),
    [
        ("MIT", True),
        ("Apache-2.0 OR GPL-3.0", True),
        ("BSD-3-Clause AND MIT", True),
        ("GPL-3.0-only", False),
        ("MIT AND GPL-3.0-only", False),
        ("AGPL-3.0", False),
        ("Limited use", False),
        ("not stated", False),
    ],
)
def test_of_a_choice_one_licence_is_enough_and_of_several_each_counts(
    licence: str, allowed: bool, audit: Any
) -> None:
    assert (audit.reason_for("some-package", licence) is not None) is allowed


def test_advisories_that_nobody_answered_for_are_not_a_clean_bill(
    audit: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(audit, "audit_licences", lambda: 0)
    monkeypatch.setattr(audit, "pins", lambda: {"one": "1.0", "two": "2.0"})
    answers = [("one", {"vulns": []}), ("two", {"skip_reason": "not found"})]
    monkeypatch.setattr(audit, "asked", lambda pinned: iter(answers))
    assert audit.main() == 2
    assert "two" in capsys.readouterr().err


def test_a_vulnerable_pin_is_named_with_the_version_that_mends_it(
    audit: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(audit, "audit_licences", lambda: 0)
    monkeypatch.setattr(audit, "pins", lambda: {"one": "1.0"})
    told = {"vulns": [{"id": "PYSEC-1", "fix_versions": ["1.1"]}]}
    monkeypatch.setattr(audit, "asked", lambda pinned: iter([("one", told)]))
    assert audit.main() == 1
    assert "one 1.0: PYSEC-1; fixed in 1.1" in capsys.readouterr().out
