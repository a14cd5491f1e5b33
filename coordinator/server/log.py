"""Structured logs on standard error: one line a record, `key=value` after the text. Never a token or a code.

Knows formats only; what is worth a line, the modules decide.
"""

from __future__ import annotations

import logging
import sys
import time
from typing import TextIO

_STANDARD = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}
_NAMES = "sparegrid"


class LineFormatter(logging.Formatter):
    """`2026-05-01T10:00:00.123Z INFO coordinator.http: a request failed method=GET path="/v1/jobs"`."""

    def format(self, record: logging.LogRecord) -> str:
        """One line; a traceback follows on lines of its own."""
        moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        name = record.name.removeprefix(f"{_NAMES}.")
        line = (
            f"{moment}.{int(record.msecs):03d}Z {record.levelname} {name}: {_one_line(record.getMessage())}"
        )
        for key, value in record.__dict__.items():
            if key not in _STANDARD:
                line += f" {key}={_value(value)}"
        if record.exc_info:
            line += "\n" + self.formatException(record.exc_info)
        return line


def configure_logging(level: str, stream: TextIO | None = None) -> logging.Handler:
    """Send this program's records of this level and above to `stream` (standard error). Returns the handler."""
    handler = logging.StreamHandler(sys.stderr if stream is None else stream)
    handler.setFormatter(LineFormatter())
    root = logging.getLogger(_NAMES)
    for old in list(root.handlers):
        if isinstance(old.formatter, LineFormatter):
            root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(level.upper())
    root.propagate = False
    return handler


def _one_line(text: str) -> str:
    """Nobody's text may look like another record."""
    return text.replace("\n", "\\n").replace("\r", "\\r")


def _value(value: object) -> str:
    text = str(value)
    if text and not any(char in text for char in ' "=\n\r\t'):
        return text
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{_one_line(escaped)}"'
