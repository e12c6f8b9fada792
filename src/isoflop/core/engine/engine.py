"""The two verbs, map and group, over tasks that are run only where their marker is missing.

Not for where tasks run (`placement`) nor for what they do.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from isoflop.core.engine.placement import Placement
from isoflop.core.engine.task import Function, Output, Task, make_task, read_output
from isoflop.core.errors import RunError

PARTITION_BYTES = 16_000_000
"""Records that one task of a group holds in memory, as far as keys spread evenly."""


@dataclass(frozen=True)
class Piece:
    """One task's share of a stage."""

    name: str
    """Unique in its stage, and a file name."""
    value: Any
    """Plain JSON values."""
    inputs: tuple[Output, ...] = ()
    """The outputs of earlier tasks that it reads."""
    bytes: int = 1
    """How much work it is."""


class Engine:
    """Runs stages in a working folder; a task whose marker is there is not run again.

    A marker's name hashes the code, the parameters and the hashes of all inputs, so a changed
    parameter runs what depends on it and nothing else. Neither the placement nor the number of
    workers enters it: pieces are cut by bytes, and their outputs are the same anywhere.

    Args:
        folder: The working folder; on a cluster, one that all machines see under this path.
        report: Told after each task: stage, bytes finished, bytes in all.
    """

    def __init__(
        self,
        folder: Path,
        placement: Placement,
        report: Callable[[str, int, int], None] = lambda stage, done, total: None,
    ) -> None:
        self._folder, self._placement, self._report = folder, placement, report
        self._used: set[Path] = set()
        self.executed: Counter[str] = Counter()
        """Stage → tasks that were run here, not found finished."""
        for partial in folder.glob("*/.*.partial"):
            shutil.rmtree(partial, ignore_errors=True)

    def map(
        self, stage: str, function: Function, pieces: Sequence[Piece], parameters: Any = None
    ) -> list[Output]:
        """Run `function` once for each piece; outputs in the order of the pieces.

        Args:
            function: A function of a module, by whose name other processes find it.
            parameters: Plain JSON values that all tasks share.

        Raises:
            RunError: A task failed, or its worker was killed again and again.
            IsoflopError, OSError: As the function raises them.
        """
        tasks = [
            make_task(
                self._folder,
                stage,
                piece.name,
                function,
                piece.value,
                parameters,
                piece.inputs,
                piece.bytes,
            )
            for piece in pieces
        ]
        outputs = [read_output(task) for task in tasks]
        missing = [task for task, output in zip(tasks, outputs, strict=True) if output is None]
        total = sum(task.bytes for task in tasks)
        finished = total - sum(task.bytes for task in missing)
        self._report(stage, finished, total)

        def done(task: Task) -> None:
            nonlocal finished
            finished += task.bytes
            self.executed[stage] += 1
            self._report(stage, finished, total)

        # The largest first, so that no worker is left alone with one at the end.
        self._placement.run(sorted(missing, key=lambda task: -task.bytes), done)
        self._used.update(Path(task.directory) for task in tasks)
        return [
            output if output is not None else _require(task)
            for task, output in zip(tasks, outputs, strict=True)
        ]

    def group(
        self,
        stage: str,
        function: Function,
        inputs: Sequence[Output],
        file: str,
        parameters: Any = None,
        others: Sequence[Output] = (),
    ) -> list[Output]:
        """Run `function` once for each range of keys over the records of all inputs.

        Every input holds `file`, written by `records.write_records`; a task reads its share with
        `records.read_partition`. All records of a key meet in one task. The number of ranges
        follows from the bytes of the records alone.

        Args:
            others: Outputs that every task reads too (`records.others`).

        Raises:
            As `map`.
        """
        size = sum((output.directory / file).stat().st_size for output in inputs)
        parts = max(1, -(-size // PARTITION_BYTES))
        pieces = [
            Piece(
                f"{part:05d}",
                {"file": file, "part": part, "parts": parts, "inputs": len(inputs)},
                (*inputs, *others),
                size // parts,
            )
            for part in range(parts)
        ]
        return self.map(stage, function, pieces, parameters)

    def prune(self) -> None:
        """Remove outputs that no stage of this engine asked for: those of other parameters."""
        for directory in self._folder.glob("*/*-*"):
            if directory.is_dir() and directory not in self._used:
                shutil.rmtree(directory, ignore_errors=True)


def _require(task: Task) -> Output:
    output = read_output(task)
    if output is None:
        raise RunError(
            f"{task.label} was run, but its output is not here",
            where=task.directory,
            fix="All machines must see the working folder under the same path",
        )
    return output
