"""What breaks in real life, on machines of their own: killed programs, pulled cables, large files over bad links."""

from __future__ import annotations

import hashlib
import json
import os
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

import psutil
import pytest

from tests.e2e.grid import SPAREGRID, LanGrid, runs_per_index, traced_job, wait_until
from tests.e2e.lan import Host, Lan, why_not

pytestmark = [
    pytest.mark.netns,
    pytest.mark.timeout(420),
    pytest.mark.skipif(bool(why_not()), reason=f"no LAN can be made here: {why_not()}"),
]


@pytest.fixture
def grid() -> Iterator[LanGrid]:
    with Lan() as lan:
        yield LanGrid(lan)


def done_tasks(grid: LanGrid, job: str) -> int:
    return int(grid.job(job).get("done", 0))


def test_two_machines_join_by_code_and_run_a_command_encrypted(grid: LanGrid) -> None:
    grid.device("pc")
    assert grid.head.ok(SPAREGRID, "run", "--", "sh", "-c", "echo $SPAREGRID_INDEX; id -u").split() == [
        "0",
        str(grid.devices["pc"].uid),
    ]
    assert grid.head.run(SPAREGRID, "run", "--", "sh", "-c", "exit 7").returncode == 7


FAKETIME = Path("/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1")


@pytest.mark.skipif(not FAKETIME.exists(), reason="libfaketime is not installed")
def test_a_device_whose_clock_is_a_year_behind_joins_and_works(grid: LanGrid) -> None:
    host = grid.devices["old"] = grid.lan.host("old")
    wrong = {"LD_PRELOAD": str(FAKETIME), "FAKETIME": "-365d", "FAKETIME_DONT_FAKE_MONOTONIC": "1"}
    grid.start_worker("old", "--join", grid.join_code(), host=host, env=wrong)
    year = grid.head.ok(SPAREGRID, "run", "--", "date", "+%Y")
    assert int(year) == datetime.now(UTC).year - 1
    (device,) = grid.json("devices", "--json")["devices"]
    assert abs(device["last_seen_ms"] / 1000 - time.time()) < 120, "times in views are the coordinator's"


def test_a_killed_coordinator_reruns_nothing_and_accepts_every_task_once(grid: LanGrid) -> None:
    grid.device("one")
    grid.device("two")
    trace = grid.trace_file()
    job = grid.submit(traced_job(2000, trace, 0.02))
    wait_until(lambda: done_tasks(grid, job) >= 300, "300 tasks are done")
    for process in grid.head.pids():
        os.kill(process, 9)
    time.sleep(1)
    grid.coordinator = grid.start_coordinator()
    view = grid.wait_job(job)
    assert (view["state"], view["done"]) == ("done", 2000)
    assert runs_per_index(trace) == dict.fromkeys(range(2000), 1)


def test_a_killed_worker_costs_only_its_unfinished_attempts(grid: LanGrid) -> None:
    grid.device("one")
    grid.device("two")
    trace = grid.trace_file()
    job = grid.submit(traced_job(400, trace, 0.2))
    wait_until(lambda: done_tasks(grid, job) >= 40, "40 tasks are done")
    for process in grid.devices["two"].pids():
        os.kill(process, 9)
    grid.start_worker("two", "--slots", "2")
    view = grid.wait_job(job)
    assert (view["state"], view["done"]) == ("done", 400)
    runs = runs_per_index(trace)
    assert sorted(runs) == list(range(400))
    again = sum(runs.values()) - 400
    assert again <= 2, f"{again} tasks ran twice, but the killed worker had two slots"


def test_a_cut_of_15_s_reruns_nothing(grid: LanGrid) -> None:
    grid.device("one")
    grid.device("two")
    trace = grid.trace_file()
    job = grid.submit(traced_job(160, trace, 0.5))
    wait_until(lambda: done_tasks(grid, job) >= 10, "10 tasks are done")
    grid.devices["two"].cut()
    time.sleep(15)
    grid.devices["two"].heal()
    view = grid.wait_job(job)
    assert (view["state"], view["done"]) == ("done", 160)
    assert runs_per_index(trace) == dict.fromkeys(range(160), 1)


def test_a_cut_of_90_s_requeues_and_accepts_one_result_per_task(grid: LanGrid) -> None:
    grid.device("one", slots=1)
    grid.device("two", slots=2)
    trace = grid.trace_file()
    job = grid.submit(traced_job(12, trace, 12.0))
    wait_until(lambda: len(runs_per_index(trace)) >= 3, "all three slots run")
    grid.devices["two"].cut()
    cut_at = time.monotonic()
    wait_until(lambda: grid.device_state("two") == "offline", "the device is shown offline", limit_s=80)
    time.sleep(max(0.0, 90 - (time.monotonic() - cut_at)))
    grid.devices["two"].heal()
    view = grid.wait_job(job, limit_s=180)
    assert (view["state"], view["done"]) == ("done", 12)
    results = json.loads(grid.head.ok(SPAREGRID, "results", job, "--json"))["results"]
    assert [result["index"] for result in results] == list(range(12)), "one accepted result per task"
    assert grid.device_state("two") in {"ready", "computing"}


class PeakMemory:
    """Samples the resident bytes of the largest Python process of each host."""

    def __init__(self, hosts: list[Host]) -> None:
        self.hosts = hosts
        self.peak = dict.fromkeys((host.name for host in hosts), 0)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._sample)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self._over.set()
        self._thread.join()

    def _sample(self) -> None:
        while not self._over.wait(0.2):
            for host in self.hosts:
                for pid in host.pids():
                    try:
                        process = psutil.Process(pid)
                        if "sparegrid" in " ".join(process.cmdline()):
                            self.peak[host.name] = max(self.peak[host.name], process.memory_info().rss)
                    except psutil.Error:
                        continue


def test_a_gigabyte_in_and_out_survives_five_cuts_with_little_memory(grid: LanGrid) -> None:
    size = 1 << 30
    source = grid.head.home / "big.bin"
    digest = hashlib.sha256()
    with source.open("wb") as out:
        for _ in range(size >> 20):
            chunk = os.urandom(1 << 20)
            digest.update(chunk)
            out.write(chunk)
    source.chmod(0o644)
    grid.device("pc")
    pc = grid.devices["pc"]
    over = threading.Event()
    cuts: list[float] = []

    def cut_five_times() -> None:
        while len(cuts) < 5 and not over.wait(0.7):
            pc.cut()
            cuts.append(time.monotonic())
            time.sleep(0.5)
            pc.heal()

    job = grid.submit(
        'name = "big"\nshell = "cat big.bin > copy.bin"\ninputs = ["big.bin"]\noutputs = ["copy.bin"]\n'
    )
    cutter = threading.Thread(target=cut_five_times)
    with PeakMemory([grid.head, pc]) as memory:
        cutter.start()
        try:
            view = grid.wait_job(job, limit_s=300)
        finally:
            over.set()
            cutter.join()
    assert view["state"] == "done"
    assert len(cuts) == 5, "the transfer outlived all five cuts"
    (result,) = json.loads(grid.head.ok(SPAREGRID, "results", job, "--json"))["results"]
    assert result["outcome"]["files"][0]["content"]["hash"] == digest.hexdigest()
    target = Path(grid.head.home) / "back"
    grid.head.ok(SPAREGRID, "results", job, "-o", str(target), limit_s=120)
    (copied,) = list(target.rglob("copy.bin"))
    assert copied.stat().st_size == size
    for name, peak in memory.peak.items():
        assert 0 < peak < 150e6, f"{name}: {peak / 1e6:.0f} MB"
