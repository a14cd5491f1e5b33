"""Checks of a job when it arrives, and what is resolved on the way: everything that could never run is refused here.

Every error names the place (`stages[0].params.argv[1]`), the value and what was expected. What a job requires of
devices is not checked: a kind or a platform that nobody offers may come tomorrow, and `explain` tells.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from math import prod
from typing import Any, NamedTuple, Protocol

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from coordinator.scheduler.items import Axis
from coordinator.server.graph import check_graph
from coordinator.server.placing import check_relative
from coordinator.server.refs import file_items, refs_of_spec
from coordinator.server.runnable import check_runnable
from coordinator.server.wire import in_words
from sparegrid.api import MAX_STAGES, JobSpec, JobView, StageSpec
from sparegrid.errors import BadInputError, GridError, TooLargeError
from sparegrid.ids import StageIndex, parse_blob_hash
from sparegrid.kinds import KIND_PARAMS, CommandParams
from sparegrid.messages import INLINE_LIMIT_BYTES, BlobRef, FileEntry, Inline, Payload
from sparegrid.template import INDEX, ITEM, Template

MAX_ITEM_BYTES = 256 << 10
"""Of one item, encoded: an assignment of several must fit into a frame."""
MAX_ITEMS_BYTES = 256 << 20
"""Of a blob of items."""
MAX_DEPTH = 64
"""Of lists and objects inside each other, in parameters and items: journals and snapshots nest them deeper still."""
MANY = 2000
"""More items are checked in a thread: the loop serves others meanwhile."""
TITLE = "Not accepted"
_KIND = re.compile(r"[a-z][a-z0-9_.-]{0,63}\Z")
_NESTS = (dict, list)
_encode = msgspec.msgpack.Encoder().encode
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


class Blobs(Protocol):
    """The blob store, as far as a job refers to it."""

    async def size(self, name: str) -> int | None:
        """Bytes of a stored blob, None when it is not there."""

    async def get_bytes(self, name: str, limit: int) -> bytes:
        """A whole blob."""


class Checked(NamedTuple):
    """A job that can run: items read, platforms set. `tasks` are those that are known now."""

    spec: JobSpec
    tasks: int


async def check_submission(spec: JobSpec, blobs: Blobs, max_tasks: int) -> Checked:
    """Check a job and resolve what needs the blob store.

    Raises:
        BadInputError: what is wrong, where.
        TooLargeError: over a named limit.
    """
    _check_names(spec)
    check_graph(spec)
    await _check_refs(spec, blobs)
    stages = [await _read_items(stage, number, blobs) for number, stage in enumerate(spec.stages)]
    counts = [_count(stage, number) for number, stage in enumerate(stages)]
    total = sum(counts)
    _check_total(total, max_tasks)
    if total > MANY:
        stages = await asyncio.to_thread(
            lambda: [_check_stage(each, number) for number, each in enumerate(stages)]
        )
    else:
        stages = [_check_stage(each, number) for number, each in enumerate(stages)]
    return Checked(replace(spec, stages=stages), total)


async def check_items(
    spec: JobSpec, stage: StageIndex, items: Sequence[Any], blobs: Blobs, view: JobView, max_tasks: int
) -> None:
    """Check items that are appended to a stage. Raises as `check_submission` does."""
    if not items:
        raise BadInputError(TITLE, "items: nothing to append")
    _check_total(view.total + len(items), max_tasks)
    await _check_present([(f"items[{at}].file", entry.content) for at, entry in file_items(items)], blobs)
    _check_values(items, _names(spec.stages[stage], stage), "items", f"stage {spec.stages[stage].name!r}")


# ---- the job as a whole -------------------------------------------------------------------------------------------


def _check_names(spec: JobSpec) -> None:
    if len(spec.stages) > MAX_STAGES:
        raise TooLargeError(TITLE, f"stages: {len(spec.stages)} of them; {MAX_STAGES} is the limit")
    _check_name(spec.name, "name")
    for number, stage in enumerate(spec.stages):
        _check_travels(stage.params, f"stages[{number}].params")
        for name, axis in (stage.items.axes or {}).items():
            if isinstance(axis, list):
                _check_travels(axis, f"stages[{number}].items.axes.{name}")
    seen: dict[str, int] = {}
    for number, stage in enumerate(spec.stages):
        where = f"stages[{number}].name"
        _check_name(stage.name, where)
        if stage.name.isdigit():
            raise BadInputError(
                TITLE, f"{where}: {stage.name!r} would be taken for a stage's number", "Add a letter"
            )
        if stage.name in seen:
            raise BadInputError(
                TITLE, f"{where}: {stage.name!r} is the name of stages[{seen[stage.name]}] already"
            )
        seen[stage.name] = number


def _check_name(name: str, where: str) -> None:
    if _CONTROL.search(name) or name != name.strip():
        raise BadInputError(TITLE, f"{where}: {name[:80]!r} has control characters, or spaces at an end")


def _check_total(total: int, max_tasks: int) -> None:
    if total > max_tasks:
        raise TooLargeError(TITLE, f"items: {total} tasks in all; {max_tasks} is the limit of one job")


# ---- blobs ------------------------------------------------------------------------------------------------------


async def _check_refs(spec: JobSpec, blobs: Blobs) -> None:
    try:
        refs = list(refs_of_spec(spec))
    except msgspec.ValidationError as error:
        raise BadInputError(TITLE, f"an item's `file`: {in_words(error)}") from error
    await _check_present(list(refs), blobs)


async def _check_present(found: Sequence[tuple[str, Payload]], blobs: Blobs) -> None:
    missing: list[str] = []
    known: dict[str, int | None] = {}
    for where, ref in found:
        if not isinstance(ref, BlobRef):
            continue
        parse_blob_hash(ref.hash)
        if ref.hash not in known:
            known[ref.hash] = await blobs.size(ref.hash)
        size = known[ref.hash]
        if size is None:
            missing.append(f"{where} (blob {ref.hash})")
        elif size != ref.size:
            raise BadInputError(TITLE, f"{where}: blob {ref.hash} has {size} bytes, not {ref.size}")
    if missing:
        more = f" and {len(missing) - 5} more" if len(missing) > 5 else ""
        raise BadInputError("Blobs are missing", f"{', '.join(missing[:5])}{more}", "Upload them first")


async def _read_items(stage: StageSpec, number: int, blobs: Blobs) -> StageSpec:
    """The stage with the items of its blob in place of the blob."""
    payload = stage.items.blob
    if payload is None:
        return stage
    where = f"stages[{number}].items.blob"
    data = (
        payload.data if isinstance(payload, Inline) else await blobs.get_bytes(payload.hash, MAX_ITEMS_BYTES)
    )
    try:
        values = await asyncio.to_thread(msgspec.json.decode, data, type=list[Any])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadInputError(TITLE, f"{where}: expected a JSON array, and {error}") from error
    await _check_present([(f"{where}[{at}].file", entry.content) for at, entry in file_items(values)], blobs)
    return replace(stage, items=replace(stage.items, blob=None, values=values))


# ---- one stage --------------------------------------------------------------------------------------------------


def _check_stage(stage: StageSpec, number: int) -> StageSpec:
    where = f"stages[{number}]"
    if not _KIND.match(stage.kind):
        raise BadInputError(
            TITLE, f"{where}.kind: {stage.kind[:80]!r} is not the name of a kind, such as `command`"
        )
    _check_files(stage, where)
    params = _check_params(stage, where)
    check_runnable(stage, params, where)
    names = _names(stage, number)
    items = stage.items
    if items.values is not None:
        _check_values(items.values, names, f"{where}.items.values", f"stage {stage.name!r}")
    else:
        keys = {"file"} if items.stage is not None else set(items.axes or ())
        for name, place in names.items():
            if name != INDEX and name not in keys:
                raise _unknown(name, place, stage, keys)
    if isinstance(params, CommandParams):
        return _with_platforms(stage, params, where)
    return stage


def _check_files(stage: StageSpec, where: str) -> None:
    seen: set[str] = set()
    for place, entry in enumerate(stage.inputs):
        _check_entry(entry, f"{where}.inputs[{place}]")
        if entry.path.casefold() in seen:
            raise BadInputError(TITLE, f"{where}.inputs[{place}].path: {entry.path!r} is given twice")
        seen.add(entry.path.casefold())
    for place, glob in enumerate(stage.outputs):
        check_relative(glob, f"{where}.outputs[{place}]")
    if stage.checkpoint_files:
        check_relative(stage.checkpoint_files, f"{where}.checkpoint_files")
    for place, need in enumerate(stage.needs):
        if need.files:
            check_relative(need.files, f"{where}.needs[{place}].files")
        if need.into:
            check_relative(need.into, f"{where}.needs[{place}].into")
            others = Template(need.into).names - {INDEX}
            if others:
                raise BadInputError(
                    TITLE,
                    f"{where}.needs[{place}].into: {{{{{min(others)}}}}} is not known there; {{{{index}}}} is",
                )


def _check_entry(entry: FileEntry, where: str) -> None:
    check_relative(entry.path, f"{where}.path")
    if isinstance(entry.content, Inline) and len(entry.content.data) > INLINE_LIMIT_BYTES:
        raise TooLargeError(
            TITLE,
            f"{where}.content: {len(entry.content.data)} bytes inline; {INLINE_LIMIT_BYTES} is the limit",
            "Upload it as a blob",
        )


def _check_params(stage: StageSpec, where: str) -> Struct | None:
    """The parameters as their kind's Struct; None for a kind that only executors know."""
    kind = KIND_PARAMS.get(stage.kind)
    if kind is None:
        return None
    try:
        params = msgspec.convert(stage.params, kind)
    except msgspec.ValidationError as error:
        raise BadInputError(TITLE, in_words(error, f"{where}.params")) from error
    if isinstance(params, CommandParams):
        if params.argv and params.shell:
            raise BadInputError(TITLE, f"{where}.params: argv and shell are both given; give one of them")
        if not (params.argv or params.shell or params.platforms):
            raise BadInputError(
                TITLE, f"{where}.params: neither argv nor shell is given; there is nothing to run"
            )
    return params


