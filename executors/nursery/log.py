"""What a task printed: counted whole, kept up to a cap, small logs in memory and larger ones in a file.

The last line of a log that was cut says so.
"""

from __future__ import annotations

import os
from contextlib import suppress

from executors.nursery.folder import FolderError, WorkFolder
from sparegrid.messages import INLINE_LIMIT_BYTES, Inline, Payload

_MEMORY_BYTES = 256 << 10
FOLLOW_PIECE_BYTES = 32 << 10


class TaskLog:
    """The log of one attempt.

    Args:
        cap_bytes: how much is kept.
        spill_path: file for what does not stay in memory.
    """

    def __init__(self, cap_bytes: int, spill_path: str) -> None:
        self._cap = cap_bytes
        self._path = spill_path
        self._memory = bytearray()
        self._file = -1
        self._why_cut = ""
        self.total = 0
        self.kept = 0

    def feed(self, data: bytes | memoryview) -> None:
        """Take what came; beyond the cap it is only counted."""
        self.total += len(data)
        room = self._cap - self.kept
        if room <= 0 or self._why_cut:
            return
        piece = data[:room]
        if self._file < 0 and self.kept + len(piece) > _MEMORY_BYTES:
            self._open_file()
        if self._file >= 0:
            self._write(piece)
        elif not self._why_cut:
            self._memory += piece
            self.kept += len(piece)

    def _open_file(self) -> None:
        try:
            self._file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        except OSError as error:
            self._why_cut = error.strerror or str(error)
            return
        self.kept = 0
        self._write(self._memory)
        self._memory = bytearray()

    def _write(self, data: bytes | bytearray | memoryview) -> None:
        view = memoryview(data)
        try:
            while view:
                count = os.write(self._file, view)
                self.kept += count
                view = view[count:]
        except OSError as error:
            # A full disk ends the log, not the task.
            self._why_cut = error.strerror or str(error)

    def read(self, offset: int, limit: int) -> bytes:
        """Kept bytes from `offset` on."""
        if self._file >= 0:
            return os.pread(self._file, limit, offset)
        return bytes(self._memory[offset : offset + limit])

    @property
    def is_cut(self) -> bool:
        """Whether less was kept than was printed."""
        return self.kept < self.total

    def finish(self, folder: WorkFolder) -> Payload | None:
        """The kept log as a payload, None when nothing was printed. The log is closed.

        Raises:
            FolderError: the disk is full.
        """
        note = self._cut_note() if self.is_cut else b""
        try:
            if self._file < 0:
                data = bytes(self._memory) + note
                return folder.keep_bytes(data) if data else None
            if note:
                os.lseek(self._file, 0, os.SEEK_END)
                self._write(note)
            return folder.keep_path(self._path)
        except FolderError:
            # The disk is full: the head of the log is worth more than none.
            return Inline(self.read(0, INLINE_LIMIT_BYTES - len(note)) + note)
        finally:
            self.close()

    def _cut_note(self) -> bytes:
        why = f": {self._why_cut}" if self._why_cut else ""
        return f"\n[log cut{why}: {self.kept} of {self.total} bytes kept]\n".encode()

    def close(self) -> None:
        """Forget the spill file, if any."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
            with suppress(FileNotFoundError):
                os.unlink(self._path)
