"""Whether the curves of a ladder are one curve: the check of a recipe before the big run.

Not for forecasting (`fit`, `curve`). Loss curves of models trained well collapse onto one when
compute and reducible loss are divided by their values at the end, and fall apart where the
hyper-parameters are scaled badly (Qiu et al. 2025, "Scaling Collapse Reveals Universal Dynamics in
Compute-Optimally Trained Neural Networks"). Final losses alone hide that: a law fitted to them
bends a little and looks clean.

The paper's ladders keep tokens per parameter fixed. Here each run is reduced to three numbers, the
line, bend and twist of ln(loss - floor) over the share of the run done, which may follow a plane in
ln params and ln tokens. A run, or all runs of a size, that lie off the plane of the others depart.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from isoflop.core.errors import ArtifactError, TableError
from isoflop.laws.curve_fit import Curve, scatter
from isoflop.laws.forms import Array
from isoflop.laws.schedule_terms import Schedule

BINS = 16
"""Equal parts of the run that a curve is averaged in."""
FEATURES = 3
FEWEST = 4
"""Runs below which no run can be judged by the others."""
SIGNIFICANT = 0.01
"""Probability, over a healthy ladder, that one of its runs or sizes is said to depart."""
WARMED = 1.5
"""Multiple of the warm-up from which a curve is compared."""
SAME_SCHEDULE = 0.08
"""Difference of lr / peak at the same share of the run from which schedules are not one."""
COLUMN_RANGE = 0.2
"""Range of ln params, or of ln tokens, from which shapes may depend on it."""


@dataclass(frozen=True)
class LadderCurve:
    """One run of a ladder with its curve."""

    run_id: str
    params: float
    tokens: float
    loss: float
    """At the end, as the run table has it; nats per token."""
    curve: Curve


@dataclass(frozen=True)
class RunShape:
    """How one run's normalised curve lies to the others'."""

    run_id: str
    params: float
    tokens: float
    spread: float
    """Root mean square distance, in ln loss, from the shape that the other runs foretell."""
    noise: float
    """The part of `spread` that the scatter of its points explains."""
    p_value: float
    """Probability of a distance like this in a run like the others."""
    departs: bool
    schedule_differs: bool


@dataclass(frozen=True)
class SizeShape:
    """How the curves of one size lie to those of the other sizes."""

    params: float
    spread: float
    """Root mean square distance of their mean, in ln loss, from what the other sizes foretell."""
    p_value: float
    departs: bool


@dataclass(frozen=True)
class Collapse:
    """Whether a ladder's curves collapse."""

    runs: tuple[RunShape, ...]
    sizes: tuple[SizeShape, ...]
    """Empty where there are fewer than three sizes."""
    spread: float
    """Median of the runs' spread: how tight the collapse is."""
    drift: float
    """Root mean square change of the shape from the smallest size to the largest, in ln loss, at
    equal tokens; not a number where sizes do not differ enough."""
    drift_p_value: float
    verdict: str
    """`collapses`, or `departs: ` with what departs."""

    @property
    def collapses(self) -> bool:
        """Whether no run departs from the others."""
        return self.verdict == "collapses"

    def to_dict(self) -> dict[str, Any]:
        """The check as the command line prints it."""
        return {
            "verdict": self.verdict,
            "spread": self.spread,
            "drift": self.drift if np.isfinite(self.drift) else None,
            "drift_p_value": self.drift_p_value,
            "runs": [dict(vars(run)) for run in self.runs],
            "sizes": [dict(vars(size)) for size in self.sizes],
        }


def collapse(runs: Sequence[LadderCurve], floor: float = 0.0) -> Collapse:
    """Compare the shapes of the runs' curves.

    Args:
        floor: Irreducible loss, of a law fitted to the same runs; 0 where none is known, which
            leaves more of the shape to the plane.

    Raises:
        TableError: Fewer than FEWEST runs, a loss under the floor, or a curve with too few points.
    """
    if len(runs) < FEWEST:
        raise TableError(
            f"{len(runs)} curves cannot be judged by each other",
            fix=f"Give {FEWEST} or more runs of the ladder",
        )
    begin = max(0.1, max(WARMED * r.curve.schedule.risen / r.curve.schedule.end for r in runs))
    if begin > 0.5:
        raise TableError(
            f"the warm-up and its aftermath take {100 * begin:.0f} % of a run",
            fix="Leave the shortest runs out",
        )
    edges = np.linspace(begin, 1.0, BINS + 1)
    shapes = np.array([_shape(r, edges, floor) for r in runs])
    basis = _basis(0.5 * (edges[1:] + edges[:-1]))
    design = _design(runs)
    features = shapes @ basis.T
    noise = np.array([_bin_noise(r, edges, floor) for r in runs])
    differs = _schedules_differ(runs, edges)
    params = np.array([r.params for r in runs])
    sizes = [float(n) for n in np.unique(params)] if len(np.unique(params)) > 2 else []
    alone = [np.arange(len(runs)) == row for row in range(len(runs))]
    limit = SIGNIFICANT / (len(runs) + len(sizes))
    judged = []
    for run, member, own, other in zip(runs, alone, noise, differs, strict=True):
        p_value, distance = _against_others(features, design, noise, member)
        judged.append(
            RunShape(
                run_id=run.run_id,
                params=run.params,
                tokens=run.tokens,
                spread=distance,
                noise=float(own * np.sqrt(FEATURES / BINS)),
                p_value=p_value,
                departs=p_value < limit,
                schedule_differs=other,
            )
        )
    of_sizes = []
    for size in sizes:
        p_value, distance = _against_others(features, design, noise, params == size)
        of_sizes.append(SizeShape(size, distance, p_value, p_value < limit))
    drift, drift_p = _drift(features, design, runs)
    return Collapse(
        runs=tuple(judged),
        sizes=tuple(of_sizes),
        spread=float(np.median([r.spread for r in judged])),
        drift=drift,
        drift_p_value=drift_p,
        verdict=_verdict(judged, of_sizes),
    )


