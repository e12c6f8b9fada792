import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from isoflop.core.errors import ArtifactError
from isoflop.reporting import lines


def write(path: Path, content: str) -> Path:
    path.write_text(content, "utf-8")
    return path


def test_a_damaged_line_is_an_error_that_names_it(tmp_path: Path) -> None:
    path = write(tmp_path / "metrics.jsonl", '{"tokens": 1, "loss": 2}\n{"tokens": \n{}\n')
    with pytest.raises(ArtifactError, match=r"metrics\.jsonl:2: .*not valid JSON"):
        lines.read_metrics(path, print)


def test_a_line_without_a_loss_is_an_error_that_names_it(tmp_path: Path) -> None:
    path = write(tmp_path / "metrics.jsonl", '{"tokens": 1, "loss": 2}\n{"tokens": 2}\n')
    with pytest.raises(ArtifactError, match=r"metrics\.jsonl:2: has no 'loss'"):
        lines.read_metrics(path, print)


@pytest.mark.parametrize("value", ['"1"', "true", "[1]"])
def test_what_is_not_a_number_is_an_error(tmp_path: Path, value: str) -> None:
    path = write(tmp_path / "m.jsonl", f'{{"tokens": 1, "loss": {value}}}\n')
    with pytest.raises(ArtifactError, match=r"m\.jsonl:1: 'loss' is .*, not a number"):
        lines.read_metrics(path, print)


def test_a_line_cut_short_by_a_kill_is_noted_not_fatal(tmp_path: Path) -> None:
    notes: list[str] = []
    path = write(tmp_path / "metrics.jsonl", '{"tokens": 1, "loss": 2}\n{"tokens": 2, "lo')
    assert lines.read_metrics(path, notes.append).lines == 1
    assert notes == ["metrics.jsonl: line 2 is unfinished and was left out"]


def test_losses_that_are_not_finite_are_counted_and_not_drawn(tmp_path: Path) -> None:
    rows = ['{"tokens": 1, "loss": 2}', '{"tokens": 2, "loss": NaN}', '{"tokens": 3, "loss": null}']
    found = lines.read_metrics(write(tmp_path / "m.jsonl", "\n".join(rows) + "\n"), print)
    assert (found.lines, found.not_finite, len(found.points)) == (3, 2, 1)


def test_seconds_and_flops_are_those_of_the_last_line(tmp_path: Path) -> None:
    rows = '{"tokens": 1, "loss": 2, "seconds": 3, "flops": 4}\n{"tokens": 2, "loss": 2}\n'
    found = lines.read_metrics(write(tmp_path / "m.jsonl", rows), print)
    assert math.isnan(found.seconds)
    assert math.isnan(found.flops)


@given(st.lists(st.floats(0.1, 12), min_size=1, max_size=300), st.integers(1, 60))
def test_folding_keeps_the_mean_the_extremes_and_the_count(losses: list[float], most: int) -> None:
    tokens = np.arange(1.0, len(losses) + 1) * 512
    points = lines.fold(tokens, np.array(losses), most)
    assert 1 <= len(points) <= most
    assert min(p.low for p in points) == min(losses)
    assert max(p.high for p in points) == max(losses)
    assert all(p.low <= p.mean * (1 + 1e-12) and p.mean <= p.high * (1 + 1e-12) for p in points)
    assert [p.tokens for p in points] == sorted(p.tokens for p in points)


def test_folding_averages_within_equal_shares_of_log_tokens() -> None:
    points = lines.fold(np.array([1.0, 2.0, 50.0, 100.0]), np.array([5.0, 3.0, 2.0, 1.0]), 2)
    assert [(p.mean, p.low, p.high) for p in points] == [(4.0, 3.0, 5.0), (1.5, 1.0, 2.0)]
    assert points[0].tokens == pytest.approx(math.sqrt(2))


def test_a_table_row_of_the_wrong_length_is_an_error_that_names_it(tmp_path: Path) -> None:
    path = write(tmp_path / "runs.csv", "params,tokens,loss\n1,2,3\n1,2\n")
    with pytest.raises(ArtifactError, match=r"runs\.csv:3: .*as many fields"):
        list(lines.table_rows(path))
    path = write(tmp_path / "runs.csv", "params,tokens,loss\n1,2,3,4\n")
    with pytest.raises(ArtifactError, match=r"runs\.csv:2: .*as many fields"):
        list(lines.table_rows(path))
