"""The record of a recipe's forecasts corrects the next one by what they had in common."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from isoflop.core.errors import ArtifactError
from isoflop.laws.predict import Prediction
from isoflop.laws.track_record import Outcome, TrackRecord, read_track_record


def forecast(loss: float, half_width: float, reach: float) -> Prediction:
    low, high = loss * math.exp(-half_width), loss * math.exp(half_width)
    return Prediction(loss, low, high, 0.9, {"params": 1.0, "tokens": 1.0, "flops": reach})


def test_an_error_that_all_outcomes_share_is_taken_out_to_the_last_bit() -> None:
    """Each forecast was 0.4 % too high per e-fold, at different reaches."""
    reaches = (3.0, 8.2, 30.0)
    outcomes = tuple(Outcome(r, 3.0, 3.0 * math.exp(-0.004 * math.log(r))) for r in reaches)
    corrected = TrackRecord(outcomes).correct(forecast(2.5, 0.01, 10.0))
    assert corrected.loss == pytest.approx(2.5 * 10.0**-0.004, rel=1e-12)
    assert math.log(corrected.high / corrected.loss) == pytest.approx(0.01, rel=1e-9)
    assert math.log(corrected.loss / corrected.low) == pytest.approx(0.01, rel=1e-9)


def test_among_its_own_runs_a_law_is_not_corrected() -> None:
    record = TrackRecord(tuple(Outcome(8.0, 3.0, m) for m in (2.8, 2.9, 2.95)))
    inside = forecast(3.0, 0.01, 1.0)
    assert record.correct(inside) == inside


def test_two_outcomes_are_no_record() -> None:
    record = TrackRecord((Outcome(8.0, 3.0, 2.9), Outcome(8.0, 3.0, 2.9)))
    assert record.correct(forecast(3.0, 0.01, 8.0)) == forecast(3.0, 0.01, 8.0)


def test_corrected_intervals_hold_as_often_as_they_say() -> None:
    """Forecasts lean by 0.5 % per e-fold and scatter by what their own interval says."""
    rng = np.random.default_rng(0)
    lean, scatter, reach, held = 0.005, 0.01, 8.0, 0
    tail = 1.6449  # of a normal at 90 %
    repeats = 4000
    for _ in range(repeats):
        errors = lean * math.log(reach) + scatter * rng.standard_normal(7)
        past = tuple(Outcome(reach, 3.0 * math.exp(e), 3.0) for e in errors[:6])
        corrected = TrackRecord(past).correct(
            forecast(3.0 * math.exp(errors[6]), tail * scatter, reach)
        )
        held += corrected.low <= 3.0 <= corrected.high
    assert 0.88 < held / repeats < 0.94


def test_a_record_is_read_from_its_file(tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    row = {"seed": 0, "reach": 8.2, "predicted": 2.9, "measured": 2.88}
    path.write_text(json.dumps({"recipe": "a", "outcomes": [row] * 3}))
    assert read_track_record(path).outcomes == (Outcome(8.2, 2.9, 2.88),) * 3


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[]", "not a track record"),
        ('{"outcomes": [{"reach": 8}]}', "not a track record"),
        ('{"outcomes": [{"reach": 1, "predicted": 3, "measured": 3}]}', "reach must exceed 1"),
    ],
)
def test_a_file_that_is_no_record_is_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "record.json"
    path.write_text(text)
    with pytest.raises(ArtifactError, match=message):
        read_track_record(path)