def read_curves(ladder: Path | str) -> tuple[LadderCurve, ...]:
    """The runs of a ladder directory with their curves, in steps.

    A run that branched from a longer one of its size begins with that one's points.

    Raises:
        ArtifactError: The directory holds no `runs.csv`, or a run's metrics are missing or damaged.
    """
    root = Path(ladder)
    table = root / "runs.csv"
    if not table.is_file():
        raise ArtifactError(
            "this is not a ladder: it has no runs.csv",
            where=str(root),
            fix="Give the directory that `isoflop ladder -o` wrote",
        )
    with open(table, newline="", encoding="utf-8") as handle:
        rows = list(csv.DictReader(handle))
    own = {row["run_id"]: _read_metrics(root / "runs" / row["run_id"]) for row in rows}
    curves = []
    for row in rows:
        points = own[row["run_id"]]
        kin = [r for r in rows if _trained_alike(r, row) and float(r["tokens"]) > 0]
        trunk = own[max(kin, key=lambda r: float(r["tokens"]))["run_id"]]
        points = np.concatenate([trunk[trunk[:, 0] < points[0, 0]], points])
        step, rate, loss = points.T
        if step[0] > 0:
            step_of_rate, rate = np.append(0.0, step), np.append(0.0, rate)
        else:
            step_of_rate = step
        schedule = Schedule(step_of_rate, rate)
        curve = Curve(row["run_id"], step, loss, schedule)
        curves.append(
            LadderCurve(
                *(row["run_id"], float(row["params"]), float(row["tokens"]), float(row["loss"])),
                curve,
            )
        )
    return tuple(curves)


def _read_metrics(run: Path) -> Array:
    """(R, 3): step, learning rate and loss of each logged step."""
    path = run / "metrics.jsonl"
    if not path.is_file():
        raise ArtifactError("the run has no metrics.jsonl", where=str(run))
    try:
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        found = {r["step"]: (float(r["step"]), float(r["lr"]), float(r["loss"])) for r in rows}
    except (json.JSONDecodeError, KeyError, TypeError, ValueError) as error:
        raise ArtifactError(
            f"the metrics cannot be read: {type(error).__name__} {error}", where=str(path)
        ) from None
    if len(found) < 2:
        raise ArtifactError(f"{len(found)} logged steps are no curve", where=str(path))
    return np.array([found[step] for step in sorted(found)])


def _trained_alike(one: dict[str, str], other: dict[str, str]) -> bool:
    keys = ("params", "learning_rate", "batch_tokens", "seed")
    return all(one.get(key) == other.get(key) for key in keys)


def _bins(run: LadderCurve, edges: Array) -> tuple[NDArray[np.intp], NDArray[np.bool_]]:
    """Each point's bin (R,), and whether it lies within the edges (R,)."""
    done = run.curve.step / run.curve.schedule.end
    inside = (done >= edges[0]) & (done <= 1.0 + 1e-9)
    place = np.clip(np.searchsorted(edges, done, side="right") - 1, 0, BINS - 1)
    return place, inside


def _shape(run: LadderCurve, edges: Array, floor: float) -> Array:
    """ln(loss - floor) in each part of the run, less its mean; (BINS,)."""
    place, inside = _bins(run, edges)
    if inside.sum() < 2 * FEATURES:
        raise TableError(
            f"{int(inside.sum())} points after the warm-up show no shape",
            where=run.run_id,
            fix="Log the loss more often, or leave the run out",
        )
    if run.curve.loss[inside].min() <= floor:
        raise TableError(f"a loss lies under the floor of {floor:g}", where=run.run_id)
    reducible = np.log(run.curve.loss - floor, where=inside, out=np.zeros_like(run.curve.loss))
    count = np.bincount(place[inside], minlength=BINS)
    total = np.bincount(place[inside], reducible[inside], minlength=BINS)
    centre = 0.5 * (edges[1:] + edges[:-1])
    seen = count > 0
    filled = np.interp(centre, centre[seen], total[seen] / count[seen])
    return np.asarray(filled - filled.mean())


