from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from isoflop.core.engine import work_folder, work_path
from isoflop.core.errors import ArtifactError, DataError, RunError
from isoflop.core.lock import LOCK


def finish_a_task(work: Path) -> None:
    (work / "stage" / "0-abc").mkdir(parents=True)
    (work / "stage" / "0-abc" / "task.json").write_text("{}")


def test_the_working_folder_goes_on_success_unless_it_is_kept(tmp_path: Path) -> None:
    out = tmp_path / "corpus"
    for keep in (True, False):
        with work_folder(out, keep) as work:
            assert work == tmp_path / "corpus.work"
            finish_a_task(work) if keep else None
        assert work.exists() == keep


@pytest.mark.parametrize(
    ("error", "finished", "stays"),
    [
        (KeyboardInterrupt(), True, True),
        (OSError(28, "No space left on device"), True, True),
        (OSError(28, "No space left on device"), False, False),
        (RunError("a worker was killed"), True, True),
        (DataError("not one usable document"), True, False),
    ],
)
def test_it_stays_where_the_same_command_can_continue(
    tmp_path: Path, error: BaseException, finished: bool, stays: bool
) -> None:
    def work_and_fail() -> None:
        with work_folder(tmp_path / "corpus") as work:
            if finished:
                finish_a_task(work)
            raise error

    with pytest.raises(type(error)):
        work_and_fail()
    assert work_path(tmp_path / "corpus").exists() == stays


def test_a_kill_while_it_is_removed_leaves_a_folder_that_the_next_run_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    remove = shutil.rmtree

    def killed_half_way(path: Path, **options: Any) -> None:
        """Removes the lock first, as the order in a directory may have it."""
        (path / LOCK).unlink(missing_ok=True)
        if path.name.endswith(".work") and any(path.iterdir()):
            raise KeyboardInterrupt
        remove(path, **options)

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", killed_half_way)
        with work_folder(tmp_path / "corpus") as work:
            finish_a_task(work)
            (work / "other").mkdir()
    with work_folder(tmp_path / "corpus") as work:
        finish_a_task(work)
    assert not os.listdir(tmp_path)


def test_a_folder_of_somebody_else_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "corpus.work").mkdir()
    (tmp_path / "corpus.work" / "mine.txt").touch()
    with pytest.raises(ArtifactError, match="in the way"), work_folder(tmp_path / "corpus"):
        pass
    assert os.listdir(tmp_path / "corpus.work") == ["mine.txt"]
