"""The native library: built once per machine with its own C++ compiler, and loaded.

Not for what its functions compute (`decode.cpp` for serving, the others for training) nor for
calling them (`decode.py`, `calls.py`). Where there is no compiler, or it fails, everything runs on
plain torch, and `Library.why` says why.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch

from isoflop.core.hardware import cache_path

HERE = Path(__file__).parent
SOURCES, HEADERS = sorted(HERE.glob("*.cpp")), sorted(HERE.glob("*.h"))
COMPILERS = ("c++", "g++", "clang++")
FLAGS = ("-O3", "-march=native", "-ffp-contract=fast", "-fno-math-errno", "-std=c++17", "-fPIC")
BUILD_SECONDS = 120


@dataclass(frozen=True)
class Library:
    """The library where it could be had, and what is to be said of it."""

    functions: ctypes.CDLL | None
    why: str
    """Where it lies, or why there is none."""


@cache
def library() -> Library:
    """The native library of this machine, built now if it was not before."""
    if platform.system() == "Windows":
        return Library(None, "not built on Windows")
    compiler = _compiler()
    if compiler is None:
        return Library(None, "no C++ compiler (c++, g++ or clang++) was found")
    path = cache_path({}).parent / f"kernels-{_fingerprint(compiler)}.so"
    try:
        if not path.exists():
            _build(compiler, path)
        _share_threads()
        return Library(ctypes.CDLL(str(path)), str(path))
    except subprocess.TimeoutExpired:
        return Library(None, f"{compiler} did not end within {BUILD_SECONDS} s")
    except subprocess.CalledProcessError as error:
        first = (error.stderr or "").strip().splitlines()[:1]
        return Library(None, f"{compiler} failed: {first[0] if first else 'no message'}")
    except OSError as error:
        return Library(None, f"the library cannot be kept or loaded: {error}")


def _compiler() -> str | None:
    named = os.environ.get("CXX")
    return next(
        (found for name in ((named,) if named else COMPILERS) if (found := shutil.which(name))),
        None,
    )


def _fingerprint(compiler: str) -> str:
    """Of everything that the machine code depends on."""
    version = subprocess.run([compiler, "--version"], capture_output=True, text=True, timeout=30)
    parts = [path.read_text(encoding="utf-8") for path in (*SOURCES, *HEADERS)]
    parts += [compiler, version.stdout, *FLAGS]
    parts += [platform.machine(), _instructions(), torch.__version__]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def _instructions() -> str:
    """What the processor can do: a home directory may serve machines of different kinds."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line for line in lines if line.startswith(("flags", "Features"))), "")


def _build(compiler: str, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".kernels-") as aside:
        built = Path(aside) / "kernels.so"
        objects = [Path(aside) / f"{source.stem}.o" for source in SOURCES]
        # Compiled for OpenMP but linked without its library: torch brings its own, and two of
        # them in one process would keep two sets of threads that wait for work on the same cores.
        for source, object_file in zip(SOURCES, objects, strict=True):
            _run(compiler, *FLAGS, "-fopenmp", "-c", str(source), "-o", str(object_file))
        threads = () if _openmp_of_torch() else ("-fopenmp",)
        _run(compiler, "-shared", *threads, *map(str, objects), "-o", str(built))
        built.replace(path)


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, text=True, timeout=BUILD_SECONDS)


def _openmp_of_torch() -> Path | None:
    """The OpenMP library that came with torch, if it is GNU's."""
    return next(iter(sorted((Path(torch.__file__).parent / "lib").glob("libgomp*.so*"))), None)


def _share_threads() -> None:
    openmp = _openmp_of_torch()
    if openmp is not None:
        ctypes.CDLL(str(openmp), mode=ctypes.RTLD_GLOBAL)
