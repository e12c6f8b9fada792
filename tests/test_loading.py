from __future__ import annotations

from pathlib import Path

import pytest

import isoflop
from isoflop.core.errors import ArtifactError


@pytest.mark.parametrize("asked", [".", "model"])
def test_an_unfinished_run_says_that_it_can_be_continued(tmp_path: Path, asked: str) -> None:
    (tmp_path / "checkpoints").mkdir()
    with pytest.raises(ArtifactError, match=r"has not finished.*The command that started it"):
        isoflop.load(tmp_path / asked)


def test_a_run_points_to_the_model_inside(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "manifest.json").write_text("{}")
    with pytest.raises(ArtifactError, match=f"Open {tmp_path / 'model'}"):
        isoflop.load(tmp_path)


def test_a_path_that_is_not_there_is_said_to_be_missing(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="nothing"):
        isoflop.load(tmp_path / "nothing")
