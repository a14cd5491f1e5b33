"""Puts together what a device offers, from the probes and the owner's settings."""

from __future__ import annotations

import logging
import platform
import sys
from collections.abc import Mapping
from pathlib import Path

from executors.base import Executor
from executors.probe import system
from executors.probe.gpus import find_gpus
from executors.probe.programs import find_programs
from executors.probe.speed import measure_speed
from sparegrid.messages import Capability, KindInfo, Reading
from sparegrid.settings import WorkerSettings

log = logging.getLogger(__name__)


def probe_capability(
    settings: WorkerSettings, executors: Mapping[str, Executor], folder: Path, cache: Path
) -> Capability:
    """What this device offers. Takes up to some seconds the first time: call it in a thread.

    Args:
        settings: what the owner lends.
        executors: by kind.
        folder: where tasks work; its disk counts.
        cache: folder that remembers what is slow to find.
    """
    os_name, arch = system.os_and_arch()
    cpus = system.cpu_count()
    memory = system.memory_total()
    return Capability(
        os=os_name,
        arch=arch,
        os_version=system.os_version(),
        cpu=system.cpu_name(),
        cpus=cpus,
        slots=settings.slots or cpus,
        memory=min(settings.memory, memory) if settings.memory else memory,
        disk_free=system.disk_free(folder, settings.disk_reserve),
        gpus=find_gpus(),
        kinds=probe_kinds(executors, measure_speed(cache / "speed.json")),
        programs=find_programs(cache / "programs.json"),
        pythons=[platform.python_version()],
        labels=dict(settings.labels),
        counts=dict(settings.counts),
        notes=notes(),
    )


def probe_kinds(executors: Mapping[str, Executor], speed: float) -> dict[str, KindInfo]:
    """The kinds that are usable here. A probe that fails costs its kind, not the worker."""
    kinds: dict[str, KindInfo] = {}
    for kind, executor in executors.items():
        try:
            info = executor.probe()
        except Exception:
            # A plug-in is other people's code.
            log.exception("the probe of %r failed; this device does not offer it", kind)
            continue
        if info is not None:
            info.speed = info.speed or speed
            kinds[kind] = info
    return kinds


def notes(platform_name: str = sys.platform) -> list[str]:
    """What is missing here, in words."""
    found = ["no sandbox: tasks run with this user's rights"]
    if platform_name == "darwin":
        found.append("a task's process that detaches itself twice is not found when its tree is stopped")
    return found


def read_machine(settings: WorkerSettings, folder: Path) -> Reading:
    """The machine's health, for a heartbeat."""
    return system.reading(folder, settings.disk_reserve)
