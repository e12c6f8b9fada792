"""`isoflop laws fit` of every form: planted truth, fitted, saved, read back and asked."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args
from xml.etree import ElementTree

import numpy as np
import pytest

from isoflop.cli.laws_fit import Form, parse_columns
from isoflop.cli.main import main
from isoflop.core.errors import RecipeError
from isoflop.laws import load_law
from isoflop.laws.families import ENTRIES

E, A, B, EXPONENT = 1.7, 400.0, 400.0, 0.3
BUDGETS = np.geomspace(1e17, 1e20, 7)
SIZES, HORIZONS = np.geomspace(1e7, 6.4e8, 4), np.geomspace(5e8, 6.4e10, 4)


def _surface(params: Any, tokens: Any) -> Any:
    return E + A * params**-EXPONENT + B * tokens**-EXPONENT


def _noise(count: int, size: float = 0.001, seed: int = 0) -> np.ndarray:
    return np.asarray(np.exp(size * np.random.default_rng(seed).standard_normal(count)))


def _table(header: str, *columns: Any) -> str:
    rows = (",".join(f"{value:.10g}" for value in row) for row in zip(*columns, strict=True))
    return "\n".join([header, *rows, ""])


def _grid(*axes: Any) -> list[np.ndarray]:
    return [axis.ravel() for axis in np.meshgrid(*axes, indexing="ij")]


def _runs() -> str:
    n, d = _grid(SIZES, HORIZONS)
    return _table("params,tokens,loss", n, d, _surface(n, d) * _noise(n.size))


def _floorless(params: Any, tokens: Any) -> Any:
    """Kaplan et al. 2020, eq. 1.5."""
    return ((8.8e13 / params) ** (0.076 / 0.095) + 5.4e13 / tokens) ** 0.095


def _tiny_runs() -> str:
    n, d = _grid(SIZES, HORIZONS)
    return _table("params,tokens,loss", n, d, _floorless(n, d) * _noise(n.size))


def _isoflop() -> str:
    """Seven budgets, nine sizes each; equal exponents and A = B make N_opt = (C/6)^(1/2)."""
    share, c = _grid(np.geomspace(0.25, 4.0, 9), BUDGETS)
    n = share * np.sqrt(c / 6)
    d = c / 6 / n
    return _table("params,tokens,loss", n, d, _surface(n, d) * _noise(n.size, 2e-4))


def _power(scale: float, alpha: float, axis: np.ndarray) -> np.ndarray:
    return np.asarray((1.5 + (scale / axis) ** alpha) * _noise(axis.size, 3e-4))


def _of_size() -> str:
    n = np.geomspace(1e6, 1e9, 9)
    return _table("params,tokens,loss", n, np.full(9, 1e12), _power(2e7, 0.3, n))


def _of_data() -> str:
    d = np.geomspace(1e8, 1e11, 9)
    return _table("params,tokens,loss", np.full(9, 1e12), d, _power(2e9, 0.3, d))


def _of_compute() -> str:
    n = np.geomspace(1e6, 1e9, 10)
    return _table("params,tokens,loss", n, 20 * n, _power(1e17, 0.15, 120 * n * n))


def _repeated() -> str:
    """Muennighoff et al. 2023, eq. 5, with sizes below the best for the unique tokens."""
    n, u, epochs = _grid(SIZES, [4e9, 1.6e10, 6.4e10], [1, 4, 16, 64])
    fresh = u + u * 15.0 * (1.0 - np.exp(-(epochs - 1.0) / 15.0))
    loss = _surface(n, fresh) * _noise(n.size, 3e-4)
    return _table("params,tokens,unique_tokens,loss", n, epochs * u, u, loss)


def _curves() -> str:
    """Two schedules of steps: constant, and one fall to a fifth; see `schedule_terms`."""
    step = np.arange(200.0, 10_001.0, 100.0)
    flat = 2.5 + 20.0 * step**-0.5
    fallen = np.maximum(step - 6000.0, 0.0)
    clock = np.minimum(step, 6000.0) + fallen * 0.2**0.5
    gain = 0.3 * 0.8 * (1.0 - (1.0 + 0.004 * fallen * 0.2**0.5) ** -1.5)
    staged = 2.5 + 20.0 * clock**-0.5 - gain
    rows = [f"flat,{t:g},1e-3,{loss:.8f}" for t, loss in zip(step, flat, strict=True)]
    for t, loss in zip(step, staged, strict=True):
        rows.append(f"staged,{t:g},{1e-3 if t <= 6000 else 2e-4:g},{loss:.8f}")
    return "\n".join(["run_id,step,lr,loss", *rows, ""])


def _sweep() -> str:
    n, d, off = _grid(SIZES[:3], HORIZONS[:3], np.linspace(-1.2, 1.2, 7))
    rate = 2.0 * n**-0.5 * d**0.1 * np.exp(off)
    loss = _surface(n, d) * np.exp(0.01 * off**2)
    return _table("params,tokens,learning_rate,loss", n, d, rate, loss)


def _mixtures() -> str:
    shares = np.random.default_rng(1).dirichlet(np.ones(3), size=16)
    slopes = np.array([[-1.0, 0.2, 0.1], [0.3, -1.5, 0.2]])
    losses = (2.0 + np.exp(shares @ slopes.T)) * _noise(32, 3e-4).reshape(16, 2)
    return _table("weight:web,weight:code,weight:books,loss:web,loss:code", *shares.T, *losses.T)


def _scores() -> str:
    loss = np.linspace(2.2, 3.6, 24)
    score = 0.25 + 0.65 / (1.0 + np.exp(4.0 * (loss - 2.6)))
    score += 0.004 * np.random.default_rng(2).standard_normal(24)
    return _table("val_loss,acc", loss, score)


def _experts() -> str:
    n, d, e = _grid([1e8, 4e8, 1.6e9], [4e9, 1.6e10, 6.4e10], [1.0, 4.0, 16.0])
    loss = _expert_loss(n, d, e) * _noise(n.size, 5e-4)
    return _table("params,tokens,experts,loss", n, d, e, loss)


def _expert_loss(n: Any, d: Any, e: Any) -> Any:
    """Ludziejewski et al. 2025, eq. 4 and 6 with the constants of their table 3."""
    helpful = 1 / (1 / (e - 1 + 1 / (1 / 2.0732 - 1 / 290.4521)) + 1 / 290.4521)
    ln = np.log(helpful)
    size = 35.91 * helpful**-0.2285 * n ** (-0.1889 + 0.0098 * ln)
    return size + 35.98 * helpful**0.5529 * d ** (-0.1775 - 0.0259 * ln) + 1.3637


def _precision() -> str:
    n, d, bits = _grid(SIZES[:3], HORIZONS[:3], [3.0, 4.0, 6.0, 8.0, 16.0])
    loss = _surface(n * (1 - np.exp(0.3 - bits / 2.7)), d) * _noise(n.size, 5e-4)
    return _table("params,tokens,bits,loss", n, d, bits, loss)


def _quantised() -> str:
    n, d, bits = _grid(SIZES[:3], HORIZONS[:3], [3.0, 4.0, 5.0])
    added = 0.1 * d**0.5 / n**0.4 * np.exp(-bits / 0.6)
    return _table("params,tokens,bits,added_loss", n, d, bits, added * _noise(n.size, 0.02))


@dataclass(frozen=True)
class Case:
    """A table of planted truth, and what is asked of the law fitted to it."""

    table: Callable[[], str]
    fit: str
    ask: str
    truth: float
    at: str = "loss"
    """Where the answer is in the document: `loss`, or a dotted path to an estimate."""
    near: float = 0.01


AHEAD = "predict --params 2e9 --tokens 2e11"
SURFACE = Case(_runs, "--bootstrap 200", AHEAD, float(_surface(2e9, 2e11)))
CASES: dict[str, Case] = {
    "chinchilla": SURFACE,
    "gamma": SURFACE,
    "auto": SURFACE,
    "kaplan-nd": Case(_tiny_runs, "--bootstrap 200", AHEAD, float(_floorless(2e9, 2e11))),
    "kaplan-n": Case(_of_size, "--floor fit", "predict --params 5e9", 1.5 + (2e7 / 5e9) ** 0.3),
    "kaplan-d": Case(_of_data, "", "predict --tokens 5e11", 1.5 + (2e9 / 5e11) ** 0.3),
    "kaplan-c": Case(_of_compute, "", "predict --flops 1e21", 1.5 + (1e17 / 1e21) ** 0.15),
    "frontier": Case(
        _isoflop, "", "predict --flops 1e21", float(_surface(*[np.sqrt(1e21 / 6)] * 2))
    ),
    "isoflop": Case(
        _isoflop, "", "optimal --flops 1e21", float(np.sqrt(1e21 / 6)), at="params", near=0.03
    ),
    "data-constrained": Case(
        _repeated,
        "--bootstrap 60",
        "predict --params 1e8 --tokens 1.6e11 --unique-tokens 1.6e10",
        float(_surface(1e8, 1.6e10 * (1 + 15 * (1 - np.exp(-9 / 15))))),
    ),
    "curve": Case(
        _curves,
        "--columns learning_rate=lr",
        "predict --schedule constant --steps 30000 --learning-rate 1e-3",
        2.5 + 20.0 * 30_000**-0.5,
    ),
    "hyperparameters": Case(
        _sweep,
        "--bootstrap 60",
        "predict --params 2e9 --tokens 2e11",
        2.0 * 2e9**-0.5 * 2e11**0.1,
        at="learning_rate",
    ),
    "mixture": Case(
        _mixtures,
        "--bootstrap 60",
        "predict --weights web=0.2,code=0.3,books=0.5",
        2.0 + float(np.exp(-0.2 + 0.06 + 0.05)),
        at="losses.web",
    ),
    "loss-to-task": Case(
        _scores,
        "--task acc --chance 0.25 --columns loss=val_loss --bootstrap 200",
        "predict --loss 2.1",
        0.25 + 0.65 / (1.0 + float(np.exp(-2.0))),
        at="",
        near=0.05,
    ),
    "experts": Case(
        _experts,
        "--bootstrap 60",
        "predict --params 3e9 --tokens 1e11 --experts 8",
        float(_expert_loss(3e9, 1e11, 8.0)),
    ),
    "precision": Case(
        _precision,
        "--bootstrap 60",
        "predict --params 1e9 --tokens 1e11 --bits 5",
        float(_surface(1e9 * (1 - np.exp(0.3 - 5 / 2.7)), 1e11)),
    ),
    "quantisation": Case(
        _quantised,
        "--bootstrap 60",
        "predict --params 1e9 --tokens 1e11 --bits 4",
        0.1 * 1e11**0.5 / 1e9**0.4 * float(np.exp(-4 / 0.6)),
        at="",
        near=0.1,
    ),
}


def _run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, dict[str, Any]]:
    status = main(["laws", *words, "--json"])
    document = json.loads(capsys.readouterr().out)
    assert isinstance(document, dict)
    return status, document


def test_there_is_a_case_for_every_form() -> None:
    assert set(CASES) == set(ENTRIES) == set(get_args(Form))


@pytest.mark.parametrize("form", CASES)
def test_a_form_is_fitted_saved_read_and_asked(
    form: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    case = CASES[form]
    table, out = tmp_path / "table.csv", tmp_path / "law.json"
    table.write_text(case.table())
    status, fitted = _run(capsys, "fit", str(table), "--form", form, "-o", str(out),
                          "--plot", str(tmp_path / "law.svg"), *case.fit.split())  # fmt: skip
    assert status == 0, fitted["verdict"]
    saved = json.loads(out.read_text())
    assert fitted == saved
    assert list(fitted)[:8] == [
        "form", "formula", "parameters", "stderr", "draws", "noise", "objective", "n_runs",
    ]  # fmt: skip
    assert [entry["path"] for entry in fitted["source"]] == [str(table)]
    assert load_law(out).to_dict() == fitted
    assert ElementTree.parse(tmp_path / "law.svg").getroot().tag.endswith("svg")

    word, *asked = case.ask.split()
    if word == "predict" and form != "mixture":
        asked += ["--plot", str(tmp_path / "forecast.html")]
    status, answer = _run(capsys, word, str(out), *asked)
    assert status == 0
    if "--plot" in asked:
        assert "</svg></body>" in (tmp_path / "forecast.html").read_text().replace("\n", "")
    if case.at == "loss":
        assert list(answer)[:5] == ["loss", "low", "high", "level", "extrapolation"]
        assert list(answer["extrapolation"])[:3] == (
            ["params", "tokens", "flops"] if form != "curve" else ["steps", "learning_rate"]
        )
        value = answer["loss"]
    elif case.at == "params":
        assert answer["loss"]["loss"] is None
        assert answer["params"] == pytest.approx(case.truth, rel=case.near)
        return
    else:
        for key in filter(None, case.at.split(".")):
            answer = answer[key]
        value = answer["value"]
    assert value == pytest.approx(case.truth, rel=case.near)
    assert answer["low"] - 1e-4 * value <= case.truth <= answer["high"] + 1e-4 * value


@pytest.mark.parametrize("form", [form for form in CASES if form != "gamma"])
def test_the_text_of_a_fit_is_short_and_ends_with_the_verdict(
    form: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = tmp_path / "table.csv"
    table.write_text(CASES[form].table())
    main(["laws", "fit", str(table), "--form", form, *CASES[form].fit.split()])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(f"{form}: ")
    assert lines[-1].startswith("verdict: ")
    assert len(lines) < 40


def test_a_curve_may_begin_with_the_loss_before_training(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    header, *rows = _curves().split()
    fits = []
    for more in ([], ["flat,0,1e-3,11.0", "staged,0,1e-3,11.0"]):
        table = tmp_path / "curves.csv"
        table.write_text("\n".join([header, *more, *rows]))
        words = ["fit", str(table), "--form", "curve", "--columns", "learning_rate=lr"]
        fits.append(_run(capsys, *words)[1]["parameters"])
    assert fits[1] == pytest.approx(fits[0], rel=1e-3)


def test_hyperparameters_are_fitted_to_a_table_of_optima_without_losses(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    n, d = _grid(SIZES, HORIZONS)
    table = tmp_path / "optima.csv"
    columns = (n, d, 2.0 * n**-0.5 * d**0.1, 1e-3 * d**0.8)
    table.write_text(_table("params,tokens,learning_rate,batch_tokens", *columns))
    status, fitted = _run(capsys, "fit", str(table), "--form", "hyperparameters")
    assert status == 0
    assert fitted["parameters"]["lr_N"] == pytest.approx(-0.5, abs=1e-6)
    assert fitted["parameters"]["batch_D"] == pytest.approx(0.8, abs=1e-6)


def test_a_base_surface_is_held_fixed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table, base = tmp_path / "table.csv", tmp_path / "base.json"
    table.write_text(_runs())
    main(["laws", "fit", str(table), "--bootstrap", "100", "-o", str(base)])
    table.write_text(_repeated())
    capsys.readouterr()
    words = ["fit", str(table), "--form", "data-constrained", "--bootstrap", "60", "--base"]
    _, fitted = _run(capsys, *words, str(base))
    assert fitted["parameters"]["E"] == json.loads(base.read_text())["parameters"]["E"]
    assert fitted["parameters"]["R_D*"] == pytest.approx(15.0, rel=0.2)
    assert main(["laws", *words, "deepseek"]) == 2
    assert "no surface of fresh data" in capsys.readouterr().err


def test_without_priors_another_law_is_fitted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = tmp_path / "table.csv"
    table.write_text(_runs())
    words = ["fit", str(table), "--form", "gamma", "--bootstrap", "100"]
    fits = [_run(capsys, *words, *more)[1]["parameters"] for more in ([], ["--no-priors"])]
    assert fits[0] != fits[1]


def test_several_tables_are_put_together(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    header, *rows = _sweep().split()
    halves = [tmp_path / "a.csv", tmp_path / "b.csv"]
    for path, half in zip(halves, (rows[:28], rows[28:]), strict=True):
        path.write_text("\n".join([header, *half]))
    words = ["fit", *map(str, halves), "--form", "hyperparameters", "--bootstrap", "60"]
    _, fitted = _run(capsys, *words)
    assert [entry["path"] for entry in fitted["source"]] == list(map(str, halves))
    assert fitted["parameters"]["lr_N"] == pytest.approx(-0.5, abs=1e-4)


def test_rows_left_out_are_said_and_kept_in_the_law(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = tmp_path / "table.csv"
    table.write_text(_scores() + "2.5,many\n")
    words = ["laws", "fit", str(table), "--form", "loss-to-task", "--task", "acc"]
    main([*words, "--columns", "loss=val_loss", "--bootstrap", "100", "--json"])
    said = capsys.readouterr()
    assert f"{table}:26: left out, score is 'many', not a number" in said.err
    assert any("1 row left out" in warning for warning in json.loads(said.out)["warnings"])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--floor fit", "floor: the form chinchilla takes no floor. It belongs to kaplan-n"),
        ("--form gamma --task acc", "the form gamma takes no task. It belongs to loss-to-task"),
        ("--form curve --no-priors", "the form curve takes no priors"),
        ("--form mixture --objective lad", "the form mixture has no objective 'lad'"),
        ("--form data-constrained --objective lad", "Choose one of huber, lsq"),
        ("--form curve", "the table has no column step, learning_rate"),
        ("--form mixture", "0 columns weight:NAME and 0 columns loss:NAME"),
        ("--form experts", "the table has no column experts"),
        ("--form loss-to-task", "--task: say which column holds the scores"),
        ("--form loss-to-task --task metric:copa", "the table has no column metric:copa"),
        ("--form data-constrained", "no run repeats its data"),
        ("--form hyperparameters", "the table has no column learning_rate"),
        ("--form isoflop", "0 groups of at least 4 sizes at equal compute"),
        ("--columns N", "--columns: 'N' does not say which column is which"),
        ("--form experts --columns size=params", "size is no column that this form reads"),
    ],
)
def test_what_a_form_cannot_take_is_refused_in_one_paragraph(
    words: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = tmp_path / "table.csv"
    table.write_text(_runs())
    assert main(["laws", "fit", str(table), *words.split()]) == 2
    said = capsys.readouterr()
    assert message in " ".join(said.err.split())
    assert said.out == ""
    assert len(said.err.splitlines()) == 1


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("params,tokens,loss\n", "the table has no rows"),
        ("params,tokens,loss\n1e6,-5,3\n", "tokens is -5, which is not positive"),
        ("params,tokens,loss\n" + "1e6,1e8,30\n" * 9, "this looks like perplexity"),
        ("params,tokens,loss\n1e6,1e8,3\n2e6,2e8,2.9\n", "2 usable runs cannot determine"),
        (
            "params,tokens,loss\n" + "\n".join(f"1e6,{d}e8,{3 - d / 20}" for d in range(1, 9)),
            "all runs have the same size",
        ),
    ],
)
def test_a_table_that_supports_nothing_is_an_error_and_no_law(
    table: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, out = tmp_path / "table.csv", tmp_path / "law.json"
    path.write_text(table)
    assert main(["laws", "fit", str(path), "-o", str(out)]) == 2
    assert message in capsys.readouterr().err
    assert not out.exists()


def test_columns_are_parsed_or_refused() -> None:
    assert parse_columns(" params = N, tokens=D,") == {"params": "N", "tokens": "D"}
    with pytest.raises(RecipeError, match="does not say which column"):
        parse_columns("params")


def test_the_help_names_the_table_of_every_form(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["laws", "fit", "--help"]) == 0
    said = " ".join(capsys.readouterr().out.replace("│", " ").split())
    for entry in ENTRIES.values():
        missing = [name for name in (*entry.required, *entry.optional) if name not in said]
        assert missing in ([], ["score"])
    for form in ENTRIES:
        assert form in said


def test_a_picture_of_an_unknown_kind_is_refused_before_the_fit(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["laws", "fit", "nowhere.csv", "--plot", str(tmp_path / "law.png")]) == 2
    assert "End it in .svg or .html" in capsys.readouterr().err


def test_a_forecast_that_has_no_picture_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table, out = tmp_path / "table.csv", tmp_path / "law.json"
    table.write_text(_mixtures())
    main(["laws", "fit", str(table), "--form", "mixture", "--bootstrap", "60", "-o", str(out)])
    words = [
        "predict",
        str(out),
        "--weights",
        "web=0.5,code=0.5",
        "--plot",
        str(tmp_path / "a.svg"),
    ]
    assert main(["laws", *words]) == 2
    assert "nothing to draw" in capsys.readouterr().err
    assert not (tmp_path / "a.svg").exists()
