from __future__ import annotations

import os
from pathlib import Path

import pytest

from isoflop.core.engine import work_folder, work_path
from isoflop.core.errors import ArtifactError, DataError, RunError


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


def test_a_folder_of_somebody_else_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "corpus.work").mkdir()
    (tmp_path / "corpus.work" / "mine.txt").touch()
    with pytest.raises(ArtifactError, match="in the way"), work_folder(tmp_path / "corpus"):
        pass
    assert os.listdir(tmp_path / "corpus.work") == ["mine.txt"]
