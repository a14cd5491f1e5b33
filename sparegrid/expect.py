"""What a type expects, in words: `a whole number from 0 to 65535`, and whether a plain value fits it.

Also the nearest known word to one that was mistyped. Knows no setting and no job.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterable
from typing import Any

from msgspec import inspect


def describe(kind: Any) -> str:
    """What values of this type look like, for an error or a document."""
    return describe_info(inspect.type_info(kind))


def fits(value: object, info: inspect.Type) -> bool:
    """Whether a value that is neither a list nor a table, as TOML or JSON give it, is of this type."""
    match info:
        case inspect.Metadata(type=inner):
            return fits(value, inner)
        case inspect.BoolType():
            return isinstance(value, bool)
        case inspect.IntType(ge=low, le=high):
            return isinstance(value, int) and not isinstance(value, bool) and _between(value, low, high)
        case inspect.FloatType(ge=low, le=high):
            number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
            return number and _between(value, low, high)
        case inspect.StrType(min_length=low, max_length=high, pattern=pattern):
            text = isinstance(value, str) and _between(len(value), low, high)
            return text and (pattern is None or re.search(pattern, str(value)) is not None)
        case inspect.LiteralType(values=values):
            return value in values
        case inspect.UnionType(types=types):
            return any(fits(value, one) for one in types)
        case inspect.NoneType():
            return value is None
        case _:
            return False


def nearest(word: str, known: Iterable[str]) -> str:
    """` Did you mean …?` for the known word most like `word`; empty when none is."""
    words = list(known)
    # Two letters that changed places, or one too many, few or wrong, are the usual slips; ratios rank them low.
    slips = [each for each in words if len(word) > 2 and _one_slip(word, each)]
    close = slips or difflib.get_close_matches(word, words, n=1, cutoff=0.6)
    return f"Did you mean `{close[0]}`?" if close else ""


def _one_slip(typed: str, meant: str) -> bool:
    """Whether one letter was added, dropped, changed or swapped with its neighbour."""
    start = next((at for at, (a, b) in enumerate(zip(typed, meant, strict=False)) if a != b), None)
    if start is None:
        return abs(len(typed) - len(meant)) == 1
    a, b = typed[start:], meant[start:]
    swapped = len(a) > 1 and len(b) > 1 and a[0] == b[1] and a[1] == b[0] and a[2:] == b[2:]
    return swapped or a[1:] == b[1:] or a[1:] == b or a == b[1:]


def describe_info(info: inspect.Type) -> str:
    """The same, of a type that was looked into already."""
    match info:
        case inspect.Metadata(type=inner):
            return describe_info(inner)
        case inspect.BoolType():
            return "true or false"
        case inspect.IntType(ge=low, le=high):
            return "a whole number" + _limits(low, high)
        case inspect.FloatType(ge=low, le=high):
            return "a number" + _limits(low, high)
        case inspect.StrType(min_length=low, max_length=high, pattern=pattern):
            words = _alternatives(pattern)
            if words:
                return f"one of {', '.join(words)}"
            return "text" + _lengths(low, high, "characters") + (f" of the form {pattern}" if pattern else "")
        case inspect.LiteralType(values=values):
            return f"one of {', '.join(str(value) for value in values)}"
        case inspect.ListType(item_type=item) | inspect.VarTupleType(item_type=item):
            return (
                "a list" if isinstance(item, inspect.AnyType) else f"a list of {_plural(describe_info(item))}"
            )
        case inspect.DictType(value_type=value):
            return f"a table whose values are each {describe_info(value)}"
        case inspect.StructType(cls=cls):
            return f"a table of {', '.join(cls.__struct_fields__)}"
        case inspect.UnionType(types=types):
            return " or ".join(describe_info(one) for one in types if not isinstance(one, inspect.NoneType))
        case inspect.NoneType():
            return "nothing"
        case _:
            return "any value"


def _between(value: object, low: float | None, high: float | None) -> bool:
    assert isinstance(value, int | float), "numbers and lengths are compared"
    return (low is None or value >= low) and (high is None or value <= high)


def _plural(text: str) -> str:
    return text.removeprefix("a ") + "s" if text in ("a whole number", "a number") else text


def _limits(low: float | None, high: float | None) -> str:
    if low is not None and high is not None:
        return f" from {low:g} to {high:g}" if high < 1e6 else f" from {low} to {high}"
    if low is not None:
        return f", {low} or more"
    return f", at most {high}" if high is not None else ""


def _lengths(low: int | None, high: int | None, unit: str) -> str:
    if low and high is not None:
        return f" of {low} to {high} {unit}"
    if high is not None:
        return f" of at most {high} {unit}"
    return " that is not empty" if low else ""


def _alternatives(pattern: str | None) -> list[str]:
    """The words of a pattern that is nothing but alternatives, `^(all|same|groups)$`."""
    if pattern is None or not (pattern.startswith("^(") and pattern.endswith(")$")):
        return []
    words = pattern[2:-2].split("|")
    return words if all(word.replace("_", "").isalnum() for word in words) else []