def _bin_noise(run: LadderCurve, edges: Array, floor: float) -> float:
    """Standard deviation of a bin's mean ln(loss - floor) by the scatter of its points."""
    _, inside = _bins(run, edges)
    share = float(np.mean(run.curve.loss[inside] / (run.curve.loss[inside] - floor)))
    per_bin = max(1.0, float(inside.sum()) / BINS)
    return scatter(run.curve.loss[inside]) * share / float(np.sqrt(per_bin))


def _basis(centre: Array) -> Array:
    """Orthonormal line, bend and twist over the bins, (FEATURES, BINS), each of mean 0."""
    powers = np.stack([centre**k for k in range(FEATURES + 1)], axis=1)
    return np.asarray(np.linalg.qr(powers)[0][:, 1:].T)


def _design(runs: Sequence[LadderCurve]) -> Array:
    """1, and ln params and ln tokens as far as the runs can tell their effects; (R, P)."""
    columns = [np.ones(len(runs))]
    for values in ([r.params for r in runs], [r.tokens for r in runs]):
        column = np.log(np.array(values, dtype=np.float64))
        column -= column.mean()
        trial = np.stack([*columns, column], axis=1)
        others = np.linalg.lstsq(trial[:, :-1], column, rcond=None)[0]
        own = column - trial[:, :-1] @ others
        if np.ptp(own) > COLUMN_RANGE and len(runs) >= len(columns) + FEWEST:
            columns.append(column)
    return np.stack(columns, axis=1)


def _against_others(
    features: Array, design: Array, noise: Array, member: NDArray[np.bool_]
) -> tuple[float, float]:
    """p-value and root mean square distance of the members' mean from the plane of the others.

    Distances over their standard errors follow Student's t with the degrees of freedom of the
    others' fit (externally studentised residuals); the least p-value of the features is multiplied
    by their number. 1 where the others leave no degree of freedom.
    """
    from scipy.special import stdtr

    rest = ~member
    freedom = int(rest.sum()) - int(np.linalg.matrix_rank(design[rest]))
    if freedom < 1:
        return 1.0, 0.0
    inner = np.linalg.pinv(design[rest])
    effects = inner @ features[rest]
    distance = np.mean(features[member] - design[member] @ effects, axis=0)
    variance = np.sum((features[rest] - design[rest] @ effects) ** 2, axis=0) / freedom
    own = np.mean(design[member], axis=0) @ inner
    # Others that agree by luck may not make the scatter of a run's own points significant.
    error = np.sqrt(
        np.maximum(variance, float(np.mean(noise[member] ** 2)))
        * (1.0 / float(member.sum()) + float(own @ own))
    )
    t = np.abs(distance) / np.maximum(error, 1e-300)
    p_value = min(1.0, FEATURES * float(2.0 * stdtr(freedom, -t).min()))
    return p_value, float(np.sqrt(np.sum(distance**2) / BINS))


def _drift(features: Array, design: Array, runs: Sequence[LadderCurve]) -> tuple[float, float]:
    """Change of the shape with size, and the probability of one like it where there is none."""
    from scipy.special import stdtr

    sizes = np.log([r.params for r in runs])
    column = 1 if design.shape[1] > 1 and np.allclose(design[:, 1], sizes - sizes.mean()) else None
    freedom = len(runs) - design.shape[1]
    if column is None or freedom < 1:
        return float("nan"), 1.0
    inner = np.linalg.pinv(design)
    effects = inner @ features
    variance = np.sum((features - design @ effects) ** 2, axis=0) / freedom
    error = np.sqrt(variance * float(inner[column] @ inner[column]))
    t = np.abs(effects[column]) / np.maximum(error, 1e-300)
    change = effects[column] * np.ptp(sizes)
    p_value = min(1.0, FEATURES * float(2.0 * stdtr(freedom, -t).min()))
    return float(np.sqrt(np.sum(change**2) / BINS)), p_value


def _schedules_differ(runs: Sequence[LadderCurve], edges: Array) -> list[bool]:
    """For each run, whether its rates are not those of the median run."""
    rates = np.array(
        [
            np.interp(edges * r.curve.schedule.end, r.curve.schedule.step, r.curve.schedule.rate)
            / r.curve.schedule.peak
            for r in runs
        ]
    )
    return [bool(d > SAME_SCHEDULE) for d in np.abs(rates - np.median(rates, axis=0)).max(axis=1)]


def _verdict(runs: Sequence[RunShape], sizes: Sequence[SizeShape]) -> str:
    found = [f"{r.run_id} has another schedule than the rest" for r in runs if r.schedule_differs]
    found += [
        f"the runs of {s.params:.3g} parameters lie {100 * s.spread:.1f} % from the shape that the "
        f"other sizes foretell (p = {s.p_value:.2g})"
        for s in sorted(sizes, key=lambda s: s.p_value)
        if s.departs
    ]
    found += [
        f"{r.run_id} lies {100 * r.spread:.1f} % from the shape of the others (p = {r.p_value:.2g})"
        for r in sorted(runs, key=lambda r: r.p_value)
        if r.departs and not r.schedule_differs
    ]
    return f"departs: {'; '.join(found)}" if found else "collapses"
