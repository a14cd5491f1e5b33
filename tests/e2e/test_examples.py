"""The examples, each on its real input, submitted as their READMEs say, and their results checked another way."""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from resources.examples.povray.merge import read_ppm
from tests.e2e.local_grid import ROOT, LocalGrid

EXAMPLES = ROOT / "resources" / "examples"
SCENE = Path("/usr/share/povray-3.7/scenes/advanced/wineglass.pov")
TEXTS = Path("/usr/share/common-licenses")


@pytest.fixture(scope="module")
def grid() -> Iterator[LocalGrid]:
    with LocalGrid() as grid:
        yield grid


def submitted(grid: LocalGrid, example: str, stage: str) -> Path:
    """The folder with one stage's results."""
    folder = grid.work / example
    job = str(EXAMPLES / example / "job.toml")
    grid.ok("submit", job, "-o", str(folder), "--stage", stage, limit_s=110)
    return folder


def test_povray_tiles_merge_to_the_very_pixels_of_a_single_render(grid: LocalGrid) -> None:
    if shutil.which("povray") is None or not SCENE.exists():
        print(
            "not run here: povray and povray-examples are not installed (apt install povray povray-examples)"
        )
        return
    merged = read_ppm(submitted(grid, "povray", "merge") / "picture.ppm")
    single = grid.work / "single.ppm"
    options = ["+W640", "+H384", "+A0.3", "+WT1", "-D", "+FP", f"+O{single}"]
    subprocess.run(["povray", str(SCENE), *options], capture_output=True, check=True, timeout=60)
    assert merged == read_ppm(single)
    assert len(set(merged[2])) > 100


def test_words_are_counted_as_one_program_would(grid: LocalGrid) -> None:
    folder = submitted(grid, "word-count", "total")
    found = Counter[str]()
    for line in (folder / "words.txt").read_text().splitlines():
        count, word = line.split()
        found[word] = int(count)
    expected = Counter[str]()
    for path in TEXTS.iterdir():
        expected.update(word.lower() for word in re.findall(r"[A-Za-z]+", path.read_text(errors="replace")))
    assert found == expected
    job = grid.json("jobs", "--limit", "1")["jobs"][0]
    assert [stage["name"] for stage in job["stages"]] == ["split", "count", "total"]
    assert job["stages"][1]["total"] > 10


def test_fingerprints_are_those_of_the_files(grid: LocalGrid) -> None:
    folder = submitted(grid, "fingerprints", "manifest")
    lines = (folder / "SHA256SUMS").read_text().splitlines()
    found = {name: digest for digest, name in (line.split(maxsplit=1) for line in lines)}
    assert found == {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in TEXTS.iterdir()}
    spec = (EXAMPLES / "fingerprints" / "job.toml").read_text()
    assert "platforms.macos" in spec
    assert "platforms.windows" in spec


def test_a_python_function_counts_the_primes(grid: LocalGrid) -> None:
    assert (submitted(grid, "primes", "total") / "value.json").read_text() == "148933"


@pytest.mark.parametrize("job", sorted(EXAMPLES.glob("*/job.toml")), ids=lambda job: job.parent.name)
def test_every_example_says_how_to_run_it_and_what_comes_out(job: Path) -> None:
    text = (job.parent / "README.md").read_text()
    assert "sparegrid submit job.toml -o out" in text
    assert "`out/" in text
