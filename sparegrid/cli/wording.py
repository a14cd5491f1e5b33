"""Numbers, times and foreign texts as people read them. Pure; knows no Struct and no terminal."""

from __future__ import annotations

import time
import unicodedata

from sparegrid.units import format_duration

_HIDDEN = {"Cc", "Cf", "Cs", "Zl", "Zp", "Co", "Cn"}
_KEPT_FORMAT = {"\u200d", "\ufe0f"}
"""Joiners inside emoji: harmless, and names look broken without them."""


def safe(text: str) -> str:
    """Text of unknown origin for one line of a terminal: no control, direction or invisible characters remain.

    Line breaks and tabs become spaces; anything else that a terminal could obey becomes a visible mark.
    """
    return "".join(_visible(char) for char in text)


def safe_lines(text: str) -> str:
    """The same for several lines: line breaks stay."""
    return "\n".join(safe(line) for line in text.splitlines())


def _visible(char: str) -> str:
    if char in "\n\r\t\v\f":
        return " "
    if char in _KEPT_FORMAT or unicodedata.category(char) not in _HIDDEN:
        return char
    return "\ufffd"


def sentence(text: str) -> str:
    """A reason of unknown origin on a line of its own: safe, and with a capital at its start."""
    shown = safe(text)
    return shown[:1].upper() + shown[1:]


def number(count: int) -> str:
    """A count with separated thousands: `12,345`."""
    return f"{count:,}"


def plural(count: int, noun: str, many: str = "") -> str:
    """A count and its noun: `1 task`, `12 tasks`."""
    return f"{number(count)} {noun if count == 1 else many or noun + 's'}"


def duration(seconds: float) -> str:
    """Two units at most: `42 ms`, `0.4 s`, `3 min 12 s`, `2 h 5 min`."""
    return f"{seconds * 1000:.0f} ms" if seconds < 0.1 else format_duration(seconds)


def clock(then_ms: int, now_ms: int) -> str:
    """A moment by the clock on the wall here: `14:05`, with the date when it is a day or more away."""
    near = abs(then_ms - now_ms) < 86_400_000
    return time.strftime("%H:%M" if near else "%Y-%m-%d %H:%M", time.localtime(then_ms / 1000))


def ago(then_ms: int, now_ms: int) -> str:
    """How long ago, in one unit, empty when never: `just now`, `3 min ago`."""
    if then_ms <= 0:
        return ""
    seconds = (now_ms - then_ms) / 1000
    return "just now" if seconds < 2 else f"{' '.join(duration(round(seconds)).split()[:2])} ago"
