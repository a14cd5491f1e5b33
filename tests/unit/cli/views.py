"""Builders of views: what a coordinator would answer, with everything but the point at issue filled in."""

from __future__ import annotations

from typing import Any

from sparegrid.api import DeviceView, JobView, StageView
from sparegrid.cli.screens.look import Look
from sparegrid.messages import Capability, Gpu

NOW_MS = 1_800_000_000_000


def a_look(width: int = 80, *, unicode: bool = True, live: bool = True) -> Look:
    return Look(width, unicode, live, NOW_MS)


def a_job(number: int = 17, **changes: Any) -> JobView:
    fields: dict[str, Any] = {
        "id": str(number),
        "name": "render the bay",
        "state": "active",
        "priority": 5,
        "submitter": "local",
        "submitted_ms": NOW_MS - 200_000,
        "stages": [
            StageView("tiles", "command", 99, done=37, running=4, queued=57, failed=1, mean_ms=1834),
            StageView("assemble", "command", 1, waiting=1, needs=["tiles"]),
        ],
        "total": 100,
        "done": 37,
        "running": 4,
        "queued": 57,
        "waiting": 1,
        "failed": 1,
        "eta_ms": 125_000,
    }
    return JobView(**(fields | changes))


def a_device(name: str = "attic", **changes: Any) -> DeviceView:
    capability = Capability(
        os="linux",
        arch="x86_64",
        cpu="AMD Ryzen 7 5800X 8-Core Processor",
        cpus=16,
        slots=8,
        memory=32 << 30,
        gpus=[Gpu("0", "NVIDIA GeForce RTX 3070", vram=8 << 30)],
    )
    fields: dict[str, Any] = {
        "id": f"id-{name}",
        "name": name,
        "state": "computing",
        "running": 3,
        "done": 1234,
        "capability": capability,
        "labels": {"room": "attic"},
        "last_seen_ms": NOW_MS - 3000,
    }
    return DeviceView(**(fields | changes))
