"""The data-constrained form: its limits, its published value, and effective data."""

from __future__ import annotations

import numpy as np
import pytest

from isoflop.core.errors import TableError
from isoflop.laws.forms import printed_loss
from isoflop.laws.published import published_law
from isoflop.laws.repetition import DataLaw, effective_data, log_loss, overfits

SURFACE = (1.87, 521.0, 1488.0, 0.3527, 0.3527, 1.0)


def loss(params: float, tokens: float, unique: float, repeat: float, excess: float) -> float:
    printed = np.array([[*SURFACE, repeat, excess]])
    at = (np.array([value]) for value in (params, tokens, unique))
    return float(np.exp(log_loss(printed, *at))[0, 0])


def test_with_endless_worth_of_repetition_it_is_the_additive_form() -> None:
    plain = float(printed_loss(np.array([SURFACE]), 1e9, 1e11)[0])
    assert loss(1e9, 1e11, 1e9, 1e12, 1e12) == pytest.approx(plain, rel=1e-6)


def test_fresh_data_are_not_discounted_for_a_size_that_they_suffice_for() -> None:
    plain = float(printed_loss(np.array([SURFACE]), 1e8, 1e11)[0])
    assert loss(1e8, 1e11, 1e11, 15.4, 5.3) == pytest.approx(plain, rel=1e-12)


def test_the_loss_at_the_published_constants_is_that_of_the_written_out_formula() -> None:
    # Muennighoff et al. 2023, eq. 17, with U_N = 0.051 U_D as printed there.
    unique, params, tokens = 1e9, 1e9, 3e10
    own = 0.051 * unique
    size = own + 5.3 * own * (1 - np.exp(-(params / own - 1) / 5.3))
    data = unique + 15.4 * unique * (1 - np.exp(-(tokens / unique - 1) / 15.4))
    written = 1.87 + 521 / size**0.3527 + 1488 / data**0.3527
    law = published_law("muennighoff")
    assert law.predict(params, tokens, unique_tokens=unique).loss == pytest.approx(
        written, rel=2e-3
    )


def test_more_repetition_never_helps_more_than_fresh_data_and_saturates() -> None:
    epochs = np.geomspace(1, 1e4, 40)
    losses = [loss(1e8, e * 1e9, 1e9, 15.4, 5.3) for e in epochs]
    fresh = [float(printed_loss(np.array([SURFACE]), 1e8, e * 1e9)[0]) for e in epochs]
    assert all(np.diff(losses) <= 1e-12)
    assert all(np.array(losses) >= np.array(fresh) - 1e-12)
    assert losses[-1] == pytest.approx(loss(1e8, 1e15, 1e9, 15.4, 5.3), rel=1e-9)


def test_four_epochs_are_nearly_as_good_as_fresh_data_and_forty_are_not() -> None:
    # Muennighoff et al. 2023, abstract.
    assert effective_data(4e9, 1e9).fresh == pytest.approx(4e9, rel=0.1)
    assert effective_data(40e9, 1e9).fresh < 20e9


def test_effective_data_multiply_their_factors() -> None:
    plain = effective_data(1e10)
    assert (plain.tokens, plain.epochs) == (1e10, 1.0)
    mixed = effective_data(
        1e10, efficiency=1.2, augmentation=0.1, synthetic_share=0.5, synthetic_worth=0.4
    )
    assert mixed.tokens == pytest.approx(1e10 * 1.2 * 1.1 * 0.7)
    assert effective_data(1e9, 5e9).epochs == 1.0


@pytest.mark.parametrize(
    "wrong",
    [
        {"unique_tokens": -1.0},
        {"efficiency": 0.0},
        {"augmentation": -0.1},
        {"synthetic_share": 1.5},
        {"synthetic_worth": np.nan},
    ],
)
def test_impossible_shares_and_worths_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(TableError):
        effective_data(1e9, **wrong)


def test_a_law_widens_with_epochs_beyond_those_of_its_table() -> None:
    row = [*SURFACE, 15.4, 5.3]
    law = DataLaw(
        form="data-constrained",
        formula="",
        parameters=dict(zip(("E", "A", "B", "a", "b", "g", "R_D*", "R_N*"), row, strict=True)),
        stderr={},
        draws=np.array([row] * 3),
        noise={"run_to_run": 0.002, "drift": 0.001},
        objective="huber",
        n_runs=50,
        domain={
            "params": (1e7, 1e9),
            "tokens": (1e9, 1e11),
            "flops": (6e16, 6e20),
            "epochs": (1, 4),
        },
        source=(),
        warnings=(),
        verdict="supported",
    )
    within = law.predict(1e8, 1e10, unique_tokens=2.5e9)
    beyond = law.predict(1e8, 1e10, unique_tokens=2.5e8)
    assert beyond.extrapolation["epochs"] == pytest.approx(10.0)
    assert (beyond.high - beyond.low) / beyond.loss > 5 * (within.high - within.low) / within.loss
    with pytest.raises(TableError, match="unique_tokens must be positive"):
        law.predict(1e8, 1e10, unique_tokens=0.0)
    with pytest.raises(TableError, match="by heart"):
        law.predict(1e9, 1e10, unique_tokens=2.5e8)
    law.predict(1e9, 1e9, unique_tokens=2.5e8)  # as many epochs as the table has


def test_a_model_overfits_where_its_capacity_reaches_the_code_length_of_its_corpus() -> None:
    # Morris et al. 2025: 3.6 bits per parameter; 2.77 nats are 4 bits per token.
    unique, loss = 9e8, 4 * float(np.log(2))
    assert overfits(1.001e9, unique, loss)
    assert not overfits(0.999e9, unique, loss)
