"""What is odd about a table of runs, run by run and by name; not for rejecting rows or fitting.

Each question is worded so that it can stand in a law's warnings. Nothing is changed or left out:
who answers "yes, that is so" removes the rows or the unit and reads the table again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from isoflop.laws.records import RunTable

NAMED = 3
"""Runs named in one question; the rest are counted."""
WARMUP_SHARE = 0.2
"""Share of a run spent in warm-up beyond which its loss says more of the warm-up than of its size.
Porian et al. 2024, section 3.2: a warm-up longer than the run's tokens per parameter warrant moved
the exponent of the best size from 0.60 to 0.70."""
FEW_TOKENS = 1.0
"""Tokens per parameter below which a run has hardly begun."""
WORSE = 0.02
"""How much worse, relatively, than a run no larger in size or data makes a run look diverged."""
REPEATED = 1.01
STEP_MISMATCH = 1.05
BYTE_LOSS = 1.6
"""Largest loss of a table that may well be in bits per byte: 1.6 is a model of few parameters."""
UNLIKE = 1.6
"""Ratio of a table's losses to those that Besiroglu et al. 2024 fitted, beyond which they are
compared in other units."""
CLOSE = 0.2
TOKEN_NATS = 3.8
"""Nats per token over bits per byte: ln 2 times the bytes of a token, of which even a vocabulary of
256k makes no more than 5.5."""


@dataclass(frozen=True)
class Question:
    """One oddity of a table."""

    kind: str
    """`duplicate`, `checkpoints`, `warm-up`, `undertrained`, `diverged`, `repeated`, `unit`,
    `flops`, `steps`, `mixed` or `embeddings`."""
    text: str
    """A sentence for the law's warnings, with the first runs concerned by name."""
    rows: tuple[int, ...] = ()
    """The rows concerned; empty where it is the whole table."""


def questions(table: RunTable) -> tuple[Question, ...]:
    """Everything that looks odd about the table's R runs, most serious first."""
    checks = (
        *(_unit, _flops, _duplicates, _diverged, _repeated, _warm_up, _undertrained),
        *(_steps, _mixed, _embeddings),
    )
    return tuple(question for check in checks for question in check(table))


def _named(table: RunTable, rows: NDArray[np.intp]) -> str:
    """`3 of 20 runs (a, b, c)`."""
    shown = ", ".join(table.run_id[int(i)] for i in rows[:NAMED])
    more = ", ..." if len(rows) > NAMED else ""
    return f"{len(rows)} of {len(table)} runs ({shown}{more})"


def _rows(rows: NDArray[np.intp]) -> tuple[int, ...]:
    return tuple(int(i) for i in rows)


def _unit(table: RunTable) -> Iterator[Question]:
    """Losses that are perplexities, bits per byte or bits per token."""
    ratio = table.loss / table.bits_per_byte
    if not np.isnan(ratio).all():
        nats = float(np.nanmedian(ratio))
        if nats < 1.05:
            # ln 2 is honest where every byte is a token; at 1 the columns are the same figure.
            if abs(nats - 1.0) < 0.02:
                yield Question(
                    "unit",
                    "loss equals bits_per_byte: it is in bits per byte, not in nats per token, so "
                    "its floor and noise are not comparable with published ones",
                )
        elif nats > TOKEN_NATS:
            yield Question(
                "unit",
                f"loss is {nats:.2f} times bits_per_byte, more than any usual tokenizer gives: "
                "check that it is in nats per token and not in bits per token (times 0.693)",
            )
        return
    if table.loss.max() < BYTE_LOSS:
        yield Question(
            "unit",
            f"all losses lie below {BYTE_LOSS:g}: this looks like bits (or nats) per byte; a law "
            "of it foretells that unit, and published floors do not apply",
        )
        return
    expected = 1.8172 + 482.01 / table.params**0.3478 + 2085.43 / table.tokens**0.3658
    if np.median(table.loss / expected) < UNLIKE:
        return
    for unit, converted, fix in (
        ("perplexities", np.log(table.loss), "give their natural logarithm"),
        ("bits per token", table.loss * np.log(2.0), "multiply them by 0.693"),
    ):
        if abs(np.log(np.median(converted / expected))) < CLOSE:
            yield Question(
                "unit",
                f"the losses ({table.loss.min():.3g} to {table.loss.max():.3g}) are far above "
                f"those of models of these sizes, and would not be as {unit}: {fix} if so",
            )
            return


def _flops(table: RunTable) -> Iterator[Question]:
    ratio = table.flops / (6.0 * table.params * table.tokens)
    odd = np.flatnonzero((ratio > 2.0) | (ratio < 0.5))
    if len(odd):
        yield Question(
            "flops",
            f"flops is not within a factor 2 of 6·params·tokens in {len(odd)} of {len(ratio)} "
            f"runs (e.g. {table.run_id[int(odd[0])]}): check the units of params and tokens, or "
            "small models whose output layer and attention dominate",
            _rows(odd),
        )


