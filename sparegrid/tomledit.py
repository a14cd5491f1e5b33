"""Sets or removes one key of a TOML text and leaves everything else as it was: comments, order, blank lines.

Knows only two levels, `[section]` and `name`. (tomlkit does this for any document; for two levels the
positions that errors need anyway are enough.)
"""

from __future__ import annotations

from typing import Any

from sparegrid.tomlfile import Span, TomlText, format_value, parse_toml


def edit_toml(text: str, section: str, name: str, value: Any) -> str:
    """The text with `section.name` set to `value`, or without it when `value` is None.

    Args:
        text: valid TOML, in which `section`, where it exists, is a table.
        section: a bare key.
        name: a bare key.
        value: text, number, truth, or a list or dict of them.

    Raises:
        TomlError: the text is not TOML.
    """
    toml = parse_toml(text)
    whole = toml.spans.get((section,))
    if whole is not None and toml.text[whole.value_start : whole.value_start + 1] == "{":
        return _inline_section(toml, whole, toml.data[section], name, value)
    span = toml.spans.get((section, name))
    if value is not None and span is not None and span.value_start > span.key_start:
        return toml.text[: span.value_start] + format_value(value) + toml.text[span.value_end :]
    rest = _without(toml, section, name)
    return rest if value is None else _added(parse_toml(rest), section, f"{name} = {format_value(value)}")


def _inline_section(toml: TomlText, span: Span, content: dict[str, Any], name: str, value: Any) -> str:
    """`section = { … }`: the whole inline table is written anew."""
    changed = {key: old for key, old in content.items() if key != name}
    if value is not None:
        changed[name] = value
    return toml.text[: span.value_start] + format_value(changed) + toml.text[span.value_end :]


def _without(toml: TomlText, section: str, name: str) -> str:
    """The text without the lines of a key and of all below it (it may be a table with a header of its
    own)."""
    dropped: set[int] = set()
    for path, span in toml.spans.items():
        if path[:2] == (section, name):
            first = toml.text.count("\n", 0, span.key_start)
            dropped.update(range(first, first + toml.text.count("\n", span.key_start, span.value_end) + 1))
    lines = toml.text.splitlines(keepends=True)
    return "".join(line for number, line in enumerate(lines) if number not in dropped)


def _added(toml: TomlText, section: str, line: str) -> str:
    """The text with a new line in a section that does not have its key."""
    text = toml.text
    whole = toml.spans.get((section,))
    if whole is not None and text[whole.key_start] != "[":
        # `section.other = 1` outside of any table: a header of this section would now be a second definition.
        return _inserted(text, whole.value_end, f"{section}.{line}")
    if whole is not None and whole.value_end > whole.value_start:
        ends = [
            span.value_end
            for path, span in toml.spans.items()
            if len(path) == 2 and path[0] == section and span.value_start > span.key_start
        ]
        return _inserted(text, max(ends, default=whole.value_end), line)
    gap = "" if not text else "\n" if text.endswith("\n") else "\n\n"
    return f"{text}{gap}[{section}]\n{line}\n"


def _inserted(text: str, after: int, line: str) -> str:
    """The text with `line` below the one that holds offset `after`."""
    end = text.find("\n", after)
    if end < 0:
        return f"{text}\n{line}\n"
    return f"{text[: end + 1]}{line}\n{text[end + 1 :]}"
