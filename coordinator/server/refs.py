"""Which blobs a spec or an outcome refers to, and which items carry a file of their own. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from sparegrid.api import JobSpec
from sparegrid.messages import BlobRef, FileEntry, Outcome


def refs_of_outcome(outcome: Outcome) -> list[BlobRef]:
    """The blobs of an outcome: its value, its log, its files."""
    found = [payload for payload in (outcome.value, outcome.log) if type(payload) is BlobRef]
    found += [entry.content for entry in outcome.files if type(entry.content) is BlobRef]
    return found


def refs_of_spec(spec: JobSpec) -> Iterable[tuple[str, BlobRef]]:
    """Each blob that a spec refers to, with where: `stages[0].inputs[2]`."""
    for number, stage in enumerate(spec.stages):
        where = f"stages[{number}]"
        for place, entry in enumerate(stage.inputs):
            if isinstance(entry.content, BlobRef):
                yield f"{where}.inputs[{place}]", entry.content
        if isinstance(stage.items.blob, BlobRef):
            yield f"{where}.items.blob", stage.items.blob
        for place, entry in file_items(stage.items.values or ()):
            if isinstance(entry.content, BlobRef):
                yield f"{where}.items.values[{place}].file", entry.content
        files = (stage.items.axes or {}).get("file", ())
        for place, value in enumerate(files if isinstance(files, list) else ()):
            axis_entry = file_of_value(value)
            if axis_entry is not None and isinstance(axis_entry.content, BlobRef):
                yield f"{where}.items.axes.file[{place}]", axis_entry.content


def file_items(values: Iterable[Any]) -> Iterable[tuple[int, FileEntry]]:
    """The items that carry a file of their own under the key `file`, with their place."""
    for place, value in enumerate(values):
        if type(value) is dict and "file" in value:
            entry = file_of_value(value["file"])
            if entry is not None:
                yield place, entry


def file_of_value(value: Any) -> FileEntry | None:
    """A FileEntry that was written as an object (`{"path": …, "content": …}`); None when `value` is something else.

    Raises:
        msgspec.ValidationError: it looks like one, and is wrong.
    """
    if type(value) is not dict or "path" not in value or "content" not in value:
        return None
    return msgspec.convert(value, FileEntry)
