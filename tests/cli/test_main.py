"""The entry point: quick help, exit codes, and errors that are one paragraph."""

from __future__ import annotations

import errno
import importlib
import json
import os
import subprocess
import sys
import types
from collections.abc import Callable

import numpy as np
import pytest

from isoflop.cli import main as module
from isoflop.cli.main import COMMANDS, main
from isoflop.core.errors import DataError

HEAVY = "{'torch', 'scipy', 'pyarrow', 'transformers', 'tokenizers', 'numpy'}"


def run_python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)


@pytest.mark.parametrize(
    "args",
    [["--help"], ["--version"], ["doctor", "--help"], ["ledger", "--help"], ["doctor"]],
)
def test_help_imports_nothing_heavy(args: list[str]) -> None:
    done = run_python(
        "import sys; from isoflop.cli.main import main\n"
        f"assert main({args!r}) == 0\n"
        f"heavy = {HEAVY} & set(sys.modules); assert not heavy, heavy\n"
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_the_list_of_commands_does_not_even_import_tyro_or_rich() -> None:
    done = run_python(
        "import sys; from isoflop.cli.main import main; main(['--help'])\n"
        "assert not {'tyro', 'rich'} & set(sys.modules)\n"
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert all(f"\n  {name} " in done.stdout for name in COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_listed_command_is_built_and_has_help_without_torch(name: str) -> None:
    assert callable(importlib.import_module(COMMANDS[name][0]).run)
    done = run_python(
        f"import sys; from isoflop.cli.main import main; code = main([{name!r}, '--help'])\n"
        "assert not {'torch', 'scipy', 'pyarrow', 'transformers'} & set(sys.modules)\n"
        "sys.exit(code)"
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "usage: isoflop" in done.stdout


def test_python_dash_m_is_the_same_command() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "isoflop", "--version"], capture_output=True, text=True
    )
    assert done.stdout.startswith("isoflop ")
    assert done.returncode == 0


def test_an_unknown_command_suggests_the_nearest(capsys) -> None:
    assert main(["docter"]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err == "isoflop: there is no command `docter`. Did you mean `isoflop doctor`?\n"


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_messages_are_whole_on_terminals_of_any_encoding(encoding: str) -> None:
    for args in (["--help"], ["doctor", "--calibrat"]):
        done = subprocess.run(
            [sys.executable, "-m", "isoflop", *args],
            capture_output=True,
            text=True,
            env={**os.environ, "PYTHONIOENCODING": encoding},
        )
        assert done.returncode == (2 if "--calibrat" in args else 0)
        assert "Traceback" not in done.stderr
    assert done.stderr == (
        "isoflop doctor: unrecognized options: --calibrat. Did you mean --calibrate? "
        "`isoflop doctor --help` lists every option.\n"
    )


def test_no_command_is_bad_usage_and_shows_the_list(capsys) -> None:
    assert main([]) == 2
    assert "usage: isoflop" in capsys.readouterr().err


def test_an_unknown_option_is_one_paragraph_with_a_suggestion(capsys) -> None:
    assert main(["doctor", "--calibrat"]) == 2
    said = capsys.readouterr().err
    assert "Did you mean --calibrate?" in said
    assert said.count("\n") == 1


@pytest.fixture
def command(monkeypatch) -> Callable[[Callable[[list[str]], int]], None]:
    """Put a function in the place of a command called `fake`."""

    def install(run: Callable[[list[str]], int]) -> None:
        fake = types.ModuleType("isoflop_fake_command")
        fake.run = run  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, fake.__name__, fake)
        monkeypatch.setitem(COMMANDS, "fake", (fake.__name__, "for a test"))

    return install


def raising(error: BaseException) -> Callable[[list[str]], int]:
    def run(args: list[str]) -> int:
        raise error

    return run


def test_a_command_gets_its_arguments_and_gives_the_exit_code(command) -> None:
    command(lambda args: 1 if args == ["-o", "x"] else 0)
    assert main(["fake", "-o", "x"]) == 1
    assert main(["fake"]) == 0


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (DataError("no text", where="a.txt", fix="Give some"), "a.txt: no text. Give some.\n"),
        (OSError(errno.ENOSPC, "x", "run/a.bin"), "run/a.bin: the disk is full. Free some space"),
        (OSError(errno.EDQUOT, "x"), "OUT: the disk quota is used up."),
        (OSError(errno.EFBIG, "x", "a.bin"), "a.bin: the file would be larger than allowed"),
        (PermissionError(errno.EACCES, "x", "/etc/a"), "/etc/a: permission denied. Choose"),
        (FileNotFoundError(errno.ENOENT, "x", "a.csv"), "a.csv: no such file or directory."),
        (IsADirectoryError(errno.EISDIR, "x", "a"), "a: this is a directory, not a file."),
    ],
)
def test_a_users_error_is_one_paragraph_and_exit_2(command, capsys, error, words) -> None:
    command(raising(error))
    assert main(["fake", "-o", "OUT"]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith(words)
    assert said.err.count("\n") == 1


def test_with_json_an_error_is_also_a_document_on_stdout(command, capsys) -> None:
    command(raising(DataError("no text", where="a.txt", fix="Give some")))
    assert main(["fake", "--json"]) == 2
    said = capsys.readouterr()
    error = {"what": "no text", "where": "a.txt", "fix": "Give some"}
    assert json.loads(said.out) == {"error": error}
    assert said.err == "a.txt: no text. Give some.\n"


def test_a_disk_that_fills_under_numpy_is_recognised(command, capsys) -> None:
    def run(args: list[str]) -> int:
        with open("/dev/full", "wb", buffering=0) as file:
            np.zeros(100_000).tofile(file)
        return 0

    if not os.path.exists("/dev/full"):
        pytest.skip("no /dev/full on this system")
    command(run)
    assert main(["fake", "--out", "OUT"]) == 2
    assert capsys.readouterr().err.startswith("OUT: the disk is full.")


def test_programming_mistakes_and_other_system_errors_keep_their_traceback(command) -> None:
    for error in (ZeroDivisionError(), OSError(errno.EIO, "x"), OSError("no number")):
        command(raising(error))
        with pytest.raises(type(error)):
            main(["fake"])


def test_an_interrupt_says_how_to_continue(command, capsys) -> None:
    command(raising(KeyboardInterrupt()))
    assert main(["fake"]) == 130
    assert "interrupted; run the same command again to continue" in capsys.readouterr().err


def test_a_reader_that_goes_away_is_no_error_to_speak_of() -> None:
    code = (
        "import sys; from isoflop.cli import main as m\n"
        "m.help_text = lambda: 'x' * 10_000_000\n"
        "sys.exit(m.main(['--help']))"
    )
    worker = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert worker.stdout is not None
    assert worker.stderr is not None
    worker.stdout.read(10)
    worker.stdout.close()
    assert worker.stderr.read() == b""
    worker.stderr.close()
    assert worker.wait() == module.BROKEN_PIPE
