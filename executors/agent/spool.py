"""Results on disk until they are acknowledged: what a restarted worker still owes its coordinator.

One file that is only appended to: records of results, and of what was acknowledged since. A record is written before
its message is sent, so it survives the worker's death. It is *synced* only when the work in the batch cost more than
a sync (SYNC_FROM_MS of task time): after a power loss the coordinator requeues what it did not get, and doing tiny
tasks again is cheaper than an fdatasync for each. A damaged tail, as a power loss leaves it, ends the reading.
"""

from __future__ import annotations

import logging
import os
import zlib
from collections.abc import Iterable
from pathlib import Path

import msgspec

from sparegrid.messages import BlobRef, Delivered, Ended, Outcome

log = logging.getLogger(__name__)

SYNC_FROM_MS = 2000
COMPACT_FROM_BYTES = 4 << 20
_HEAD_BYTES = 8
_MAGIC = b"sgspool1"


class Acked(msgspec.Struct, tag="acked", tag_field="t"):
    """These records are not needed any more."""

    attempts: list[int]


Result = Delivered | Ended
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Delivered | Ended | Acked).decode


class Spool:
    """The spool of one grid.

    Args:
        path: its file; made when missing.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.results: dict[int, Result] = {}
        """What is not acknowledged, by attempt, in the order it came."""
        self._size = 0
        self._failing = False
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._load()
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self._size = os.fstat(self._file).st_size
        self._compact()

    def _load(self) -> None:
        data = self._path.read_bytes() if self._path.exists() else b""
        at = len(_MAGIC)
        if data and data[:at] != _MAGIC:
            kept = self._path.with_suffix(".unreadable")
            log.error("the spool %s is not one of this version; it is kept as %s", self._path, kept)
            self._path.replace(kept)
            return
        while at + _HEAD_BYTES <= len(data):
            length = int.from_bytes(data[at : at + 4], "little")
            body = data[at + _HEAD_BYTES : at + _HEAD_BYTES + length]
            if len(body) < length or zlib.crc32(body) != int.from_bytes(data[at + 4 : at + 8], "little"):
                log.warning("the spool %s ends in a damaged record, which is dropped", self._path)
                break
            self._apply(_decode(body))
            at += _HEAD_BYTES + length

    def _apply(self, record: Result | Acked) -> None:
        if isinstance(record, Acked):
            for attempt in record.attempts:
                self.results.pop(attempt, None)
        else:
            self.results[record.attempt] = record

    def keep(self, results: Iterable[Result]) -> bool:
        """Write results. True when they are worth a `sync` before they are sent.

        A full disk does not lose them: they stay in memory and are sent, only a restart would not know them.
        """
        batch = list(results)
        self._append(batch)
        for result in batch:
            self.results[result.attempt] = result
        return sum(result.outcome.usage.wall_ms for result in batch) >= SYNC_FROM_MS

    def sync(self) -> None:
        """Force what was written to the disk. Blocks: call it in a thread."""
        try:
            os.fdatasync(self._file) if hasattr(os, "fdatasync") else os.fsync(self._file)
        except OSError as error:
            log.warning("the spool %s cannot be synced: %s", self._path, error)

    def forget(self, attempts: Iterable[int]) -> None:
        """The coordinator has these."""
        gone = [attempt for attempt in attempts if self.results.pop(attempt, None) is not None]
        if not gone:
            return
        if self.results:
            self._append([Acked(gone)])
            if self._size > COMPACT_FROM_BYTES:
                self._compact()
        elif self._size > len(_MAGIC):
            self._restart()

    def _append(self, records: Iterable[Result | Acked]) -> None:
        chunks: list[bytes] = []
        for record in records:
            body = _encode(record)
            chunks.append(len(body).to_bytes(4, "little") + zlib.crc32(body).to_bytes(4, "little") + body)
        data = b"".join(chunks)
        try:
            written = os.write(self._file, data)
            if written < len(data):
                raise OSError(28, "the disk is full")
        except OSError as error:
            if not self._failing:
                log.error("results cannot be kept on disk and stay in memory: %s: %s", self._path, error)
            self._failing = True
            # Half a record would hide all that follow it.
            os.ftruncate(self._file, self._size)
            return
        self._failing = False
        self._size += len(data)

    def _restart(self) -> None:
        os.ftruncate(self._file, len(_MAGIC))
        self._size = len(_MAGIC)

    def _compact(self) -> None:
        """Write anew what is still needed; the old file stays until the new one is whole."""
        new = self._path.with_suffix(".new")
        try:
            descriptor = os.open(
                new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC, 0o600
            )
        except OSError as error:
            log.error("the spool %s cannot be compacted: %s", self._path, error)
            return
        old_file, old_size = self._file, self._size
        self._file, self._size = descriptor, 0
        try:
            os.write(descriptor, _MAGIC)
            self._size = len(_MAGIC)
            self._append(self.results.values())
            if self._failing:
                raise OSError(28, "the disk is full")
            os.fsync(descriptor)
            new.replace(self._path)
        except OSError as error:
            log.error("the spool %s cannot be compacted: %s", self._path, error)
            self._file, self._size = old_file, old_size
            os.close(descriptor)
            new.unlink(missing_ok=True)
            return
        os.close(old_file)

    def close(self) -> None:
        """Let go of the file."""
        os.close(self._file)


def blobs_of(outcome: Outcome) -> list[BlobRef]:
    """The blobs that an outcome names, each once."""
    payloads = [outcome.value, outcome.log, *(entry.content for entry in outcome.files)]
    found = {payload.hash: payload for payload in payloads if isinstance(payload, BlobRef)}
    return list(found.values())


def blobs_of_result(result: Result) -> list[BlobRef]:
    """The blobs that must be with the coordinator before this message is sent."""
    found = blobs_of(result.outcome)
    if isinstance(result, Ended) and isinstance(result.checkpoint, BlobRef):
        found.append(result.checkpoint)
    return found
