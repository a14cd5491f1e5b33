"""Checks a parsed TOML document against its form, key by key, so that an error names the line it is in.

msgspec could check the whole in one step, but tells neither the line nor the nearest key, and not which key
of a table of names was wrong.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, NoReturn

from msgspec import Struct, inspect

from sparegrid.errors import BadInputError
from sparegrid.expect import describe_info, fits, nearest
from sparegrid.jobfile.form import EXAMPLES
from sparegrid.tomlfile import KeyPath, TomlText, key_text

TITLE = "Wrong job file"


class Document:
    """One job file: its text, and errors that point into it."""

    def __init__(self, file: Path, toml: TomlText) -> None:
        self.file = file
        self.data = toml.data
        self._toml = toml

    def refuse(self, path: KeyPath, message: str, hint: str = "") -> NoReturn:
        """Raise BadInputError: file, line and `message`."""
        raise self.error(path, message, hint)

    def error(self, path: KeyPath, message: str, hint: str = "") -> BadInputError:
        """An error about the thing at `path`."""
        return BadInputError(TITLE, f"{self.file}:{self._toml.line(path)}: {message}", hint)

    def refuse_value(self, path: KeyPath, expected: str, hint: str = "") -> NoReturn:
        """Raise BadInputError: file, line, key, value and what was expected."""
        self.refuse(path, f"{key_text(path)} is {self._toml.shown(path)}; expected {expected}", hint)

    def check(self, form: type[Struct]) -> None:
        """Raise BadInputError at the first thing that does not have the form."""
        self._check(self.data, inspect.type_info(form), ())

    def _check(self, value: Any, info: inspect.Type, path: KeyPath) -> None:
        match info:
            case inspect.Metadata(type=inner):
                self._check(value, inner, path)
            case inspect.StructType():
                self._check_table(value, info, path)
            case inspect.ListType(item_type=item) if isinstance(value, list):
                if info.max_length is not None and len(value) > info.max_length:
                    self.refuse(path, f"{key_text(path)} has {len(value)} entries; at most {info.max_length}")
                for number, one in enumerate(value):
                    self._check(one, item, (*path, number))
            case inspect.DictType(value_type=each) if isinstance(value, dict):
                for key, one in value.items():
                    self._check(one, each, (*path, key))
            case inspect.UnionType(types=types):
                self._check_union(value, types, path)
            case inspect.AnyType():
                self._check_plain(value, path)
            case _:
                self._check_leaf(value, info, path)

    def _check_table(self, value: Any, info: inspect.StructType, path: KeyPath) -> None:
        fields = {field.encode_name: field for field in info.fields}
        if not isinstance(value, dict):
            self._refuse_leaf(info, path)
        for key, one in value.items():
            if key not in fields:
                where = f" in {key_text(path)}" if path else ""
                hint = EXAMPLES["argv"] if key == "argv" and "command" in fields else nearest(key, fields)
                self.refuse(
                    (*path, key),
                    f"there is no key `{key}`{where}",
                    hint or f"Known keys: {', '.join(fields)}",
                )
            self._check(one, fields[key].type, (*path, key))
        for key, field in fields.items():
            if field.required and key not in value:
                where = key_text(path) or "the file"
                self.refuse(path, f"`{key}` is missing in {where}", f"{key} = {describe_info(field.type)}")

    def _check_union(self, value: Any, types: tuple[inspect.Type, ...], path: KeyPath) -> None:
        """Into the member that has the value's shape; when none has, all of them were expected."""
        for one in types:
            inner = one.type if isinstance(one, inspect.Metadata) else one
            if (isinstance(inner, inspect.StructType | inspect.DictType) and isinstance(value, dict)) or (
                isinstance(inner, inspect.ListType) and isinstance(value, list)
            ):
                return self._check(value, one, path)
        return self._check_leaf(value, inspect.UnionType(types), path)

    def _check_plain(self, value: Any, path: KeyPath) -> None:
        """TOML has dates and infinities; JSON, in which the job travels, has not."""
        if isinstance(value, dict):
            for key, one in value.items():
                self._check_plain(one, (*path, key))
        elif isinstance(value, list):
            for number, one in enumerate(value):
                self._check_plain(one, (*path, number))
        elif not isinstance(value, str | int) and not (isinstance(value, float) and math.isfinite(value)):
            self.refuse_value(path, "text, a number, true or false", "Put it in quotes")

    def _check_leaf(self, value: Any, info: inspect.Type, path: KeyPath) -> None:
        if not fits(value, info):
            self._refuse_leaf(info, path)

    def _refuse_leaf(self, info: inspect.Type, path: KeyPath) -> NoReturn:
        names = [part for part in path if isinstance(part, str)]
        hint = next((EXAMPLES[name] for name in reversed(names) if name in EXAMPLES), "")
        self.refuse_value(path, describe_info(info), hint)
