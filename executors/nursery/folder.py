"""A task's work folder: made fresh, filled with the task's files, harvested and emptied again.

Runs inside a slot. What is kept goes to the outbox, a folder of the agent whose files are named by their SHA-256.
Nothing is written outside the work folder and nothing outside of it is collected, whatever paths, links or archives
say. A folder in which nothing was ever made is used again as it is: tiny tasks pay one `stat`.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import re
import stat
import sys
from contextlib import suppress
from pathlib import Path

from executors.nursery.protocol import Place
from sparegrid.globs import matches
from sparegrid.messages import INLINE_LIMIT_BYTES, BlobRef, FileEntry, Inline, Payload

INLINE_TOTAL_BYTES = 64 << 10
"""Small files of one attempt travel inside its message up to this sum; the others are blobs."""
MAX_FILES = 10_000
FULL_BYTES = 1 << 20
"""With less room than this, the disk counts as full."""
_CHUNK_BYTES = 1 << 20
_HARD_LINK_FROM_BYTES = 1 << 20
"""Smaller files are copied: a link's risk (the task may change a file that it owns) is not worth it."""
_FICLONE = 0x40049409  # linux/fs.h: share the extents of another file on btrfs, XFS and others
_MAGIC = re.compile(r"[*?\[]")


class FolderError(Exception):
    """The work folder could not be filled or harvested. `blame` says by whose fault."""

    def __init__(self, blame: str, reason: str) -> None:
        super().__init__(reason)
        self.blame = blame
        self.reason = reason


def disk_error(error: OSError, doing: str) -> FolderError:
    """A FolderError that blames the device, in words, for an error of its disk."""
    why = (
        "the disk is full" if error.errno in {errno.ENOSPC, errno.EDQUOT} else (error.strerror or str(error))
    )
    return FolderError("device", f"{doing}: {why}")


def size_of(folder: str) -> int:
    """Bytes on the disk of everything below a folder; what vanishes meanwhile counts nothing."""
    total = 0
    for path, _folders, names in os.walk(folder):
        for name in names:
            with suppress(OSError):
                total += os.lstat(os.path.join(path, name)).st_blocks * 512
    return total


def checked_path(path: str) -> str:
    """A file's path within the work folder, as given.

    Raises:
        FolderError: it is absolute, has empty, `.` or `..` parts, or characters that mean something to a system.
    """
    parts = path.split("/")
    if not path or any(part in {"", ".", ".."} for part in parts) or re.search(r"[\x00\\:]", path):
        raise FolderError("task", f"the path {path!r} is not a plain relative path within the work folder")
    return path


