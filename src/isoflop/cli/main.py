"""The entry point `isoflop`: which commands there are, and what becomes of their errors.

Not for any command's own work. Imports nothing heavy, so that `isoflop --help` answers at once.
"""

from __future__ import annotations

import errno
import importlib
import io
import os
import sys
from collections.abc import Callable, Sequence
from itertools import pairwise

from isoflop.core.errors import IsoflopError
from isoflop.core.process import is_main_process
from isoflop.version import __version__

DONE, BAD_VERDICT, BAD_INPUT, INTERRUPTED, BROKEN_PIPE = 0, 1, 2, 130, 141

COMMANDS: dict[str, tuple[str, str]] = {
    "demo": ("isoflop.cli.demo", "the whole flow on this machine: a promise, made and scored"),
    "doctor": ("isoflop.cli.doctor", "the machine, versions, and measured peaks"),
    "data": ("isoflop.cli.data", "build a corpus from text, or look into one"),
    "tokenizer": ("isoflop.cli.tokenizer", "train, study or extend a tokenizer"),
    "tokenize": ("isoflop.cli.tokenize", "turn a corpus into shards of tokens"),
    "train": ("isoflop.cli.train", "train a model, or continue where a run stopped"),
    "sft": ("isoflop.cli.sft", "fine-tune a model on instructions and conversations"),
    "reward": ("isoflop.cli.reward", "train a reward model on preference pairs"),
    "dpo": ("isoflop.cli.dpo", "train a model on preference pairs directly"),
    "ppo": ("isoflop.cli.ppo", "train a model on rewards, with a critic"),
    "grpo": ("isoflop.cli.grpo", "train a model on rewards, by comparing its answers"),
    "iterate": ("isoflop.cli.iterate", "draw answers, keep the best, learn from them, again"),
    "verify": ("isoflop.cli.verify", "prove that fine-tuning and alignment train right here"),
    "ladder": ("isoflop.cli.ladder", "train many small models for a law"),
    "mixture": ("isoflop.cli.mixture", "the best shares of several sources, found by tiny models"),
    "laws": ("isoflop.cli.laws", "fit a law to runs, predict with it, find the optimum"),
    "emergence": ("isoflop.cli.emergence", "whether abilities in a table of scores emerge"),
    "plan": ("isoflop.cli.plan", "a whole run from a budget: size, data, layout, time, cost, loss"),
    "models": ("isoflop.cli.models", "published models by name: shapes, parameters, costs"),
    "compress": ("isoflop.cli.compress", "a smaller model: fewer bits or fewer weights"),
    "import": ("isoflop.cli.importing", "a Hugging Face directory as a model to train further"),
    "export": ("isoflop.cli.exporting", "a model as other tools open it"),
    "report": ("isoflop.cli.report", "write runs, laws and promises as one HTML page"),
    "runs": ("isoflop.cli.runs", "every run and artifact below a folder, and how to continue"),
    "show": ("isoflop.cli.show", "what something is, where it came from, what to do with it"),
    "ledger": ("isoflop.cli.ledger", "promises made and how many held"),
    "eval": ("isoflop.cli.evaluate", "score a model on tasks, with intervals and chance"),
    "grokking": ("isoflop.cli.grokking", "a sum memorised, then understood, by weight decay"),
    "chat": ("isoflop.cli.chat", "talk to a model"),
    "serve": ("isoflop.cli.serve", "a model behind OpenAI's API, with a page to talk to it"),
    "redteam": ("isoflop.cli.redteam", "attack the safety filter and count what passes"),
    "feedback": ("isoflop.cli.feedback", "what people thought of answers, as rows to train on"),
}
"""Command → (module with `run(args) -> exit code`, one line of help)."""

