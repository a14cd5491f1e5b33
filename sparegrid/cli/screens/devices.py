"""Devices as screens."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from sparegrid.api import DeviceView, Explanation
from sparegrid.cli.screens.listing import Column, listing
from sparegrid.cli.screens.look import STATE_STYLES, Look
from sparegrid.cli.screens.messages import commands
from sparegrid.cli.wording import ago, clock, duration, number, plural, safe, sentence
from sparegrid.messages import Capability
from sparegrid.units import format_size

SLOT_BAR_WIDTH = 8
_NO_SANDBOX = "None: tasks run with the rights of the worker's user"

_COLUMNS = (
    Column("Device", least=14),
    Column("State"),
    Column("Slots", live_only=True, rank=2),
    Column("Running", right=True),
    Column("Done", right=True, rank=3),
    Column("Failed", right=True, rank=8),
    Column("Platform", rank=4),
    Column("CPU", least=12, rank=7),
    Column("Memory", right=True, rank=5),
    Column("GPU", least=10, rank=6),
    Column("Labels", least=10, rank=9),
    Column("Seen", rank=8),
    Column("Why", least=30, rank=1),
)


def platform_text(capability: Capability) -> str:
    """`linux/x86_64`."""
    return "/".join(safe(part) for part in (capability.os, capability.arch) if part)


def labels_text(labels: dict[str, str]) -> str:
    """`room=attic, ssd`."""
    return ", ".join(safe(f"{key}={value}" if value else key) for key, value in sorted(labels.items()))


def slots_bar(look: Look, device: DeviceView, width: int) -> Text:
    """How many of its slots are busy."""
    return look.bar(
        [(min(device.running, device.capability.slots), "computing")], device.capability.slots, width
    )


def devices_table(look: Look, devices: Sequence[DeviceView]) -> RenderableType:
    """The devices as a table, in the given order."""
    if not devices:
        return Group(
            Text("No devices yet."),
            commands(
                ("sparegrid worker", "lends this computer to the grid"),
                ("sparegrid join-code", "makes a code for another one"),
            ),
        )
    return listing(look, _COLUMNS, [_row(look, device) for device in devices])


def _row(look: Look, device: DeviceView) -> list[Text]:
    capability = device.capability
    offline = device.state == "offline"
    return [
        Text(safe(device.name)),
        look.state(device.state),
        Text("") if offline else slots_bar(look, device, SLOT_BAR_WIDTH),
        Text(look.dash if offline else f"{device.running}/{capability.slots}"),
        Text(number(device.done)),
        Text(number(device.failed) if device.failed else "", style="bold red"),
        Text(platform_text(capability)),
        Text(safe(capability.cpu)),
        Text(format_size(capability.memory) if capability.memory else ""),
        Text(", ".join(safe(gpu.name) for gpu in capability.gpus)),
        Text(labels_text(device.labels)),
        Text(ago(device.last_seen_ms, look.now_ms) if offline else ""),
        Text(_why(look, device), style=STATE_STYLES.get(device.state, "")),
    ]


def _why(look: Look, device: DeviceView) -> str:
    until = ""
    if device.until_ms > look.now_ms:
        left = duration((device.until_ms - look.now_ms) / 1000)
        until = f"for {left} more (until {clock(device.until_ms, look.now_ms)})"
    return ", ".join(part for part in (safe(device.reason), until) if part)


def device_line(look: Look, device: DeviceView) -> Text:
    """A device in one line: its name, its state, why, and until when."""
    line = Text.assemble(safe(device.name), "  ", look.state(device.state))
    why = _why(look, device)
    return line.append(f"  {why}" if why else "")


def device_screen(look: Look, device: DeviceView) -> RenderableType:
    """One device: what it is, what it offers, what it is doing."""
    capability = device.capability
    title = Text.assemble((safe(device.name), "bold"), "  ", look.state(device.state))
    why = _why(look, device)
    if why:
        title.append(f"  {why}")
    grid = Table.grid(padding=(0, 2))
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    for key, value in _device_facts(look, device, capability):
        if value:
            grid.add_row(Text(key), Text(value))
    return Group(title, grid)


def _device_facts(look: Look, device: DeviceView, capability: Capability) -> list[tuple[str, str]]:
    gpus = [f"{safe(gpu.name)}{f' ({format_size(gpu.vram)})' if gpu.vram else ''}" for gpu in capability.gpus]
    kinds = [
        f"{safe(kind)}{f' (speed {info.speed:.2f})' if info.speed else ''}"
        for kind, info in sorted(capability.kinds.items())
    ]
    programs = [
        f"{safe(name)}{f' {safe(version)}' if version else ''}"
        for name, version in sorted(capability.programs.items())
    ]
    reading = device.reading
    link = [format_size(capability.bandwidth) + "/s" if capability.bandwidth else ""]
    link.append(f"{capability.latency_us / 1000:.1f} ms" if capability.latency_us else "")
    return [
        ("Id", safe(device.id)),
        ("Address", safe(device.address)),
        ("Work", f"{plural(device.running, 'task')} running, {number(device.assigned)} assigned"),
        ("So far", f"{number(device.done)} done, {number(device.failed)} failed"),
        ("Slots", f"{capability.slots} of {plural(capability.cpus, 'CPU')}"),
        ("Platform", " ".join((platform_text(capability), safe(capability.os_version))).strip()),
        ("CPU", safe(capability.cpu)),
        ("Memory", _with_free(capability.memory, reading.memory_free)),
        (
            "Disk",
            f"{format_size(reading.disk_free or capability.disk_free)} free" if capability.disk_free else "",
        ),
        ("Load", f"{reading.load / 1000:.2f} on average" if reading.load else ""),
        ("Temperature", f"{reading.temperature_mc / 1000:.0f} °C" if reading.temperature_mc else ""),
        ("GPUs", ", ".join(gpus)),
        ("Kinds", ", ".join(kinds)),
        ("Programs", ", ".join(programs)),
        ("Python", ", ".join(safe(version) for version in capability.pythons)),
        ("Counts", ", ".join(f"{safe(name)} {count}" for name, count in sorted(capability.counts.items()))),
        ("Labels", labels_text(device.labels)),
        ("Link", ", ".join(part for part in link if part)),
        (
            "Sandbox",
            _NO_SANDBOX if capability.sandbox == "none" else safe(capability.sandbox),
        ),
        ("Joined", ago(device.joined_ms, look.now_ms)),
        ("Seen", ago(device.last_seen_ms, look.now_ms)),
        ("Notes", "\n".join(safe(note) for note in capability.notes if not _told_above(note))),
    ]


def _told_above(note: str) -> bool:
    """The line about the sandbox says it already."""
    return note.startswith("no sandbox")


def _with_free(total: int, free: int) -> str:
    if not total:
        return ""
    return f"{format_size(total)}, {format_size(free)} free" if free else format_size(total)


def explanation_screen(look: Look, explanation: Explanation) -> RenderableType:
    """The answer in bold, then the evidence."""
    parts: list[RenderableType] = [Text(sentence(explanation.summary), style="bold")]
    parts += [Text(f"  {look.dot} {safe(detail)}") for detail in explanation.details]
    return Group(*parts)