class WorkFolder:
    """The folder of one slot, used by one attempt after the other.

    Args:
        path: where it is, or shall be.
        outbox: folder on the same disk where large outputs go, by SHA-256.
    """

    def __init__(self, path: Path, outbox: Path) -> None:
        self.path = str(path)
        self._outbox = str(outbox)
        self._exists = False
        self._placed: dict[str, tuple[int, int, int]] = {}
        self._inline_left = INLINE_TOTAL_BYTES

    def enter(self, files: list[Place]) -> None:
        """Make the folder fresh, put the files there, and make it the current one.

        Raises:
            FolderError: a path is refused, a file is missing, or the disk is full.
        """
        self._inline_left = INLINE_TOTAL_BYTES
        try:
            self._make_fresh()
            os.chdir(self.path)
        except OSError as error:
            raise disk_error(error, "the work folder could not be made") from error
        self._placed = {}
        for place in files:
            self._place(place)

    def _make_fresh(self) -> None:
        if self._exists and _is_untouched(self.path):
            return
        self.remove()
        os.makedirs(self.path, 0o700)
        os.utime(self.path, (0, 0))
        self._exists = True

    def leave(self) -> None:
        """Remove what the task left in the folder, as soon as it has ended: its bytes may be all the disk has."""
        if self._exists and not _is_untouched(self.path):
            with contextlib.suppress(OSError):  # the next `enter` tries again, and tells what is wrong
                self.remove()

    def remove(self) -> None:
        """Remove the folder and what the task left in it, also what it made unreadable."""
        self._exists = False
        os.chdir("/")
        if not os.path.lexists(self.path):
            return
        import shutil

        try:
            shutil.rmtree(self.path)
        except PermissionError:
            self._make_removable()
            shutil.rmtree(self.path)

    def clear(self) -> None:
        """Free what an attempt left, now that all of it is told: an idle slot holds no disk, and nobody's files count
        as the next one's. What resists is reported by the next `enter`."""
        if self._exists and not _is_untouched(self.path):
            with suppress(OSError):
                self.remove()

    def _make_removable(self) -> None:
        """Take back the folders that the task locked; never through a link."""
        os.chmod(self.path, 0o700)
        for folder, names, _files in os.walk(self.path):
            for name in names:
                path = os.path.join(folder, name)
                if not os.path.islink(path):
                    os.chmod(path, 0o700)

    # -- inputs

    def _place(self, place: Place) -> None:
        try:
            if place.archive:
                self._unpack(place)
                return
            path = checked_path(place.path)
            if "/" in path:
                os.makedirs(os.path.dirname(path), exist_ok=True)
            if place.source:
                _bring(place.source, path)
            else:
                with open(path, "wb") as file:
                    file.write(place.data)
            if place.executable or place.source:
                os.chmod(
                    path, (0o500 if os.stat(path).st_nlink > 1 else 0o700) if place.executable else 0o600
                )
        except OSError as error:
            raise disk_error(error, f"the input {place.path!r} could not be placed") from error
        found = os.stat(path)
        self._placed[path] = (found.st_ino, found.st_size, found.st_mtime_ns)

    def _unpack(self, place: Place) -> None:
        import tarfile

        file = None if place.source else io.BytesIO(place.data)
        try:
            with tarfile.open(place.source or None, "r:", fileobj=file) as archive:
                archive.extractall(self.path, filter="data")
        except tarfile.TarError as error:
            raise FolderError("task", f"the checkpoint could not be unpacked: {error}") from error

    # -- outputs

    def collect(self, globs: list[str]) -> list[FileEntry]:
        """The files that match, in order of path; large ones move to the outbox. Inputs left as they were stay.

        Raises:
            FolderError: a file named without wildcards is missing, is no plain file, or lies outside.
        """
        found: set[str] = set()
        for glob in globs:
            matching = self._matches(glob)
            if not matching and not _MAGIC.search(glob):
                raise FolderError("task", f"the output {glob!r} was not made")
            found.update(matching)
        if len(found) > MAX_FILES:
            raise FolderError("task", f"{len(found)} files match the outputs, over the limit of {MAX_FILES}")
        try:
            return [self._keep_file(path) for path in sorted(found)]
        except OSError as error:
            raise disk_error(error, "an output could not be kept") from error

    def _matches(self, glob: str) -> list[str]:
        """Paths of files that match, or are below a folder of that very name."""
        glob = checked_path(glob.rstrip("/"))
        matching = []
        for folder, _folders, names in os.walk(self.path):
            for name in names:
                path = os.path.relpath(os.path.join(folder, name), self.path)
                fits = path == glob or path.startswith(f"{glob}/") or matches(path, glob)
                if fits and (path == glob or not self._is_untouched_input(path)):
                    matching.append(path)
        return matching

    def _is_untouched_input(self, path: str) -> bool:
        if path not in self._placed:
            return False
        found = os.lstat(os.path.join(self.path, path))
        return self._placed[path] == (found.st_ino, found.st_size, found.st_mtime_ns)

    def _keep_file(self, path: str) -> FileEntry:
        whole = os.path.join(self.path, path)
        real = os.path.realpath(whole)
        if not real.startswith(os.path.realpath(self.path) + "/"):
            raise FolderError("task", f"the output {path!r} is a link to outside of the work folder")
        found = os.stat(real)
        if not stat.S_ISREG(found.st_mode):
            raise FolderError("task", f"the output {path!r} is not a plain file")
        executable = bool(found.st_mode & 0o100)
        if not os.access(real, os.R_OK):
            os.chmod(real, 0o600)
        if found.st_size <= min(INLINE_LIMIT_BYTES, self._inline_left):
            self._inline_left -= found.st_size
            with open(real, "rb") as file:
                return FileEntry(path, Inline(file.read()), executable)
        # Other names of the same file may be outputs too: the outbox gets a name more, the folder keeps its own.
        return FileEntry(path, self._keep_large(real, found.st_size), executable)

    def keep_path(self, path: str) -> BlobRef:
        """A file on the outbox's disk as a blob; it keeps its own name too.

        Raises:
            FolderError: the disk failed.
        """
        try:
            return self._keep_large(path, os.stat(path).st_size)
        except OSError as error:
            raise disk_error(error, "an output could not be kept") from error

    def _keep_large(self, real: str, size: int) -> BlobRef:
        import hashlib

        digest = hashlib.sha256()
        buffer = bytearray(_CHUNK_BYTES)
        with open(real, "rb", buffering=0) as file:
            while count := file.readinto(buffer):
                digest.update(memoryview(buffer)[:count])
        target = os.path.join(self._outbox, digest.hexdigest())
        if not os.path.exists(target):
            os.link(real, target)
            os.chmod(target, 0o400)
        return BlobRef(digest.hexdigest(), size)

    def keep_bytes(self, data: bytes) -> Payload:
        """Bytes as a payload: inside the message when small, else as a file of the outbox.

        Raises:
            FolderError: the disk is full.
        """
        if len(data) <= INLINE_LIMIT_BYTES:
            return Inline(data)
        import hashlib

        name = hashlib.sha256(data).hexdigest()
        target = os.path.join(self._outbox, name)
        try:
            if not os.path.exists(target):
                with open(f"{target}.part-{os.getpid()}", "wb") as file:
                    file.write(data)
                os.rename(file.name, target)
        except OSError as error:
            raise disk_error(error, "an output could not be kept") from error
        return BlobRef(name, len(data))

    def full_disk(self, quota_bytes: int) -> FolderError | None:
        """Why a task may have failed, when the disk is full: its own doing when it filled its quota."""
        try:
            found = os.statvfs(self.path)
        except OSError:
            return None
        if found.f_bavail * found.f_frsize >= FULL_BYTES:
            return None
        size = size_of(self.path)
        if quota_bytes and size >= quota_bytes:
            return FolderError(
                "task", f"it filled the disk: its work folder has {size} bytes of {quota_bytes}"
            )
        return FolderError("device", "the disk is full")

    def pack_checkpoint(self, glob: str) -> Payload | None:
        """A tar archive of the files that match, as a payload; None when there are none.

        Raises:
            FolderError: the disk is full, or the glob is no relative path.
        """
        paths = sorted(self._matches(glob))
        if not paths:
            return None
        import tarfile

        target = f"{self.path}.checkpoint-{os.getpid()}"
        try:
            with tarfile.open(target, "w") as archive:
                for path in paths:
                    if stat.S_ISREG(os.lstat(os.path.join(self.path, path)).st_mode):
                        archive.add(os.path.join(self.path, path), path, recursive=False)
            size = os.stat(target).st_size
            if size <= INLINE_LIMIT_BYTES:
                return Inline(Path(target).read_bytes())
            return self._keep_large(target, size)
        except OSError as error:
            raise disk_error(error, "the checkpoint could not be kept") from error
        finally:
            Path(target).unlink(missing_ok=True)


