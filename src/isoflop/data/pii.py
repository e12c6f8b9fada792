"""Finds personal data and secrets in text, and redacts them; not a promise that none is left.

What a pattern finds must also hold where it can: checksums of identity and card numbers, ranges
of addresses, lengths of telephone numbers.
"""

from __future__ import annotations

import ipaddress
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

PIIKind = Literal["email", "phone", "ip", "cn-mobile", "cn-id", "card", "key"]
KINDS: tuple[PIIKind, ...] = get_args(PIIKind)


@dataclass(frozen=True, slots=True)
class Finding:
    """Where one piece of personal data stands."""

    kind: PIIKind
    start: int
    end: int


# The number must not be part of a longer one, of a version or of a decimal fraction.
_BEFORE, _AFTER = r"(?<![\w.+-])", r"(?![\w-]|\.\d)"
_PATTERNS: dict[PIIKind, re.Pattern[str]] = {
    "key": re.compile(
        r"-----BEGIN (?:[A-Z]+ )*PRIVATE KEY-----[\s\S]{1,8000}?"
        r"-----END (?:[A-Z]+ )*PRIVATE KEY-----"
        r"|(?<![A-Za-z0-9])(?:(?:AKIA|ASIA)[0-9A-Z]{16}|gh[pousr]_[A-Za-z0-9]{36,}"
        r"|github_pat_\w{50,}|sk-(?:[a-z]+-)*[A-Za-z0-9_-]{20,}|sk_(?:live|test)_[A-Za-z0-9]{16,}"
        r"|xox[abprs]-[A-Za-z0-9-]{10,}|AIza[A-Za-z0-9_-]{35}|hf_[A-Za-z0-9]{30,}|glpat-[\w-]{20,}"
        r"|npm_[A-Za-z0-9]{36}|eyJ[\w-]{10,}\.eyJ[\w-]{10,}\.[\w-]{10,})(?![A-Za-z0-9])"
        r"|(?i:\b(?:api[_-]?key|secret(?:[_-]?key)?|access[_-]?token|auth[_-]?token|password|passwd)"
        r"[\"']?\s*[:=]\s*[\"']?)(?P<secret>(?=[\w+/=.-]*\d)(?=[\w+/=.-]*[A-Za-z])[\w+/=.-]{16,})",
        re.ASCII,
    ),
    "email": re.compile(
        r"(?<![\w.+%/@-])[A-Za-z0-9_](?:[\w.+%-]{0,62}[A-Za-z0-9_+%-])?@"
        r"(?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.)+[A-Za-z]{2,18}(?![\w@]|-\w|\.\w)",
        re.ASCII,
    ),
    "cn-id": re.compile(r"(?<![0-9A-Za-z.])[1-9]\d{5}(?:19|20)\d{9}[\dXx](?![0-9A-Za-z]|\.\d)"),
    "card": re.compile(
        _BEFORE + r"(?:62\d{2}([ -])\d{4}\1\d{4}\1\d{4}\1\d{3}"
        r"|\d{4}([ -]?)\d{4}\2\d{4}\2\d{1,7}|3[47]\d{2}([ -]?)\d{6}\3\d{5})" + _AFTER,
        re.ASCII,
    ),
    "cn-mobile": re.compile(
        r"(?<![0-9A-Za-z.+-])(?:(?:\((?:\+|00)?86\)|(?:\+|00)?86)[ -]?)?1[3-9]\d([ -]?)\d{4}\1\d{4}"
        r"(?![0-9A-Za-z-]|\.\d)",
        re.ASCII,
    ),
    "ip": re.compile(
        r"(?:(?<=//)|(?<![\w./-]))(?:\d{1,3}\.){3}\d{1,3}(?![\w-]|\.\d)"
        r"|(?<![\w.])(?<![0-9A-Fa-f:]:)(?:[0-9A-Fa-f]{1,4}:|:(?=:))(?:[0-9A-Fa-f]{0,4}:){1,6}"
        r"[0-9A-Fa-f]{1,4}(?![\w:]|\.\w)",
        re.ASCII,
    ),
    "phone": re.compile(
        r"(?<![\w.+/=#-])(?<!\d )(?:"
        r"\+[1-9]\d{0,2}[ .-]?(?:\(\d{1,4}\)[ .-]?)?\d{1,5}(?:[ .-]?\d{2,5}){1,4}"
        r"|(?:1[ .-])?\(\d{3}\)[ .-]?\d{3}[ .-]\d{4}|(?:1[.-])?[2-9]\d{2}([.-])[2-9]\d{2}\1\d{4}"
        r"|(?:1 )?[2-9]\d{2} [2-9]\d{2} \d{4}"
        r"|(?:[(（]0(?:10|2\d|[3-9]\d{2})[)）][ -]?|0(?:10|2\d|[3-9]\d{2})[ -])[2-9]\d{6,7}"
        r"|0\d{2,4}[ -]\d{3,4}[ -]\d{3,4}|0[1-9]-\d{4}-\d{4}|0[17]\d{3} \d{6}"
        r"|0[1-9](?P<gap>[ .])\d{2}(?:(?P=gap)\d{2}){3}(?!(?P=gap)\d)"
        r")(?![\w-]|[.,]\d)",
        re.ASCII,
    ),
}
# Cheap marks without which a pattern cannot match: most texts hold none of them.
_HINTS: dict[PIIKind, re.Pattern[str]] = {
    "email": re.compile("@"),
    "cn-id": re.compile(r"\d{17}"),
    "card": re.compile(r"\d{4}[ -]?\d{4}"),
    "cn-mobile": re.compile(r"1[3-9]\d[ -]?\d{4}"),
    "ip": re.compile(r"\d\.\d{1,3}\.\d|:[0-9A-Fa-f]{0,4}:"),
    "phone": re.compile(r"\d[ .)）-]+\(?\d{2}|\+\d{6}"),
}
# Every number of a person or a card holds this much; most texts hold none, and are done.
_NUMBERS = frozenset({"phone", "cn-mobile", "cn-id", "card"})
_LONG_NUMBER = re.compile(r"[0-9][0-9 ().）-]{6}")
# For keys plain substrings of the lower-case text are faster than a pattern.
_KEY_HINTS = (
    "key", "secret", "token", "passw", "akia", "asia", "ghp_", "gho_", "ghu_", "ghs_", "ghr_",
    "sk-", "sk_", "xox", "aiza", "hf_", "glpat", "npm_", "eyj", "_pat_",
)  # fmt: skip
_EXAMPLE_ADDRESSES = frozenset({"0.0.0.0", "127.0.0.1", "255.255.255.255"})
_VERSION = re.compile(r"(?i)(?:\bv|version|release|ver\.?|section|§|第)\s*$")
_HOST_SUFFIXES = ("png", "jpg", "jpeg", "gif", "svg", "webp", "css", "js", "py")


