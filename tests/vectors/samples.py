"""One bare and one full sample of every message of the worker wire and of the event stream.

The files beside this module hold their bytes, written by `python -m tests.vectors.samples`. What is there is never
changed after a release: a field that is added gets a sample of its own.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec

from sparegrid import api
from sparegrid import messages as m

FOLDER = Path(__file__).parent
HASH = "2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae"
DEVICE = "mfrggzdfmztwq2lkmnzg"
PARAMS = msgspec.msgpack.encode({"argv": ["convert", "{{file}}", "out.png"]})
PARAMS_JSON = msgspec.json.encode({"argv": ["convert", "{{file}}", "out.png"]})


def _file() -> m.FileEntry:
    return m.FileEntry("in/a ü.txt", m.Inline(b"\x00\xffabc"), executable=True)


def _blob() -> m.BlobRef:
    return m.BlobRef(HASH, 3_000_000_000)


def _capability() -> m.Capability:
    return m.Capability(
        os="linux",
        arch="x86_64",
        os_version="6.1",
        cpu="A CPU",
        cpus=8,
        slots=6,
        memory=16 << 30,
        disk_free=1 << 40,
        gpus=[m.Gpu("0", "A GPU", vendor="Maker", vram=8 << 30, driver="1.2")],
        kinds={"command": m.KindInfo(speed=1.5, detail="posix", schema={"type": "object"})},
        programs={"ffmpeg": "6.0"},
        pythons=["3.11"],
        labels={"room": "attic"},
        counts={"licences": 2},
        bandwidth=100_000_000,
        latency_us=250,
        sandbox="none",
        notes=["no GPU driver"],
    )


def _outcome() -> m.Outcome:
    return m.Outcome(
        exit_code=3,
        signal="SIGSEGV",
        value=m.Inline(b"42"),
        files=[_file(), m.FileEntry("big.bin", _blob())],
        log=m.Inline(b"line\n"),
        log_bytes=5,
        log_cut=True,
        usage=m.Usage(1500, 900, 1 << 20),
    )


def _template(params: bytes) -> m.Template:
    return m.Template(
        device=DEVICE,
        job=17,
        stage=1,
        kind="command",
        params=msgspec.Raw(params),
        job_name="film 🎬",
        stage_name="frames",
        inputs=[_file()],
        outputs=["*.png"],
        needed=m.Needed(2500, 1 << 30, 1 << 20, 1, 1 << 30, {"licences": 1}),
        timeout_ms=60_000,
        checkpoint_signal="SIGUSR1",
        checkpoint_glob="*.ckpt",
        grace_ms=1000,
        network=True,
        restartable=False,
        service=True,
        submitter="ann",
    )


def to_worker(params: bytes = PARAMS) -> dict[str, Any]:
    """Messages of the coordinator."""
    run = m.Run(9, 4, {"file": "in/a ü.txt", "row": 3}, [_file()], _blob(), 2)
    return {
        "welcome": m.Welcome("grid", "lab", "0.1.0", 10_000, 40_000),
        "welcome_full": m.Welcome("grid", "lab", "0.1.0", 10_000, 40_000, 1, 3, 7, 1_760_000_000_000),
        "refused": m.Refused("version", "Another version"),
        "refused_full": m.Refused("version", "Another version", "It speaks 2", "Update it"),
        "attached": m.Attached(DEVICE),
        "attached_full": m.Attached(DEVICE, [5, 6]),
        "template": m.Template(DEVICE, 17, 0, "command", msgspec.Raw(params)),
        "template_full": _template(params),
        "assign": m.Assign(DEVICE, 17, 0, [m.Run(1, 0), m.Run(2, 1, "item")]),
        "assign_full": m.Assign(DEVICE, 17, 1, [run]),
        "cancel": m.Cancel(DEVICE, [9]),
        "cancel_full": m.Cancel(DEVICE, [9], "cancelled by ann"),
        "take_back": m.TakeBack(DEVICE, [9, 10]),
        "ack": m.Ack(DEVICE, [9]),
        "release": m.Release(DEVICE, 17),
        "follow": m.Follow(DEVICE, 9),
        "follow_full": m.Follow(DEVICE, 9, on=False, offset=1 << 33),
        "set_pause": m.SetPause(DEVICE, "pause"),
        "set_pause_full": m.SetPause(DEVICE, "give_back", 1_760_000_000_000, "ann"),
    }


def from_worker() -> dict[str, Any]:
    """Messages of a worker."""
    reading = m.Reading(1500, 1 << 30, 1 << 40, 65_000, 1 << 20)
    attach = m.Attach(
        DEVICE,
        "0123456789abcdef",
        "attic pc",
        _capability(),
        [1],
        [2],
        [HASH],
        "paused",
        "in use",
        unclean=True,
    )
    ended = m.Ended(DEVICE, 17, 1, 4, 9, "device", "disk full", _outcome(), _blob(), unstarted=True)
    return {
        "hello": m.Hello(1, 0, "worker", "sgt_x", "0123456789abcdef"),
        "hello_full": m.Hello(1, 3, "worker", "sgt_x", "0123456789abcdef", "0.1.0"),
        "attach": m.Attach(DEVICE, "0123456789abcdef", "pc", m.Capability()),
        "attach_full": attach,
        "detach": m.Detach(DEVICE),
        "detach_full": m.Detach(DEVICE, for_good=True, reason="shut down"),
        "heartbeat": m.Heartbeat(DEVICE),
        "heartbeat_full": m.Heartbeat(DEVICE, reading, 3),
        "started": m.Started(DEVICE, [9, 10]),
        "suspended": m.Suspended(DEVICE, [9]),
        "suspended_full": m.Suspended(DEVICE, [9], on=False),
        "progress": m.Progress(DEVICE, 9, 500),
        "progress_full": m.Progress(DEVICE, 9, 999, "frame 12"),
        "delivered": m.Delivered(DEVICE, 17, 0, 4, 9, m.Outcome(exit_code=0)),
        "delivered_full": m.Delivered(DEVICE, 17, 0, 4, 1 << 40, _outcome()),
        "ended": m.Ended(DEVICE, 17, 0, 4, 9, "task", "exit code 3"),
        "ended_full": ended,
        "log": m.LogChunk(DEVICE, 9, 0, b"hello"),
        "log_full": m.LogChunk(DEVICE, 9, 4096, b"\xff\x00", 100, last=True),
        "held": m.Held(DEVICE),
        "held_full": m.Held(DEVICE, [HASH], ["0" * 64]),
        "policy": m.PolicyChanged(DEVICE, "ready"),
        "policy_full": m.PolicyChanged(DEVICE, "paused", "on battery", 1_760_000_000_000),
        "capability": m.CapabilityChanged(DEVICE, m.Capability()),
        "capability_full": m.CapabilityChanged(DEVICE, _capability(), "new name"),
    }


def events() -> dict[str, Any]:
    """Messages of the event stream, both ways; JSON only."""
    job = api.JobView("17", "film", "active", 5, "ann", 1, [api.StageView("main", "command", 10)])
    task = api.TaskView(
        "17.0.4", "main", 4, "running", {"row": 3}, [api.AttemptView("9", DEVICE, "pc", "running")]
    )
    device = api.DeviceView(DEVICE, "pc", "ready", capability=_capability(), revision=api.Revision(2, 3))
    return {
        "subscribe": api.Subscribe(),
        "subscribe_full": api.Subscribe(
            jobs=False, devices=False, job="17", stage="main", first=10, limit=50, task="17.0.5", log_offset=7
        ),
        "snapshot": api.Snapshot(api.Revision(1, 2)),
        "snapshot_full": api.Snapshot(api.Revision(1, 2), [job], [device], [task]),
        "job": api.JobChanged(job),
        "job_full": api.JobChanged(job, gone=True),
        "device": api.DeviceChanged(device),
        "device_full": api.DeviceChanged(device, gone=True),
        "tasks": api.TasksChanged("17", [task]),
        "log": api.LogEvent("17.0.4", "9", 0, b"hello"),
        "log_full": api.LogEvent("17.0.4", "9", 4096, b"\xff\x00", 100, last=True),
        "error": api.StreamError(api.Problem("denied", "Not allowed", "role viewer", "Ask ann")),
    }


def vectors() -> dict[str, dict[str, str]]:
    """By file name: the bytes of every sample by its name, as hex (MessagePack) or as text (JSON)."""

    def packed(samples: dict[str, Any]) -> dict[str, str]:
        return {name: msgspec.msgpack.encode(sample).hex() for name, sample in samples.items()}

    def text(samples: dict[str, Any]) -> dict[str, str]:
        return {name: msgspec.json.encode(sample).decode() for name, sample in samples.items()}

    return {
        "to_worker.msgpack.json": packed(to_worker()),
        "to_worker.json.json": text(to_worker(PARAMS_JSON)),
        "from_worker.msgpack.json": packed(from_worker()),
        "from_worker.json.json": text(from_worker()),
        "events.json.json": text(events()),
    }


def main() -> None:
    """Write the files. After a release only names that are new may differ."""
    for name, content in vectors().items():
        (FOLDER / name).write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
