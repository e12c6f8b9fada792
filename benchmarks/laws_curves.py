"""Curve laws, runs in flight and collapse, measured on public curves; tables in Markdown.

Usage: python benchmarks/laws_curves.py LAWS_DATA [LADDER_DIRECTORY...]

LAWS_DATA is a folder with `mpl_lr_schedule_curves.csv` (curves of 25M, 100M and 400M parameters
under nine schedules, published with Luo et al. 2025). Ladder directories are checked for collapse.
"""

from __future__ import annotations

import csv
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from peers.curve_laws import PEERS, WARMUP, fit_peer

from isoflop.laws.collapse import LadderCurve, collapse, read_curves
from isoflop.laws.curve import CurveLaw, fit_curve
from isoflop.laws.curve_fit import Belief, Curve
from isoflop.laws.family import Estimate
from isoflop.laws.fit import fit
from isoflop.laws.in_flight import Watch, belief_of, watch
from isoflop.laws.records import RunTable
from isoflop.laws.schedule_terms import Schedule, terms

Array = NDArray[np.float64]
SIZES = {"25M": 25e6, "100M": 100e6, "400M": 400e6}
PUBLISHED = {"25M": 0.11, "100M": 0.14, "400M": 0.17}
TAIL = 5
"""Points at the end that count as the final loss."""
FITTED = ("cosine_24000", "constant_24000")
STAGES = ("wsdcon_3", "wsdcon_9", "wsdcon_18")


def read(folder: Path) -> dict[str, dict[str, Curve]]:
    """Curves by size and schedule."""
    points: dict[str, dict[str, list[tuple[float, float, float]]]] = {s: {} for s in SIZES}
    with open(folder / "mpl_lr_schedule_curves.csv", newline="") as file:
        for row in csv.DictReader(file):
            size = row["size_label"]
            name = row["run_id"].removeprefix(f"{size}_")
            cells = (float(row["step"]), float(row["lr"]), float(row["loss"]))
            points[size].setdefault(name, []).append(cells)
    found: dict[str, dict[str, Curve]] = {s: {} for s in SIZES}
    for size, runs in points.items():
        for name, rows in runs.items():
            step, rate, loss = np.array(rows).T
            found[size][name] = Curve(f"{size}_{name}", step, loss, Schedule(step, rate, WARMUP))
    return found


def end_of(curve: Curve) -> float:
    """The final loss, over the last few points."""
    return float(curve.loss[-TAIL:].mean())


def schedules_table(curves: dict[str, dict[str, Curve]]) -> list[str]:
    """Fitted on one cosine, one constant and one two-stage run; scored on the other six."""
    lines = [
        "| size | two-stage run | form | finals, mean | finals, worst | curves, mean | published |",
        "|---|---|---|---|---|---|---|",
    ]
    for size, runs in curves.items():
        for stage in STAGES:
            train = [runs[n] for n in (*FITTED, stage)]
            law = fit_curve(train)
            forms: dict[str, Callable[[Curve], Array]] = {
                "ours": lambda c, law=law: law.predict(c.schedule, c.step).loss  # type: ignore[misc]
            }
            if stage == "wsdcon_9":
                forms |= {name: fit_peer(name, train) for name in PEERS}
            for name, predict in forms.items():
                finals, whole = [], []
                for run, curve in runs.items():
                    if run in (*FITTED, stage):
                        continue
                    loss = predict(curve)
                    finals.append(100 * abs(loss[-TAIL:].mean() / end_of(curve) - 1))
                    whole.append(100 * np.abs(loss / curve.loss - 1).mean())
                lines.append(
                    f"| {size} | {stage} | {name} | {np.mean(finals):.3f} % | {max(finals):.2f} % "
                    f"| {np.mean(whole):.3f} % | {PUBLISHED[size]} % |"
                )
    return lines


def coverage_line(curves: dict[str, dict[str, Curve]]) -> str:
    """Share of held-out finals inside their 90 % intervals, and the intervals' width."""
    held, width = [], []
    for runs in curves.values():
        for stage in STAGES:
            law = fit_curve([runs[n] for n in (*FITTED, stage)])
            for run, curve in runs.items():
                if run not in (*FITTED, stage):
                    end = law.final(curve.schedule)
                    held.append(end.low <= end_of(curve) <= end.high)
                    width.append(50 * (end.high - end.low) / end.value)
    return (
        f"{sum(held)} of {len(held)} held-out finals lie in their 90 % intervals "
        f"({100 * np.mean(held):.0f} %), half-width {np.mean(width):.2f} %."
    )


# --- in flight


def beliefs(curves: dict[str, dict[str, Curve]]) -> dict[str, Belief]:
    """For each size, what the other two sizes say."""
    laws: dict[str, CurveLaw] = {s: fit_curve(list(r.values())) for s, r in curves.items()}
    return {
        size: belief_of(
            [laws[s] for s in laws if s != size],
            [SIZES[s] for s in laws if s != size],
            SIZES[size],
        )
        for size in curves
    }


