"""The scheduler in a simulated grid: many devices in trouble, coordinators that die, the same effects every time."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from sparegrid.api import Items, Need, StageSpec
from tests.sim.digest import eventful
from tests.sim.simulation import Simulation

ROOT = Path(__file__).parents[2]


def test_one_seed_gives_one_digest_of_effects_under_three_hash_seeds() -> None:
    digests = [
        subprocess.run(
            [sys.executable, "-m", "tests.sim.digest", "7"],
            env={**os.environ, "PYTHONHASHSEED": hash_seed}, cwd=ROOT, capture_output=True, text=True, check=True,
        ).stdout
        for hash_seed in ("0", "1", "424242")
    ]  # fmt: skip
    assert len(set(digests)) == 1
    assert len(digests[0].strip()) == 64


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_grid_in_trouble_does_every_task_and_accepts_each_once(seed: int) -> None:
    sim = eventful(seed)
    sim.machine.check()
    assert set(sim.retired.values()) == {"done"}
    assert len(sim.accepted) == 1500 + 630 + 200
    assert set(sim.accepted.values()) == {1}


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_restarts_of_the_coordinator_rerun_nothing_and_accept_nothing_twice(seed: int) -> None:
    sim = Simulation(seed, 60)
    sim.bad_permille = 0
    sim.facts = []
    for device in sim.devices.values():
        sim.attach(device)
    job = sim.submit(
        [
            StageSpec(name="a", items=Items(count=1000), restartable=False),
            StageSpec(name="b", items=Items(count=1000), needs=[Need("a", map="same")], restartable=False),
        ]
    )
    snapshot, kept = None, 0
    restarts = 0

    def over() -> bool:
        nonlocal snapshot, kept, restarts
        if sim.random.random() < 0.02 and restarts < 12 and job not in sim.retired:
            if sim.random.random() < 0.4:
                snapshot, kept = sim.machine.snapshot(), len(sim.facts or ())
            sim.restart_coordinator(sim.random.choice((500, 5_000, 15_000)), snapshot, kept)
            sim.machine.check()
            restarts += 1
        return job in sim.retired

    sim.run(over)
    assert restarts == 12
    assert sim.retired[job] == "done"
    assert len(sim.accepted) == 2000
    assert set(sim.accepted.values()) == {1}
    assert sim.reruns == []


@pytest.mark.timeout(600)
def test_ten_thousand_devices_do_a_million_tasks_though_half_of_them_have_trouble() -> None:
    sim = Simulation(1, 10_000, window_ms=250)
    sim.mean_ms = 40_000
    for device in sim.devices.values():
        sim.at(sim.random.randrange(1, 5_000), sim.attach, device)
    jobs = [
        sim.submit([StageSpec(items=Items(count=600_000), retries=100)], "ann"),
        sim.submit(
            [
                StageSpec(name="cut", items=Items(count=200_000), retries=100),
                StageSpec(
                    name="paint", items=Items(count=200_000), needs=[Need("cut", map="same")], retries=100
                ),
            ],
            "bob",
        ),
    ]
    sim.churn(0.5, 600_000)
    checked = 0

    def over() -> bool:
        nonlocal checked
        if sim.batches >= checked + 1000:
            checked = sim.batches
            sim.machine.check()
        return all(job in sim.retired for job in jobs)

    sim.run(over)
    sim.machine.check()
    assert set(sim.retired.values()) == {"done"}
    assert len(sim.accepted) == 1_000_000
    assert set(sim.accepted.values()) == {1}
