"""What a type expects, in words: `a whole number from 0 to 65535`. Knows no setting and no job.

Also the nearest known word to one that was mistyped.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any

from msgspec import inspect


def describe(kind: Any) -> str:
    """What values of this type look like, for an error or a document."""
    return _describe(inspect.type_info(kind))


def nearest(word: str, known: Iterable[str]) -> str:
    """` Did you mean …?` for the known word most like `word`; empty when none is."""
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f"Did you mean `{close[0]}`?" if close else ""


def _describe(info: inspect.Type) -> str:
    match info:
        case inspect.Metadata(type=inner):
            return _describe(inner)
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
            return f"a list of {_plural(_describe(item))}"
        case inspect.DictType(value_type=value):
            return f"a table whose values are each {_describe(value)}"
        case inspect.StructType(cls=cls):
            return f"a table of {', '.join(cls.__struct_fields__)}"
        case inspect.UnionType(types=types):
            return " or ".join(_describe(one) for one in types)
        case inspect.NoneType():
            return "nothing"
        case _:
            return "any value"


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
