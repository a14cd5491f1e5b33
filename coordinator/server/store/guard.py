"""May this path hold the store, and is it ours alone? Refuses network file systems and a second coordinator."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from types import TracebackType
from typing import Self

from sparegrid.errors import StorageError

NETWORK_FILESYSTEMS = frozenset({
    "nfs", "nfs4", "cifs", "smb", "smb2", "smb3", "smbfs", "ncpfs", "afs", "9p", "ceph", "glusterfs", "lustre",
    "beegfs", "davfs", "fuse.sshfs", "fuse.glusterfs", "fuse.ceph", "fuse.davfs2", "fuse.rclone", "fuse.s3fs",
    "fuse.gcsfuse", "fuse.smbnetfs", "fuse.curlftpfs", "fuse.gvfsd-fuse", "fuse.dislocker-nfs",
})  # fmt: skip
"""Types in /proc/mounts whose locks or fsyncs do not hold what SQLite needs."""


def filesystem_of(path: Path, mounts: str) -> tuple[str, str]:
    """(mount point, type) of the file system that holds an absolute path, from the text of /proc/mounts."""
    best = ("", "")
    for line in mounts.splitlines():
        fields = line.split(" ")
        if len(fields) < 3:
            continue
        # The kernel writes space, tab, newline and backslash as octal.
        point = re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), fields[1])
        # The last of several mounts on one point is the visible one, hence >=.
        if (path == Path(point) or Path(point) in path.parents) and len(point) >= len(best[0]):
            best = (point, fields[2])
    return best


def refuse_network_filesystem(folder: Path, mounts: Path = Path("/proc/mounts")) -> None:
    """Raise StorageError when the folder lies on a network file system. Says nothing where the system cannot tell."""
    real = folder.resolve()
    if sys.platform == "win32":
        if str(real).startswith("\\\\"):
            raise _refused(folder, str(real), "a network share")
        return
    if not mounts.exists():
        return
    point, kind = filesystem_of(real, mounts.read_text(errors="replace"))
    if kind in NETWORK_FILESYSTEMS:
        raise _refused(folder, point, kind)


def _refused(folder: Path, point: str, kind: str) -> StorageError:
    return StorageError(
        "Store on a network file system",
        f"{folder} lies on {point}, which is {kind}: its locks and fsyncs do not keep a journal safe",
        "Set SPAREGRID_HOME to a folder on a local disk",
    )


class StoreLock:
    """Held by the one coordinator that has the store open; the system drops it when the process ends, however it ends.

    Raises:
        StorageError: another process (named by its pid), or another Store of this one, holds it.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise StorageError("Store cannot be locked", f"{path}: {error.strerror}") from error
        if not _try_lock(self._fd):
            owner = os.read(self._fd, 32).decode(errors="replace").strip() or "unknown"
            os.close(self._fd)
            raise StorageError(
                "Store is in use",
                f"{path.with_suffix('')} is open in another coordinator, process {owner}",
                "Stop that one, or start this one under another SPAREGRID_HOME",
            )
        os.ftruncate(self._fd, 0)
        os.write(self._fd, f"{os.getpid()}\n".encode())

    def release(self) -> None:
        """Let another coordinator have it. The file stays: removing it would let two processes lock two files."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


def _try_lock(fd: int) -> bool:
    if sys.platform == "win32":
        import msvcrt

        try:
            # Far behind the pid, because Windows lets nobody read a locked range.
            os.lseek(fd, 1 << 30, os.SEEK_SET)
            msvcrt.locking(fd, msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        finally:
            os.lseek(fd, 0, os.SEEK_SET)
        return True
    import fcntl

    try:
        # flock belongs to the open file, so that a second Store of the same process is refused, too.
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
