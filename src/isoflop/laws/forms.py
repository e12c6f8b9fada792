"""The shapes a loss can take in parameters N and tokens D, with derivatives; not for fitting them.

Both forms are one family, written in the coordinates in which a fit behaves:

    L = E + (U(N)^(1/g) + V(D)^(1/g))^g      U = u·(N/N0)^-p,  V = v·(D/D0)^-q

U is the loss that the size alone costs (D → ∞), V the loss that the data alone cost, and g says how
the two combine: g = 1 adds them (`chinchilla`: Hoffmann et al. 2022, eq. 10), g → 0 takes the
larger. In the printed form E + (A·N^-a + B·D^-b)^g this is a = p/g, b = q/g, A = (u·N0^p)^(1/g),
B = (v·D0^q)^(1/g) (the shape of Kaplan et al. 2020, eq. 1.5, with a floor E).

Coordinates theta = (ln E, ln u, ln v, ln p, ln q[, ln g]): positive by construction, and centred on
the table (N0, D0 its geometric means), which takes most of the correlation out. Shape legend:
`B` parameter vectors, `K` coordinates, `R` runs.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from isoflop.core.errors import TableError

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Design:
    """Where the runs lie: centred log sizes and log horizons, each of shape (R,)."""

    x: Array
    """ln(N / N0)."""
    y: Array
    """ln(D / D0)."""
    ln_n0: float
    ln_d0: float

    @staticmethod
    def of(params: Array, tokens: Array) -> Design:
        """Centre a table's sizes (R,) and horizons (R,) on their geometric means."""
        ln_n, ln_d = np.log(params), np.log(tokens)
        ln_n0, ln_d0 = float(ln_n.mean()), float(ln_d.mean())
        return Design(ln_n - ln_n0, ln_d - ln_d0, ln_n0, ln_d0)

    def at(self, params: Array, tokens: Array) -> Design:
        """Other points in the same centred coordinates."""
        return Design(
            np.log(params) - self.ln_n0, np.log(tokens) - self.ln_d0, self.ln_n0, self.ln_d0
        )


@dataclass(frozen=True)
class Evaluation:
    """Log loss at each run, and what its derivatives need."""

    log_loss: Array
    """(B, R)."""
    jacobian: Array
    """(B, K, R): derivative of the log loss by each coordinate."""
    reducible: Array
    """(B, R): share of the loss above E."""
    bend: Array
    """(B, R): second derivative of ln of the reducible loss along `across`."""
    across: Array
    """(B, K-1, R): gradient of ln U - ln V by every coordinate but ln E (ln g counts as -t·g)."""
    inner: Array
    """(B, K, R): gradient of ln(reducible loss) - ln E."""

    def curvature(self, weight: Array) -> Array:
        """Sum over runs of weight (B, R) times the Hessian of the log loss; (B, K, K)."""
        total = _outer(self.inner, weight * self.reducible * (1.0 - self.reducible))
        total[:, 1:, 1:] += _outer(self.across, weight * self.reducible * self.bend)
        k = self.jacobian.shape[1]
        # ln p, ln q and ln g enter through exp: their own first derivative comes back on the
        # diagonal.
        diagonal = np.einsum("bkr,br->bk", self.jacobian[:, 3:], weight)
        total[:, np.arange(3, k), np.arange(3, k)] += diagonal
        return total


def _outer(vectors: Array, weight: Array) -> Array:
    return (vectors * weight[:, None, :]) @ vectors.swapaxes(1, 2)


