"""Which blobs a spec, items or an outcome name. Pure. Names that no blob can have are passed over."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any

from sparegrid.api import JobSpec, RangeAxis
from sparegrid.ids import BlobHash
from sparegrid.messages import BlobRef, FileEntry, Outcome, Payload

_HASH = re.compile(r"[0-9a-f]{64}\Z")


def blobs_of_payload(payload: Payload | None) -> Iterator[BlobHash]:
    """The blob of a payload that is one."""
    if isinstance(payload, BlobRef) and _HASH.match(payload.hash):
        yield BlobHash(payload.hash)


def blobs_of_outcome(outcome: Outcome) -> Iterator[BlobHash]:
    """The blobs of a result's value, log and files."""
    yield from blobs_of_payload(outcome.value)
    yield from blobs_of_payload(outcome.log)
    for entry in outcome.files:
        yield from blobs_of_payload(entry.content)


def blobs_of_items(items: Iterable[Any]) -> Iterator[BlobHash]:
    """The blobs of items that carry a file: an object with a FileEntry under `file`, as a Struct or as decoded JSON."""
    for item in items:
        if isinstance(item, dict) and "file" in item:
            match item["file"]:
                case FileEntry(content=content):
                    yield from blobs_of_payload(content)
                case {"content": {"t": "blob", "hash": str(name)}} if _HASH.match(name):
                    yield BlobHash(name)
                case _:
                    continue


def blobs_of_spec(spec: JobSpec) -> Iterator[BlobHash]:
    """The blobs of every stage's input files and items."""
    for stage in spec.stages:
        for entry in stage.inputs:
            yield from blobs_of_payload(entry.content)
        yield from blobs_of_payload(stage.items.blob)
        yield from blobs_of_items(stage.items.values or ())
        for axis in (stage.items.axes or {}).values():
            if not isinstance(axis, RangeAxis):
                yield from blobs_of_items({"file": value} for value in axis)
