"""Records of fixed size in files sorted by key, so that any range of keys is one slice of each.

Not for rows of text: a record carries a key and numbers, and stands for a document.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from isoflop.core.engine.task import Work
from isoflop.core.errors import ArtifactError

KEY = "key"
_KEYS = 1 << 64
_CHUNK = 1 << 18


def write_records(path: Path, records: npt.NDArray[Any]) -> None:
    """Write records sorted by their field `key` (uint64, spread evenly: a hash)."""
    order = np.argsort(records[KEY], kind="stable")
    # As `np.save` would, without a sorted copy of all of them.
    header = {
        "descr": np.lib.format.dtype_to_descr(records.dtype),
        "fortran_order": False,
        "shape": records.shape,
    }
    with open(path, "wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        for at in range(0, len(order), _CHUNK):
            records[order[at : at + _CHUNK]].tofile(file)


def read_records(path: Path) -> npt.NDArray[Any]:
    """Memory-map the records of a file.

    Raises:
        ArtifactError: The file is damaged.
    """
    try:
        array: npt.NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise ArtifactError(
            f"the records cannot be read: {error}",
            where=str(path),
            fix="Remove this folder, then run the same command again",
        ) from None
    return array


def read_partition(work: Work) -> npt.NDArray[Any]:
    """The records of a group's task, sorted by key; equal keys in the order of the inputs."""
    value = work.value
    paths = [directory / value["file"] for directory in work.inputs[: value["inputs"]]]
    return read_range(paths, value["part"], value["parts"])


def others(work: Work) -> tuple[Path, ...]:
    """The directories that a group's task reads beside those of its records."""
    return work.inputs[work.value["inputs"] :]


def read_range(paths: Sequence[Path], part: int, parts: int) -> npt.NDArray[Any]:
    """The records of all files whose key lies in range number `part` of `parts`, sorted."""
    low, high = (_KEYS * number // parts for number in (part, part + 1))
    slices = []
    for path in paths:
        records = read_records(path)
        begin = np.searchsorted(records[KEY], np.uint64(low)) if low else 0
        end = np.searchsorted(records[KEY], np.uint64(high)) if high < _KEYS else len(records)
        slices.append(records[begin:end])
    found = np.concatenate(slices)
    del slices, records  # and with them what was mapped
    return found[np.argsort(found[KEY], kind="stable")]
