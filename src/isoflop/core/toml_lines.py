"""Where each key of a TOML file stands, for messages that name a line; not a TOML parser.

`tomllib` reads values and forgets lines. This scan is run on text that `tomllib` has accepted, so
it may rely on the text being valid.
"""

from __future__ import annotations

import re
import tomllib

KeyPath = tuple[str | int, ...]
"""Keys and array positions from the root: `("sources", 0, "kind")`."""

_BLANK = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
_SPACE = re.compile(r"[ \t]*")
_KEY = re.compile(r"""[A-Za-z0-9_-]+|"(?:[^"\\]|\\.)*"|'[^']*'""")
_STRING = re.compile(
    r'"""(?:[^\\]|\\.)*?"""(?:"{0,2})' r"|'''.*?'''(?:'{0,2})" r'|"(?:[^"\\]|\\.)*"' r"|'[^']*'",
    re.DOTALL,
)
_SCALAR = re.compile(r"[^,\]}#\n]*")


def key_lines(text: str) -> dict[KeyPath, int]:
    """Map every key and table of a valid TOML text to the line (from 1) where it is written."""
    scanner = _Scanner(text)
    scanner.document()
    return scanner.lines


class _Scanner:
    def __init__(self, text: str) -> None:
        self.text, self.position = text, 0
        self.lines: dict[KeyPath, int] = {}
        self.tables_in_array: dict[KeyPath, int] = {}

    def document(self) -> None:
        table: KeyPath = ()
        while self.skip(_BLANK) < len(self.text):
            if self.text.startswith("[", self.position):
                table = self.header()
            else:
                self.pair(table)

    def header(self) -> KeyPath:
        """Read `[a.b]` or `[[a.b]]`; a prefix that is an array of tables means its last one."""
        double = self.text.startswith("[[", self.position)
        start = self.position
        self.position += 2 if double else 1
        parts = self.key()
        self.position = self.text.index("]", self.position) + (2 if double else 1)
        path: KeyPath = ()
        for depth, part in enumerate(parts):
            path = (*path, part)
            if double and depth == len(parts) - 1:
                self.tables_in_array[path] = self.tables_in_array.get(path, -1) + 1
            self.record(path, start)
            if path in self.tables_in_array:
                path = (*path, self.tables_in_array[path])
                self.record(path, start)
        return path

    def pair(self, table: KeyPath) -> None:
        start = self.position
        path = table
        for part in self.key():
            path = (*path, part)
            self.record(path, start)
        self.position = self.text.index("=", self.position) + 1
        self.value(path)

    def key(self) -> list[str]:
        parts = []
        while True:
            self.skip(_SPACE)
            found = _KEY.match(self.text, self.position)
            if found is None:  # cannot happen in text that tomllib accepted
                raise ValueError(f"no key at offset {self.position}")
            self.position = found.end()
            part = found.group()
            parts.append(tomllib.loads(f"x = {part}")["x"] if part[0] in "\"'" else part)
            self.skip(_SPACE)
            if not self.text.startswith(".", self.position):
                return parts
            self.position += 1

    def value(self, path: KeyPath) -> None:
        self.skip(_BLANK)
        opening = self.text[self.position]
        if opening == "[":
            self.sequence("]", path)
        elif opening == "{":
            self.sequence("}", path)
        else:
            self.skip(_STRING if opening in "\"'" else _SCALAR)

    def sequence(self, closing: str, path: KeyPath) -> None:
        """Read an array or an inline table up to its closing bracket."""
        self.position += 1
        index = 0
        while not self.text.startswith(closing, self.skip(_BLANK)):
            if closing == "]":
                self.record((*path, index), self.position)
                self.value((*path, index))
            else:
                self.pair(path)
            index += 1
            if self.text.startswith(",", self.skip(_BLANK)):
                self.position += 1
        self.position += 1

    def skip(self, pattern: re.Pattern[str]) -> int:
        found = pattern.match(self.text, self.position)
        self.position = found.end() if found else self.position
        return self.position

    def record(self, path: KeyPath, offset: int) -> None:
        self.lines.setdefault(path, self.text.count("\n", 0, offset) + 1)
