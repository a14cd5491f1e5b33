"""Globs over the paths of output files: one matcher for whoever counts, collects or places files. Pure.

`*` and `?` stay within a folder's name, `[abc]` and `[!abc]` are sets, `**` crosses folders (any number, also none).
Paths are relative with forward slashes; letter case counts everywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple, TypeVar

from sparegrid.messages import FileEntry

P = TypeVar("P")
Q = TypeVar("Q")


def matching(files: Iterable[FileEntry], glob: str) -> list[FileEntry]:
    """The files whose path matches, in order of path; an empty glob matches none."""
    if not glob:
        return []
    found = files if glob == "**" else [entry for entry in files if matches(entry.path, glob)]
    return sorted(found, key=lambda entry: entry.path)


def matches(path: str, glob: str) -> bool:
    """Whether the whole path matches the glob. Takes time in proportion to their lengths' product, at worst."""
    if not glob:
        return False
    pieces = _pieces(glob)
    folders = path.split("/")
    if pieces[-1] is _CROSSING:
        # A last `**` stands for at least one name.
        return bool(folders[-1]) and _walk(folders[:-1], (*pieces[:-1], _CROSSING), _name_matches)
    return _walk(folders, pieces, _name_matches)


class CharSet(NamedTuple):
    """One character of these ranges, ends included, or of none of them."""

    negated: bool
    ranges: tuple[tuple[str, str], ...]


Char = CharSet | str
Piece = tuple[Char, ...]
"""One folder's or file's name: characters, sets, `?` as a set, and `*` as the empty string."""
_CROSSING: Piece = ("**",)
_RUN = ""
_ANY = CharSet(True, ())


def _walk(parts: Sequence[P], pattern: Sequence[Q], equal: Callable[[P, Q], bool]) -> bool:
    """Whether the parts match a pattern in which `_CROSSING` and `_RUN` stand for any number of parts.

    Only the last such run is ever tried again, which is enough: an earlier one that took more could win nothing.
    """
    at = here = 0
    resume_at, resume_here = -1, 0
    while at < len(parts):
        if here < len(pattern) and (pattern[here] is _CROSSING or pattern[here] == _RUN):
            resume_at, resume_here = at, here
            here += 1
        elif here < len(pattern) and equal(parts[at], pattern[here]):
            at += 1
            here += 1
        elif resume_at >= 0:
            resume_at += 1
            at, here = resume_at, resume_here + 1
        else:
            return False
    return all(one is _CROSSING or one == _RUN for one in pattern[here:])


def _name_matches(name: str, piece: Piece) -> bool:
    return _walk(name, piece, _char_matches)


def _char_matches(char: str, wanted: Char) -> bool:
    if isinstance(wanted, str):
        return char == wanted
    return any(low <= char <= high for low, high in wanted.ranges) != wanted.negated


@lru_cache(maxsize=256)
def _pieces(glob: str) -> tuple[Piece, ...]:
    return tuple(_CROSSING if piece == "**" else tuple(_chars(piece)) for piece in glob.split("/"))


def _chars(piece: str) -> Iterator[Char]:
    """What one folder's or file's name in a glob consists of."""
    at = 0
    while at < len(piece):
        char = piece[at]
        at += 1
        if char == "*":
            yield _RUN
        elif char == "?":
            yield _ANY
        elif char == "[" and (end := piece.find("]", at + 1 + (piece[at : at + 1] in {"!", "^"}))) > 0:
            yield _set(piece[at:end])
            at = end + 1
        else:
            yield char


def _set(body: str) -> CharSet:
    """What stands between brackets: `abc`, `a-z`, `!a`. A range whose ends are the wrong way round is empty."""
    negated = body[0] in "!^"
    at, ranges = int(negated), []
    while at < len(body):
        if at + 2 < len(body) and body[at + 1] == "-":
            ranges.append((body[at], body[at + 2]))
            at += 3
        else:
            ranges.append((body[at], body[at]))
            at += 1
    return CharSet(negated, tuple(ranges))
