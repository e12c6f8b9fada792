"""The signals stored beside a corpus, and what they say about one rule and other thresholds.

Not for applying a threshold: change it in the recipe and build again.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from isoflop.core.artifact import read_json, read_manifest
from isoflop.core.engine import Engine, Output, Piece, Work, link_file
from isoflop.core.errors import ArtifactError, DataError
from isoflop.core.recipe import from_dict
from isoflop.data import pii
from isoflop.data.annotated import ALL_SIGNALS, read_tables
from isoflop.data.choose import choices_of, reasons_of
from isoflop.data.clean_recipe import CleanConfig, PIIName
from isoflop.data.decide import GROUPS, MODEL_RULES, group_rules, model_rules, rule_group
from isoflop.data.examples import hidden_kinds
from isoflop.data.judge import Shard, read_judged
from isoflop.data.language import UNKNOWN
from isoflop.data.parts import PART_BYTES, cut_into_parts, part_path, part_paths
from isoflop.data.quality import CHINESE_RULES, ENGLISH_RULES, Rule
from isoflop.data.recipe import DataRecipe

_SIGNALS = "signals.parquet"
_EXCERPT_CHARACTERS = 200
_ROW_GROUP = 8192
_TEXTS = ("id", "source", "language", "reason", "excerpt")
_SCHEMA = pa.schema(
    [
        *((name, pa.string()) for name in _TEXTS),
        ("bytes", pa.int64()),
        *((name, pa.float64()) for name in ALL_SIGNALS),
    ]
)
# The other thresholds shown: where these shares of the judged documents would be dropped.
_SHARES = (0.001, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5)


@dataclass(frozen=True)
class Example:
    """A document near a rule's threshold."""

    id: str
    source: str
    value: float
    """Its value of the rule's signal."""
    reason: str
    """Why it was dropped; empty when it was kept."""
    excerpt: str


@dataclass(frozen=True)
class Alternative:
    """What another threshold would do."""

    threshold: float
    failing: int
    """Judged documents that would fail the rule."""
    lost: int
    """Documents of today's corpus that would go."""
    gained: int
    """Documents dropped by this rule that would pass it (a later rule may still drop them)."""


@dataclass(frozen=True)
class Account:
    """One rule on one group of languages."""

    group: str
    """`english`, `chinese`, `spaced` or `unspaced` (other languages)."""
    threshold: float
    in_force: bool
    """Whether the corpus was built with this rule."""
    judged: int
    """Documents of the group that were measured."""
    failing: int
    """How many of them fail the rule, whatever dropped them."""
    dropped: int
    """How many the rule dropped, being the first they failed."""
    alternatives: tuple[Alternative, ...]
    dropped_examples: tuple[Example, ...]
    """Failing documents, the closest to the threshold first."""
    kept_examples: tuple[Example, ...]
    """Passing documents, the closest to the threshold first."""


@dataclass(frozen=True)
class Why:
    """What one rule did to a corpus, and what other thresholds would have done."""

    rule: str
    signal: str
    side: str
    accounts: tuple[Account, ...]


def signals_path(directory: Path) -> Path:
    """The (first) file of a corpus that holds the signals of every document, kept or not."""
    return directory / _SIGNALS


def why(corpus: Path, rule: str, threshold: float | None = None, max_examples: int = 10) -> Why:
    """Examples of what a rule dropped and spared, and how much other thresholds would drop.

    Args:
        rule: A rule's name, `gopher-quality.few-words`.
        threshold: One threshold to account for; a spread of them when omitted.

    Raises:
        ArtifactError: The corpus is missing or damaged, or was built without quality rules.
        DataError: There is no such rule.
    """
    read_manifest(corpus, "corpus")
    clean = from_dict(
        CleanConfig, read_json(corpus / "config.json")["clean"], str(corpus / "config.json")
    )
    known = {known.name: known for known in (*CHINESE_RULES, *ENGLISH_RULES, *MODEL_RULES)}
    if rule not in known:
        raise DataError(
            f"there is no quality rule `{rule}`", fix=f"There are {', '.join(sorted(known))}"
        )
    table = _read(signals_path(corpus), known[rule].signal)
    groups = np.array([rule_group(language) for language in table["language"].to_pylist()])
    accounts = []
    for group in GROUPS:
        rows = np.flatnonzero((groups == group) & ~np.isnan(table["value"].to_numpy()))
        default = [r for r in (*_group_defaults(group), *MODEL_RULES) if r.name == rule]
        if rows.size and default:
            in_force = (*group_rules(clean, group), *model_rules(clean))
            chosen = [r for r in in_force if r.name == rule]
            mine = table.take(rows)
            one = _finite((chosen or default)[0], mine)
            accounts.append(_account(mine, group, one, bool(chosen), threshold, max_examples))
    return Why(rule, known[rule].signal, known[rule].side, tuple(accounts))


def _finite(rule: Rule, table: pa.Table) -> Rule:
    """A limit that a model set by language as what it let pass: the greatest value kept."""
    if not math.isinf(rule.threshold):
        return rule
    values: NDArray[np.float64] = table["value"].to_numpy()
    kept = values[np.array(table["reason"].to_pylist(), dtype=object) == ""]
    return replace(rule, threshold=float(kept.max() if kept.size else values.min()))


def _group_defaults(group: str) -> tuple[Rule, ...]:
    return CHINESE_RULES if group in ("chinese", "unspaced") else ENGLISH_RULES


