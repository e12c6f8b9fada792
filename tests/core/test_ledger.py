"""The ledger: a chain that shows every change, and survives crashes and full disks."""

from __future__ import annotations

import errno
import json
import math
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from functools import cache
from pathlib import Path

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from isoflop.core.errors import ArtifactError
from isoflop.core.ledger import Ledger, LedgerCheck, Promise


def silent(_: str) -> None: ...


def promised(ledger: Ledger, value: float = 3.0) -> str:
    return ledger.promise("loss", "nats", value, value - 0.1, value + 0.1, 0.9, "law 中 abc")


@cache
def written() -> bytes:
    """A ledger with two promises, one settled: three lines."""
    with tempfile.TemporaryDirectory() as directory:
        ledger = Ledger(Path(directory) / "ledger.jsonl")
        first = promised(ledger)
        promised(ledger, 5.0)
        ledger.settle(first, 3.05)
        return ledger.path.read_bytes()


def check(content: bytes) -> LedgerCheck:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "ledger.jsonl"
        path.write_bytes(content)
        return Ledger(path).verify()


def test_a_promise_is_read_back_open_then_settled(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "new" / "ledger.jsonl")
    first, second = promised(ledger), promised(ledger, 5.0)
    assert [promise.outcome_at for promise in ledger.read()] == [None, None]
    assert ledger.settle(second, 5.1).held is True
    assert ledger.settle(first, 3.2).held is False
    read = ledger.read()
    assert [(p.id, p.value, p.outcome, p.held) for p in read] == [
        (first, 3.0, 3.2, False),
        (second, 5.0, 5.1, True),
    ]
    assert ledger.verify().lines == 4


def test_each_line_holds_the_contract_and_the_hash_of_the_one_before(tmp_path: Path) -> None:
    lines = [json.loads(line) for line in written().decode().splitlines()]
    contract = {"id", "quantity", "unit", "value", "low", "high", "level", "made_at", "basis"}
    contract |= {"outcome", "outcome_at", "held", "previous", "hash"}
    assert all(set(line) == contract for line in lines)
    assert [line["previous"] for line in lines[1:]] == [line["hash"] for line in lines[:-1]]
    assert check(written()).head == lines[-1]["hash"]


@given(st.integers(0, len(written()) - 1), st.integers(1, 255))
@settings(max_examples=200, deadline=None)
def test_changing_any_byte_of_any_line_is_detected_and_the_line_named(at: int, by: int) -> None:
    content = bytearray(written())
    content[at] ^= by
    line = written().count(b"\n", 0, at) + 1
    with pytest.raises(ArtifactError, match=rf"ledger\.jsonl:{line}: "):
        check(bytes(content))


@given(st.permutations(range(3)), st.integers(1, 3))
@settings(deadline=None)
def test_removing_or_moving_lines_is_detected(order: list[int], count: int) -> None:
    lines = written().splitlines(keepends=True)
    chosen = order[:count]
    content = b"".join(lines[i] for i in chosen)
    if chosen == list(range(count)):  # a ledger as it was earlier
        assert check(content).lines == count
    else:
        with pytest.raises(ArtifactError):
            check(content)


def test_a_validly_chained_line_that_rewrites_an_earlier_promise_is_detected(
    tmp_path: Path,
) -> None:
    from dataclasses import replace

    from isoflop.core import ledger as module

    ledger = Ledger(tmp_path / "ledger.jsonl")
    promised(ledger)
    made = ledger.read()[0]
    wider = replace(made, high=9.0, outcome=8.0, outcome_at=made.made_at, held=True)
    with open(ledger.path, "ab") as file:
        file.write(module._line(wider, ledger.verify().head))
    with pytest.raises(ArtifactError, match=r":2: .*does not fit what promise `p1` said"):
        ledger.read()


@given(st.integers(1, len(written().splitlines(keepends=True)[-1]) - 2))
@settings(deadline=None, max_examples=40)
def test_a_torn_last_line_is_reported_then_dropped_by_the_next_append(cut: int) -> None:
    content = written()
    whole = content[: content.rindex(b"\n", 0, -1) + 1]
    torn = content[: len(whole) + cut]
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "ledger.jsonl"
        path.write_bytes(torn)
        said: list[str] = []
        ledger = Ledger(path, report=said.append)
        assert ledger.verify().torn is not None
        assert [promise.settled for promise in ledger.read()] == [False, False]
        promised(ledger)
        assert len(said) == 1
        assert "unfinished line after line 2" in said[0]
        assert path.read_bytes().startswith(whole)
        assert ledger.verify() == LedgerCheck(3, ledger.verify().head, None)


def test_a_last_line_that_lacks_only_its_newline_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    path.write_bytes(written()[:-1])
    ledger = Ledger(path)
    assert ledger.verify().lines == 3
    promised(ledger)
    assert path.read_bytes().startswith(written())
    assert ledger.verify().lines == 4


