"""A disk after a power loss: replays a recorded history up to some point and keeps only what was synced by then.

The model is the strict one of POSIX. A file's bytes are durable after an fsync of the file, a name after an fsync of
its folder; neither brings the other. What was not synced is lost, or survives in part: any of the writes, each torn
at sectors of 512 bytes, and of a folder's changes any beginning.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path

SECTOR_BYTES = 512
_HEAD = struct.Struct("<BiqII")


class Op(IntEnum):
    """The operations of recorder.c."""

    OPEN = 1
    CLOSE = 2
    WRITE = 3
    TRUNCATE = 4
    SYNC = 5
    RENAME = 6
    UNLINK = 7
    MKDIR = 8
    MARK = 9


@dataclass(frozen=True, slots=True)
class Record:
    """One operation: `number` is an offset, a length, or 1 when an open made the file."""

    op: Op
    fd: int
    number: int
    path: str
    data: bytes


def read_log(log: Path) -> list[Record]:
    """Everything that was recorded, in order."""
    data = log.read_bytes()
    found: list[Record] = []
    at = 0
    while at < len(data):
        op, fd, number, path_len, size = _HEAD.unpack_from(data, at)
        at += _HEAD.size
        path = data[at : at + path_len].decode()
        at += path_len
        found.append(Record(Op(op), fd, number, path, data[at : at + size]))
        at += size
    return found


@dataclass(slots=True, eq=False)
class File:
    """A file: its durable bytes, and the writes and truncations since the last fsync."""

    durable: bytearray = field(default_factory=bytearray)
    pending: list[Record] = field(default_factory=list)

    def image(self, survivors: random.Random | None, *, everything: bool = False) -> bytes:
        """What a reader finds after the loss."""
        content = bytearray(self.durable)
        for change in self.pending:
            if everything:
                _change(content, change)
            elif survivors is not None and survivors.random() < 0.5:
                for part in _torn(change, survivors):
                    _change(content, part)
        return bytes(content)


@dataclass(slots=True, eq=False)
class Folder:
    """A folder: its durable names, and the changes since the last fsync (None: the name is gone)."""

    durable: dict[str, File | Folder] = field(default_factory=dict)
    pending: list[tuple[str, File | Folder | None]] = field(default_factory=list)

    def names(self, survivors: random.Random | None, *, everything: bool = False) -> dict[str, File | Folder]:
        """The names after the loss: journaling file systems keep a folder's changes in their order."""
        kept = len(self.pending) if everything else 0
        if survivors is not None:
            kept = survivors.randint(0, len(self.pending))
        found = dict(self.durable)
        for name, node in self.pending[:kept]:
            if node is None:
                found.pop(name, None)
            else:
                found[name] = node
        return found


class Disk:
    """The disk below one folder, which is there durably from the start."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._tree = Folder()
        self._live: dict[str, File | Folder] = {str(root): self._tree}
        self._fds: dict[int, File | Folder] = {}

    def apply(self, record: Record) -> None:
        """Go one operation on."""
        match record.op:
            case Op.OPEN:
                if record.number:
                    self._name(record.path, File())
                self._fds[record.fd] = self._live[record.path]
            case Op.CLOSE:
                del self._fds[record.fd]
            case Op.WRITE | Op.TRUNCATE:
                self._file(record.fd).pending.append(record)
            case Op.SYNC:
                self._sync(self._fds[record.fd])
            case Op.RENAME:
                node = self._live[record.path]
                self._name(record.path, None)
                self._name(record.data.decode(), node)
            case Op.UNLINK:
                self._name(record.path, None)
            case Op.MKDIR:
                self._name(record.path, Folder())
            case Op.MARK:
                pass

    def write_image(
        self, target: Path, survivors: random.Random | None = None, *, everything: bool = False
    ) -> None:
        """Write what survives into an empty folder. Without `survivors`: only what was synced."""
        for path, content in _walk(self._tree, target, survivors, everything):
            if content is None:
                path.mkdir(exist_ok=True)
            else:
                path.write_bytes(content)

    def _file(self, fd: int) -> File:
        node = self._fds[fd]
        assert isinstance(node, File)
        return node

    def _name(self, path: str, node: File | Folder | None) -> None:
        parent = self._live[str(Path(path).parent)]
        assert isinstance(parent, Folder)
        parent.pending.append((Path(path).name, node))
        if node is None:
            del self._live[path]
        else:
            self._live[path] = node

    @staticmethod
    def _sync(node: File | Folder) -> None:
        if isinstance(node, File):
            for change in node.pending:
                _change(node.durable, change)
        else:
            node.durable = node.names(None, everything=True)
        node.pending.clear()


def _walk(
    folder: Folder, path: Path, survivors: random.Random | None, everything: bool
) -> Iterator[tuple[Path, bytes | None]]:
    yield path, None
    for name, node in folder.names(survivors, everything=everything).items():
        if isinstance(node, Folder):
            yield from _walk(node, path / name, survivors, everything)
        else:
            yield path / name, node.image(survivors, everything=everything)


def _change(content: bytearray, change: Record) -> None:
    if change.op is Op.TRUNCATE:
        del content[change.number :]
        content.extend(bytes(change.number - len(content)))
    else:
        content.extend(bytes(max(0, change.number - len(content))))
        content[change.number : change.number + len(change.data)] = change.data


def _torn(change: Record, survivors: random.Random) -> Iterator[Record]:
    """The sectors of a write that reached the disk: all, the first few, or any."""
    how = survivors.choice(("whole", "head", "any"))
    if change.op is Op.TRUNCATE or how == "whole":
        yield change
        return
    first = change.number // SECTOR_BYTES
    last = (change.number + len(change.data) - 1) // SECTOR_BYTES
    sectors = range(first, last + 1)
    until = survivors.randint(first, last)
    for sector in sectors:
        if (sector < until) if how == "head" else survivors.random() < 0.5:
            start = max(sector * SECTOR_BYTES - change.number, 0)
            end = (sector + 1) * SECTOR_BYTES - change.number
            yield Record(change.op, change.fd, change.number + start, "", change.data[start:end])
