"""Data mixing laws: planted truth, the best mixture against scipy, published curves."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.stats import spearmanr

from isoflop.core.errors import TableError
from isoflop.laws.mixture import MixtureLaw, fit_mixture, from_document, left_out

LAWS = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "laws"
needs_data = pytest.mark.skipif(not LAWS.is_dir(), reason="the shared data are absent")
TRAINING, VALIDATION = ("web", "code", "books"), ("web", "code", "books", "maths")
FLOOR = np.array([2.0, 0.8, 2.2, 1.1])
SLOPES = np.array([[-1.5, 0.3, -0.2], [0.4, -1.8, 0.5], [-0.1, 0.4, -1.2], [0.1, -0.9, 0.3]])


def _truth(mixtures: np.ndarray) -> np.ndarray:
    return np.asarray(FLOOR + np.exp(mixtures @ SLOPES.T))


def _fitted(noise: float, runs: int = 24, seed: int = 0, bootstrap: int = 50) -> MixtureLaw:
    rng = np.random.default_rng(seed)
    r = rng.dirichlet(np.ones(3), size=runs)
    losses = _truth(r) * np.exp(noise * rng.standard_normal((runs, 4)))
    return fit_mixture(
        r, losses, training=TRAINING, validation=VALIDATION, bootstrap=bootstrap, seed=seed
    )


def test_a_planted_law_is_recovered() -> None:
    law = _fitted(0.0)
    assert law.supported
    new = np.random.default_rng(9).dirichlet(np.ones(3), size=50)
    assert law.losses(new) == pytest.approx(_truth(new), rel=1e-5)
    for i, domain in enumerate(VALIDATION):
        assert law.parameters[f"c[{domain}]"] == pytest.approx(FLOOR[i], rel=1e-3)
        slopes = [law.parameters[f"t[{domain}, {name}]"] for name in TRAINING]
        assert slopes == pytest.approx(SLOPES[i] - SLOPES[i].mean(), abs=2e-3)


@pytest.mark.slow
def test_intervals_hold_new_losses_about_as_often_as_they_say() -> None:
    held = total = 0
    for seed in range(20):
        law = _fitted(0.003, seed=seed)
        rng = np.random.default_rng(1000 + seed)
        mixture = rng.dirichlet(np.ones(3))
        new = _truth(mixture[None])[0] * np.exp(0.003 * rng.standard_normal(4))
        found = law.predict(dict(zip(TRAINING, mixture, strict=True)))
        held += sum(
            found[d].low <= v <= found[d].high for d, v in zip(VALIDATION, new, strict=True)
        )
        total += 4
    assert 0.82 <= held / total <= 0.98


@pytest.mark.parametrize("most", [None, {"code": 0.2}])
def test_the_best_mixture_is_the_one_scipy_finds(most: dict[str, float] | None) -> None:
    law = _fitted(0.001)
    target = {"web": 0.4, "code": 0.3, "books": 0.1, "maths": 0.2}
    goal = np.array(list(target.values()))
    upper = [1.0, (most or {}).get("code", 1.0), 1.0]
    found = law.best(target, most=most)
    theirs = minimize(
        lambda r: float(law.losses(r)[0] @ goal),
        np.array([0.6, 0.1, 0.3]),
        bounds=[(0.0, u) for u in upper],
        constraints={"type": "eq", "fun": lambda r: r.sum() - 1.0},
        options={"ftol": 1e-12, "maxiter": 500},
    )
    assert found.objective.value == pytest.approx(theirs.fun, rel=2e-5)
    weights = np.array([w.value for w in found.weights.values()])
    assert weights.sum() == pytest.approx(1.0)
    assert weights == pytest.approx(theirs.x, abs=0.01)
    assert all(w.low <= w.value <= w.high for w in found.weights.values())


def test_the_worst_case_mixture_is_the_one_a_grid_finds() -> None:
    law = _fitted(0.001)
    even = law.losses(np.full(3, 1 / 3))[0]
    found = law.worst_case(dict(zip(VALIDATION, even, strict=True)))
    steps = np.linspace(0.0, 1.0, 201)
    grid = np.array([[a, b, 1 - a - b] for a in steps for b in steps if a + b <= 1.0])
    assert found.objective.value <= (law.losses(grid) - even).max(axis=1).min() + 5e-4


def test_more_noise_widens_the_mixture_s_interval() -> None:
    quiet, loud = (_fitted(noise).best().weights["code"] for noise in (0.0005, 0.01))
    assert loud.high - loud.low > 2 * (quiet.high - quiet.low)


def test_too_few_mixtures_are_unsupported_and_impossible_ones_refused() -> None:
    assert "unsupported: 4 mixtures" in _fitted(0.001, runs=4).verdict
    names = {"training": TRAINING, "validation": ("web",)}
    r = np.array([[0.5, 0.5, 0.0]] * 6)
    with pytest.raises(TableError, match="do not span"):
        fit_mixture(r, np.ones((6, 1)), **names)
    with pytest.raises(TableError, match=r"adding up to 1\.5"):
        fit_mixture(r + np.array([0.5, 0.0, 0.0]), np.ones((6, 1)), **names)
    law = _fitted(0.001)
    with pytest.raises(TableError, match="no training domain music"):
        law.predict({"music": 1.0})
    with pytest.raises(TableError, match="allow 60%"):
        law.best(most=dict.fromkeys(TRAINING, 0.2))


def test_the_document_reads_back_to_the_same_losses(tmp_path: Path) -> None:
    law = _fitted(0.001)
    law.save(tmp_path / "law.json")
    again = from_document(json.loads((tmp_path / "law.json").read_text()))
    assert again.losses([0.2, 0.3, 0.5]) == pytest.approx(law.losses([0.2, 0.3, 0.5]))
    assert again.training == TRAINING


@needs_data
def test_published_mixtures_are_foretold_from_others() -> None:
    """Ye et al.'s mixtures of five sources, 70 M parameters: three of four foretell the fourth,
    with less than a third of the error of taking the others' mean."""
    with open(LAWS / "mixinglaws_domain_curves.csv", newline="", encoding="utf-8") as handle:
        rows = [r for r in csv.DictReader(handle) if r["set"] == "5Mix" and r["size"] == "70M"]
    rows = [r for r in rows if r["step"] == "30000"]
    weights = np.array([[float(w) for w in r["run_id"].split("-")[1:]] for r in rows])
    domains = [name for name in rows[0] if name not in ("set", "size", "run_id", "step")]
    losses = np.array([[float(r[name]) for name in domains] for r in rows])
    foretold, plain = np.zeros_like(losses), np.zeros_like(losses)
    for fold in range(4):
        held = np.arange(len(rows)) % 4 == fold
        law = fit_mixture(
            weights[~held],
            losses[~held],
            training=[f"source {j}" for j in range(5)],
            validation=domains,
            bootstrap=50,
        )
        foretold[held], plain[held] = law.losses(weights[held]), losses[~held].mean(axis=0)
    assert np.abs(foretold / losses - 1.0).mean() < 0.33 * np.abs(plain / losses - 1.0).mean()
    ranks = [spearmanr(foretold[:, i], losses[:, i]).statistic for i in range(len(domains))]
    assert np.median(ranks) > 0.9


