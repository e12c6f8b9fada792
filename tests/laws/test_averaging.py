"""The average of forms: what it follows, what it leaves aside, and what it costs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from isoflop.laws import Law, RunTable, fit, load_law
from isoflop.laws.averaging import (
    FLOOR_WIDTH,
    RELEVANCES,
    average,
    floor_width,
    own_width,
    roll_out,
    shares,
    told_apart,
)
from isoflop.laws.backtest import backtest
from isoflop.laws.forms import Design

N, D = (a.ravel() for a in np.meshgrid(np.geomspace(1e7, 1e9, 7), np.geomspace(2e8, 2e10, 7)))
TRUTH = 1.7 + 400 * N**-0.34 + 900 * D**-0.32


def starved(noise: float = 0.003) -> RunTable:
    """A sound law whose shortest runs never left the warm-up, the larger the model the less."""
    rng = np.random.default_rng(0)
    warm_up = 1.5 * np.exp(-D / (4.0 * N ** (2 / 3) * 5e2))
    return RunTable.from_arrays(N, D, TRUTH * np.exp(noise * rng.standard_normal(N.size)) + warm_up)


@pytest.fixture(scope="module")
def law() -> Law:
    return fit(starved(), form="auto", bootstrap=200)


def test_runs_of_another_regime_do_not_bend_the_forecast(law: Law) -> None:
    truth = 1.7 + 400 * 3e9**-0.34 + 900 * 6e10**-0.32
    averaged, plain = law.predict(3e9, 6e10), fit(starved(), bootstrap=100).predict(3e9, 6e10)
    assert abs(averaged.loss / truth - 1) < 0.01
    assert abs(averaged.loss / truth - 1) < 0.5 * abs(plain.loss / truth - 1)
    assert averaged.low < truth < averaged.high


def test_where_the_additive_form_is_the_truth_the_average_is_as_good() -> None:
    noise = 0.002 * np.random.default_rng(1).standard_normal(N.size)
    table = RunTable.from_arrays(N, D, TRUTH * np.exp(noise))
    scored = [backtest(table, form=f, cut=10, bootstrap=200) for f in ("auto", "chinchilla")]
    assert scored[0].median_error_percent < scored[1].median_error_percent + 0.3
    assert scored[0].median_error_percent < 0.8


def test_the_best_in_the_roll_out_gets_the_largest_share() -> None:
    scores = np.full((3, 5), 0.04)
    scores[1, 2] = 0.004
    found = shares(scores, 0.001)
    assert found.sum() == pytest.approx(1.0)
    assert np.unravel_index(int(np.argmax(found)), found.shape) == (1, 2)
    assert found[1, 2] > 0.9


def test_errors_below_the_noise_do_not_decide() -> None:
    tiny = np.full((3, 5), 1e-4)
    tiny[0, 0] = 1e-6
    np.testing.assert_allclose(shares(tiny, 0.01), shares(None, 0.01), rtol=1e-3)


def test_a_table_too_small_for_a_roll_out_is_averaged_by_the_beliefs_alone() -> None:
    few = RunTable.from_arrays(N[:9], D[[0, 7, 14, 0, 7, 14, 0, 7, 14]], TRUTH[:9])
    assert roll_out(few) == ()
    assert all(m["score"] is None for m in fit(few, form="auto", bootstrap=100).members)


def test_shares_of_the_members_and_their_draws_agree() -> None:
    table = starved()
    design = Design.of(table.params, table.tokens)
    found = average(table, design, 400, np.random.default_rng(0))
    assert abs(len(found.allowed) - 400) <= 15
    assert found.members[0].share == max(m.share for m in found.members)
    assert 0.95 < sum(m.share for m in found.members) <= 1.0


def test_an_averaged_law_reads_back_and_says_the_same(law: Law, tmp_path: Path) -> None:
    law.save(tmp_path / "law.json")
    again = load_law(tmp_path / "law.json")
    assert again.members == law.members
    for first, second in (
        (law.predict(3e9, 6e10), again.predict(3e9, 6e10)),
        (law.optimal(1e21).loss, again.optimal(1e21).loss),
    ):
        assert (first.loss, first.low, first.high) == pytest.approx(
            (second.loss, second.low, second.high), rel=1e-6
        )


def test_the_averaged_optimum_is_the_law_s_own(law: Law) -> None:
    best = law.optimal(1e21)
    assert 6 * best.params * best.tokens == pytest.approx(1e21, rel=1e-9)
    assert best.exponents["a"] + best.exponents["b"] == pytest.approx(1.0)
    for factor in (0.5, 2.0):
        other = law.predict(best.params * factor, best.tokens / factor)
        assert other.loss > best.loss.loss


def test_without_the_literature_s_beliefs_an_odd_exponent_is_followed_further() -> None:
    n, d = N[::2], D[::2]
    loss = 0.4 + 8.0 * n**-0.07 + 6.0 * d**-0.08
    table = RunTable.from_arrays(n, d, loss)
    believing, free = (
        fit(table, form="gamma", priors=p, bootstrap=100).parameters for p in (True, False)
    )
    away = [abs(np.log(p["a"] * p["g"] / 0.07)) for p in (believing, free)]
    assert away[1] < away[0]


def test_the_same_seed_gives_the_same_average() -> None:
    one, two = (fit(starved(), form="auto", bootstrap=100, seed=4) for _ in range(2))
    assert one.to_dict() == two.to_dict()


def test_a_table_whose_large_runs_surprise_its_small_ones_gets_a_wider_interval() -> None:
    noise = 0.002 * np.random.default_rng(3).standard_normal(N.size)
    steady = RunTable.from_arrays(N, D, TRUTH * np.exp(noise))
    large = (N * D).max() / 10 < N * D
    broken = RunTable.from_arrays(N, D, TRUTH * np.exp(noise) * np.where(large, 1.05, 1.0))
    share = np.full((3, 5), 1 / 15)
    widths = [own_width(roll_out(t), share, 0.003) for t in (steady, broken)]
    assert widths[0] < 1.2 < 1.5 < widths[1]
    assert own_width((), share, 0.003) == 1.0


def test_a_relevance_that_leaves_two_sizes_takes_no_part() -> None:
    """Two large sizes near the lowest loss and two small ones far above it."""
    n, d = (a.ravel() for a in np.meshgrid([1e6, 3e6, 3e8, 1e9], np.geomspace(2e9, 2e10, 6)))
    table = RunTable.from_arrays(n, d, 1.7 + 400 * n**-0.34 + 900 * d**-0.32)
    enough = told_apart(table)
    assert enough[0]
    assert not enough[-1]
    found = average(table, Design.of(n, d), 200, np.random.default_rng(0))
    allowed = {kappa for kappa, kept in zip(RELEVANCES, enough, strict=True) if kept}
    assert {m.relevance for m in found.members} <= allowed


def test_where_no_relevance_leaves_three_sizes_all_take_part() -> None:
    n, d = (a.ravel() for a in np.meshgrid([1e8, 3e8], np.geomspace(2e9, 2e10, 6)))
    table = RunTable.from_arrays(n, d, 1.7 + 400 * n**-0.34 + 900 * d**-0.32)
    assert told_apart(table).all()


def test_the_forecast_hardly_depends_on_the_seed() -> None:
    """Draws come in mirrored pairs, so that their median moves little."""
    found = [fit(starved(), form="auto", bootstrap=200, seed=s).predict(3e9, 6e10) for s in (1, 2)]
    width = found[0].high - found[0].low
    assert abs(found[0].loss - found[1].loss) < 0.05 * width


def test_the_floor_is_believed_firmly_only_where_laws_are_published() -> None:
    published, tiny = (
        RunTable.from_arrays(N * shrunk, D * shrunk, TRUTH) for shrunk in (1.0, 1e-3)
    )
    assert floor_width(published) == FLOOR_WIDTH
    assert floor_width(tiny) > 3 * FLOOR_WIDTH


def test_tiny_models_far_above_the_floor_are_foretold_without_a_lean() -> None:
    n, d = (
        a.ravel() for a in np.meshgrid(np.geomspace(3e4, 2.4e5, 4), np.geomspace(3e5, 2.4e6, 4))
    )
    errors = []
    for seed in range(4):
        rng = np.random.default_rng(seed)
        law = fit(
            RunTable.from_arrays(n, d, _far(n, d) * np.exp(2e-3 * rng.standard_normal(n.size))),
            form="auto",
            bootstrap=100,
        )
        errors.append(np.log(law.predict(7.6e5, 7.6e6).loss / _far(7.6e5, 7.6e6)))
    # With the width of published tables the mean of these is -2.0 %.
    assert abs(np.mean(errors)) < 0.007


def _far(params: np.ndarray | float, tokens: np.ndarray | float) -> np.ndarray:
    """A floor of an eighth of the low losses."""
    return np.asarray(0.14 + 0.5 * (params / 2.4e5) ** -0.3 + 0.5 * (tokens / 2.4e6) ** -0.3)
