"""TOML files with positions: where each key and value stands, so that an error names its line.

`tomllib` decides what is valid and what it means; the scanner here only walks a text that `tomllib` has
accepted. It knows nothing of what the keys are for. (tomlkit keeps positions private, and would be one more
dependency.)
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

KeyPath = tuple[str | int, ...]
"""Keys and indices from the root: `("stages", 0, "needs")`."""

_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
_BLANK = re.compile(r"[ \t]*")
_SPACE = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
_SCALAR = re.compile(r"[^,\]}#\n]*")
_STRINGS = (
    re.compile(r'"""(?:\\.|[^\\])*?"""(?:"{1,2}(?!"))?', re.DOTALL),
    re.compile(r"'''.*?'''(?:'{1,2}(?!'))?", re.DOTALL),
    re.compile(r'"(?:\\.|[^"\\\n])*"'),
    re.compile(r"'[^'\n]*'"),
)


class Span(NamedTuple):
    """Where a value stands: offsets of its key (or of the value, in an array) and of the value itself."""

    key_start: int
    value_start: int
    value_end: int


class TomlError(ValueError):
    """The text is not TOML. `line` counts from 1."""

    def __init__(self, line: int, message: str) -> None:
        super().__init__(message)
        self.line = line
        self.message = message


@dataclass(frozen=True)
class TomlText:
    """A parsed text and the place of everything in it."""

    text: str
    data: dict[str, Any]
    spans: Mapping[KeyPath, Span]

    def line(self, path: KeyPath) -> int:
        """The line (from 1) of the key at `path`, or of the nearest thing around it that has one."""
        while path:
            if path in self.spans:
                return self.text.count("\n", 0, self.spans[path].key_start) + 1
            path = path[:-1]
        return 1

    def shown(self, path: KeyPath, limit: int = 60) -> str:
        """The value at `path` as it was written, shortened."""
        span = self.spans.get(path)
        text = "" if span is None else self.text[span.value_start : span.value_end].strip()
        return text if len(text) <= limit else text[: limit - 1] + "…"


def parse_toml(text: str) -> TomlText:
    """Parse `text`.

    Raises:
        TomlError: it is not TOML.
    """
    # tomllib reads \r\n as \n; positions count in the same text.
    text = text.replace("\r\n", "\n").removeprefix("\ufeff")
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        place = re.search(r"\(at (?:line (\d+), column \d+|end of document)\)\Z", str(error))
        line = int(place[1]) if place and place[1] else text.rstrip("\n").count("\n") + 1
        raise TomlError(line, re.sub(r" \(at .*\)\Z", "", str(error))) from error
    except RecursionError as error:
        raise TomlError(1, "It is nested too deeply") from error
    return TomlText(text, data, _Scanner(text).scan())


def key_text(path: Sequence[str | int]) -> str:
    """A path as people write it: `stages[0].needs`; keys that need quotes get them."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            text += ("." if text else "") + format_key(part)
    return text


def format_key(key: str) -> str:
    """A key as TOML."""
    return key if _BARE_KEY.fullmatch(key) else format_value(key)


def format_value(value: object) -> str:
    """A value as TOML on one line. Takes str, bool, int, float, and lists and dicts of them."""
    match value:
        case bool():
            return "true" if value else "false"
        case int() | float():
            return repr(value)
        case list() | tuple():
            return "[" + ", ".join(format_value(one) for one in value) + "]"
        case dict():
            pairs = ", ".join(f"{format_key(str(key))} = {format_value(one)}" for key, one in value.items())
            return f"{{ {pairs} }}" if pairs else "{}"
        case _:
            return '"' + "".join(_escaped(letter) for letter in str(value)) + '"'


def _escaped(letter: str) -> str:
    if letter in '"\\':
        return "\\" + letter
    if letter < " " or letter == "\x7f":
        return {"\n": "\\n", "\t": "\\t", "\r": "\\r"}.get(letter, f"\\u{ord(letter):04x}")
    return letter


