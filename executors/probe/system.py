"""The machine itself: system, processor, memory, disk, temperature. Linux first; elsewhere what psutil knows."""

from __future__ import annotations

import os
import platform
import shutil
from pathlib import Path

import psutil

from executors.command import this_platform
from sparegrid.messages import Reading


def os_version() -> str:
    """The distribution's or system's own name for its version."""
    plain = f"{platform.system()} {platform.release()}"
    try:
        return platform.freedesktop_os_release().get("PRETTY_NAME", plain)
    except OSError:
        return plain  # Not Linux, or one without os-release.


def os_and_arch() -> tuple[str, str]:
    """`linux`, `x86_64`. Android tells itself by its root folder."""
    system, _, arch = this_platform().partition("/")
    if system == "linux" and "ANDROID_ROOT" in os.environ:
        system = "android"
    return system, arch


def cpu_name(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """The processor's name; empty when the system does not tell."""
    try:
        for line in cpuinfo.read_text(errors="replace").splitlines():
            key, _, value = line.partition(":")
            if key.strip() in {"model name", "Model", "Hardware", "uarch"} and value.strip():
                return value.strip()
    except OSError:
        return platform.processor()
    return platform.processor()


def cpu_count() -> int:
    """CPUs that this process may use: affinity and cgroup quota count, not what the machine has."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(usable, _quota() or usable))


def _quota(path: Path = Path("/sys/fs/cgroup/cpu.max")) -> int:
    """CPUs that the cgroup allows, rounded down; 0 when it sets no limit."""
    try:
        limit, period = path.read_text().split()
        return 0 if limit == "max" else max(1, int(limit) // int(period))
    except (OSError, ValueError):
        return 0


def memory_total() -> int:
    """Bytes of memory, or of the cgroup's limit when that is smaller."""
    total = int(psutil.virtual_memory().total)
    try:
        limit = Path("/sys/fs/cgroup/memory.max").read_text().strip()
    except OSError:
        return total
    return min(total, int(limit)) if limit.isdecimal() else total


def disk_free(folder: Path, reserve: int) -> int:
    """Bytes that tasks may fill below `folder`: the reserve stays free."""
    try:
        return max(0, shutil.disk_usage(folder).free - reserve)
    except OSError:
        return 0


def temperature_mc() -> int:
    """The hottest sensor of the processor in thousandths of a degree; 0 when none is known."""
    sensors = getattr(psutil, "sensors_temperatures", None)
    if sensors is None:
        return 0
    try:
        groups = sensors()
    except (OSError, ValueError):
        return 0
    wanted = [
        groups[name] for name in ("coretemp", "k10temp", "cpu_thermal", "soc_thermal") if name in groups
    ]
    current = [entry.current for group in wanted for entry in group if entry.current]
    return round(max(current, default=0) * 1000)


def reading(folder: Path, reserve: int) -> Reading:
    """The machine's health now."""
    return Reading(
        load=round(psutil.getloadavg()[0] * 1000),
        memory_free=int(psutil.virtual_memory().available),
        disk_free=disk_free(folder, reserve),
        temperature_mc=temperature_mc(),
    )
