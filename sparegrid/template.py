"""Placeholders in parameters: `{{name}}` for a key of the task's item, `{{item}}` for a single value, `{{index}}`.

Pure. The coordinator checks with it when a job arrives, workers fill with it when a task starts. Keys of tables are
never filled, only their values; what is not a text stays as it is.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from typing import Any

import msgspec

from sparegrid.errors import BadInputError

_PLACEHOLDER = re.compile(r"\{\{(.*?)\}\}", re.DOTALL)
_NAME = re.compile(r"\s*([A-Za-z_][\w.-]*)\s*\Z")
ITEM = "item"
INDEX = "index"


class Template:
    """A value, such as the parameters of a stage, whose texts may hold placeholders.

    Args:
        value: texts, numbers, lists and tables.

    Raises:
        BadInputError: double braces hold something that is no name.
    """

    def __init__(self, value: Any) -> None:
        self._value = value
        self.names = frozenset(_names_in(value))
        """The names between the braces."""

    def fill(self, item: Any, index: int) -> Any:
        """The value with every placeholder filled in; the very same object when there are none.

        Raises:
            BadInputError: the item has no such key, or `{{item}}` is used and it is a table.
        """
        if not self.names:
            return self._value
        return _fill(self._value, {name: as_text(_look_up(name, item, index)) for name in self.names})

    def check(self, item: Any) -> None:
        """Raise BadInputError when a task with this item could not fill it."""
        for name in self.names:
            _look_up(name, item, 0)


def check_names(names: Collection[str], keys: Collection[str]) -> None:
    """Refuse names that items with these keys do not have. No keys: the items are single values.

    Raises:
        BadInputError: names the placeholder and what there is.
    """
    for name in sorted(names):
        if name != INDEX and name not in keys and (keys or name != ITEM):
            raise _unknown(name, keys)


def as_text(value: Any) -> str:
    """How a value of an item looks in a text: texts as they are, everything else as JSON, null as nothing."""
    if isinstance(value, str):
        return value
    return "" if value is None else msgspec.json.encode(value).decode()


def _names_in(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        for found in _PLACEHOLDER.finditer(value):
            name = _NAME.match(found[1])
            if name is None:
                raise BadInputError(
                    "Not a placeholder",
                    f"{found[0][:80]!r} is in double braces, but is no name",
                    "Use {{index}}, {{item}}, or {{key}} for a key of the task's item",
                )
            yield name[1]
    elif isinstance(value, dict):
        for part in value.values():
            yield from _names_in(part)
    elif isinstance(value, list | tuple):
        for part in value:
            yield from _names_in(part)
    elif isinstance(value, msgspec.Struct):
        for field in value.__struct_fields__:
            yield from _names_in(getattr(value, field))


def _look_up(name: str, item: Any, index: int) -> Any:
    if isinstance(item, dict):
        if name in item:
            return item[name]
    elif name == ITEM:
        return item
    if name == INDEX:
        return index
    raise _unknown(name, item.keys() if isinstance(item, dict) else ())


def _unknown(name: str, keys: Collection[str]) -> BadInputError:
    known = ", ".join(f"{{{{{key}}}}}" for key in [*sorted(keys), INDEX])
    what = f"its items have {known}" if keys else "its items are single values: {{item}}, {{index}}"
    return BadInputError("Unknown placeholder", f"{{{{{name}}}}} means nothing to this stage; {what}")


def _fill(value: Any, texts: dict[str, str]) -> Any:
    if isinstance(value, str):
        if "{{" not in value:
            return value
        return _PLACEHOLDER.sub(lambda found: texts[found[1].strip()], value)
    if isinstance(value, dict):
        return {key: _fill(part, texts) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_fill(part, texts) for part in value)
    if isinstance(value, msgspec.Struct):
        fields = value.__struct_fields__
        return type(value)(**{field: _fill(getattr(value, field), texts) for field in fields})
    return value
