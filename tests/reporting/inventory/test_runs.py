import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from isoflop.core.artifact import write_json
from isoflop.core.errors import ArtifactError
from isoflop.reporting.inventory.run_state import last_row, run_state
from isoflop.reporting.inventory.runs import list_runs


@pytest.fixture
def house(trained: Path, unfinished: Path, tmp_path: Path) -> Path:
    shutil.copytree(trained, tmp_path / "a" / "done")
    os.utime(tmp_path / "a" / "done" / "manifest.json", (time.time() - 7200,) * 2)
    write_json(tmp_path / "a" / "broken" / "manifest.json", {"kind": 1})
    (tmp_path / "a" / "nothing").mkdir()
    return tmp_path


def test_every_run_is_listed_with_what_it_came_to(house: Path) -> None:
    rows = {row.path.name: row for row in list_runs(house)}
    assert set(rows) == {"done", "killed", "broken"}
    assert (rows["done"].kind, rows["done"].stage, rows["done"].status) == (
        "run", "train", "complete",
    )  # fmt: skip
    assert rows["done"].step == 10
    assert rows["done"].tokens == 2560
    assert rows["done"].age_seconds == pytest.approx(7200, abs=60)
    assert rows["killed"].status == "unfinished"
    assert rows["killed"].continued_by
    assert rows["broken"].status == "damaged"
    assert "manifest.json" in rows["broken"].note


def test_parts_of_others_are_listed_when_asked_for(house: Path) -> None:
    paths = {row.path for row in list_runs(house, every=True)}
    assert house / "a" / "done" / "model" in paths


def test_the_newest_is_last(house: Path) -> None:
    ages = [row.age_seconds for row in list_runs(house) if row.age_seconds is not None]
    assert ages == sorted(ages, reverse=True)


def test_a_directory_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="no such directory"):
        list_runs(tmp_path / "absent")


def test_a_run_that_another_process_holds_is_running(unfinished: Path) -> None:
    script = (
        "import sys\nfrom pathlib import Path\nfrom isoflop.core.lock import locked\n"
        "with locked(Path(sys.argv[1])):\n    print('held', flush=True)\n    sys.stdin.read()\n"
    )
    command = [sys.executable, "-c", script, str(unfinished)]
    with subprocess.Popen(command, stdin=-1, stdout=-1, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        assert run_state(unfinished, finished=False).status == "running"
        holder.communicate()
    assert run_state(unfinished, finished=False).status == "unfinished"


def test_the_last_whole_line_counts_where_a_kill_tore_the_last(tmp_path: Path) -> None:
    log = tmp_path / "metrics.jsonl"
    log.write_text('{"step": 1}\n{"step": 2}\n{"step": 3, "lo')
    assert last_row(log) == {"step": 2}
    assert last_row(tmp_path / "absent.jsonl") == {}
