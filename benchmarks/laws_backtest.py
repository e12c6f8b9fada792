"""Backtests of the laws over public tables of runs: fit up to 1/5, 1/10, 1/30 of the largest
compute, score the rest.

Usage: python benchmarks/laws_backtest.py DATA [--calibrate FILE] [--forms chinchilla,gamma,auto]
       python benchmarks/laws_backtest.py DATA --sizes

DATA is the folder of public tables (chinchilla.csv, porian_isoflop.csv, ...). Every row of the
table printed is one table at one cut: the runs fitted and scored, then for each form the median
error, its bias, the share of outcomes inside the 90 % interval, the interval's median width and the
interval score, all in percent of the loss. With `auto`, intervals are those of a calibration that
has seen no table of the same source ("left out"). --calibrate writes the calibration over all
tables; it is how the package's calibration.json is made. --sizes scores approach 2's best sizes
alone (seconds) and fits the drift of its exponent to the configurations of either corpus.
"""

from __future__ import annotations

import argparse
import csv
import datetime
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from scipy.special import stdtrit

from isoflop.core.errors import IsoflopError, TableError
from isoflop.laws import Law, RunTable, fit
from isoflop.laws.backtest import Backtest, compute, score, split
from isoflop.laws.calibration import Calibration, Trial, calibrate, trial
from isoflop.laws.frontier import fit_frontier
from isoflop.laws.isoflop import (
    EXPONENT_DRIFT,
    FEWEST_SLICES,
    Exponents,
    exponents_of,
    minima,
)

CUTS = (5.0, 10.0, 30.0)
LEVEL = 0.9
DRAWS = 400
HORIZONS = 10
MPL_BATCH_TOKENS = 5e5
Row = Mapping[str, str]


@dataclass(frozen=True)
class Public:
    """One table of a source."""

    name: str
    source: str
    table: RunTable


