"""Runs one seeded simulation and prints a digest of all its effects: `python -m tests.sim.digest SEED`."""

from __future__ import annotations

import sys

from coordinator.scheduler.limits import Limits
from sparegrid.api import Items, Need, Requires, StageSpec
from tests.sim.simulation import Simulation


def eventful(seed: int) -> Simulation:
    """A few hundred devices in trouble, jobs of several shapes and submitters, all done."""
    sim = Simulation(seed, 120, window_ms=250, limits=Limits(counts={"licence": 7}))
    sim.digesting = True
    for device in sim.devices.values():
        sim.at(sim.random.randrange(1, 20_000), sim.attach, device)
    jobs = [
        sim.submit([StageSpec(items=Items(count=1500), retries=50)]),
        sim.submit(
            [
                StageSpec(name="a", items=Items(count=300), retries=50),
                StageSpec(name="b", items=Items(count=300), needs=[Need("a", map="same")], retries=50),
                StageSpec(
                    name="c", items=Items(count=30), needs=[Need("b", map="groups", size=10)], retries=50
                ),
            ],
            "bob",
        ),
        sim.submit(
            [StageSpec(items=Items(count=200), requires=Requires(counts={"licence": 1}), retries=50)],
            "eve",
            9,
        ),
    ]
    sim.churn(0.6, 200_000)
    sim.run(lambda: all(job in sim.retired for job in jobs))
    return sim


if __name__ == "__main__":
    print(eventful(int(sys.argv[1])).digest.hexdigest())
