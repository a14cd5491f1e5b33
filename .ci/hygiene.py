"""Checks that no other tool makes: file sizes, registry hosts, paths of a developer's machine, empty tests."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

MAX_LINES = 500
FORBIDDEN = {
    "a package registry's host": re.compile(
        r"(files\.)?python" + r"hosted\.org|pypi" + r"\.org|registry\.npm" + r"js"
    ),
    "a resolved download address": re.compile(r'"resol' + r'ved": "http|regis' + r'try = "http'),
    "unfinished work": re.compile(r"\b(TO" + r"DO|FIX" + r"ME|XX" + r"X)\b|raise NotImplemented" + r"Error"),
    "a bare type: ignore": re.compile(r"type: " + r"ignore\s*$"),
}


def tracked() -> list[Path]:
    """The files that git tracks, with those not yet added."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        capture_output=True,
        text=True,
        check=True,
    )
    return [Path(line) for line in listed.stdout.splitlines() if Path(line).is_file()]


def complaints(path: Path) -> list[str]:
    """What is wrong with one file."""
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        return []
    found = [f"{path}: {name}" for name, pattern in FORBIDDEN.items() if pattern.search(text)]
    if path.suffix == ".py":
        if (lines := text.count("\n")) > MAX_LINES:
            found.append(f"{path}: {lines} lines, over {MAX_LINES}: split it by noun")
        tree = ast.parse(text)
        if text.strip() and not ast.get_docstring(tree) and "tests/" not in str(path):
            found.append(f"{path}: no module docstring")
        if path.name.startswith("test_"):
            found += [f"{path}:{node.lineno}: {node.name} asserts nothing" for node in silent_tests(tree)]
    return found


def silent_tests(tree: ast.Module) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
    """Test functions without an assertion or a call that makes one."""
    signs = ("Assert(", "raises", "assert", "expect", "check", "verify", "match")
    return [
        node
        for node in ast.walk(tree)
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
        and node.name.startswith("test_")
        and not any(sign in ast.dump(node) for sign in signs)
    ]


def main() -> int:
    """Print every complaint; 1 when there is one."""
    found = [line for path in tracked() if path.name != "hygiene.py" for line in complaints(path)]
    print("\n".join(found) if found else "Hygiene: nothing to complain about")
    return bool(found)


if __name__ == "__main__":
    sys.exit(main())