def read(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV file."""
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def public_tables(data: Path) -> list[Public]:
    """Every usable table of the folder, as its README says to read them."""
    found = [_public("chinchilla", read(data / "chinchilla.csv"), keep=_kept_by_besiroglu)]
    porian = read(data / "porian_isoflop.csv")
    for config in sorted({r["config"] for r in porian}):
        found.append(_public("porian", [r for r in porian if r["config"] == config], name=config))
    gadre = read(data / "gadre_overtrain.csv")
    for corpus in sorted({r["dataset"] for r in gadre}):
        rows = [r for r in gadre if r["dataset"] == corpus]
        found.append(_public("gadre", rows, name=corpus, loss="loss_c4_val"))
    found.append(
        _public(
            "muennighoff", read(data / "muennighoff_data_constrained.csv"), keep=_hardly_repeated
        )
    )
    found.append(_public("oellm", read(data / "oellm_best_hp.csv")))
    found.append(_public("misfitting", _best_rate(read(data / "misfitting_dense_lr_sweep.csv"))))
    found.append(_public("mpl", _constant_rate(read(data / "mpl_lr_schedule_curves.csv"))))
    return found


def _public(
    source: str,
    rows: Sequence[Row],
    *,
    name: str = "",
    loss: str = "loss",
    keep: Callable[[Row], bool] = lambda row: True,
) -> Public:
    kept = [r for r in rows if r[loss] and keep(r)]
    columns = ([float(r[key]) for r in kept] for key in ("N", "D", loss))
    table = RunTable.from_arrays(*columns, run_id=[r.get("run_id") or "run" for r in kept])
    return Public(f"{source} {name}".strip(), source, table)


def _kept_by_besiroglu(row: Row) -> bool:
    return row["excluded_by_besiroglu"] != "1"


def _hardly_repeated(row: Row) -> bool:
    """Up to four epochs are as good as fresh data (Muennighoff et al. 2023)."""
    return bool(row["epochs"]) and float(row["epochs"]) <= 4.0


def _best_rate(rows: Sequence[Row]) -> list[Row]:
    """The best learning rate at each (N, D)."""
    best: dict[tuple[str, str], Row] = {}
    for row in rows:
        key = (row["N"], row["D"])
        if (
            row["loss"]
            and row["D"]
            and float(row["loss"]) < float(best.get(key, {"loss": "inf"})["loss"])
        ):
            best[key] = row
    return list(best.values())


def _constant_rate(rows: Sequence[Row]) -> list[Row]:
    """Points along the constant-rate curves: each is the end of a constant-rate run."""
    picked = []
    for size in ("25M", "100M", "400M"):
        curve = [r for r in rows if r["run_id"] == f"{size}_constant_72000"]
        steps = np.array([float(r["step"]) for r in curve])
        for wanted in np.geomspace(4000.0, steps.max(), HORIZONS):
            row = curve[int(np.argmin(np.abs(steps - wanted)))]
            params, tokens = float(size[:-1]) * 1e6, float(row["step"]) * MPL_BATCH_TOKENS
            picked.append({"N": str(params), "D": str(tokens), "loss": row["loss"]})
    return picked


def median_of(rows: Sequence[Backtest], what: str) -> float:
    return float(np.median([getattr(r, what) for r in rows]))


def mean_of(rows: Sequence[Backtest], what: str) -> float:
    return float(np.mean([getattr(r, what) for r in rows]))


def cell(one: Backtest) -> str:
    """One form's figures."""
    return (
        f"{one.median_error_percent:6.2f} {one.bias_percent:+6.2f} {100 * one.coverage:4.0f} "
        f"{2 * one.median_half_width_percent:6.2f} {one.interval_score_percent:6.1f}"
        f"{' ' if one.verdict == 'supported' else '*'}"
    )


def frontier_errors(tables: Sequence[Public], cut: float) -> list[tuple[str, float]]:
    """Median error of the frontier at the compute-optimal points beyond the cut, per table."""
    found = []
    for public in tables:
        small, _ = split(public.table, cut=cut)
        try:
            truth, _ = minima(public.table)
            law = fit_frontier(small, bootstrap=100)
        except TableError:
            continue
        limit = float(compute(small).max()) * 1.05
        errors = [abs(law.predict(m.flops).loss / m.loss - 1.0) for m in truth if m.flops > limit]
        if errors:
            found.append((public.name, 100.0 * float(np.median(errors))))
    return found


def sizes_line(
    tables: Sequence[Public],
    cut: float,
    laws: Mapping[tuple[str, float, str], tuple[Law, RunTable, float]],
) -> str:
    """How far `auto` is off the best sizes of the IsoFLOP slices beyond the cut."""
    off, half, held = [], [], []
    for public in tables:
        law, _, largest = laws[public.name, cut, "auto"]
        try:
            truth, _ = minima(public.table)
        except TableError:
            continue
        for minimum in truth:
            if minimum.flops <= 1.05 * largest:
                continue
            best = law.optimal(minimum.flops, LEVEL)
            low, high = best.params_ends or (best.params, best.params)
            off.append(abs(np.log(best.params / minimum.params)))
            half.append(0.5 * np.log(high / low))
            held.append(low <= minimum.params <= high)
    return (
        f"  best sizes  median error {100 * np.median(off):.0f} % over {len(off)} minima, held "
        f"{100 * np.mean(held):.0f} %, half-width {100 * np.median(half):.0f} %"
    )


@dataclass(frozen=True)
class Size:
    """A slice's best size beyond the cut, foretold by the regression through the cheaper slices."""

    name: str
    line: Exponents
    flops: float
    off: float
    """ln of foretold over found."""

    def held(self, drift: float) -> bool:
        """Whether the interval with this drift holds it."""
        return abs(self.off) <= self.half(drift)

    def half(self, drift: float) -> float:
        """Half the width of its interval, in ln."""
        low, high = self.line.ends(self.flops, LEVEL, drift) or (1.0, np.inf)
        return 0.5 * float(np.log(high / low))


def sizes_beyond(tables: Sequence[Public]) -> list[Size]:
    """Every best size beyond every cut."""
    found = []
    for public in tables:
        for cut in CUTS:
            small, _ = split(public.table, cut=cut)
            try:
                truth, _ = minima(public.table)
                cheaper, _ = minima(small)
            except TableError:
                continue
            if len(cheaper) < FEWEST_SLICES:
                continue
            line = exponents_of(cheaper)
            for one in truth:
                if one.flops > 1.05 * line.largest:
                    off = np.log(line.coefficient * one.flops**line.a / one.params)
                    found.append(Size(public.name, line, one.flops, float(off)))
    return found


def likeliest_drift(found: Sequence[Size]) -> float:
    """The drift of the exponent under which the errors are likeliest, taken for normal."""
    student = [stdtrit(s.line.points - 2, 0.5 + LEVEL / 2.0) for s in found]
    own = np.array([s.half(0.0) for s in found]) / np.array(student)
    off, far = (
        np.array([f(s) for s in found])
        for f in (lambda s: s.off, lambda s: np.log(s.flops / s.line.largest))
    )
    tried = np.linspace(0.0, 0.2, 401)
    variance = own**2 + (tried[:, None] * far) ** 2
    return float(tried[np.argmin(np.sum(np.log(variance) + off**2 / variance, axis=1))])


def print_sizes(tables: Sequence[Public]) -> None:
    """Approach 2's best sizes: every corpus with the drift of the other."""
    found = sizes_beyond(tables)
    corpora = {
        "OpenWebText2": [s for s in found if s.name.startswith("porian owt2")],
        "RefinedWeb": [s for s in found if s.name.startswith("porian rw")],
    }
    drifts = {name: likeliest_drift(sizes) for name, sizes in corpora.items()}
    print(f"likeliest drift of the exponent: {drifts}; shipped {EXPONENT_DRIFT}")
    other = {"OpenWebText2": "RefinedWeb", "RefinedWeb": "OpenWebText2"}
    scored = [(n, drifts[other[n]], sizes) for n, sizes in corpora.items()]
    for name, drift, sizes in [*scored, ("all", 0.0, found), ("all", EXPONENT_DRIFT, found)]:
        print(
            f"{name:13s} drift {drift:.3f}: {len(sizes)} best sizes, median error "
            f"{100 * np.median([abs(s.off) for s in sizes]):.1f} %, held "
            f"{100 * np.mean([s.held(drift) for s in sizes]):.0f} %, median half-width "
            f"{100 * np.median([s.half(drift) for s in sizes]):.0f} %"
        )


def main(arguments: Sequence[str]) -> int:
    """Print the tables; see the module."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--calibrate", type=Path, metavar="FILE")
    parser.add_argument("--sizes", action="store_true")
    parser.add_argument("--forms", default="chinchilla,gamma,auto")
    asked = parser.parse_args(arguments)
    began = time.process_time()
    forms = asked.forms.split(",")
    try:
        tables = public_tables(asked.data)
        if asked.sizes:
            print_sizes(tables)
            return 0
        trials, laws = [], {}
        for public in tables:
            for cut in CUTS:
                small, large = split(public.table, cut=cut)
                for form in forms:
                    law = fit(small, form=form, bootstrap=DRAWS)
                    laws[public.name, cut, form] = (law, large, float(compute(small).max()))
                    if form == "auto":
                        trials.append(trial(law, large, public.name, public.source))
        calibrations = _leave_sources_out(trials) if trials else {}
        for cut in CUTS:
            _print_cut(tables, cut, forms, laws, calibrations)
    except IsoflopError as error:
        print(error.paragraph(), file=sys.stderr)
        return 2
    if asked.calibrate and trials:
        made = calibrate(trials, datetime.date.today().isoformat())
        made.save(asked.calibrate)
        print(f"\ncalibration: drift {made.drift:.5f}, widen {made.widen:.3f}")
    print(f"\n{time.process_time() - began:.0f} CPU-seconds; * marks an unsupported table")
    return 0


def _leave_sources_out(trials: Sequence[Trial]) -> dict[str, Calibration]:
    """For each source the calibration over the tables of all others."""
    return {
        source: calibrate([t for t in trials if t.source != source], "left out")
        for source in sorted({t.source for t in trials})
    }


def _print_cut(
    tables: Sequence[Public],
    cut: float,
    forms: Sequence[str],
    laws: Mapping[tuple[str, float, str], tuple[Law, RunTable, float]],
    calibrations: Mapping[str, Calibration],
) -> None:
    print(f"\nfitted up to 1/{cut:g} of the largest compute; per form:")
    print("median error %, bias %, held %, median width %, interval score %")
    head = " | ".join(f"{form:^34s}" for form in forms)
    print(f"{'table':47s} fit scored | {head}")
    scored: dict[str, list[Backtest]] = {form: [] for form in forms}
    for public in tables:
        cells = []
        for form in forms:
            law, large, largest = laws[public.name, cut, form]
            if form == "auto":
                seen = calibrations[public.source]
                noise = replace(law.noise, drift=seen.drift, widen=seen.widen)
                law = replace(law, noise=noise)
            one = score(law, large, LEVEL, largest)
            scored[form].append(one)
            cells.append(cell(one))
        print(f"{public.name:47s} {one.n_fit:3d} {one.n_held_out:6d} | {' | '.join(cells)}")
    for form in forms:
        rows = scored[form]
        print(
            f"  {form:11s} median error {median_of(rows, 'median_error_percent'):.2f} %, mean "
            f"{mean_of(rows, 'median_error_percent'):.2f} %, held "
            f"{100 * mean_of(rows, 'coverage'):.0f} %, median width "
            f"{2 * median_of(rows, 'median_half_width_percent'):.2f} %, interval score "
            f"{mean_of(rows, 'interval_score_percent'):.1f} %"
        )
    if {"chinchilla", "auto"} <= set(forms):
        worse = [
            (a.median_error_percent - c.median_error_percent, p.name)
            for a, c, p in zip(scored["auto"], scored["chinchilla"], tables, strict=True)
        ]
        print("  auto against chinchilla, worst table: {:+.2f} points ({})".format(*max(worse)))
    if "auto" in forms:
        print(sizes_line(tables, cut, laws))
    optimal = frontier_errors(tables, cut)
    if optimal:
        middle = float(np.median([error for _, error in optimal]))
        worst = max(optimal, key=lambda pair: pair[1])
        print(
            f"  frontier    median error {middle:.2f} % of the compute-optimal losses over "
            f"{len(optimal)} tables; worst {worst[1]:.2f} % ({worst[0]})"
        )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
