"""Functions of tasks in a module that other processes can import, too."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest

FUNCTIONS = '''
import errno, os, signal
from pathlib import Path
import numpy as np
from isoflop.core.engine.records import KEY, read_partition, write_records
from isoflop.core.errors import DataError

RECORD = np.dtype([(KEY, "<u8"), ("document", "<u8")])


def times(work):
    product = work.value * work.parameters["factor"]
    (work.out / "product.txt").write_text(str(product))
    return {"product": product}


def total(work):
    (work.out / "total.txt").write_text(str(sum(
        int((directory / "product.txt").read_text()) for directory in work.inputs
    ) + (work.parameters or 0)))
    return {}


def emit(work):
    """Thousand records of hashes drawn for this piece; every piece draws among the same keys."""
    keys = np.random.default_rng(0).integers(0, 2**64, 500, dtype=np.uint64)
    draw = np.random.default_rng(work.value)
    records = np.zeros(1000, RECORD)
    records[KEY] = keys[draw.integers(0, 500, 1000)]
    records["document"] = work.value * 1000 + np.arange(1000)
    write_records(work.out / "records.npy", records)
    return {}


def count(work):
    records = read_partition(work)
    keys, counts = np.unique(records[KEY], return_counts=True)
    np.save(work.out / "counts.npy", np.stack([keys, counts.astype("<u8")]))
    return {"keys": len(keys), "records": len(records)}


def fail(work):
    work.place = "rows.jsonl, document 7"
    return {"value": 1 // 0}


def refuse(work):
    raise DataError("nothing to read", where="rows.jsonl", fix="Add rows")


def full(work):
    (work.out / "half.txt").write_text("half")
    raise OSError(errno.ENOSPC, "No space left on device", str(work.out / "half.txt"))


def killed_at_first(work):
    """Dies `times` times, counting in a file."""
    path = Path(work.parameters["folder"], str(work.value))
    before = len(path.read_text()) if path.exists() else 0
    path.write_text("x" * (before + 1))
    if before < work.parameters["times"]:
        os.kill(os.getpid(), signal.SIGKILL)
    (work.out / "done.txt").write_text("done")
    return {}
'''


@pytest.fixture(scope="session")
def functions_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("functions")
    (folder / "functions_of_test.py").write_text(FUNCTIONS)
    return folder


@pytest.fixture
def functions(functions_folder: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The module; found by workers through `sys.path` or the environment."""
    monkeypatch.syspath_prepend(str(functions_folder))
    source = Path(__file__).resolve().parents[3] / "src"
    monkeypatch.setenv("PYTHONPATH", f"{functions_folder}:{source}")
    import functions_of_test  # type: ignore[import-not-found]

    module: ModuleType = functions_of_test
    return module
