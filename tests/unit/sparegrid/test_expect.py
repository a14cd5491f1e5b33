"""What a type expects, in words, and whether a value fits it."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import pytest
from msgspec import Meta, Struct, inspect

from sparegrid.expect import describe, fits, nearest


class Point(Struct):
    x: int
    y: int = 0


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        (bool, "true or false"),
        (int, "a whole number"),
        (Annotated[int, Meta(ge=0)], "a whole number, 0 or more"),
        (Annotated[int, Meta(le=9)], "a whole number, at most 9"),
        (Annotated[float, Meta(ge=0.1, le=3600)], "a number from 0.1 to 3600"),
        (Annotated[int, Meta(ge=1, le=10_000_000)], "a whole number from 1 to 10000000"),
        (str, "text"),
        (Annotated[str, Meta(min_length=1)], "text that is not empty"),
        (Annotated[str, Meta(max_length=5)], "text of at most 5 characters"),
        (Annotated[str, Meta(min_length=1, max_length=5)], "text of 1 to 5 characters"),
        (Annotated[str, Meta(pattern="^(all|same)$")], "one of all, same"),
        (Annotated[str, Meta(pattern="^[a-z]+$")], "text of the form ^[a-z]+$"),
        (Literal["full", "normal"], "one of full, normal"),
        (list[int], "a list of whole numbers"),
        (list[str], "a list of text"),
        (list[Any], "a list"),
        (dict[str, int], "a table whose values are each a whole number"),
        (Point, "a table of x, y"),
        (int | str | None, "a whole number or text"),
        (Any, "any value"),
        (None, "nothing"),
    ],
)
def test_a_type_is_described(kind: Any, text: str) -> None:
    assert describe(kind) == text


@pytest.mark.parametrize(
    ("value", "kind", "fit"),
    [
        (True, bool, True),
        (1, bool, False),
        (1, int, True),
        (True, int, False),
        (1.0, int, False),
        (-1, Annotated[int, Meta(ge=0)], False),
        (10, Annotated[int, Meta(le=9)], False),
        (1, float, True),
        (True, float, False),
        (float("inf"), float, False),
        (float("nan"), float, False),
        ("x", str, True),
        ("", Annotated[str, Meta(min_length=1)], False),
        ("b", Annotated[str, Meta(pattern="^a$")], False),
        (3, str, False),
        (None, int | None, True),
        ("x", int | str, True),
        (1.5, int | str, False),
        ("x", list[str], False),
        ("full", Literal["full"], True),
        ("fast", Literal["full"], False),
    ],
)
def test_a_value_fits_or_does_not(value: object, kind: Any, fit: bool) -> None:
    assert fits(value, inspect.type_info(kind)) is fit


def test_the_nearest_word_is_suggested_when_one_is_near() -> None:
    assert nearest("slotz", ["slots", "name"]) == "Did you mean `slots`?"
    assert nearest("xyz", ["slots", "name"]) == ""


@pytest.mark.parametrize("typed", ["setp", "step2", "ste"])
def test_one_slip_of_the_fingers_counts_for_more_than_many_common_letters(typed: str) -> None:
    assert nearest(typed, ["start", "stop", "step"]) == "Did you mean `step`?"
