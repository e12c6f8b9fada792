"""Scores from size and horizon, by way of the task's loss."""

from __future__ import annotations

import numpy as np
import pytest

from isoflop.laws import RunTable, fit
from isoflop.laws.tasks import fit_task
from isoflop.laws.two_step import foretell_score


def loss_of(params: np.ndarray, tokens: np.ndarray) -> np.ndarray:
    return np.asarray(0.4 + 400 / params**0.34 + 400 / tokens**0.3)


def score_of(loss: np.ndarray) -> np.ndarray:
    return np.asarray(0.25 + 0.7 / (1 + np.exp(3.0 * (loss - 1.8))))


def test_a_planted_pair_of_laws_is_foretold_ten_times_beyond_its_runs() -> None:
    rng = np.random.default_rng(0)
    params, tokens = (each.ravel() for each in np.meshgrid(
        np.logspace(6.5, 8.5, 6), np.logspace(8, 10.5, 6)
    ))  # fmt: skip
    loss = loss_of(params, tokens) * np.exp(0.003 * rng.standard_normal(36))
    score = np.clip(score_of(loss) + 0.005 * rng.standard_normal(36), 0, 1)
    surface = fit(RunTable.from_arrays(params, tokens, loss), form="chinchilla", bootstrap=100)
    task = fit_task(loss, score, chance=0.25, draws=200)
    asked = (3e9, 3e11)
    truth_loss = float(loss_of(*map(np.array, asked)))
    found = foretell_score(surface, task, *asked)
    assert found.verdict == "supported"
    assert found.loss.loss == pytest.approx(truth_loss, rel=0.03)
    assert found.score.low <= float(score_of(np.array(truth_loss))) <= found.score.high
    # The uncertainty of the first step is in the second's interval.
    alone = task.predict(found.loss.loss, found.loss.level)
    assert found.score.high - found.score.low > alone.high - alone.low


def test_what_either_law_cannot_support_is_said() -> None:
    loss = np.linspace(1.5, 3, 20)
    flat = fit_task(loss, np.full(20, 0.25) + 0.001 * (-1.0) ** np.arange(20), draws=50)
    params = np.logspace(6, 8, 20)
    surface = fit(
        RunTable.from_arrays(params, params[::-1] * 30, loss_of(params, params[::-1] * 30)),
        form="chinchilla", bootstrap=100,
    )  # fmt: skip
    assert foretell_score(surface, flat, 1e9, 1e10).verdict.startswith("unsupported")
