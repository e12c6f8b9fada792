"""The valley of losses over learning rate and batch, shared by the settings of a sweep; and the
power laws through its floor. Not for the law made of it (hyperparameters).

    ln L = constant of the setting + ½ (z - P b)ᵀ H (z - P b)

with z = (ln learning rate[, ln batch]) and b = (1, ln N, ln D) or (1, ln C), is linear in H and
M = -H P. Shape legend: `B` resamples, `S` settings, `d` entries of z, `q` entries of b, `p`
unknowns of the linear problem.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from isoflop.laws.forms import Array
from isoflop.laws.predict import FLOPS_PER_PARAMETER_TOKEN

Labels = NDArray[np.intp]
Mask = NDArray[np.bool_]
Of = Literal["params-tokens", "flops"]
GOOD = 0.0025  # a loss within 0.25 % of the best is as good, for most purposes, as the best
LOCAL = 4 * GOOD
TRIED = 3  # values of a learning rate that show a valley
HELD_SHARE = 1.0 / 3.0  # settings above this share of the largest compute check the carrying over
NO_WORSE = 0.05  # percent of loss


@dataclass(frozen=True)
class Valley:
    """The normal equations of the shared valley, one block per setting.

    A parabola is local: a run weighs 1 / (1 + (excess / 1 %)²)², where excess is its loss above the
    best of its setting. A setting weighs as its compute, since the law is for larger ones.
    """

    gram: Array
    """(S, p, p)."""
    right: Array
    """(S, p)."""
    free: int
    """Entries of H: 1 for the learning rate alone, 3 with the batch."""
    centres: tuple[Array, Array]
    """What was taken from z (d,) and from b (q,) before multiplying."""
    basis: Array
    """(S, q): uncentred b of each setting."""
    reach: tuple[Array, Array]
    """(S, d) each: smallest and largest z tried."""

    @staticmethod
    def of(
        table: dict[str, Array], tried: Array, settings: Array, member: Labels, use: Mask, of: Of
    ) -> Valley:
        """Collect the blocks.

        Args:
            table: `loss`, (R,).
            tried: z of each run, (R, d).
            settings: Parameters and tokens of each setting, (S, 2).
            member: The setting of each run, (R,).
            use: Which runs count, (R,).
        """
        count, dims = len(settings), tried.shape[1]
        best = np.full(count, np.inf)
        np.minimum.at(best, member, table["loss"])
        excess = np.log(table["loss"] / best[member])
        cost = settings.prod(axis=1)
        weight = use * cost[member] / cost.max() / (1.0 + (excess / LOCAL) ** 2) ** 2
        basis = settings_basis(settings[:, 0], settings[:, 1], of)
        shift = np.append(0.0, basis[:, 1:].mean(axis=0))
        z0 = tried.mean(axis=0)
        z, b = tried - z0, (basis - shift)[member]
        squares = [0.5 * z[:, i] ** 2 for i in range(dims)]
        if dims == 2:
            squares.append(z[:, 0] * z[:, 1])
        linear = [z[:, i] * b[:, j] for i in range(dims) for j in range(b.shape[1])]
        design = np.column_stack([*squares, *linear, np.log(table["loss"])])
        total = np.bincount(member, weight, count)
        sums = [np.bincount(member, weight * c, count) for c in design.T]
        mean = np.stack(sums, axis=1) / np.where(total > 0.0, total, 1.0)[:, None]
        inside = design - mean[member]
        blocks = np.zeros((count, design.shape[1], design.shape[1]))
        np.add.at(blocks, member, inside[:, :, None] * inside[:, None, :] * weight[:, None, None])
        low, high = np.full((count, dims), np.inf), np.full((count, dims), -np.inf)
        np.minimum.at(low, member, tried)
        np.maximum.at(high, member, tried)
        return Valley(
            blocks[:, :-1, :-1], blocks[:, :-1, -1], len(squares), (z0, shift), basis, (low, high)
        )

    def solve(self, repeats: Array) -> tuple[Array, Array]:
        """H (B, d, d) and P (B, d, q) with each setting counted `repeats` (B, S) times."""
        gram = np.einsum("bs,spq->bpq", repeats, self.gram)
        ridge = 1e-10 * np.einsum("bpp->bp", gram).max(axis=1)
        gram += ridge[:, None, None] * np.eye(gram.shape[1])
        solved = np.linalg.solve(gram, (repeats @ self.right)[:, :, None])[:, :, 0]
        bend = self._bend(solved)
        slope = solved[:, self.free :].reshape(len(solved), bend.shape[1], -1)
        power = -np.linalg.solve(bend, slope)
        z0, shift = self.centres
        power[:, :, 0] += z0 - power[:, :, 1:] @ shift[1:]
        return bend, np.asarray(power)

    def information(self) -> Array:
        """How much each setting (S,) says of its own best learning rate."""
        return self.gram[:, self.free, self.free]

    def _bend(self, solved: Array) -> Array:
        if self.free == 1:
            return solved[:, :1, None]
        h = solved[:, [0, 2, 2, 1]]
        return np.asarray(h.reshape(-1, 2, 2))

    def optima(self, curvature: Array) -> Array:
        """Each setting's own z (S, d) of lowest loss, the curvature (d, d) being the shared one."""
        dims = len(curvature)
        q = self.basis.shape[1]
        constant = self.free + q * np.arange(dims)  # columns z_i · 1, whose coefficient is -H z*
        flat = np.diag(curvature) if dims == 1 else curvature[[0, 1, 0], [0, 1, 1]]
        left = self.gram[:, constant[:, None], constant]
        right = self.right[:, constant] - self.gram[:, constant, : self.free] @ flat
        ridge = 1e-9 * np.einsum("sii->s", left) + 1e-300
        slope = np.linalg.solve(left + ridge[:, None, None] * np.eye(dims), right[:, :, None])
        return np.asarray(self.centres[0] - np.linalg.solve(curvature[None], slope)[:, :, 0])


