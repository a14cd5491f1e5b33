"""The probe finds what is there, cheaply, and says what is not."""

from __future__ import annotations

import platform
import sys
from pathlib import Path

import pytest

from executors.base import Executor
from executors.probe import probe_capability, read_machine
from executors.probe.capability import notes, probe_kinds
from executors.probe.gpus import find_gpus, parse_lspci, parse_nvidia_smi
from executors.probe.programs import find_programs, version_in
from executors.probe.speed import measure_speed
from executors.probe.system import cpu_count, cpu_name
from executors.registry import load_executors
from sparegrid.messages import Gpu, KindInfo
from sparegrid.settings import WorkerSettings


def program(folder: Path, name: str, script: str) -> None:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def test_the_capability_of_this_machine_is_whole(tmp_path: Path) -> None:
    settings = WorkerSettings(slots=3, memory=1 << 20, labels={"a": "b"}, counts={"c": 1})
    found = probe_capability(settings, load_executors(), tmp_path, tmp_path / "cache")
    assert (found.os, found.arch) == (platform.system().lower(), platform.machine().lower())
    assert (found.slots, found.memory, found.labels, found.counts) == (3, 1 << 20, {"a": "b"}, {"c": 1})
    assert found.cpus == cpu_count()
    assert set(found.kinds) == {"command", "python"}
    assert all(info.speed > 0 for info in found.kinds.values())
    assert found.pythons == [platform.python_version()]
    assert found.disk_free > 0
    assert "python3" in found.programs
    assert any("no sandbox" in note for note in found.notes)
    reading = read_machine(settings, tmp_path)
    assert reading.memory_free > 0
    assert reading.disk_free > 0


def test_programs_are_asked_once_until_they_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = tmp_path / "asked"
    program(tmp_path, "tool", f"echo x >> {asked}; echo tool version 1.2.3-rc1")
    program(tmp_path, "mute", "exit 1")
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    wanted = {"tool": ("--version",), "mute": (), "missing": ()}
    for _ in range(2):
        assert find_programs(tmp_path / "known.json", wanted) == {"tool": "1.2.3-rc1", "mute": ""}
    assert asked.read_text() == "x\n"
    program(tmp_path, "tool", f"echo x >> {asked}; echo another tool, version 1.2.4")
    assert find_programs(tmp_path / "known.json", wanted)["tool"] == "1.2.4"
    (tmp_path / "known.json").write_text("damaged")
    assert find_programs(tmp_path / "known.json", wanted)["tool"] == "1.2.4"


def test_a_program_that_hangs_or_cannot_run_costs_nothing_but_its_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program(tmp_path, "hangs", "exec sleep 1000")
    broken = tmp_path / "broken"
    broken.write_bytes(b"\x7fELF nonsense")
    broken.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setattr("executors.probe.programs.TIMEOUT_S", 0.2)
    assert find_programs(tmp_path / "known.json", {"hangs": (), "broken": ()}) == {"hangs": "", "broken": ""}


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("ffmpeg version 5.1.6-0+deb12u1 Copyright", "5.1.6-0+deb12u1"),
        ("Blender 4.2.0\n\tbuild date: 2024-07-16", "4.2.0"),
        ("v20.11.1", "20.11.1"),
        ("gcc (Debian 12.2.0-14) 12.2.0", "12.2.0-14"),
        ("R scripting front-end version 4", "4"),
        ("", ""),
    ],
)
def test_versions_are_found_in_what_programs_say(text: str, version: str) -> None:
    assert version_in(text) == version


def test_gpus_are_read_from_nvidias_own_tool() -> None:
    text = "GPU-1a2b, NVIDIA GeForce RTX 3060, 12288, 535.183.01\nNo devices were found\n"
    assert parse_nvidia_smi(text) == [
        Gpu(
            id="GPU-1a2b", name="NVIDIA GeForce RTX 3060", vendor="nvidia", vram=12 << 30, driver="535.183.01"
        )
    ]
    assert parse_nvidia_smi("") == []


def test_gpus_are_read_from_the_kernels_list(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    device = tmp_path / "devices" / "0000:03:00.0"
    device.mkdir(parents=True)
    for name, text in (("vendor", "0x1002"), ("device", "0x73bf"), ("mem_info_vram_total", "17163091968")):
        (device / name).write_text(f"{text}\n")
    drm = tmp_path / "drm"
    for name in ("card0", "card0-HDMI-A-1"):
        (drm / name).mkdir(parents=True)
        (drm / name / "device").symlink_to(device)
    (drm / "card1").mkdir()
    assert find_gpus(drm) == [Gpu(id="0000:03:00.0", name="amd 0x73bf", vendor="amd", vram=17163091968)]
    assert find_gpus(tmp_path / "nowhere") == []


def test_a_pci_device_is_named_as_lspci_does() -> None:
    line = '03:00.0 "VGA compatible controller" "Advanced Micro Devices" "Navi 21" -rc1 "Sapphire" "Nitro"'
    assert parse_lspci(line) == "Advanced Micro Devices Navi 21"
    assert parse_lspci("") == ""


def test_the_speed_is_measured_once(tmp_path: Path) -> None:
    cache = tmp_path / "deep" / "speed.json"
    first = measure_speed(cache)
    assert first > 0
    cache.write_bytes(cache.read_bytes().replace(str(first).encode(), b"77.5"))
    assert measure_speed(cache) == 77.5
    cache.write_bytes(b"damaged")
    assert measure_speed(cache) != 77.5


def test_the_processors_name_is_found_where_the_system_tells_it(tmp_path: Path) -> None:
    info = tmp_path / "cpuinfo"
    info.write_text("processor\t: 0\nmodel name\t: AMD Ryzen 5\n")
    assert cpu_name(info) == "AMD Ryzen 5"
    assert cpu_name(tmp_path / "nowhere") == platform.processor()


def test_a_kind_whose_probe_fails_is_not_offered(caplog: pytest.LogCaptureFixture) -> None:
    class Good:
        def probe(self) -> KindInfo:
            return KindInfo(speed=2.0)

    class Absent:
        def probe(self) -> None:
            return None

    class Broken:
        def probe(self) -> KindInfo:
            raise RuntimeError("no driver")

    executors: dict[str, Executor] = {"good": Good(), "absent": Absent(), "broken": Broken()}  # type: ignore[dict-item]  # probes only
    assert {kind: info.speed for kind, info in probe_kinds(executors, 1.0).items()} == {"good": 2.0}
    assert "'broken' failed" in caplog.text


def test_what_other_systems_cannot_do_is_said() -> None:
    assert len(notes("linux")) < len(notes("darwin"))
    assert sys.platform != "linux" or notes() == notes("linux")
