"""What workers say, within bounds: every number finite, not negative and not absurd, every text short and printable.

A worker is trusted to compute, not to be free of errors: what it says reaches the scheduler's arithmetic, the journal
and every screen. Values out of bounds are drawn in; a result that names files elsewhere than in its work folder is
no result. Pure; knows neither sockets nor the scheduler.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from math import isfinite

from msgspec.structs import replace

from coordinator.server.placing import check_relative
from sparegrid.api import MAX_BYTES, MAX_COUNT, MAX_NAME_CHARS, MAX_SECONDS
from sparegrid.errors import BadInputError, GridError
from sparegrid.messages import (
    Attach,
    Blame,
    Capability,
    CapabilityChanged,
    Delivered,
    Ended,
    FromWorker,
    Gpu,
    Heartbeat,
    KindInfo,
    Outcome,
    PolicyChanged,
    Progress,
    Reading,
    Usage,
)

MAX_BOARDS = 256
"""Devices on one connection."""
MAX_RESULT_FILES = 100_000
MAX_SLOTS = 65_536
MAX_SPEED = 1e9
MAX_REASON_CHARS = 4000
MAX_MS = MAX_SECONDS * 1000
_MANY = 1000
_GPUS = 64
_CODES = 1 << 32
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


def bounded(message: FromWorker) -> FromWorker:
    """The message within bounds.

    Raises:
        BadInputError: an Attach whose ids are none.
    """
    match message:
        case Attach():
            _check_id(message.device, "device")
            _check_id(message.session, "session")
            return replace(
                message,
                name=_text(message.name),
                capability=_capability(message.capability),
                state=_text(message.state),
                reason=_text(message.reason, MAX_REASON_CHARS),
            )
        case CapabilityChanged():
            return replace(message, capability=_capability(message.capability), name=_text(message.name))
        case Heartbeat():
            return replace(message, reading=_reading(message.reading))
        case Progress():
            return replace(message, permille=_whole(message.permille, 1000), note=_text(message.note))
        case PolicyChanged():
            return replace(
                message,
                state=_text(message.state),
                reason=_text(message.reason, MAX_REASON_CHARS),
                until_ms=_whole(message.until_ms, MAX_BYTES),
            )
        case Delivered():
            return _delivered(message)
        case Ended():
            return _ended(message)
        case _:
            return message


def _delivered(message: Delivered) -> Delivered | Ended:
    """A result whose files cannot be placed is none: the device did not do its part."""
    wrong = _wrong_files(message.outcome)
    if wrong:
        return Ended(
            message.device,
            message.job,
            message.stage,
            message.index,
            message.attempt,
            Blame.DEVICE,
            f"its result is not acceptable: {wrong}",
        )
    return replace(message, outcome=_outcome(message.outcome))


def _ended(message: Ended) -> Ended:
    outcome = message.outcome
    if _wrong_files(outcome):
        outcome = replace(outcome, files=[])
    return replace(
        message,
        blame=_text(message.blame),
        reason=_text(message.reason, MAX_REASON_CHARS),
        outcome=_outcome(outcome),
    )


def _wrong_files(outcome: Outcome) -> str:
    if len(outcome.files) > MAX_RESULT_FILES:
        return f"{len(outcome.files)} files; {MAX_RESULT_FILES} is the limit"
    try:
        for entry in outcome.files:
            check_relative(entry.path, "files")
    except GridError as error:
        return error.message
    return ""


def _outcome(outcome: Outcome) -> Outcome:
    code = outcome.exit_code
    return replace(
        outcome,
        exit_code=code if code is None or -_CODES <= code <= _CODES else None,
        signal=_text(outcome.signal),
        log_bytes=_whole(outcome.log_bytes, MAX_BYTES),
        usage=Usage(
            _whole(outcome.usage.wall_ms, MAX_MS),
            # Of all cores together.
            _whole(outcome.usage.cpu_ms, MAX_BYTES),
            _whole(outcome.usage.max_rss, MAX_BYTES),
        ),
    )


def _capability(told: Capability) -> Capability:
    return Capability(
        os=_text(told.os),
        arch=_text(told.arch),
        os_version=_text(told.os_version),
        cpu=_text(told.cpu),
        cpus=_whole(told.cpus, MAX_SLOTS),
        slots=_whole(told.slots, MAX_SLOTS),
        memory=_whole(told.memory, MAX_BYTES),
        disk_free=_whole(told.disk_free, MAX_BYTES),
        gpus=[_gpu(gpu) for gpu in told.gpus[:_GPUS]],
        kinds={
            _text(name): KindInfo(_real(kind.speed), _text(kind.detail), kind.schema)
            for name, kind in list(told.kinds.items())[:_MANY]
        },
        programs=_texts(told.programs),
        pythons=_lines(told.pythons),
        labels=_texts(told.labels),
        counts={_text(name): _whole(n, MAX_COUNT) for name, n in list(told.counts.items())[:_MANY]},
        bandwidth=_whole(told.bandwidth, MAX_BYTES),
        latency_us=_whole(told.latency_us, MAX_BYTES),
        sandbox=_text(told.sandbox),
        notes=_lines(told.notes),
    )


def _gpu(told: Gpu) -> Gpu:
    vram = _whole(told.vram, MAX_BYTES)
    return Gpu(_text(told.id), _text(told.name), _text(told.vendor), vram, _text(told.driver))


def _reading(told: Reading) -> Reading:
    return Reading(
        load=_whole(told.load, MAX_COUNT),
        memory_free=_whole(told.memory_free, MAX_BYTES),
        disk_free=_whole(told.disk_free, MAX_BYTES),
        # A cold place is no error.
        temperature_mc=max(-MAX_COUNT, min(told.temperature_mc, MAX_COUNT)),
        blob_cache=_whole(told.blob_cache, MAX_BYTES),
    )


def _check_id(text: str, what: str) -> None:
    if not text or len(text) > MAX_NAME_CHARS or _CONTROL.search(text):
        raise BadInputError(
            "Not an id", f"{what}: {text[:80]!r} must be 1 to {MAX_NAME_CHARS} printable characters"
        )


def _whole(number: int, most: int) -> int:
    return max(0, min(number, most))


def _real(number: float) -> float:
    """0 is what an unmeasured speed is."""
    return max(0.0, min(number, MAX_SPEED)) if isfinite(number) else 0.0


def _text(text: str, most: int = MAX_NAME_CHARS) -> str:
    return _CONTROL.sub(" ", text[:most])


def _texts(told: Mapping[str, str]) -> dict[str, str]:
    return {_text(name): _text(value) for name, value in list(told.items())[:_MANY]}


def _lines(told: Sequence[str]) -> list[str]:
    return [_text(line, MAX_REASON_CHARS) for line in told[:_MANY]]
