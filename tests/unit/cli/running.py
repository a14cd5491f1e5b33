"""Runs the program inside the test's process, as `main` would."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from sparegrid.cli.program import run_program


def run(home: Path, *arguments: str, environ: Mapping[str, str] | None = None) -> int:
    """The exit code; what it printed is for `capsys`."""
    return run_program(arguments, {"SPAREGRID_HOME": str(home), **(environ or {})})
