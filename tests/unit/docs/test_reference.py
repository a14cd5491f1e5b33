"""The generated reference pages follow the code."""

from __future__ import annotations

import runpy
from pathlib import Path

import msgspec
import pytest

from sparegrid.api import JobSpec

SCRIPT = Path(__file__).resolve().parents[3] / "docs" / "reference.py"
MODULE = runpy.run_path(str(SCRIPT))
PAGES = MODULE["PAGES"]


@pytest.mark.parametrize("name", sorted(PAGES))
def test_a_generated_page_is_current(name: str) -> None:
    page = (SCRIPT.parent / "reference" / name).read_text(encoding="utf-8")
    assert page == PAGES[name](), "run: python docs/reference.py"


def test_the_job_of_the_walk_with_curl_is_a_job() -> None:
    spec = msgspec.json.decode(MODULE["JOB"], type=JobSpec)
    assert [stage.name for stage in spec.stages] == ["square"]
    assert f"```json\n{MODULE['JOB']}\n```" in PAGES["rest.md"]()
