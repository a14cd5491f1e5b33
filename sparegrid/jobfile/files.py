"""Files that a job file names: found, measured, and turned into FileEntries and uploads. Reads disks, sends
nothing."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from sparegrid.jobfile.check import Document
from sparegrid.messages import INLINE_LIMIT_BYTES, BlobRef, FileEntry, Inline, Payload
from sparegrid.tomlfile import KeyPath

INLINE_BUDGET_BYTES = 1 << 20
"""Small files travel inside the job up to so many bytes in all, larger ones and the rest as blobs."""
MAX_FILES = 1_000_000
_MAGIC = frozenset("*?[")


class Found(NamedTuple):
    """A file on this disk, and its path in the work folder."""

    source: Path
    path: str


class Files:
    """The files of one job: each is read once, whatever names it."""

    def __init__(self, document: Document) -> None:
        self._document = document
        self._folder = document.file.parent
        self._payloads: dict[Path, Payload] = {}
        self._inline_left = INLINE_BUDGET_BYTES
        self.uploads: dict[BlobRef, Path | bytes] = {}

    def find(self, pattern: str, path: KeyPath, target: str | None = None) -> list[Found]:
        """The files that a text names, in order of their paths.

        Args:
            pattern: a file, a folder (all below it), or a glob; relative to the job file.
            path: where the text stands in the job file.
            target: path in the work folder: of one file, or of the folder of several; None keeps the path it
            has
                here, relative to the job file (or, from elsewhere, to the folder that the glob begins in).

        Raises:
            BadInputError: nothing is there, or a target leads out of the work folder.
        """
        whole = Path(os.path.normpath(self._folder / Path(pattern).expanduser()))
        base = _fixed_part(whole)
        sources = self._matching(whole, base, pattern, path)
        single = len(sources) == 1 and sources[0] == whole
        found: list[Found] = []
        for source in sources:
            if target is None:
                inside = source.is_relative_to(self._folder)
                name = source.relative_to(self._folder if inside else base if base.is_dir() else base.parent)
                place = PurePosixPath(name.as_posix())
            elif single:
                place = PurePosixPath(target) / source.name if target.endswith("/") else PurePosixPath(target)
            else:
                place = PurePosixPath(target) / source.relative_to(base).as_posix()
            found.append(Found(source, self._placed(place, path, pattern)))
        return found

    def entry(self, found: Found, path: KeyPath) -> FileEntry:
        """The file as the job carries it. Raises BadInputError when it cannot be read."""
        return FileEntry(found.path, self._payload(found.source, path), os.access(found.source, os.X_OK))

    def data(self, data: bytes) -> Payload:
        """Bytes that the job carries, which are in no file."""
        if len(data) <= INLINE_LIMIT_BYTES:
            return Inline(data)
        return self._uploaded(data)

    def read_lines(self, name: str, path: KeyPath) -> list[str]:
        """The lines of a text file that are not empty, without the spaces around them."""
        return [line.strip() for line in self.read_text(name, path).splitlines() if line.strip()]

    def read_text(self, name: str, path: KeyPath) -> str:
        """The text of a file. Raises BadInputError when it cannot be read."""
        source = self._folder / Path(name).expanduser()
        try:
            return source.read_text("utf-8-sig")
        except OSError as error:
            self._document.refuse(path, f"cannot read {source}: {error.strerror}")
        except UnicodeDecodeError:
            self._document.refuse(path, f"{source} is not text in UTF-8")

    def _matching(self, whole: Path, base: Path, pattern: str, path: KeyPath) -> list[Path]:
        if base == whole:
            if whole.is_dir():
                found = sorted(one for one in whole.rglob("*") if one.is_file())
            elif whole.is_file():
                found = [whole]
            elif whole.exists():
                # A pipe or a device would be read for ever.
                self._document.refuse(path, f"{pattern!r} is neither a file nor a folder")
            else:
                self._document.refuse(path, f"there is no file {pattern!r} (looked for {whole})")
        else:
            found = sorted(one for one in _glob(base, whole) if one.is_file())
        if not found:
            self._document.refuse(path, f"no file matches {pattern!r} (looked in {base})")
        if len(found) > MAX_FILES:
            self._document.refuse(path, f"{pattern!r} matches {len(found)} files; at most {MAX_FILES}")
        return found

    def _placed(self, place: PurePosixPath, path: KeyPath, pattern: str) -> str:
        if place.is_absolute() or ".." in place.parts or place == PurePosixPath("."):
            inside = place.name if place.name not in ("", "..") else "data"
            self._document.refuse(
                path,
                f"{str(place)!r} is no path inside the work folder",
                f'Name one: {{ from = "{pattern}", path = "{inside}" }}',
            )
        return str(place)

    def _payload(self, source: Path, path: KeyPath) -> Payload:
        known = self._payloads.get(source)
        if known is not None:
            return known
        try:
            size = source.stat().st_size
            if size <= min(INLINE_LIMIT_BYTES, self._inline_left):
                payload: Payload = Inline(source.read_bytes())
                self._inline_left -= size
            else:
                with source.open("rb") as file:
                    digest = hashlib.file_digest(file, "sha256").hexdigest()
                    payload = BlobRef(digest, file.tell())
                self.uploads[payload] = source
        except OSError as error:
            self._document.refuse(path, f"cannot read {source}: {error.strerror}")
        self._payloads[source] = payload
        return payload

    def _uploaded(self, data: bytes) -> BlobRef:
        ref = BlobRef(hashlib.sha256(data).hexdigest(), len(data))
        self.uploads[ref] = data
        return ref


def _fixed_part(whole: Path) -> Path:
    """The path up to its first part with a wildcard; the path itself when it has none."""
    if whole.exists():
        return whole  # A file may well be called `a[1].txt`.
    kept: list[str] = []
    for part in whole.parts:
        if _MAGIC & set(part):
            return Path(*kept)
        kept.append(part)
    return whole


def _glob(base: Path, whole: Path) -> Iterator[Path]:
    if not base.is_dir():
        return iter(())
    rest = str(whole.relative_to(base))
    # For pathlib a last `**` means folders only.
    return base.glob(f"{rest}/*" if rest.endswith("**") else rest)