def _with_platforms(stage: StageSpec, params: CommandParams, where: str) -> StageSpec:
    """Without a program of its own, a command runs where it has a variant only."""
    for name, variant in params.platforms.items():
        at = f"{where}.params.platforms.{name}"
        if not re.fullmatch(r"(linux|windows|macos|android|bare)(/[a-z0-9_]+)?", name):
            raise BadInputError(
                TITLE, f"{at}: {name[:80]!r} is not a platform, such as `linux` or `linux/aarch64`"
            )
        if variant.argv and variant.shell:
            raise BadInputError(TITLE, f"{at}: argv and shell are both given; give one of them")
        if not (variant.argv or variant.shell or params.argv or params.shell):
            raise BadInputError(
                TITLE, f"{at}: neither argv nor shell is given, here or in the stage's own parameters"
            )
    if params.argv or params.shell:
        return stage
    asked = stage.requires.platforms
    platforms = [
        name for name in params.platforms if not asked or name in asked or name.split("/")[0] in asked
    ]
    if not platforms:
        raise BadInputError(
            TITLE,
            f"{where}.requires.platforms: {', '.join(asked)}; there are programs for {', '.join(params.platforms)}",
        )
    return replace(stage, requires=replace(stage.requires, platforms=platforms))


# ---- items and placeholders -------------------------------------------------------------------------------------


