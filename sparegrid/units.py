"""Sizes and durations as people write them (`2 GiB`, `10m`). Knows no setting and no job."""

from __future__ import annotations

import re

_NUMBER = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([A-Za-z]*)\s*\Z")
_SIZES: dict[str, int] = {"": 1, "b": 1} | {
    name: int(factor**power)
    for power, letter in enumerate("kmgt", start=1)
    for name, factor in ((letter, 1024), (f"{letter}b", 1000), (f"{letter}ib", 1024))
}
_SECONDS = {"": 1.0, "ms": 0.001, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
SIZE_EXAMPLE = "2GiB, 500MB or a number of bytes"
DURATION_EXAMPLE = "90s, 10m, 2h, 1d or a number of seconds"


def parse_size(text: str) -> int:
    """Bytes: `2GiB` and `2G` count in 1024s, `2GB` in 1000s.

    Raises:
        ValueError: it is not a size; the text of the error says what was expected.
    """
    found = _NUMBER.match(text)
    if found is None or found[2].lower() not in _SIZES:
        raise ValueError(f"a size like {SIZE_EXAMPLE}")
    unit = _SIZES[found[2].lower()]
    return round(float(found[1]) * unit) if "." in found[1] else int(found[1]) * unit


def parse_duration(text: str) -> float:
    """Seconds: `90s`, `10m`, `2h`, `1d`, `1w`, `250ms`.

    Raises:
        ValueError: it is not a duration; the text of the error says what was expected.
    """
    found = _NUMBER.match(text)
    if found is None or found[2].lower() not in _SECONDS:
        raise ValueError(f"a duration like {DURATION_EXAMPLE}")
    return float(found[1]) * _SECONDS[found[2].lower()]


def format_size(size: int) -> str:
    """Bytes for people: `1.5 GiB`; below a KiB `12 B`."""
    value = float(size)
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if value < 1024 or unit == "TiB":
            return f"{size} B" if unit == "B" else f"{value:.1f}".removesuffix(".0") + f" {unit}"
        value /= 1024
    raise AssertionError("the last unit returns")


def format_duration(seconds: float) -> str:
    """Seconds for people: `2 h 5 min`, `42 s`, `0.4 s`; at most two units."""
    if seconds < 10:
        return f"{seconds:.1f}".removesuffix(".0") + " s"
    rest = round(seconds)
    parts: list[str] = []
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60), ("s", 1)):
        count, rest = divmod(rest, length)
        if count:
            parts.append(f"{count} {unit}")
    return " ".join(parts[:2])