def so_far(curve: Curve, progress: float) -> Curve:
    """The points within a share of the schedule's steps, at least three."""
    count = max(3, int(np.searchsorted(curve.step, progress * curve.schedule.end)))
    return Curve(curve.run_id, curve.step[:count], curve.loss[:count], curve.schedule)


def flight_table(
    curves: dict[str, dict[str, Curve]], known: dict[str, Belief], seed: int = 0
) -> list[str]:
    """Error of the forecast final by progress, with and without help."""
    lines = [
        "| progress | belief | promise | runs | mean | median | in 90 % | half-width | CPU |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    rng = np.random.default_rng(seed)
    for progress in (0.1, 0.25, 0.5, 0.75):
        for belief in ("two other sizes", "package's own"):
            for promised in (False, True):
                for longest in (False, True) if progress == 0.1 else (False,):
                    errors, held, widths, seconds = [], [], [], []
                    for size, runs in curves.items():
                        for name, curve in runs.items():
                            if longest and "72000" not in name:
                                continue
                            truth = end_of(curve)
                            given = _promise(truth, rng) if promised else None
                            part = so_far(curve, progress)
                            began = time.process_time()
                            fact = watch(
                                part,
                                belief=known[size] if belief == "two other sizes" else None,
                                promise=given,
                            )
                            seconds.append(time.process_time() - began)
                            errors.append(100 * abs(fact.final.value / truth - 1))
                            held.append(fact.final.low <= truth <= fact.final.high)
                            widths.append(
                                50 * (fact.final.high - fact.final.low) / fact.final.value
                            )
                    lines.append(
                        f"| {100 * progress:.0f} % | {belief} | {'± 1 %' if promised else 'none'} "
                        f"| {'the six of 72,000 steps' if longest else len(errors)} "
                        f"| {np.mean(errors):.2f} % | {np.median(errors):.2f} % "
                        f"| {100 * np.mean(held):.0f} % | {np.mean(widths):.2f} % "
                        f"| {1e3 * np.median(seconds):.0f} ms |"
                    )
    return lines


def _promise(truth: float, rng: np.random.Generator) -> Estimate:
    """A law's promise with an honest 90 % interval of ± 1 %."""
    value = truth * float(np.exp(0.01 / 1.645 * rng.normal()))
    return Estimate(value, value * np.exp(-0.01), value * np.exp(0.01), 0.9)


def fly(curve: Curve, belief: Belief | None, target: float, every: float = 0.04) -> list[Watch]:
    """Every update of a run from 6 % to 98 % of its steps."""
    moments = np.arange(0.06, 0.985, every)
    return [watch(so_far(curve, float(m)), belief=belief, target=target) for m in moments]


def alarm_table(curves: dict[str, dict[str, Curve]], known: dict[str, Belief]) -> list[str]:
    """Alarms of healthy runs and of runs with planted faults; the target is the healthy final."""
    cases: list[tuple[str, list[tuple[str, Curve, float]]]] = [
        ("healthy", [(s, c, end_of(c)) for s, runs in curves.items() for c in runs.values()])
    ]
    shifted, wrong = [], []
    for size, runs in curves.items():
        for curve in runs.values():
            loss = np.where(curve.step >= 0.4 * curve.schedule.end, 1.02, 1.0) * curve.loss
            shifted.append(
                (size, Curve(curve.run_id, curve.step, loss, curve.schedule), end_of(curve))
            )
        for ran, declared in (
            ("constant_24000", "cosine_24000"),
            ("constant_24000", "wsd_20000_24000"),
            ("constant_72000", "cosine_72000"),
        ):
            plan = runs[declared]
            there = runs[ran].step <= plan.schedule.end
            step = np.maximum(runs[ran].step[there], plan.schedule.step[0])
            wrong.append(
                (size, Curve(ran, step, runs[ran].loss[there], plan.schedule), end_of(plan))
            )
    cases += [
        ("2 % worse from 40 % on", shifted),
        ("rate held, said to fall", wrong),
    ]
    lines = [
        "| runs | belief | count | said to be lost | first said at (median) | left their course |",
        "|---|---|---|---|---|---|",
    ]
    for label, flights in cases:
        for name in ("two other sizes", "package's own"):
            lost, left, first = 0, 0, []
            for size, curve, target in flights:
                facts = fly(curve, known[size] if name == "two other sizes" else None, target)
                alarms = [f.progress for f in facts if f.lost]
                lost += bool(alarms)
                first += alarms[:1]
                left += any(f.departed for f in facts)
            said = f"{100 * np.median(first):.0f} % of the run" if first else "never"
            lines.append(f"| {label} | {name} | {len(flights)} | {lost} | {said} | {left} |")
    return lines


# --- collapse


def simulated_ladder(
    rng: np.random.Generator, factors: Sequence[float], noise: float = 0.01, seed_sd: float = 2e-3
) -> list[LadderCurve]:
    """Four sizes at 10, 20 and 40 tokens per parameter; the rate of each size is off by a factor.

    A rate too high leaves more noise before the decay and moves the clock; a rate off either way
    costs 1.2 % of loss times the square of its ln.
    """
    found = []
    for index, factor in enumerate(factors):
        params = 1e7 * 2.0**index
        for ratio in (10.0, 20.0, 40.0):
            steps = ratio * params / 65_536
            base = Schedule.named("wsd", steps=steps, peak=1.0, warmup=0.03 * steps)
            schedule = Schedule(base.step, base.rate * factor)
            floor, drop = 1.8 + 90 * params**-0.35, 0.1 * 2.0 ** (0.05 * index)
            progress = 0.5 * 410 * 65_536**-0.28
            theta = np.log([floor, progress, 0.28, drop, 0.01, 1.0, 1.0])
            theta[-1] = 0.5
            step = np.linspace(0.03 * steps + 1, steps, 150)
            loss = terms(schedule, step, peak=1.0, unit=1.0).evaluate(theta)[0]
            loss = loss + drop * (factor - 1.0) + 0.012 * np.log(factor) ** 2
            wander = np.cumsum(rng.normal(size=150)) / np.sqrt(150) * seed_sd
            shift = rng.normal() * seed_sd
            seen = loss * np.exp(rng.normal(size=150) * noise + wander + shift)
            end = float(loss[-1] * np.exp(shift))
            name = f"{params:.0e}-{ratio:.0f}"
            found.append(
                LadderCurve(name, params, ratio * params, end, Curve(name, step, seen, schedule))
            )
    return found


def collapse_table(count: int = 100) -> list[str]:
    """How often a wrong recipe shows in the curves, and whether it shows in a fit to the ends."""
    lines = [
        "| recipe of the four sizes | ladders | depart | spread | drift with size "
        "| law of the ends: residual, verdict supported |",
        "|---|---|---|---|---|---|",
    ]
    for label, factors in (
        ("right", (1.0, 1.0, 1.0, 1.0)),
        ("largest: rate × 3", (1.0, 1.0, 1.0, 3.0)),
        ("largest: rate × 2", (1.0, 1.0, 1.0, 2.0)),
        ("second: rate / 3", (1.0, 1 / 3, 1.0, 1.0)),
        ("rate × 2 with each size", (0.5, 1.0, 2.0, 4.0)),
    ):
        checks, residual, clean = [], [], 0
        for seed in range(count):
            ladder = simulated_ladder(np.random.default_rng(seed), factors)
            checks.append(collapse(ladder))
            if seed < 20:
                columns = ([getattr(r, n) for r in ladder] for n in ("params", "tokens", "loss"))
                table = RunTable.from_arrays(*columns)
                law = fit(table, form="chinchilla", bootstrap=100)
                foretold = [law.predict(r.params, r.tokens).loss for r in ladder]
                residual.append(np.std(np.log(foretold) - np.log(table.loss)))
                clean += law.supported
        lines.append(
            f"| {label} | {count} | {sum(not c.collapses for c in checks)} "
            f"| {100 * np.median([c.spread for c in checks]):.2f} % "
            f"| {100 * np.median([c.drift for c in checks]):.2f} % "
            f"| {100 * np.median(residual):.2f} %, {clean} of 20 |"
        )
    return lines


def ladders_table(ladders: Sequence[Path]) -> list[str]:
    """The check on ladder directories."""
    lines = ["| ladder | runs | spread | drift with size | verdict |", "|---|---|---|---|---|"]
    for directory in ladders:
        runs = read_curves(directory)
        check = collapse(runs)
        lines.append(
            f"| {directory} | {len(runs)} | {100 * check.spread:.2f} % "
            f"| {100 * check.drift:.2f} % (p = {check.drift_p_value:.2g}) | {check.verdict} |"
        )
    return lines


def main(arguments: list[str]) -> int:
    """Print every table."""
    if not arguments:
        print(__doc__, file=sys.stderr)
        return 2
    curves = read(Path(arguments[0]))
    print("### Other schedules and three times the length\n")
    print("\n".join(schedules_table(curves)), f"\n\n{coverage_line(curves)}\n", flush=True)
    known = beliefs(curves)
    print("### Runs in flight\n")
    print("\n".join(flight_table(curves, known)), "\n", flush=True)
    print("### Alarms\n")
    print("\n".join(alarm_table(curves, known)), "\n", flush=True)
    print("### Collapse\n")
    print("\n".join(collapse_table()), "\n", flush=True)
    if arguments[1:]:
        print("\n".join(ladders_table([Path(a) for a in arguments[1:]])))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