def _count(stage: StageSpec, number: int) -> int:
    """How many tasks the stage has now. Raises BadInputError unless its items have at most one form."""
    items, where = stage.items, f"stages[{number}].items"
    forms = [name for name in ("count", "values", "axes", "stage") if getattr(items, name) is not None]
    if len(forms) > 1:
        raise BadInputError(TITLE, f"{where}: {' and '.join(forms)} are given; give one of them")
    if items.values is not None:
        return len(items.values)
    if items.axes is not None:
        if not items.axes:
            raise BadInputError(TITLE, f"{where}.axes: no axis is given")
        return prod(_axis_count(axis, f"{where}.axes.{name}") for name, axis in items.axes.items())
    if items.stage is not None:
        check_relative(items.stage.files, f"{where}.stage.files")
        return 0
    return 1 if items.count is None else items.count


def _axis_count(axis: Any, where: str) -> int:
    try:
        return len(Axis(axis))
    except GridError as error:
        raise BadInputError(TITLE, f"{where}: {error.message}", error.hint) from error
    except OverflowError as error:
        raise TooLargeError(TITLE, f"{where}: more values than anybody can count") from error


def _names(stage: StageSpec, number: int) -> dict[str, str]:
    """Names of the placeholders in the stage's parameters, each with a place where it stands."""
    found: dict[str, str] = {}
    for place, text in _texts(stage.params, f"stages[{number}].params"):
        try:
            for name in sorted(Template(text).names):
                found.setdefault(name, place)
        except BadInputError as error:
            raise BadInputError(
                error.title, f"{place} of stage {stage.name!r}: {error.message}", error.hint
            ) from error
    return found