def test_the_best_mixture_keeps_to_smallest_shares_and_sums() -> None:
    law = _fitted(0.001)
    free = law.best().weights
    kept = law.best(least={"books": 0.5}, together=(("web", "code"), 0.3)).weights
    assert free["books"].value < 0.5
    assert kept["web"].value + kept["code"].value <= 0.3 + 1e-6
    assert kept["books"].value == pytest.approx(0.7, abs=1e-3)


def test_a_domain_without_reference_does_not_count_in_the_worst_case() -> None:
    law = _fitted(0.001)
    even = dict(zip(VALIDATION, law.losses(np.full(3, 1 / 3))[0], strict=True))
    alone = law.worst_case({"code": even["code"]})
    assert alone.weights["code"].value == pytest.approx(
        law.best({"code": 1.0}).weights["code"].value
    )
    with pytest.raises(TableError, match="no loss of any"):
        law.worst_case({"music": 1.0})


def test_outcomes_scatter_as_the_runs_did_and_together_where_they_did() -> None:
    rng = np.random.default_rng(3)
    r = rng.dirichlet(np.ones(3), size=60)
    shared = 0.01 * rng.standard_normal((60, 1))  # one luck for all domains of a run
    law = fit_mixture(
        r, _truth(r) * np.exp(shared), training=TRAINING, validation=VALIDATION, bootstrap=200
    )
    drawn = np.log(law.outcomes([0.4, 0.3, 0.3])[:, 0])
    assert drawn.std(axis=0) == pytest.approx(np.full(4, 0.0105), rel=0.25)
    assert np.corrcoef(drawn.T).min() > 0.8
    steady = np.log(law.outcomes([0.4, 0.3, 0.3], noise=0.0)[:, 0])
    assert steady.std(axis=0).max() < 0.5 * drawn.std(axis=0).min()


def test_left_out_mixtures_are_foretold_where_there_is_a_law_and_only_there() -> None:
    rng = np.random.default_rng(4)
    r = np.concatenate([np.full((3, 3), 1 / 3), rng.dirichlet(np.ones(3), size=15)])
    exact = _truth(r)
    assert left_out(r, exact) == pytest.approx(exact, rel=2e-3)
    luck = 2.0 * np.exp(0.01 * rng.standard_normal((18, 4)))
    off = luck - left_out(r, luck)
    assert (off**2).sum() > 0.9 * ((luck - luck.mean(axis=0)) ** 2).sum()
