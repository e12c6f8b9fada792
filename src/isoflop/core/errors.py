"""The errors a user can read and act on; not for programming mistakes, which stay tracebacks.

IsoflopError            what went wrong, where, and what to do about it
├── RecipeError         a recipe file or a flag: unknown key, wrong type, impossible value
├── DataError           documents, token shards, tokenizers
├── ArtifactError       a directory or file of ours: missing, unfinished, corrupt, other version
├── TableError          a table of runs that a law cannot be fitted to
└── RunError            a training run that cannot start, continue or be trusted
"""

from __future__ import annotations


class IsoflopError(Exception):
    """Base of every error meant for the user. The command line prints it and exits with 2.

    Args:
        what: What is wrong, as one sentence without a trailing full stop.
        where: The file, line, key or argument concerned.
        fix: What the user can do now.
    """

    def __init__(self, what: str, *, where: str | None = None, fix: str | None = None) -> None:
        self.what, self.where, self.fix = what, where, fix
        super().__init__(self.paragraph())

    def paragraph(self) -> str:
        """The whole message as one paragraph: where, what, way out."""
        place = f"{self.where}: " if self.where else ""
        way_out = f" {sentence(self.fix)}" if self.fix else ""
        return f"{place}{sentence(self.what)}{way_out}"

    def __reduce__(self) -> tuple[object, ...]:
        # Exceptions pickle by their args alone; workers of a ladder send theirs across processes.
        return (_rebuild, (type(self), self.what, self.where, self.fix))


def sentence(text: str) -> str:
    """The text with exactly one closing mark: its own question or exclamation mark, or a stop."""
    return text if text.endswith(("?", "!")) else f"{text.rstrip('.')}."


def _rebuild(
    kind: type[IsoflopError], what: str, where: str | None, fix: str | None
) -> IsoflopError:
    return kind(what, where=where, fix=fix)


class RecipeError(IsoflopError):
    """A recipe or flag that cannot be used."""


class DataError(IsoflopError):
    """Documents, tokenizers or shards that cannot be read or are empty."""


class ArtifactError(IsoflopError):
    """A directory or file written by Isoflop that is missing, unfinished, corrupt or foreign."""


class TableError(IsoflopError):
    """A table of runs that does not hold what a law needs."""


class RunError(IsoflopError):
    """A training run that cannot start, continue or be trusted."""