def settings_basis(params: Array, tokens: Array, of: Of) -> Array:
    """(S, q): 1 and the logs that the law multiplies by its exponents."""
    if of == "flops":
        logs = [np.log(FLOPS_PER_PARAMETER_TOKEN * params * tokens)]
    else:
        logs = [np.log(params), np.log(tokens)]
    return np.column_stack([np.ones(len(params)), *logs])


def regress(basis: Array, optima: Array, weight: Array) -> Array:
    """P (B, d, q) by least squares with weights (B, S); the basis is centred for accuracy."""
    shift = np.append(0.0, basis[:, 1:].mean(axis=0))
    centred = basis - shift
    gram = np.einsum("bs,sp,sq->bpq", weight, centred, centred)
    gram += 1e-12 * np.einsum("bpp->b", gram)[:, None, None] * np.eye(gram.shape[1])
    right = np.einsum("bs,sp,sd->bpd", weight, centred, optima)
    power = np.linalg.solve(gram, right).swapaxes(1, 2)
    power[:, :, 0] -= power[:, :, 1:] @ shift[1:]
    return np.asarray(power)


def varies_within(member: Labels, value: Array, count: int) -> Mask:
    """Which settings (S,) were tried at three values or more."""
    pairs = np.unique(np.column_stack([member, np.round(value, 9)]), axis=0)[:, 0]
    return np.asarray(np.bincount(pairs.astype(np.intp), minlength=count) >= TRIED)


def transfer(
    basis: Array, optima: Array, flops: Array, small_law: Array | None, curvature: Array | None
) -> dict[str, Any] | None:
    """Law against carrying over, scored on the settings above a third of the largest compute.

    Args:
        optima: Each setting's own z, (S, d).
        small_law: P (d, q) fitted to the other settings; least squares on their optima when None.
        curvature: H (d, d); distances are in ln² where it is not known.

    Returns:
        `law` and `carry` (mean percent of loss lost, or root-mean-square ln distance where no
        curvature is known), `unit`, `carry_is_as_good` and `says`; None where nothing can be held.
    """
    small = flops <= flops.max() * HELD_SHARE
    if small.all() or small.sum() <= basis.shape[1]:
        return None
    if (
        np.linalg.matrix_rank(basis[small] - basis[small].mean(axis=0), tol=1e-3)
        < basis.shape[1] - 1
    ):
        return None
    power = regress(basis[small], optima[small], np.ones((1, int(small.sum()))))[0]
    power = power if small_law is None else small_law
    carried = optima[small][int(np.argmax(flops[small]))]
    lost = []
    for guess in (basis[~small] @ power.T, carried):
        off = guess - optima[~small]
        if curvature is None:
            lost.append(float(np.sqrt(np.mean(np.sum(off**2, axis=1)))))
        else:
            lost.append(float(50.0 * np.mean(np.einsum("si,ij,sj->s", off, curvature, off))))
    law, carry = lost
    as_good = carry <= law + (NO_WORSE if curvature is not None else 0.0)
    unit = "ln distance from the optimum" if curvature is None else "percent of loss"
    verdict = "is as good" if as_good else "is worse"
    return {
        "law": law,
        "carry": carry,
        "unit": unit,
        "held": int((~small).sum()),
        "carry_is_as_good": bool(as_good),
        "says": f"carrying the largest small setting's optimum over {verdict}: {carry:.3g} against "
        f"the law's {law:.3g} ({unit}, {int((~small).sum())} settings above a third of the largest "
        "compute)",
    }
