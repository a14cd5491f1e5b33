"""Where the output files of needed tasks go in a task's work folder. Pure; knows no store and no disk.

A file goes to `into/path`, with `{{index}}` in `into` replaced by its task's index. When two tasks made the same path
there (letter case ignored, because not every device minds it), or one made a file where another made a folder, each of
these files goes into a folder of its own task instead: `into/INDEX/path`, and when that is taken, too,
`into/STAGE.INDEX/path` with the stage's number. Which files move depends on the paths alone, not on any order.
The task's own files stay where they are.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple

from sparegrid.errors import BadInputError
from sparegrid.messages import FileEntry


class Found(NamedTuple):
    """An output file of a needed task, and the folder that its need names."""

    stage: int
    task: int
    into: str
    entry: FileEntry


def place(found: Iterable[Found], own: Iterable[str] = ()) -> list[FileEntry]:
    """The files as they go into the work folder, in the order given. `own` are paths that are taken already."""
    files = list(found)
    names = [_join(one.into.replace("{{index}}", str(one.task)), one.entry.path) for one in files]
    own_names = list(own)
    for escape in ("{index}", "{stage}.{index}", "{stage}.{index}~"):
        clashing = _clashing(names, own_names)
        if not clashing:
            break
        for number in clashing:
            one = files[number]
            folder = escape.format(stage=one.stage, index=one.task)
            into = one.into.replace("{{index}}", str(one.task))
            names[number] = _join(_join(into, folder), one.entry.path)
    return [
        one.entry if name == one.entry.path else FileEntry(name, one.entry.content, one.entry.executable)
        for one, name in zip(files, names, strict=True)
    ]


def check_relative(path: str, where: str) -> str:
    """A path or glob inside a work folder.

    Raises:
        BadInputError: it is absolute, leads out, or is no portable path; `where` says which.
    """
    parts = path.split("/")
    if (
        not path
        or "\0" in path
        or "\\" in path
        or path.startswith("/")
        or ".." in parts
        or parts[0][1:2] == ":"
    ):
        raise BadInputError(
            "Not a path in the work folder",
            f"{where}: {path[:200]!r} must be relative, with forward slashes and without `..`",
        )
    return path


def _join(folder: str, path: str) -> str:
    folder = folder.strip("/")
    return f"{folder}/{path}" if folder else path


def _clashing(names: list[str], own: list[str]) -> list[int]:
    """Numbers of the files that share their path with another, or lie where another has a folder."""
    folded = [name.casefold() for name in names]
    taken = Counter(folded)
    taken.update(name.casefold() for name in own)
    folders: set[str] = set()
    for name in (*folded, *(name.casefold() for name in own)):
        end = name.rfind("/")
        while end > 0 and name[:end] not in folders:
            folders.add(name[:end])
            end = name.rfind("/", 0, end)
    return [number for number, name in enumerate(folded) if taken[name] > 1 or name in folders]
