"""Numbers and dates as a reader wants them; absence is a dash, never a zero."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

ABSENT = "–"
GLUE = "\N{NO-BREAK SPACE}"
Format = Callable[[Any], str]


def finite(value: Any) -> float | None:
    """The value as a float, or None where it is absent, not a number, or not finite."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if math.isfinite(value) else None


def _formatter(spec: str, scale: float = 1.0, suffix: str = "") -> Format:
    def shown(value: Any) -> str:
        number = finite(value)
        if number is None:
            return ABSENT
        text = format(number * scale, spec)
        if not any(digit in text for digit in "123456789"):
            text = text.lstrip("+-")
        return text.replace("-", "−") + suffix

    return shown


percent = _formatter(",.1f", 100.0, f"{GLUE}%")
percent2 = _formatter(",.2f", 100.0, f"{GLUE}%")
signed_percent = _formatter("+,.1f", 100.0, f"{GLUE}%")
signed_percent2 = _formatter("+,.2f", 100.0, f"{GLUE}%")
signed_points = _formatter("+,.1f", 100.0)
basis_points = _formatter(",.1f", 10_000.0, f"{GLUE}bps")
integer = _formatter(",.0f")
number2 = _formatter(",.2f")
number3 = _formatter(",.3f")
signed_number3 = _formatter("+,.3f")
compact = _formatter(".3g")
money = _formatter(",.0f")
signed_money = _formatter("+,.0f")
seconds = _formatter(",.1f", suffix=f"{GLUE}s")


def chance(p: Any) -> str:
    """A p-value: one that the decimals cannot show is below the least that they can."""
    number = finite(p)
    return f"<{GLUE}0.001" if number is not None and number < 0.001 else number3(number)


def share(part: Any, whole: Any) -> float | None:
    """Part of a whole as a fraction; None where either is absent or the whole is zero."""
    top, bottom = finite(part), finite(whole)
    return top / bottom if top is not None and bottom else None


def plural(count: float, noun: str) -> str:
    """A count with its noun, an s appended unless the count is one."""
    return f"{integer(count)} {noun}{'' if count == 1 else 's'}"


def interval(low: Any, high: Any, shown: Format) -> str:
    """An interval in words: ``low to high``."""
    return ABSENT if finite(low) is None or finite(high) is None else f"{shown(low)} to {shown(high)}"


def moment(stamp: Any) -> str:
    """An ISO time to the minute, in UTC as it was written."""
    text = str(stamp or ABSENT)
    return f"{text[:10]} {text[11:16]} UTC" if len(text) > 16 else text


def short_hash(digest: Any) -> str:
    """The first twelve characters of a hash, with or without its ``sha256:`` prefix."""
    return str(digest).rpartition(":")[2][:12] if digest else ABSENT