_FULL = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EFBIG: "the file would be larger than allowed here",
}
_UNREACHABLE = {
    errno.ENOENT: ("no such file or directory", "Check the path"),
    errno.ENOTDIR: ("a part of this path is a file, not a directory", "Check the path"),
    errno.EISDIR: ("this is a directory, not a file", "Check the path"),
    errno.EACCES: ("permission denied", "Choose another path, or change its permissions"),
    errno.EPERM: ("operation not permitted", "Choose another path, or change its permissions"),
    errno.EROFS: ("the file system is read-only", "Choose another directory with -o"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code.

    0 done · 1 the work ran and its verdict is bad · 2 bad input or usage · 130 interrupted ·
    141 the reader of stdout went away.
    """
    args = list(sys.argv[1:] if argv is None else argv)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal without "…" shows "?" instead
            stream.reconfigure(errors="replace")
    try:
        code = _run(args)
        sys.stdout.flush()
        return code
    except IsoflopError as error:
        return _complain(error, args)
    except BrokenPipeError:
        # The rest of what is buffered has no reader either: let the exit flush it into nothing.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    except OSError as error:
        known = _explain(error, args)
        if known is None:
            raise
        return _complain(known, args)
    except KeyboardInterrupt:
        print("\ninterrupted; run the same command again to continue", file=sys.stderr)
        return INTERRUPTED
    except SystemExit as stop:  # `--help` of a command
        sys.stdout.flush()
        return stop.code if isinstance(stop.code, int) else DONE


def help_text() -> str:
    """What `isoflop --help` prints."""
    width = max(map(len, COMMANDS))
    listed = "\n".join(f"  {name:<{width}}  {help_}" for name, (_, help_) in COMMANDS.items())
    return (
        "usage: isoflop COMMAND …\n\n"
        "Language models whose outcome is known before they are paid for.\n\n"
        f"{listed}\n\n"
        "`isoflop COMMAND --help` shows the options of a command; every command takes --json.\n"
        "Exit codes: 0 done, 1 the verdict is bad, 2 bad input or usage."
    )


def _run(args: list[str]) -> int:
    if not args:
        print(help_text(), file=sys.stderr)
        return BAD_INPUT
    name, rest = args[0], args[1:]
    if name in ("-h", "--help", "help"):
        print(help_text())
        return DONE
    if name in ("-V", "--version"):
        print(f"isoflop {__version__}")
        return DONE
    if name not in COMMANDS:
        raise _unknown(name)
    run: Callable[[list[str]], int] = importlib.import_module(COMMANDS[name][0]).run
    return run(rest)


def _unknown(name: str) -> IsoflopError:
    import difflib

    near = difflib.get_close_matches(name, COMMANDS, n=1)
    fix = f"Did you mean `isoflop {near[0]}`?" if near else "`isoflop --help` lists them"
    return IsoflopError(f"there is no command `{name}`", where="isoflop", fix=fix)


def _complain(error: IsoflopError, args: Sequence[str]) -> int:
    """One paragraph on stderr, and with `--json` the same as a document on stdout."""
    print(error.paragraph(), file=sys.stderr)
    if "--json" in args and is_main_process():
        import json

        said = {"what": error.what, "where": error.where, "fix": error.fix}
        print(json.dumps({"error": said}, indent=2))
    return BAD_INPUT


def _explain(error: OSError, args: Sequence[str]) -> IsoflopError | None:
    """A full disk, a missing or forbidden file as something to act on; None for the rest."""
    where = _output(args) if error.filename is None else str(error.filename)
    # numpy reports a full disk without its number: "1000 requested and 512 written".
    full = _FULL.get(error.errno or 0)
    if full is None and error.errno is None and "requested and" in str(error):
        full = _FULL[errno.ENOSPC]
    if full is not None:
        fix = "Free some space or choose another place, then run the same command again"
        return IsoflopError(full, where=where, fix=fix)
    if error.errno in _UNREACHABLE:
        what, fix = _UNREACHABLE[error.errno]
        return IsoflopError(what, where=where, fix=fix)
    return None


def _output(args: Sequence[str]) -> str | None:
    """The value of -o, the likeliest place of a write that failed without naming its file."""
    for flag, value in pairwise(args):
        if flag in ("-o", "--out"):
            return value
    return None
