"""`make bench`: the table of figures beside their floors, and the same as JSON in `out/bench.json`.

One coordinator and one worker of two slots run on loopback as real processes with the product's defaults: TLS,
synchronous FULL, tasks in child processes. Absolute figures move with the machine; the ratios are the result.
"""

from __future__ import annotations

import asyncio
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
from rich.console import Console
from rich.table import Table

from bench import floors
from bench.grid import LocalGrid
from bench.scheduling import cycles_per_s
from sparegrid.api import Items, JobSpec, JobView, StageSpec, Subscribe
from sparegrid.client import Client

NOOPS = 20_000
TRUES = 3_000
ROUND_TRIPS = 100
BLOB_BYTES = 256 << 20


class Row(msgspec.Struct):
    """One figure beside its floor. `ratio` is figure ÷ floor; for times it is figure − floor (see `note`)."""

    name: str
    figure: float
    unit: str
    floor: float
    floor_name: str
    ratio: float
    target: str
    note: str = ""


async def run_job(client: Client, spec: JobSpec) -> tuple[float, JobView]:
    """Submit and wait; seconds from before the submit until the end is known."""
    start = time.perf_counter()
    job = await client.submit(spec)
    view = await client.wait(job.id)
    took = time.perf_counter() - start
    if view.state != "done":
        raise SystemExit(f"{spec.name}: {view.state}: {view.reason}")
    return took, view


def noop_spec(count: int) -> JobSpec:
    """`count` calls of a function that does nothing worth naming, in warm children."""
    stage = StageSpec(kind="python", params={"function": "time:time"}, items=Items(count=count))
    return JobSpec(name="no-op", stages=[stage])


def true_spec(count: int) -> JobSpec:
    """`count` runs of /bin/true, each with its own work folder and log."""
    stage = StageSpec(params={"argv": ["/bin/true"]}, items=Items(count=count))
    return JobSpec(name="true", stages=[stage])


async def measure_noops(client: Client) -> Row:
    """Durable no-op calls per second."""
    await run_job(client, noop_spec(500))
    figure = statistics.median([NOOPS / (await run_job(client, noop_spec(NOOPS)))[0] for _ in range(3)])
    floor = await asyncio.to_thread(floors.pool_calls_per_s, NOOPS)
    return Row(
        "no-op calls, durable", figure, "/s", floor, "ProcessPoolExecutor.map, in memory", figure / floor,
        "≥ 3,000/s", f"{NOOPS} tasks, median of 3",
    )  # fmt: skip


async def measure_trues(client: Client) -> Row:
    """/bin/true per second, in turn with xargs."""
    await run_job(client, true_spec(200))
    ratios, ours, theirs = [], [], []
    for _ in range(3):
        mine = TRUES / (await run_job(client, true_spec(TRUES)))[0]
        other = await asyncio.to_thread(floors.xargs_per_s, TRUES)
        ours.append(mine)
        theirs.append(other)
        ratios.append(mine / other)
    return Row(
        "/bin/true, durable", statistics.median(ours), "/s", statistics.median(theirs), "xargs -P2",
        statistics.median(ratios), "≥ 0.8 of xargs", f"{TRUES} tasks, median ratio of 3 pairs",
    )  # fmt: skip


@asynccontextmanager
async def job_ends(client: Client) -> AsyncIterator[asyncio.Queue[str]]:
    """Ids of jobs as they end, from one open event stream."""
    ended: asyncio.Queue[str] = asyncio.Queue()
    ready = asyncio.Event()

    async def pump() -> None:
        async for events in client.watch(Subscribe(devices=False)):
            ready.set()
            for event in events:
                job = getattr(event, "job", None)
                if isinstance(job, JobView) and job.state in {"done", "failed"}:
                    ended.put_nowait(job.id)

    task = asyncio.create_task(pump())
    await asyncio.wait_for(ready.wait(), 10)
    try:
        yield ended
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def measure_latency(client: Client, folder: Path) -> Row:
    """Milliseconds from before the submit until the end is known, in turn with fdatasync."""
    times, syncs = [], []
    async with job_ends(client) as ended:
        for _ in range(ROUND_TRIPS):
            start = time.perf_counter()
            job = await client.submit(noop_spec(1))
            while await asyncio.wait_for(ended.get(), 30) != job.id:
                pass
            times.append((time.perf_counter() - start) * 1000)
            syncs += floors.fdatasync_ms(folder, 2)
    p50, floor = statistics.median(times), 2 * statistics.median(syncs)
    p99 = statistics.quantiles(times, n=100)[98]
    return Row(
        "submit → result, p50", p50, "ms", floor, "two fdatasyncs, p50", p50 - floor, "≤ 5 ms beyond the floor",
        f"figure − floor; p99 {p99:.1f} ms",
    )  # fmt: skip


async def measure_blobs(client: Client, folder: Path) -> list[Row]:
    """A blob up and down, through TLS, hashed on both sides."""
    source = folder / "blob.bin"
    with source.open("wb") as out:
        for _ in range(BLOB_BYTES >> 20):
            out.write(os.urandom(1 << 20))
    megabytes = BLOB_BYTES / 1e6
    sha, copy = floors.sha256_mb_per_s(), floors.copy_mb_per_s(source)
    start = time.perf_counter()
    ref = await client.put_blob(source)
    up = megabytes / (time.perf_counter() - start)
    start = time.perf_counter()
    await client.get_blob(ref, folder / "back.bin")
    down = megabytes / (time.perf_counter() - start)
    note = f"256 MiB; a copy with fsync {copy:.0f} MB/s"
    return [
        Row("blob up", up, "MB/s", sha, "SHA-256, one core", up / sha, "", note),
        Row("blob down", down, "MB/s", sha, "SHA-256, one core", down / sha, "", note),
    ]


def show(rows: list[Row]) -> None:
    """The table."""
    table = Table(
        title="Sparegrid against its floors (TLS, FULL, child processes, 2 slots)", title_justify="left"
    )
    for name in ("figure", "", "floor", "", "ratio", "target", "how"):
        table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(
            row.name, f"{row.figure:,.1f} {row.unit}", row.floor_name, f"{row.floor:,.1f} {row.unit}",
            f"{row.ratio:.2f}", row.target, row.note,
        )  # fmt: skip
    Console(width=150 if not sys.stdout.isatty() else None).print(table)


async def main() -> None:
    """Measure everything, print and save."""
    with tempfile.TemporaryDirectory(prefix="sparegrid-bench-") as name:
        folder = Path(name)
        async with LocalGrid(folder, workers=1, slots=2) as grid, grid.client() as client:
            rows = [
                await measure_noops(client),
                await measure_trues(client),
                await measure_latency(client, folder),
            ]
            rows += await measure_blobs(client, folder)
    pure = statistics.median([cycles_per_s() for _ in range(3)])
    rows.append(
        Row(
            "scheduler alone",
            pure,
            "tasks/s",
            rows[0].figure,
            "no-op calls above",
            pure / rows[0].figure,
            "",
            "CPU time",
        )
    )
    show(rows)
    out = Path("out") / "bench.json"
    out.parent.mkdir(exist_ok=True)
    about = {"python": platform.python_version(), "cpus": os.cpu_count(), "system": platform.platform()}
    out.write_text(
        json.dumps({"about": about, "rows": msgspec.to_builtins(rows)}, indent=2, ensure_ascii=False)
    )
    print(f"Saved {out}")


if __name__ == "__main__":
    asyncio.run(main())
