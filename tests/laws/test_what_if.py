"""What-if tables say what the law says, row by row."""

from __future__ import annotations

import pytest

from isoflop.core.errors import TableError
from isoflop.laws.published import published_law
from isoflop.laws.what_if import what_if, what_if_budget

LAW = published_law("besiroglu")


def test_each_row_is_the_laws_own_forecast_of_the_changed_run() -> None:
    rows = what_if(LAW, 7e9, 2e12, factors=(0.5, 4.0))
    assert [row.change for row in rows] == [
        "as asked",
        *("parameters × 0.5", "parameters × 4", "tokens × 0.5", "tokens × 4"),
        *("compute × 0.5", "compute × 4"),
    ]
    for row in rows:
        assert row.loss.loss == LAW.predict(row.params, row.tokens).loss
        assert row.flops == pytest.approx(6 * row.params * row.tokens)
        assert row.difference == pytest.approx(row.loss.loss / rows[0].loss.loss - 1)
        assert row.to_dict()["loss"]["loss"] == row.loss.loss
    assert rows[-1].flops == pytest.approx(4 * rows[0].flops)


def test_at_a_budget_no_other_size_beats_the_best_division() -> None:
    rows = what_if_budget(LAW, 1e22)
    best = rows[0]
    for row in rows[1:]:
        if row.change.startswith("same compute"):
            assert row.flops == pytest.approx(best.flops)
            assert row.difference > 0.0
        else:
            assert (row.difference < 0.0) == (row.flops > best.flops)


@pytest.mark.parametrize("factor", [0.0, -1.0, float("nan"), float("inf")])
def test_an_impossible_factor_is_refused(factor: float) -> None:
    with pytest.raises(TableError, match="factor must be positive"):
        what_if(LAW, 7e9, 2e12, factors=(factor,))
    with pytest.raises(TableError, match="factor must be positive"):
        what_if_budget(LAW, 1e22, factors=(factor,))