def _is_untouched(path: str) -> bool:
    """Whether nothing was made in the folder since it was: any entry sets its modification time, which is 1970."""
    try:
        found = os.stat(path)
    except OSError:
        return False
    return found.st_mtime_ns == 0 and stat.S_IMODE(found.st_mode) == 0o700 and found.st_uid == os.geteuid()


def _bring(source: str, path: str) -> None:
    """Put a cached file at `path`: shared extents where the disk can, else a read-only link or a copy.

    A link is only made where its mode protects the cache: root may write to read-only files.
    """
    with open(source, "rb", buffering=0) as read:
        if _clone(read.fileno(), path):
            return
        if os.fstat(read.fileno()).st_size >= _HARD_LINK_FROM_BYTES and os.geteuid() != 0:
            # Another disk, or one without links: a copy always works.
            with suppress(OSError):
                os.link(source, path)
                return
        _copy(read, path)


def _copy(source: io.FileIO, path: str, *, in_kernel: bool = sys.platform == "linux") -> None:
    """Copy bytes; elsewhere than on Linux, sendfile writes to sockets only, if it exists."""
    with open(path, "wb") as write:
        if in_kernel:
            while os.sendfile(write.fileno(), source.fileno(), None, _CHUNK_BYTES * 64):
                pass
            return
        while data := source.read(_CHUNK_BYTES):
            write.write(data)


def _clone(source: int, path: str) -> bool:
    import fcntl

    with open(path, "wb", buffering=0) as write:
        try:
            fcntl.ioctl(write.fileno(), _FICLONE, source)
        except OSError:
            cloned = False
        else:
            cloned = True
    if not cloned:
        os.unlink(path)
    return cloned