def _texts(value: Any, place: str) -> list[tuple[str, str]]:
    if isinstance(value, str):
        return [(place, value)] if "{{" in value else []
    if isinstance(value, dict):
        return [each for key, part in value.items() for each in _texts(part, f"{place}.{key}")]
    if isinstance(value, list):
        return [each for at, part in enumerate(value) for each in _texts(part, f"{place}[{at}]")]
    return []


def _check_values(values: Sequence[Any], names: dict[str, str], where: str, stage: str) -> None:
    """Every value can travel, and has what the parameters ask of it."""
    for at, value in enumerate(values):
        size = _check_travels(value, where, at)
        if size > MAX_ITEM_BYTES:
            raise TooLargeError(
                TITLE,
                f"{where}[{at}]: {size} bytes; {MAX_ITEM_BYTES} is the limit of one item",
                "Put it into a file",
            )
        keys = value if isinstance(value, dict) else (ITEM,)
        for name, place in names.items():
            if name != INDEX and name not in keys:
                has = ", ".join(f"{{{{{key}}}}}" for key in [*keys, INDEX][:10])
                raise BadInputError(
                    "Unknown placeholder",
                    f"{place} of {stage}: {{{{{name}}}}} means nothing to {where}[{at}], which has {has}",
                )
    for at, entry in file_items(values):
        _check_entry(entry, f"{where}[{at}].file")


def _check_travels(value: Any, where: str, at: int | None = None) -> int:
    """Bytes of a value as it travels and is kept. The place is `where`, or its element `at`.

    JSON has no way to write what is no number, so only its size and depth count.

    Raises:
        BadInputError: a whole number over 64 bits; names the place.
        TooLargeError: too many levels.
    """
    try:
        size = len(_encode(value))
    except (OverflowError, RecursionError, ValueError, TypeError) as error:
        place = where if at is None else f"{where}[{at}]"
        _check_depth(value, place)
        _check_numbers(value, place)
        raise BadInputError(TITLE, f"{place}: {error}") from error
    if type(value) in _NESTS:
        _check_depth(value, where if at is None else f"{where}[{at}]")
    return size


def _check_depth(value: Any, where: str) -> None:
    level = [value]
    for _ in range(MAX_DEPTH + 1):
        parts = [each for each in level if type(each) in _NESTS]
        if not parts:
            return
        level = [each for part in parts for each in (part.values() if type(part) is dict else part)]
    raise TooLargeError(TITLE, f"{where}: more than {MAX_DEPTH} lists and objects inside each other")


def _check_numbers(value: Any, where: str) -> None:
    """Name the whole number that has no room."""
    if isinstance(value, int) and not -(1 << 63) <= value < 1 << 64:
        # Its digits may be thousands, which Python does not print.
        bits = value.bit_length()
        raise BadInputError(
            TITLE, f"{where}: a whole number of {bits} bits; 64 is the limit", "Write it as text"
        )
    if isinstance(value, dict):
        for key, part in value.items():
            _check_numbers(part, f"{where}.{key}")
    elif isinstance(value, list):
        for at, part in enumerate(value):
            _check_numbers(part, f"{where}[{at}]")


def _unknown(name: str, place: str, stage: StageSpec, keys: set[str]) -> BadInputError:
    has = ", ".join(f"{{{{{key}}}}}" for key in [*sorted(keys), INDEX])
    return BadInputError(
        "Unknown placeholder", f"{place} of stage {stage.name!r}: {{{{{name}}}}} is none of {has}"
    )
