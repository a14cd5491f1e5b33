"""Sizes and durations as people write them."""

from __future__ import annotations

import pytest

from sparegrid.units import format_duration, format_size, parse_duration, parse_size


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("512", 512),
        ("1k", 1024),
        ("2GiB", 2 << 30),
        ("2 GB", 2_000_000_000),
        ("1.5g", 3 << 29),
        (" 7 TiB ", 7 << 40),
        ("9B", 9),
    ],
)
def test_a_size_is_read(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "GB", "-1", "1 elephant", "1e3", "1GiB2", "٣"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="a size like"):
        parse_size(text)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0),
        ("90", 90),
        ("90s", 90),
        ("10m", 600),
        ("2.5h", 9000),
        ("1d", 86400),
        ("250ms", 0.25),
        ("1 W", 604800),
    ],
)
def test_a_duration_is_read(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "soon", "-1s", "1y", "1h30m"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="a duration like"):
        parse_duration(text)


def test_sizes_and_durations_are_shown_in_round_numbers() -> None:
    assert [format_size(size) for size in (0, 1023, 1024, 1536, 5 << 30, 3 << 50)] == [
        "0 B",
        "1023 B",
        "1 KiB",
        "1.5 KiB",
        "5 GiB",
        "3072 TiB",
    ]
    assert [format_duration(seconds) for seconds in (0, 0.44, 9.96, 42, 7500, 90061)] == [
        "0 s",
        "0.4 s",
        "10 s",
        "42 s",
        "2 h 5 min",
        "1 d 1 h",
    ]