def _duplicates(table: RunTable) -> Iterator[Question]:
    seen: dict[tuple[object, ...], int] = {}
    again = []
    for i in range(len(table)):
        key = (
            *(float(column[i]) for column in (table.params, table.tokens, table.loss)),
            *(table.family[i], table.seed[i]),
        )
        if key in seen:
            again.append(i)
        else:
            seen[key] = i
    if again:
        rows = np.array(again)
        yield Question(
            "duplicate",
            f"{_named(table, rows)} repeat another row's params, tokens and loss exactly: each is "
            "counted twice and makes the law look surer than it is",
            _rows(rows),
        )
    counts = Counter(table.run_id)
    copies = set(again)
    several = np.array(
        [i for i, name in enumerate(table.run_id) if counts[name] > 1 and i not in copies],
        dtype=np.intp,
    )
    horizons = {(table.run_id[i], table.tokens[i]) for i in several}
    if len(horizons) > len({table.run_id[i] for i in several}):
        yield Question(
            "checkpoints",
            f"{_named(table, several)} share their run_id with other rows: points along one run "
            "are not independent, and those before its learning rate had decayed lie too high",
            _rows(several),
        )


def _diverged(table: RunTable) -> Iterator[Question]:
    """Runs worse than one of the same kind with neither more parameters nor more data."""
    unique = np.fmin(table.unique_tokens, table.tokens)
    kind = np.unique(np.array(table.family), return_inverse=True)[1]
    found = []
    for i in range(len(table)):
        rivals = (table.params <= table.params[i]) & (table.tokens <= table.tokens[i])
        rivals &= (unique <= unique[i]) & (kind == kind[i])
        rivals &= (table.params < table.params[i]) | (table.tokens < table.tokens[i])
        if rivals.any() and table.loss[i] > (1.0 + WORSE) * table.loss[rivals].min():
            found.append(i)
    if found:
        rows = np.array(found)
        yield Question(
            "diverged",
            f"{_named(table, rows)} end more than {100 * WORSE:g} % above a run with no more "
            "parameters and no more data: diverged, badly tuned, overfitted or undertrained",
            _rows(rows),
        )


def _repeated(table: RunTable) -> Iterator[Question]:
    epochs = table.tokens / table.unique_tokens
    rows = np.flatnonzero(epochs > REPEATED)
    if len(rows):
        yield Question(
            "repeated",
            f"{_named(table, rows)} saw their data up to {np.nanmax(epochs):.3g} times: a law in "
            "tokens takes repeated ones for new ones; fit the form data-constrained",
            _rows(rows),
        )


def _warm_up(table: RunTable) -> Iterator[Question]:
    share = table.warmup_tokens / table.tokens
    rows = np.flatnonzero(share > WARMUP_SHARE)
    if len(rows):
        yield Question(
            "warm-up",
            f"{_named(table, rows)} spent up to {100 * np.nanmax(share):.0f} % of their tokens in "
            "warm-up: their losses are too high for their size and data, which tilts the exponents "
            "(Porian et al. 2024)",
            _rows(rows),
        )


def _undertrained(table: RunTable) -> Iterator[Question]:
    ratio = table.tokens / table.params
    rows = np.flatnonzero(ratio < FEW_TOKENS)
    if len(rows):
        yield Question(
            "undertrained",
            f"{_named(table, rows)} saw less than {FEW_TOKENS:g} token per parameter: their losses "
            "are those of the first steps of training, where the forms do not hold",
            _rows(rows),
        )


def _steps(table: RunTable) -> Iterator[Question]:
    ratio = table.steps * table.batch_tokens / table.tokens
    rows = np.flatnonzero((ratio > STEP_MISMATCH) | (ratio < 1.0 / STEP_MISMATCH))
    if len(rows):
        yield Question(
            "steps",
            f"steps·batch_tokens is not tokens in {_named(table, rows)}: check whether tokens "
            "counts those of the whole run or of a checkpoint",
            _rows(rows),
        )


def _mixed(table: RunTable) -> Iterator[Question]:
    for column, what in ((table.family, "families"), (table.schedule, "schedules")):
        kinds = Counter(filter(None, column))
        if len(kinds) > 1:
            listed = ", ".join(f"{name} {count}" for name, count in kinds.most_common(4))
            yield Question(
                "mixed",
                f"the table mixes {len(kinds)} {what} ({listed}): one law holds for one recipe; "
                "fit them apart",
            )


def _embeddings(table: RunTable) -> Iterator[Question]:
    below = np.flatnonzero(table.params_total < table.params)
    if len(below):
        yield Question(
            "embeddings",
            f"params_total is below params in {_named(table, below)}: params leaves out the input "
            "and position embeddings, params_total has everything",
            _rows(below),
        )
    share = 1.0 - table.params / table.params_total
    large = np.flatnonzero(share > 0.5)
    if len(large):
        yield Question(
            "embeddings",
            f"embeddings are more than half of the weights in {_named(table, large)}: exponents "
            "depend on whether they are counted (`counting.compare_counts` shows how much)",
            _rows(large),
        )
