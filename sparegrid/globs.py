"""Globs over the paths of output files: one matcher for whoever counts, collects or places files. Pure.

`*` and `?` stay within a folder's name, `[abc]` and `[!abc]` are sets, `**` crosses folders (any number, also none).
Paths are relative with forward slashes; letter case counts everywhere.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache

from sparegrid.messages import FileEntry


def matching(files: Iterable[FileEntry], glob: str) -> list[FileEntry]:
    """The files whose path matches, in order of path; an empty glob matches none."""
    if not glob:
        return []
    found = files if glob == "**" else [entry for entry in files if matches(entry.path, glob)]
    return sorted(found, key=lambda entry: entry.path)


def matches(path: str, glob: str) -> bool:
    """Whether the whole path matches the glob."""
    return bool(glob) and _pattern(glob).match(path) is not None


@lru_cache(maxsize=256)
def _pattern(glob: str) -> re.Pattern[str]:
    """`**/` matches any folders or none, a last `**` anything below; the rest as in a shell."""
    parts: list[str] = []
    pieces = glob.split("/")
    for number, piece in enumerate(pieces):
        last = number == len(pieces) - 1
        if piece == "**":
            parts.append(".*" if last else "(?:[^/]+/)*")
        else:
            parts.append(_piece(piece) + ("" if last else "/"))
    return re.compile("(?s:" + "".join(parts) + r")\Z")


def _piece(piece: str) -> str:
    """The expression of one folder's or file's name."""
    out: list[str] = []
    at = 0
    while at < len(piece):
        char = piece[at]
        at += 1
        if char == "*":
            out.append("[^/]*")
        elif char == "?":
            out.append("[^/]")
        elif char == "[" and (end := piece.find("]", at + 1 + (piece[at : at + 1] in {"!", "^"}))) > 0:
            body = (
                piece[at:end]
                .replace("\\", "\\\\")
                .replace("[", r"\[")
                .replace("&&", r"&\&")
                .replace("||", r"|\|")
            )
            if body[0] in "!^":
                body = "^/" + body[1:]
            out.append(f"(?!/)[{body}]")
            at = end + 1
        else:
            out.append(re.escape(char))
    return "".join(out)
