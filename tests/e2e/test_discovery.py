"""Grids are found over a real network: another machine, another namespace."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator

import pytest

from tests.e2e.grid import PORT, SPAREGRID
from tests.e2e.lan import Host, Lan, why_not

pytestmark = [
    pytest.mark.netns,
    pytest.mark.timeout(180),
    pytest.mark.skipif(bool(why_not()), reason=f"no LAN can be made here: {why_not()}"),
]


@pytest.fixture
def lan() -> Iterator[Lan]:
    with Lan() as made:
        yield made


def seen_from(host: Host) -> list[tuple[str, str]]:
    """Name and URL of every grid that a machine finds."""
    found = json.loads(host.ok(SPAREGRID, "discover", "--for", "3s", "--json"))
    return [(one["name"], one["url"]) for one in found]


def test_a_grid_is_found_from_another_machine_until_its_coordinator_is_killed(lan: Lan) -> None:
    head, late = lan.host("head"), lan.host("late")
    coordinator = head.start(SPAREGRID, "coordinator", "--port", str(PORT), "--name", "lab")
    coordinator.wait_for(str(PORT))
    assert seen_from(late) == [("lab", f"https://{head.address}:{PORT}")]
    for pid in head.pids():
        os.kill(pid, 9)
    assert seen_from(late) == []


def test_a_coordinator_that_does_not_announce_is_not_found(lan: Lan) -> None:
    head, other = lan.host("head"), lan.host("other")
    quiet = {"SPAREGRID_COORDINATOR_ANNOUNCE": "false"}
    head.start(SPAREGRID, "coordinator", "--port", str(PORT), env=quiet).wait_for(str(PORT))
    assert seen_from(other) == []