@dataclass(frozen=True)
class Form:
    """One way a loss depends on N and D."""

    name: str
    formula: str
    parameters: tuple[str, ...]
    """Printed parameter names, in the order of law.json."""
    free_combination: bool
    """Whether g is fitted (the gamma form) or 1 (the additive form)."""
    floor: bool = True
    """Whether E is fitted. Without it, E is held at `NO_FLOOR` of the lowest loss, so that all
    forms share their coordinates."""

    @property
    def size(self) -> int:
        """Number of fitted coordinates, K."""
        return len(self.parameters)

    def log_loss(self, theta: Array, design: Design) -> Array:
        """ln L for parameter vectors (B, K) at the design's R points; (B, R)."""
        return self._parts(theta, design)[0]

    def _parts(self, theta: Array, design: Design) -> tuple[Array, ...]:
        u = theta[:, 1:2] - np.exp(theta[:, 3:4]) * design.x
        v = theta[:, 2:3] - np.exp(theta[:, 4:5]) * design.y
        g = np.exp(theta[:, 5:6]) if self.free_combination else np.ones_like(theta[:, :1])
        h = np.maximum(u, v) + g * np.log1p(np.exp(-np.abs(u - v) / g))
        return np.logaddexp(theta[:, :1], h), u, v, g, h

    def evaluate(self, theta: Array, design: Design) -> Evaluation:
        """ln L with its first derivatives and the parts of its second ones, for (B, K) vectors."""
        f, u, v, g, h = self._parts(theta, design)
        gap = u - v
        share_u = np.exp((u - h) / g)
        share_v = np.exp((v - h) / g)
        reducible = np.exp(h - f)
        shift_u = -np.exp(theta[:, 3:4]) * design.x
        shift_v = -np.exp(theta[:, 4:5]) * design.y
        shape = (theta.shape[0], self.size, f.shape[1])
        inner = np.empty(shape)
        inner[:, 0] = -1.0
        inner[:, 1], inner[:, 2] = share_u, share_v
        inner[:, 3], inner[:, 4] = shift_u * share_u, shift_v * share_v
        across = np.empty((shape[0], shape[1] - 1, shape[2]))
        across[:, 0], across[:, 1] = 1.0, -1.0
        across[:, 2], across[:, 3] = shift_u, -shift_v
        if self.free_combination:
            inner[:, 5] = h - share_u * u - share_v * v
            across[:, 4] = -gap
        jacobian = inner * reducible[:, None, :]
        jacobian[:, 0] = 1.0 - reducible
        return Evaluation(f, jacobian, reducible, share_u * share_v / g, across, inner)

    def to_printed(self, theta: Array, design: Design) -> Array:
        """Printed parameters (B, K) of coordinates (B, K)."""
        e, u, v, p, q = (theta[:, i] for i in range(5))
        g = np.exp(theta[:, 5]) if self.free_combination else np.ones(len(theta))
        size, data = np.exp(p), np.exp(q)
        # A of a small g can leave the range of float64; then the draw is not printable but finite
        # coordinates remain, so it is clipped instead of becoming infinite.
        big_a = np.exp(np.clip((u + size * design.ln_n0) / g, -700.0, 700.0))
        big_b = np.exp(np.clip((v + data * design.ln_d0) / g, -700.0, 700.0))
        columns = [np.exp(e), big_a, big_b, size / g, data / g]
        return np.stack(columns + ([g] if self.free_combination else []), axis=1)

    def from_printed(self, printed: Array, design: Design) -> Array:
        """Coordinates (B, K) of printed parameters (B, K)."""
        e, big_a, big_b, a, b = (printed[:, i] for i in range(5))
        g = printed[:, 5] if self.free_combination else np.ones(len(printed))
        columns = [
            np.log(e),
            g * (np.log(big_a) - a * design.ln_n0),
            g * (np.log(big_b) - b * design.ln_d0),
            np.log(a * g),
            np.log(b * g),
        ]
        return np.stack(columns + ([np.log(g)] if self.free_combination else []), axis=1)


CHINCHILLA = Form("chinchilla", "E + A/N^alpha + B/D^beta", ("E", "A", "B", "alpha", "beta"), False)
GAMMA = Form("gamma", "E + (A*N^-a + B*D^-b)^g", ("E", "A", "B", "a", "b", "g"), True)
KAPLAN_ND = Form(
    "kaplan-nd", "(A*N^-a + B*D^-b)^g", ("E", "A", "B", "a", "b", "g"), True, floor=False
)
"""Kaplan et al. 2020, eq. 1.5 (there b = 1, a = alpha_N/alpha_D, g = alpha_D), with b free."""
NO_FLOOR = 1e-4
FORMS = {form.name: form for form in (CHINCHILLA, GAMMA, KAPLAN_ND)}


def get_form(name: str) -> Form:
    """The form of that name.

    Raises:
        TableError: There is no such form.
    """
    if name not in FORMS:
        raise TableError(
            f"there is no form {name!r}",
            where="form",
            fix=f"Choose one of {', '.join(FORMS)}",
        )
    return FORMS[name]


def printed_loss(printed: Array, params: float, tokens: float) -> Array:
    """Loss (B,) of printed parameters (B, 5) or (B, 6) at one size and horizon."""
    e, big_a, big_b, a, b = (printed[:, i] for i in range(5))
    g = printed[:, 5] if printed.shape[1] == GAMMA.size else np.ones(len(printed))
    inner = np.logaddexp(np.log(big_a) - a * np.log(params), np.log(big_b) - b * np.log(tokens))
    return np.asarray(e + np.exp(g * inner))
