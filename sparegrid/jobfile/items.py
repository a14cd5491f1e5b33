"""Reads the items of a stage: `count`, `items` or `sweep`, and which names placeholders may use then."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

import msgspec

from sparegrid.api import MAX_TASKS_PER_JOB, Items, RangeAxis, StageItems
from sparegrid.jobfile.check import Document
from sparegrid.jobfile.files import Files
from sparegrid.jobfile.form import ItemsForm, StageForm, SweepForm
from sparegrid.tomlfile import KeyPath

FILE_KEY = "file"
"""The key of an item under which a file travels (see `api.Items`)."""
VALUES_LIMIT_BYTES = 1 << 20
"""A longer list of items travels as a blob."""
_SWEEP_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")


@dataclass(frozen=True)
class StageItemsRead:
    """Items, the keys that placeholders may name (none for single values), and the name of the sweep of
    files."""

    items: Items
    keys: list[str] = field(default_factory=list)
    file_sweep: str = ""

    @property
    def bare(self) -> bool:
        """Tasks are told apart by their index alone."""
        return self.items in (Items(), Items(count=self.items.count))

    def rename(self, value: Any) -> Any:
        """Parameters in which `{{name}}` of the sweep of files is `{{file}}`, as items carry files."""
        if not self.file_sweep or self.file_sweep == FILE_KEY:
            return value
        pattern = re.compile(r"\{\{\s*" + re.escape(self.file_sweep) + r"\s*\}\}")
        return _mapped(value, lambda text: pattern.sub("{{" + FILE_KEY + "}}", text))


class ItemsReader:
    """Reads items and the files they name."""

    def __init__(self, document: Document, files: Files) -> None:
        self._document = document
        self._files = files

    def read(self, form: StageForm, place: KeyPath) -> StageItemsRead:
        """The items of the stage at `place`. Raises BadInputError, pointing at the line."""
        given = [
            name
            for name, value in (("count", form.count), ("items", form.items), ("sweep", form.sweep or None))
            if value is not None
        ]
        if len(given) > 1:
            text = " and ".join(f"`{name}`" for name in given)
            self._document.refuse(
                (*place, given[1]), f"{text} both say how many tasks there are", "Keep one of them"
            )
        if form.count is not None:
            if not 0 <= form.count <= MAX_TASKS_PER_JOB:
                self._document.refuse_value(
                    (*place, "count"), f"a whole number from 0 to {MAX_TASKS_PER_JOB}"
                )
            return StageItemsRead(Items(count=form.count))
        if isinstance(form.items, ItemsForm):
            return self._from_elsewhere(form.items, (*place, "items"))
        if form.items is not None:
            return self._values(form.items)
        if form.sweep:
            return self._sweep(form.sweep, (*place, "sweep"))
        return StageItemsRead(Items())

    def _values(self, values: list[Any]) -> StageItemsRead:
        data = msgspec.json.encode(values)
        items = (
            Items(values=values) if len(data) <= VALUES_LIMIT_BYTES else Items(blob=self._files.data(data))
        )
        return StageItemsRead(items, _common_keys(values))

    def _from_elsewhere(self, form: ItemsForm, path: KeyPath) -> StageItemsRead:
        given = [name for name in ("stage", "lines", "json") if getattr(form, name)]
        if len(given) != 1:
            self._document.refuse(path, "items come from exactly one of `stage`, `lines` and `json`")
        if form.stage:
            return StageItemsRead(Items(stage=StageItems(form.stage, form.files)), [FILE_KEY])
        if form.lines:
            return self._values(list(self._files.read_lines(form.lines, (*path, "lines"))))
        path = (*path, "json")
        try:
            values = msgspec.json.decode(self._files.read_text(form.json, path))
        except msgspec.DecodeError as error:
            self._document.refuse(path, f"{form.json} is not JSON: {error}")
        if not isinstance(values, list):
            self._document.refuse(path, f"{form.json} holds no array", "One item per element: [1, 2, 3]")
        return self._values(values)

    def _sweep(self, sweep: dict[str, list[Any] | SweepForm], path: KeyPath) -> StageItemsRead:
        axes: dict[str, list[Any] | RangeAxis] = {}
        file_sweep = ""
        for name, form in sweep.items():
            if not _SWEEP_NAME.match(name) or name in ("index", "item"):
                self._document.refuse((*path, name), f"{name!r} cannot name a sweep", "Letters, digits and _")
            axis = form if isinstance(form, list) else self._axis(form, (*path, name))
            if isinstance(form, SweepForm) and form.files:
                if file_sweep:
                    self._document.refuse(
                        (*path, name),
                        f"`{file_sweep}` and `{name}` both sweep over files; a stage has one such sweep",
                        "Sweep over one, and place the others by `inputs`",
                    )
                file_sweep = name
            axes[name] = axis
        if file_sweep and file_sweep != FILE_KEY and FILE_KEY in axes:
            self._document.refuse(
                (*path, FILE_KEY), "beside a sweep of files, `file` cannot name another sweep"
            )
        renamed = {FILE_KEY if name == file_sweep else name: axis for name, axis in axes.items()}
        return StageItemsRead(Items(axes=renamed), list(renamed), file_sweep)

    def _axis(self, form: SweepForm, path: KeyPath) -> list[Any] | RangeAxis:
        numbers = form.start is not None or form.stop is not None or form.step is not None
        if numbers + bool(form.files) + bool(form.lines) != 1:
            self._document.refuse(
                path, "a sweep is exactly one of `start` and `stop`, `files`, `lines`, or a list"
            )
        if form.files:
            return self._file_axis(form, (*path, "files"))
        if form.lines:
            return list(self._files.read_lines(form.lines, (*path, "lines")))
        if form.start is None or form.stop is None:
            self._document.refuse(path, "a range needs both `start` and `stop`")
        step = 1 if form.step is None else form.step
        if step == 0:
            self._document.refuse_value((*path, "step"), "a step that is not 0")
        return RangeAxis(form.start, form.stop, step)

    def _file_axis(self, form: SweepForm, path: KeyPath) -> list[Any]:
        patterns = [form.files] if isinstance(form.files, str) else form.files
        found = [
            one
            for number, pattern in enumerate(patterns)
            for one in self._files.find(pattern, path if isinstance(form.files, str) else (*path, number))
        ]
        return [msgspec.to_builtins(self._files.entry(one, path)) for one in found]


def _common_keys(values: list[Any]) -> list[str]:
    """Keys that all items have; none when there are items that are no tables."""
    if not values or not all(isinstance(value, dict) for value in values):
        return []
    return [key for key in values[0] if all(key in value for value in values)]


def _mapped(value: Any, change: Any) -> Any:
    """The value with `change` done to every text in it, keys excepted."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, dict):
        return {key: _mapped(part, change) for key, part in value.items()}
    if isinstance(value, list):
        return [_mapped(part, change) for part in value]
    return value
