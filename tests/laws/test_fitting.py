"""Fitting by name: the right class, table and refusals (planted truths: cli/test_laws_fit)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from isoflop.core.errors import TableError
from isoflop.laws import fit, read_for
from isoflop.laws.families import ENTRIES, check_options
from isoflop.laws.hyperparameters import HyperparameterLaw
from isoflop.laws.load import HOMES, SURFACES
from isoflop.laws.power import PowerLaw
from isoflop.laws.predict import Law
from isoflop.laws.records import RunTable
from isoflop.laws.tables import FigureTable, MixtureTable
from isoflop.laws.tasks import TaskLaw

N, D = (a.ravel() for a in np.meshgrid(np.geomspace(1e7, 1e9, 5), np.geomspace(1e9, 1e11, 5)))
LOSS = 1.7 + 400 * N**-0.34 + 400 * D**-0.3


def test_the_form_decides_the_class() -> None:
    table = RunTable.from_arrays(N, D, LOSS)
    for form in SURFACES:
        law = fit(table, form, bootstrap=100)
        assert isinstance(law, Law)
        assert law.form == form
    assert isinstance(fit(table, "kaplan-n", floor="none", bootstrap=100), PowerLaw)


def test_chinchilla_is_what_is_fitted_when_no_form_is_named() -> None:
    assert fit(RunTable.from_arrays(N, D, LOSS), bootstrap=100).form == "chinchilla"


def test_a_sweep_in_a_run_table_is_fitted_as_one() -> None:
    rate = 2.0 * N**-0.5
    rates, loss = [], []
    for off in (-1.0, -0.5, 0.0, 0.5, 1.0):
        rates.append(rate * np.exp(off))
        loss.append(LOSS * np.exp(0.01 * off**2))
    table = RunTable.from_arrays(
        np.tile(N, 5), np.tile(D, 5), np.concatenate(loss), learning_rate=np.concatenate(rates)
    )
    law = fit(table, "hyperparameters", bootstrap=50)
    assert isinstance(law, HyperparameterLaw)
    assert law.parameters["lr_N"] == pytest.approx(-0.5, abs=1e-6)
    assert law.noise["curvature"][0][0] == pytest.approx(0.02, rel=1e-3)
    of_compute = fit(table, "hyperparameters", bootstrap=50, of="flops")
    assert set(of_compute.parameters) == {"lr_0", "lr_C"}


def test_several_rates_without_a_loss_say_nothing() -> None:
    table = FigureTable(
        {"params": np.tile(N, 2), "tokens": np.tile(D, 2), "learning_rate": np.arange(1.0, 51.0)}
    )
    with pytest.raises(TableError, match="no loss says which is best"):
        fit(table, "hyperparameters")


def test_scores_come_from_the_metrics_of_a_run_table() -> None:
    score = 0.25 + 0.6 / (1.0 + np.exp(4.0 * (LOSS - 2.6)))
    holed = np.where(np.arange(len(score)) % 5 == 0, np.nan, score)
    table = RunTable.from_arrays(N, D, LOSS, metrics={"arc": score, "copa": holed})
    law = fit(table, "loss-to-task", task="metric:copa", bootstrap=100)
    assert isinstance(law, TaskLaw)
    assert law.n_runs == 20
    assert law.curve(2.4)[0] == pytest.approx(0.25 + 0.6 / (1 + np.exp(-0.8)), abs=0.01)
    for task, message in (("boolq", "no scores metric:boolq"), (None, "say which scores")):
        with pytest.raises(TableError, match=message) as caught:
            fit(table, "loss-to-task", task=task)
        assert caught.value.fix == "Its columns of scores: metric:arc, metric:copa"


@pytest.mark.parametrize("form", ["curve", "mixture", "experts", "quantisation"])
def test_a_run_table_is_not_what_other_forms_take(form: str) -> None:
    with pytest.raises(TableError, match=f"the form {form} takes a table of"):
        fit(RunTable.from_arrays(N, D, LOSS), form)


def test_a_form_that_does_not_exist_gets_the_nearest_name() -> None:
    with pytest.raises(TableError, match="there is no form 'chinchila'") as caught:
        fit(RunTable.from_arrays(N, D, LOSS), "chinchila")
    assert caught.value.fix is not None
    assert caught.value.fix.startswith("Did you mean chinchilla? They are auto, gamma")


def test_every_option_is_refused_by_the_forms_that_lack_it() -> None:
    options = {option for entry in ENTRIES.values() for option in entry.options}
    assert options == {
        "priors", "floor", "base", "warmup_steps", "of", "task", "chance", "task_curve",
    }  # fmt: skip
    for form, entry in ENTRIES.items():
        for option in options:
            if option in entry.options:
                check_options(form, None, {option: 1})
            else:
                with pytest.raises(TableError, match=f"the form {form} takes no"):
                    check_options(form, None, {option: 1})


def test_the_source_of_every_table_reaches_the_law(tmp_path: Path) -> None:
    path = tmp_path / "mixtures.csv"
    shares = np.random.default_rng(0).dirichlet(np.ones(2), size=8)
    rows = [f"{a},{b},{2 + np.exp(-a)}" for a, b in shares]
    path.write_text("\n".join(["weight:web,weight:code,loss:web", *rows, "0.5,0.5,"]))
    table = read_for("mixture", [path])
    assert isinstance(table, MixtureTable)
    law = fit(table, "mixture", bootstrap=50)
    assert [entry["path"] for entry in law.source] == [str(path)]
    assert law.warnings[-1] == f"1 row left out: {path}:10: loss:web is missing"


def test_every_form_has_a_home_for_its_laws() -> None:
    assert set(ENTRIES) == {*HOMES, *SURFACES}
