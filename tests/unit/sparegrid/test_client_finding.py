"""Which coordinator a program talks to when nobody says so."""

from __future__ import annotations

from pathlib import Path

import pytest

from sparegrid.client import Client
from sparegrid.client.finding import Target, find_target
from sparegrid.errors import UnreachableError
from sparegrid.paths import Paths
from sparegrid.trust.access import Access, Credentials, save_credentials, write_access

HERE, ATTIC, LAB = "aa" * 32, "bb" * 32, "cc" * 32


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    return Paths.below(tmp_path)


def join(
    paths: Paths, grid: str, fingerprint: str, role: str = "submitter", urls: tuple[str, ...] = ()
) -> None:
    save_credentials(
        paths,
        Credentials(grid, grid.upper(), urls or (f"https://{grid}:1",), fingerprint, f"{grid}-{role}", role),
    )


def start(paths: Paths) -> None:
    write_access(paths, Access("https://here:1", HERE, "admin", "g-here", "here"))


def test_with_nothing_known_the_error_says_what_to_do(paths: Paths) -> None:
    with pytest.raises(UnreachableError) as caught:
        Client.find(paths, {})
    assert "sparegrid coordinator" in caught.value.hint
    assert "sparegrid worker --join" in caught.value.hint


def test_what_the_environment_says_wins(paths: Paths) -> None:
    start(paths)
    environ = {"SPAREGRID_URL": "https://a:1", "SPAREGRID_FINGERPRINT": LAB, "SPAREGRID_TOKEN": "t"}
    assert find_target(paths, environ) == Target(("https://a:1",), LAB, "t")
    assert find_target(paths, environ, url="https://b:2", token="u") == Target(("https://b:2",), LAB, "u")


def test_the_coordinator_of_this_home_comes_before_grids_that_were_joined(paths: Paths) -> None:
    join(paths, "attic", ATTIC)
    assert find_target(paths, {}) == Target(("https://attic:1",), ATTIC, "attic-submitter")
    start(paths)
    assert find_target(paths, {}) == Target(("https://here:1",), HERE, "admin")
    assert find_target(paths, {"SPAREGRID_GRID": "attic"}).fingerprint == ATTIC


def test_the_most_able_role_is_used(paths: Paths) -> None:
    for role in ("worker", "viewer", "submitter"):
        join(paths, "attic", ATTIC, role)
    assert find_target(paths, {}).token == "attic-submitter"


def test_of_several_grids_one_must_be_named(paths: Paths) -> None:
    join(paths, "attic", ATTIC)
    join(paths, "lab", LAB)
    with pytest.raises(UnreachableError, match=r"Several were joined: ATTIC, LAB\. Name one: SPAREGRID_GRID"):
        find_target(paths, {})
    assert find_target(paths, {"SPAREGRID_GRID": "LAB"}).token == "lab-submitter"
    with pytest.raises(UnreachableError, match="No grid 'cellar'"):
        find_target(paths, {"SPAREGRID_GRID": "cellar"})


def test_a_url_alone_is_completed_by_what_is_known_of_it(paths: Paths) -> None:
    with pytest.raises(UnreachableError, match="No key is known that should answer at https://lab:1"):
        find_target(paths, {}, url="https://lab:1")
    join(paths, "attic", ATTIC, urls=("https://10.0.0.1:1", "https://attic:1"))
    join(paths, "lab", LAB)
    assert find_target(paths, {}, url="LAB:1/") == Target(("LAB:1/",), LAB, "lab-submitter")
    assert find_target(paths, {}, url="https://10.0.0.1:1").fingerprint == ATTIC


def test_a_fingerprint_chooses_the_token_and_needs_none_of_it_to_be_known(paths: Paths) -> None:
    join(paths, "attic", ATTIC)
    join(paths, "lab", LAB)
    moved = find_target(paths, {"SPAREGRID_FINGERPRINT": LAB.upper()}, url="https://new:1")
    assert moved == Target(("https://new:1",), LAB, "lab-submitter")
    unknown = find_target(paths, {}, url="https://x:1", fingerprint="dd" * 32)
    assert unknown == Target(("https://x:1",), "dd" * 32, "")


def test_settings_of_the_file_count(paths: Paths) -> None:
    paths.make().config_file.write_text(
        f'[client]\nurl = "https://f:1"\nfingerprint = "{LAB}"\ntoken = "f"\n'
    )
    assert find_target(paths, {}) == Target(("https://f:1",), LAB, "f")
