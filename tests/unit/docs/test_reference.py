"""The generated reference pages follow the code."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[3] / "docs" / "reference.py"
PAGES = runpy.run_path(str(SCRIPT))["PAGES"]


@pytest.mark.parametrize("name", sorted(PAGES))
def test_a_generated_page_is_current(name: str) -> None:
    page = (SCRIPT.parent / "reference" / name).read_text(encoding="utf-8")
    assert page == PAGES[name](), "run: python docs/reference.py"
