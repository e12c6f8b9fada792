"""A run's directory: claimed by one recipe at the start, sealed by its manifest at the end.

Ladders claim theirs in the same way.

Not for checkpoints (`checkpoint.py`) nor logs (`metrics.py`) inside it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from isoflop.core.artifact import (
    MANIFEST,
    read_json,
    read_manifest,
    sha256_file,
    sha256_json,
    write_json,
    write_manifest,
)
from isoflop.core.errors import ArtifactError, RunError
from isoflop.core.hardware import machine
from isoflop.core.lock import locked
from isoflop.core.recipe import to_dict
from isoflop.training.recipe import DataConfig, TrainRecipe
from isoflop.version import __version__

if TYPE_CHECKING:  # torch, which whoever only claims a directory can do without
    from isoflop.training.parallel.ranks import Ranks

FORMAT = 2
"""Version of the run directory; another one is refused, never guessed at."""
CONFIG = "config.json"
_FREE = (
    "data.shards", "data.pairs", "data.set", "data.replay", "data.tokenizer", "model.path",
    "train.threads", "train.micro_batch_tokens", "train.device", "train.recompute",
    "train.activation_bytes", "train.compile", "train.native_kernels", "processes", "forecast.",
    "parallel", "eval",
)  # fmt: skip
"""What may differ when a run continues, by how the key begins: where the same shards lie now, what
only changes speed (and with it the last bits), and what only watches or asks the finished runs."""


class Recipe(Protocol):
    """What is asked of a recipe here: a dataclass that names its shards."""

    @property
    def data(self) -> DataConfig:
        """Where the tokens come from."""


def claim(directory: Path, recipe: Recipe, kind: str = "run") -> None:
    """Write the resolved recipe, or check that the run already there has the same one.

    Args:
        kind: What the directory holds, for messages: a run or a ladder.

    Raises:
        RunError: The directory holds something else, a run of another version, or a run of
            another recipe (naming the keys that differ).
        ArtifactError: The shards are not finished shards.
    """
    for shards_dir in recipe.data.directories:
        read_manifest(shards_dir, "shards")
    files = recipe.data.files
    changed = (
        "data.pairs or its tokenizer were others" if files else "data.shards were other shards"
    )
    claim_for(directory, to_dict(recipe), (*recipe.data.directories, *files), changed, kind)


def claim_for(
    directory: Path,
    resolved: Mapping[str, Any],
    inputs: Sequence[Path],
    changed: str,
    kind: str = "run",
) -> None:
    """`claim`, for a resolved recipe and what it reads: finished artifacts of any kind, and files.

    Args:
        changed: What a message says when the inputs are not those the run was started with.

    Raises:
        RunError: As for `claim`.
        ArtifactError: An input is neither an artifact nor a file.
    """
    path = directory / CONFIG
    hashes = [_fingerprint(read) for read in inputs]
    if not path.exists():
        foreign = sorted(p.name for p in directory.iterdir() if not p.name.startswith("."))
        if foreign:
            raise RunError(
                f"the directory is not a {kind}: it has no {CONFIG} but holds {foreign[0]}",
                where=str(directory),
                fix="Choose another directory with -o",
            )
        write_json(
            path,
            {
                "format": FORMAT,
                "isoflop_version": __version__,
                "sha256": sha256_json(resolved),
                "shards_sha256": hashes,
                "recipe": resolved,
            },
        )
        return
    config = read_json(path)
    if not isinstance(config, dict) or config.get("format") != FORMAT:
        version = config.get("isoflop_version", "unknown") if isinstance(config, dict) else "?"
        raise RunError(
            f"this {kind} was written by Isoflop {version} in a format that {__version__} does "
            "not continue",
            where=str(path),
            fix="Continue it with that version, or start anew in another directory with -o",
        )
    whole = {"recipe", "sha256", "shards_sha256"} <= config.keys()
    if not whole or config["sha256"] != sha256_json(config["recipe"]):
        raise ArtifactError(
            f"the recipe that this {kind} was started with differs from its hash: the file was "
            "damaged",
            where=str(path),
            fix="Restore it from a copy, or start anew in another directory with -o",
        )
    differing = list(_differences(config["recipe"], resolved))
    if config["shards_sha256"] != hashes:
        differing.append(changed)
    if differing:
        raise RunError(
            f"this {kind} was started with another recipe: " + "; ".join(differing[:5]),
            where=str(directory),
            fix="Use the recipe it was started with, or another directory with -o",
        )


@contextmanager
def claimed(directory: Path, recipe: TrainRecipe, ranks: Ranks) -> Iterator[None]:
    """Hold a run's directory for all its processes, as `locked` and `claim` do for one.

    Raises:
        RunError, ArtifactError: As they do.
    """
    with ExitStack() as held:

        def take() -> None:
            held.enter_context(locked(directory))
            claim(directory, recipe)

        ranks.from_main(take)
        yield


def _fingerprint(read: Path) -> str:
    file = read / MANIFEST if read.is_dir() else read
    if not file.is_file():
        raise ArtifactError("no such file", where=str(file))
    return sha256_file(file)


def seal(directory: Path, recipe: TrainRecipe) -> None:
    """Hash what the finished run vouches for and write its manifest."""
    inputs = (*recipe.data.directories, *recipe.data.files)
    seal_for(directory, to_dict(recipe), inputs, recipe.train.seed)


def seal_for(
    directory: Path, resolved: Mapping[str, Any], inputs: Sequence[Path], seed: int
) -> None:
    """`seal`, for a resolved recipe and the artifacts it reads, of any kind."""
    names = [CONFIG, "result.json", "metrics.jsonl", "evals.jsonl", "samples.jsonl"]
    # Rounds of runs have logs of their own, below.
    files = [path for name in names if (path := directory / name).exists()]
    files += sorted(p for p in (directory / "model").rglob("*") if p.is_file())
    write_manifest(
        directory,
        kind="run",
        config=resolved,
        machine=machine(),
        inputs=inputs,
        seed=seed,
        files=files,
    )


def _differences(
    before: Mapping[str, Any], now: Mapping[str, Any], prefix: str = ""
) -> Iterator[str]:
    for key in sorted(before.keys() | now.keys()):
        old, new = before.get(key), now.get(key)
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            yield from _differences(old, new, f"{prefix}{key}.")
        elif f"{prefix}{key}" == "data.mixture":
            yield from _differences(_by_name(old), _by_name(new), "data.mixture.")
        elif old != new and not _is_free(f"{prefix}{key}"):
            yield f"{prefix}{key} was {old}, now {new}"


def _by_name(mixture: Sequence[Mapping[str, Any]] | None) -> dict[str, Mapping[str, Any]]:
    return {source["name"]: source for source in mixture or ()}


def _is_free(name: str) -> bool:
    return name.startswith(_FREE) or (name.startswith("data.mixture.") and name.endswith(".shards"))