def test_a_settled_promise_cannot_be_settled_again_nor_an_unknown_one(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.jsonl")
    ledger.settle(promised(ledger), 3.0)
    with pytest.raises(ArtifactError, match="was settled"):
        ledger.settle("p1", 3.0)
    with pytest.raises(ArtifactError, match="no promise `p7`"):
        ledger.settle("p7", 3.0)


def test_an_outcome_that_is_not_a_number_is_a_promise_not_held(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.jsonl")
    settled = ledger.settle(promised(ledger), math.nan)
    assert (settled.settled, settled.outcome, settled.held) == (True, None, False)
    assert ledger.read() == (settled,)


@pytest.mark.parametrize(
    ("value", "low", "high", "level"),
    [(3, 3.1, 4, 0.9), (3, 2, math.inf, 0.9), (math.nan, 2, 4, 0.9), (3, 2, 4, 90)],
)
def test_an_impossible_promise_is_refused(tmp_path: Path, value, low, high, level) -> None:
    ledger = Ledger(tmp_path / "ledger.jsonl")
    with pytest.raises(ValueError):
        ledger.promise("loss", "nats", value, low, high, level, "law")
    assert not ledger.path.exists()


def test_calibration_counts_by_level(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.jsonl")
    for outcome in [3.0] * 4 + [9.0]:
        ledger.settle(promised(ledger), outcome)
    promised(ledger)
    ledger.promise("seconds", "s", 10, 9, 11, 0.5, "measured")
    high, low = ledger.calibration()
    assert (high.level, high.promised, high.settled, high.held) == (0.9, 6, 5, 4)
    assert high.sentence() == "of 5 promises at 90 %, 4 held (1 still open)"
    assert (low.level, low.promised, low.settled) == (0.5, 1, 0)


def test_a_missing_ledger_is_an_error_and_not_an_empty_one(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="no such ledger"):
        Ledger(tmp_path / "ledger.jsonl").read()


def test_processes_that_share_a_ledger_do_not_break_it(tmp_path: Path) -> None:
    loop = (
        "import sys; from pathlib import Path; from isoflop.core.ledger import Ledger\n"
        "ledger = Ledger(Path(sys.argv[1]))\n"
        "for i in range(20): ledger.promise('loss', '', i, i, i, 0.9, sys.argv[2])\n"
    )
    path = tmp_path / "ledger.jsonl"
    workers = [subprocess.Popen([sys.executable, "-c", loop, str(path), n]) for n in "ab"]
    assert [worker.wait() for worker in workers] == [0, 0]
    read = Ledger(path).read()
    assert sorted((p.basis, p.value) for p in read) == [(n, i) for n in "ab" for i in range(20)]


def test_sigkill_during_appends_leaves_a_readable_ledger_with_all_that_was_acknowledged(
    tmp_path: Path,
) -> None:
    loop = (
        "import sys; from pathlib import Path; from isoflop.core.ledger import Ledger\n"
        "ledger = Ledger(Path(sys.argv[1]))\n"
        "while True: print(ledger.promise('loss', '', 3, 2, 4, 0.9, 'x' * 5000), flush=True)\n"
    )
    path = tmp_path / "ledger.jsonl"
    for round_ in range(4):
        worker = subprocess.Popen(
            [sys.executable, "-c", loop, str(path)], stdout=subprocess.PIPE, text=True
        )
        assert worker.stdout is not None
        first = worker.stdout.readline()
        time.sleep(0.003 * round_)
        worker.send_signal(signal.SIGKILL)
        acknowledged = [first, *worker.stdout.readlines()]
        worker.stdout.close()
        worker.wait()
        ledger = Ledger(path, report=silent)
        ids = [promise.id for promise in ledger.read()]
        assert {line.strip() for line in acknowledged if line.endswith("\n")} <= set(ids)
        promised(ledger)
        assert ledger.verify().torn is None


def test_a_full_disk_leaves_the_ledger_as_it_was_and_names_it(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.jsonl")
    promised(ledger)
    before = ledger.path.read_bytes()
    code = (
        "import resource, sys; from pathlib import Path; from isoflop.core.ledger import Ledger\n"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({len(before) + 50},) * 2)\n"
        "try: Ledger(Path(sys.argv[1])).promise('loss', '', 3, 2, 4, 0.9, 'x' * 500)\n"
        "except OSError as error: print(error.errno, error.filename)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(ledger.path)], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == [str(errno.EFBIG), str(ledger.path)]
    assert ledger.path.read_bytes() == before
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] != len(before) + 50
    assert os.path.getsize(ledger.path) == len(before)
    assert isinstance(ledger.read()[0], Promise)