def _read(path: Path, signal: str) -> pa.Table:
    """The texts and one signal of every document; a few hundred bytes a document in memory."""
    if not path.is_file():
        raise ArtifactError(
            "this corpus holds no signals: it was built without quality rules",
            where=str(path.parent),
            fix='Set `english = ["gopher-quality", …]` under [clean.quality] and build it again',
        )
    try:
        columns = [*_TEXTS, signal]
        table = pa.concat_tables(
            pq.read_table(p, columns=columns, page_checksum_verification=True)
            for p in part_paths(path)
        )
    except (OSError, pa.ArrowException) as error:
        raise ArtifactError(
            f"the signals cannot be read: {error}", where=str(path), fix="Build the corpus again"
        ) from None
    return table.rename_columns([*_TEXTS, "value"])


def _account(
    table: pa.Table, group: str, rule: Rule, in_force: bool, asked: float | None, n_examples: int
) -> Account:
    values: NDArray[np.float64] = table["value"].to_numpy()
    reasons = np.array(table["reason"].to_pylist(), dtype=object)
    # Turned so that failing is always lying above.
    sign = 1.0 if rule.side == "max" else -1.0
    height, limit = sign * values, sign * rule.threshold
    fails = height > limit
    thresholds = (
        [asked]
        if asked is not None
        else sorted({float(np.quantile(values, s if sign < 0 else 1 - s)) for s in _SHARES})
    )
    alternatives = tuple(
        Alternative(
            threshold=other,
            failing=int((height > sign * other).sum()),
            lost=int(((height > sign * other) & (reasons == "")).sum()),
            gained=int(((height <= sign * other) & (reasons == rule.name)).sum()),
        )
        for other in thresholds
    )
    near = np.argsort(np.abs(values - rule.threshold), kind="stable")
    return Account(
        group=group,
        threshold=rule.threshold,
        in_force=in_force,
        judged=values.size,
        failing=int(fails.sum()),
        dropped=int((reasons == rule.name).sum()),
        alternatives=alternatives,
        dropped_examples=_examples(table, near[fails[near]][:n_examples]),
        kept_examples=_examples(table, near[~fails[near] & (reasons[near] == "")][:n_examples]),
    )


def _examples(table: pa.Table, rows: NDArray[np.int64]) -> tuple[Example, ...]:
    return tuple(
        Example(row["id"], row["source"], row["value"], row["reason"], row["excerpt"])
        for row in table.take(rows).to_pylist()
    )


# --- the stage -----------------------------------------------------------------------------


def write_signals(
    engine: Engine, recipe: DataRecipe, shards: Sequence[Shard], choices: Output, aside: Path
) -> None:
    """Write the signals and the fate of every document into the folder of a corpus."""
    starts = np.cumsum([0, *(shard.documents for shard in shards)]).tolist()
    pieces = [
        Piece(
            f"{number:05d}",
            starts[begin : end + 1],
            (choices, *(o for s in shards[begin:end] for o in (s.annotated, s.judged))),
            bytes=sum(int(s.annotated.statistics["bytes"]) for s in shards[begin:end]),
        )
        for number, (begin, end) in enumerate(cut_into_parts(shards, PART_BYTES))
    ]
    parameters = {"hidden": hidden_kinds(recipe.clean)}
    for number, output in enumerate(engine.map("signals", write_part, pieces, parameters)):
        link_file(output.directory / _SIGNALS, part_path(signals_path(aside), number))


def write_part(work: Work) -> dict[str, Any]:
    """The task: the rows of some shards, in row groups of about 8,192."""
    waiting: list[pa.Table] = []
    with pq.ParquetWriter(
        work.out / _SIGNALS,
        _SCHEMA,
        compression="zstd",
        compression_level=3,
        write_page_checksum=True,
    ) as file:
        for table in _rows(work):
            waiting.append(table)
            if sum(map(len, waiting)) >= _ROW_GROUP:
                file.write_table(pa.concat_tables(waiting).combine_chunks())
                waiting = []
        if waiting:
            file.write_table(pa.concat_tables(waiting).combine_chunks())
    return {}


def _rows(work: Work) -> Iterator[pa.Table]:
    starts, hidden = work.value, tuple(work.parameters["hidden"])
    for number, (begin, end) in enumerate(pairwise(starts)):
        annotated, judged = work.inputs[1 + 2 * number : 3 + 2 * number]
        choices = choices_of(work.inputs[0], begin, end)
        decided = read_judged(judged, ["reason"])["reason"].to_pylist()
        reasons, row = reasons_of(choices, decided), 0
        for table in read_tables(annotated):
            here = reasons[row : row + len(table)]
            row += len(table)
            yield _signals_table(table, here, hidden)


def _signals_table(table: pa.Table, reasons: list[str], hidden: tuple[PIIName, ...]) -> pa.Table:
    said = table["language"]
    texts = table["text"]
    if hidden:
        shown = [pii.redact(text, pii.find(text, hidden)) for text in texts.to_pylist()]
        texts = pa.array(shown, pa.string())
    nothing = pa.array(np.full(len(table), math.nan))
    columns = {name: table[name] for name in ("id", "source")}
    columns |= {
        "language": pc.if_else(pc.equal(said, UNKNOWN), table["identified"], said),
        "reason": pa.array(reasons, pa.string()),
        "excerpt": pc.utf8_slice_codeunits(texts, 0, _EXCERPT_CHARACTERS),
        "bytes": table["raw_bytes"],
    }
    there = set(table.column_names)
    columns |= {name: table[name] if name in there else nothing for name in ALL_SIGNALS}
    return pa.table(columns, schema=_SCHEMA)
