"""Numbers as a reader wants them: units, significant digits, superscripts; not for arithmetic."""

from __future__ import annotations

import math
import re

_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
_SI_STEPS = ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k"))
_BINARY_STEPS = ((2.0**40, "TiB"), (2.0**30, "GiB"), (2.0**20, "MiB"), (2.0**10, "KiB"))
_ISO_UTC = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z"
THIN = "\u202f"  # narrow no-break space, between a number and its unit
MINUS = "−"


def significant(value: float, digits: int = 3) -> str:
    """`value` with so many significant digits, without an exponent, the minus sign a real one."""
    if not math.isfinite(value):
        return "not finite"
    if value == 0:
        return "0"
    decimals = max(0, digits - 1 - math.floor(math.log10(abs(value))))
    text = f"{value:,.{decimals}f}"
    return text.replace("-", MINUS)


def count(value: float) -> str:
    """A count of parameters, tokens or documents: `317 k`, `6.2 M`, `7 B`; whole below 1,000."""
    for step, suffix in _SI_STEPS:
        if abs(value) >= step * 0.9995:
            return f"{_trim(significant(value / step))}{THIN}{suffix}"
    return f"{value:.0f}" if float(value).is_integer() else significant(value)


def power_of_ten(exponent: int) -> str:
    """`10¹²`."""
    return f"10{str(exponent).translate(_SUPERSCRIPTS)}"


def scientific(value: float, digits: int = 2) -> str:
    """`4.1 × 10¹³`."""
    if value == 0 or not math.isfinite(value):
        return significant(value)
    mantissa, exponent = f"{value:.{digits - 1}e}".split("e")
    return f"{mantissa.replace('-', MINUS)}{THIN}×{THIN}{power_of_ten(int(exponent))}"


def seconds(value: float) -> str:
    """A duration: `41.3 s`, `9 min 12 s`, `2 h 05 min`."""
    if value < 59.95:
        return f"{_trim(significant(value, 3 if value < 10 else 2))}{THIN}s"
    whole = round(value)
    if whole < 3600:
        return f"{whole // 60}{THIN}min {whole % 60:02d}{THIN}s"
    whole = round(value / 60)
    return f"{whole // 60}{THIN}h {whole % 60:02d}{THIN}min"


def size(value: float) -> str:
    """A number of bytes in binary units: `312 MiB`."""
    for step, suffix in _BINARY_STEPS:
        if abs(value) >= step:
            return f"{_trim(significant(value / step))}{THIN}{suffix}"
    return f"{value:.0f}{THIN}bytes"


def moment(stamp: str) -> str:
    """`2026-11-22 06:00 UTC` of an ISO 8601 UTC time; anything else as it is."""
    return f"{stamp[:10]} {stamp[11:16]} UTC" if re.fullmatch(_ISO_UTC, stamp) else stamp


def percent(value: float, digits: int = 1) -> str:
    """A share already in percent, the minus sign a real one."""
    return f"{value:.{digits}f}{THIN}%".replace("-", MINUS)


def signed_percent(value: float, digits: int = 2) -> str:
    """A difference in percent, always with its sign."""
    return f"{value:+.{digits}f}{THIN}%".replace("-", MINUS)


def quantity(value: float, unit: str) -> str:
    """`value` with its unit, in the form usual for that unit."""
    match unit:
        case "seconds" | "s":
            return seconds(value)
        case "minutes" | "min":
            return seconds(60 * value)
        case "bytes":
            return size(value)
        case "FLOPs" | "flops":
            return f"{scientific(value)}{THIN}FLOPs"
        case "parameters" | "tokens":
            return f"{count(value)} {unit}"
        case "" | "1":
            return significant(value, 4)
        case _:
            return f"{significant(value, 4)} {unit}"


def decimals_for(half_width: float) -> int:
    """Decimals an uncertainty deserves: two digits of 0.010 to 0.029, one of 0.03 to 0.09.

    So rounding moves an end by less than a sixth of the half-width.
    """
    if not half_width > 0 or not math.isfinite(half_width):
        return 3
    exponent = math.floor(math.log10(half_width))
    digits = 2 if half_width / 10.0**exponent < 3 else 1
    return max(0, digits - 1 - exponent)


def with_interval(value: float, low: float, high: float) -> str:
    """`1.532 ± 0.021` where the interval is even, else `1.532 (1.509 to 1.560)`."""
    below, above = value - low, high - value
    decimals = decimals_for((above + below) / 2)
    text = f"{value:.{decimals}f}"
    if f"{below:.{decimals}f}" == f"{above:.{decimals}f}":
        return f"{text} ± {above:.{decimals}f}".replace("-", MINUS)
    return f"{text} ({low:.{decimals}f} to {high:.{decimals}f})".replace("-", MINUS)


def _trim(text: str) -> str:
    return text.rstrip("0").rstrip(".") if "." in text else text