class _Scanner:
    """Walks a valid text once and notes where each key and value stands."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._spans: dict[KeyPath, Span] = {}
        self._tables: dict[KeyPath, int] = {}
        """How many tables each array of tables has so far."""

    def scan(self) -> dict[KeyPath, Span]:
        """The span of every key path of the text."""
        prefix: KeyPath = ()
        while self._skip(_SPACE) < len(self._text):
            if self._text[self._at] == "[":
                prefix = self._header()
            else:
                self._pair(prefix)
        return self._spans

    def _skip(self, pattern: re.Pattern[str]) -> int:
        found = pattern.match(self._text, self._at)
        assert found is not None, "both kinds of space match the empty text"
        self._at = found.end()
        return self._at

    def _header(self) -> KeyPath:
        start = self._at
        array = self._text.startswith("[[", self._at)
        self._at += 2 if array else 1
        path = self._inside(self._key(), start)
        self._skip(_BLANK)
        self._at += 2 if array else 1
        if array:
            self._spans.setdefault(path, Span(start, start, self._at))
            count = self._tables[path] = self._tables.get(path, 0) + 1
            path = (*path, count - 1)
        self._spans[path] = Span(start, start, self._at)
        return path

    def _inside(self, keys: KeyPath, start: int) -> KeyPath:
        """The path that the `keys` of a header mean, within the newest table of each array of tables on the
        way."""
        path: KeyPath = ()
        for position, key in enumerate(keys):
            path = (*path, key)
            if position < len(keys) - 1:
                if path in self._tables:
                    path = (*path, self._tables[path] - 1)
                # `[a.b]` opens `a` on the way.
                self._spans.setdefault(path, Span(start, start, start))
        return path

    def _key(self) -> KeyPath:
        """A key, dotted or not; stands after it and the blanks that follow."""
        parts: list[str] = []
        while True:
            self._skip(_BLANK)
            start = self._at
            if self._text[start] in "\"'":
                self._string()
                parts.append(next(iter(tomllib.loads(self._text[start : self._at] + " = 0"))))
            else:
                self._skip(_BARE_KEY)
                parts.append(self._text[start : self._at])
            self._skip(_BLANK)
            if self._text[self._at] != ".":
                return tuple(parts)
            self._at += 1

    def _pair(self, prefix: KeyPath) -> None:
        start = self._at
        keys = self._key()
        self._at += 1
        self._skip(_BLANK)
        for length in range(1, len(keys)):
            # A dotted key opens tables on the way: they stand where they are first named.
            self._spans.setdefault((*prefix, *keys[:length]), Span(start, start, self._at))
        self._value((*prefix, *keys), start)

    def _value(self, path: KeyPath, key_start: int) -> None:
        start = self._at
        match self._text[start]:
            case '"' | "'":
                self._string()
            case "[":
                self._array(path)
            case "{":
                self._inline_table(path)
            case _:
                end = self._skip(_SCALAR)
                self._at = start + len(self._text[start:end].rstrip())
        self._spans[path] = Span(key_start, start, self._at)

    def _array(self, path: KeyPath) -> None:
        self._at += 1
        index = 0
        while self._text[self._skip(_SPACE)] != "]":
            self._value((*path, index), self._at)
            index += 1
            if self._text[self._skip(_SPACE)] == ",":
                self._at += 1
        self._at += 1

    def _inline_table(self, path: KeyPath) -> None:
        self._at += 1
        while self._text[self._skip(_SPACE)] != "}":
            self._pair(path)
            if self._text[self._skip(_SPACE)] == ",":
                self._at += 1
        self._at += 1

    def _string(self) -> None:
        for pattern in _STRINGS:
            found = pattern.match(self._text, self._at)
            if found is not None:
                self._at = found.end()
                return
        raise AssertionError(f"tomllib accepted a string that has no end, at {self._at}")
