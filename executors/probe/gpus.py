"""GPUs by name, by means that cost nothing: the kernel's list, nvidia-smi, lspci. No driver is loaded here."""

from __future__ import annotations

import csv
import logging
import re
import shutil
import subprocess
from pathlib import Path

from sparegrid.messages import Gpu

log = logging.getLogger(__name__)

TIMEOUT_S = 5.0
_VENDORS = {"0x10de": "nvidia", "0x1002": "amd", "0x8086": "intel", "0x1af4": "virtio", "0x15ad": "vmware"}
_DRM = Path("/sys/class/drm")


def find_gpus(drm: Path = _DRM) -> list[Gpu]:
    """The GPUs of this device; those of NVIDIA with what their own tool tells."""
    nvidia = _by_nvidia_smi()
    others = [gpu for gpu in _by_drm(drm) if not (nvidia and gpu.vendor == "nvidia")]
    return nvidia + others


def _by_nvidia_smi() -> list[Gpu]:
    program = shutil.which("nvidia-smi")
    if program is None:
        return []
    text = _run(program, "--query-gpu=uuid,name,memory.total,driver_version", "--format=csv,noheader,nounits")
    return parse_nvidia_smi(text)


def parse_nvidia_smi(text: str) -> list[Gpu]:
    """GPUs from nvidia-smi's CSV; lines that are none of its own are left out."""
    found = []
    for row in csv.reader(text.splitlines(), skipinitialspace=True):
        if len(row) == 4 and row[0].startswith("GPU-"):
            size = int(row[2]) << 20 if row[2].isdecimal() else 0
            found.append(Gpu(id=row[0], name=row[1], vendor="nvidia", vram=size, driver=row[3]))
    return found


def _by_drm(drm: Path) -> list[Gpu]:
    found = []
    for card in sorted(drm.glob("card[0-9]*")) if drm.is_dir() else []:
        device = card / "device"
        if not re.fullmatch(r"card[0-9]+", card.name) or not (device / "vendor").is_file():
            continue
        vendor = _text(device / "vendor")
        address = device.resolve().name
        vram = _text(device / "mem_info_vram_total")
        found.append(
            Gpu(
                id=address,
                name=_pci_name(address) or f"{_VENDORS.get(vendor, vendor)} {_text(device / 'device')}",
                vendor=_VENDORS.get(vendor, vendor),
                vram=int(vram) if vram.isdecimal() else 0,
                driver=(device / "driver").resolve().name if (device / "driver").exists() else "",
            )
        )
    return found


def _pci_name(address: str) -> str:
    program = shutil.which("lspci")
    return parse_lspci(_run(program, "-mm", "-s", address)) if program else ""


def parse_lspci(text: str) -> str:
    """The device's name in a line of `lspci -mm`: slot "class" "vendor" "device" …"""
    quoted = re.findall(r'"([^"]*)"', text)
    return " ".join(quoted[1:3]) if len(quoted) >= 3 else ""


def _text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""


def _run(*argv: str) -> str:
    try:
        return subprocess.run(
            argv, check=False, capture_output=True, text=True, errors="replace", timeout=TIMEOUT_S
        ).stdout
    except (OSError, subprocess.TimeoutExpired) as error:
        log.warning("%s tells nothing: %s", argv[0], error)
        return ""