def find(text: str, kinds: tuple[PIIKind, ...] = KINDS) -> list[Finding]:
    """Personal data in a text, in order and without overlap.

    Where two kinds claim the same place, the earlier in the order key, e-mail, identity number,
    card, mobile, address, telephone has it.
    """
    found: list[Finding] = []
    numbers = _LONG_NUMBER.search(text) is not None
    for kind, pattern in _PATTERNS.items():
        if kind not in kinds or not _may_hold(kind, text, numbers):
            continue
        for match in pattern.finditer(text):
            start, end = match.span("secret") if match.groupdict().get("secret") else match.span()
            if _CHECKS[kind](match.group(), text[max(0, start - 12) : start]) and not any(
                start < other.end and other.start < end for other in found
            ):
                found.append(Finding(kind, start, end))
    return sorted(found, key=lambda finding: finding.start)


def _may_hold(kind: PIIKind, text: str, numbers: bool) -> bool:
    if kind in _NUMBERS and not numbers:
        return False
    if kind == "key":
        lower = text.lower()
        return any(hint in lower for hint in _KEY_HINTS)
    return _HINTS[kind].search(text) is not None


def redact(text: str, findings: list[Finding]) -> str:
    """The text with every finding replaced by `<KIND>`."""
    parts: list[str] = []
    after = 0
    for finding in findings:
        parts += (text[after : finding.start], f"<{finding.kind.upper()}>")
        after = finding.end
    return "".join([*parts, text[after:]])


def counts(findings: list[Finding]) -> dict[str, int]:
    """How many of each kind."""
    return dict(sorted(Counter(finding.kind for finding in findings).items()))


def luhn(digits: str) -> bool:
    """Whether a card number's check digit holds (ISO/IEC 7812-1, annex B)."""
    doubled = (int(d) * (1 + i % 2) for i, d in enumerate(reversed(digits)))
    return sum(d - 9 if d > 9 else d for d in doubled) % 10 == 0


def chinese_id(number: str) -> bool:
    """Whether a Chinese identity number's date and check character hold (GB 11643-1999)."""
    month, day = int(number[10:12]), int(number[12:14])
    if not (11 <= int(number[:2]) <= 82 and 1 <= month <= 12 and 1 <= day <= 31):
        return False
    total = sum(int(d) * pow(2, 17 - i, 11) for i, d in enumerate(number[:17]))
    return "10X98765432"[total % 11] == number[17].upper()


def _card(match: str, _: str) -> bool:
    digits = re.sub(r"\D", "", match)
    # Lengths by issuer: UnionPay 16 to 19, American Express 15, others 16, Visa also 13 and 19.
    lengths = {"62": range(16, 20), "34": (15,), "37": (15,)}.get(digits[:2], (16,))
    if digits[0] == "4":
        lengths = (13, 16, 19)
    known = digits[0] in "3456" or 2221 <= int(digits[:4]) <= 2720
    return known and len(digits) in lengths and len(set(digits)) > 1 and luhn(digits)


def _address(match: str, before: str) -> bool:
    if _VERSION.search(before) or match in _EXAMPLE_ADDRESSES or len(match) < 6:
        return False
    try:
        address = ipaddress.ip_address(match)
    except ValueError:
        return False
    return not (address.is_loopback or address.is_unspecified or address.is_multicast)


def _email(match: str, _: str) -> bool:
    local, _, host = match.rpartition("@")
    name = host.lower()
    if name.rpartition(".")[2] in _HOST_SUFFIXES or ".." in local:
        return False
    return not name.endswith((".example", ".invalid", ".test", ".localhost"))


def _phone(match: str, before: str) -> bool:
    digits = re.sub(r"\D", "", match)
    return 8 <= len(digits) <= 15 and len(set(digits)) > 2 and not _VERSION.search(before)


def _secret(match: str, _: str) -> bool:
    return len(set(match)) >= 8


_CHECKS: dict[PIIKind, Callable[[str, str], bool]] = {
    "key": _secret,
    "email": _email,
    "cn-id": lambda match, _: chinese_id(match),
    "card": _card,
    "cn-mobile": lambda match, _: len(set(match)) > 3,
    "ip": _address,
    "phone": _phone,
}
