"""Checkpoints of several ranks are whole or not there."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

EXACT = str(Path(__file__).with_name("exact.py"))


def test_a_full_disk_of_one_rank_is_the_error_of_all_and_nothing_of_that_checkpoint_is_left(
    pool: Any, tmp_path: Path
) -> None:
    for error in pool.run(2, (EXACT, "full_disk"), tmp_path):
        assert isinstance(error, OSError), error
        assert error.errno == errno.ENOSPC
    assert [path.name for path in tmp_path.iterdir()] == ["step_00000001"]
