"""The worker wire: every message that a coordinator and a worker exchange.

One WebSocket per worker carries frames, lists of these Structs (`codec.FrameCodec`). Every worker message names its
device, because one connection may carry several (boards). Open enums are plain strings on the wire, so that a newer
value never breaks an older reader; the values known today are in the StrEnums here. Times are integers in
milliseconds, sizes integers in bytes. Fields are only ever added, with defaults: `tests/vectors/` holds the golden
bytes of each message.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any

from msgspec import Raw, Struct, field

PROTOCOL_MAJOR = 1
PROTOCOL_MINOR = 0
SUBPROTOCOL_MSGPACK = "v1.msgpack"
SUBPROTOCOL_JSON = "v1.json"
INLINE_LIMIT_BYTES = 8192
"""Arguments, results and log tails up to this size travel inside messages; larger ones are blobs."""


class Blame(StrEnum):
    """Who ended an attempt. Only `task` spends retries; `device` excludes that device for the task."""

    TASK = "task"
    DEVICE = "device"
    OWNER = "owner"
    GRID = "grid"


class DeviceState(StrEnum):
    """What a device is doing, as every screen shows it."""

    COMPUTING = "computing"
    READY = "ready"
    PAUSED = "paused"
    DRAINING = "draining"
    OFFLINE = "offline"


class PauseVerb(StrEnum):
    """The owner's verbs, and their end."""

    PAUSE = "pause"
    """Suspend what runs and take nothing new."""
    FINISH = "finish"
    """Take nothing new; what runs ends by itself (draining)."""
    GIVE_BACK = "give_back"
    """Stop what runs, hand it back, and take nothing new."""
    RESUME = "resume"


# ---- payloads -------------------------------------------------------------------------------------------------


class Inline(Struct, tag="inline", tag_field="t", frozen=True):
    """Bytes that travel inside the message, at most INLINE_LIMIT_BYTES."""

    data: bytes


class BlobRef(Struct, tag="blob", tag_field="t", frozen=True):
    """Bytes that travel as a blob: SHA-256 in hex, and their length."""

    hash: str
    size: int


Payload = Inline | BlobRef


class FileEntry(Struct, omit_defaults=True, frozen=True):
    """A file of a task: its path in the work folder (forward slashes, relative, no `..`) and its bytes."""

    path: str
    content: Payload
    executable: bool = False


# ---- what a device can do -------------------------------------------------------------------------------------


class Gpu(Struct, omit_defaults=True):
    """A GPU by name. `vram` in bytes, 0 when the system does not tell."""

    id: str
    name: str
    vendor: str = ""
    vram: int = 0
    driver: str = ""


class KindInfo(Struct, omit_defaults=True):
    """A kind that the device can run. `speed` is relative to a fixed small calculation, 0 when not measured."""

    speed: float = 0.0
    detail: str = ""
    schema: dict[str, Any] = {}


class Capability(Struct, omit_defaults=True):
    """What a device offers. Sizes in bytes, CPUs in thousandths, rates in bytes per second."""

    os: str = ""
    """`linux`, `windows`, `macos`, `android`, or `bare` for boards."""
    arch: str = ""
    """`x86_64`, `aarch64`, `armv7`, `riscv64`, `rv32`, `xtensa`, …"""
    os_version: str = ""
    cpu: str = ""
    cpus: int = 1
    slots: int = 1
    """Tasks of one CPU each that run at once: what the owner lends, at most `cpus`."""
    memory: int = 0
    disk_free: int = 0
    gpus: list[Gpu] = []
    kinds: dict[str, KindInfo] = {}
    programs: dict[str, str] = {}
    """Programs found, by name, with the version they print (empty when they print none)."""
    pythons: list[str] = []
    labels: dict[str, str] = {}
    counts: dict[str, int] = {}
    """Named integer resources, such as licences."""
    bandwidth: int = 0
    """Bytes per second to the coordinator, as last measured; 0 when unknown."""
    latency_us: int = 0
    sandbox: str = "none"
    """Profile of the nursery: `none` is the pass-through profile."""
    notes: list[str] = []
    """What is missing here and why, in words."""


class Reading(Struct, omit_defaults=True):
    """What a heartbeat tells of a device's health. Load in thousandths of one CPU."""

    load: int = 0
    memory_free: int = 0
    disk_free: int = 0
    temperature_mc: int = 0
    """Thousandths of a degree Celsius; 0 when unknown."""
    blob_cache: int = 0


# ---- templates and tasks --------------------------------------------------------------------------------------


class Needed(Struct, omit_defaults=True):
    """Resources of one running attempt: thousandths of a CPU, bytes, GPUs, bytes of VRAM, named counts."""

    milli_cpus: int = 1000
    memory: int = 0
    disk: int = 0
    gpus: int = 0
    vram: int = 0
    counts: dict[str, int] = {}


class Template(Struct, tag="template", tag_field="t", omit_defaults=True):
    """What all tasks of a stage share; sent once per connection, before the stage's first Assign."""

    device: str
    job: int
    stage: int
    kind: str
    params: Raw
    """The kind's parameters, encoded as this connection encodes."""
    job_name: str = ""
    stage_name: str = ""
    inputs: list[FileEntry] = []
    """Files that every task of the stage finds in its work folder."""
    outputs: list[str] = []
    """Globs of files to keep, relative to the work folder."""
    needed: Needed = field(default_factory=Needed)
    timeout_ms: int = 0
    """Wall time of running, suspension not counted; 0 is no limit."""
    checkpoint_signal: str = ""
    """Signal that asks for a checkpoint before a stop, such as SIGUSR1; empty when the task keeps none."""
    checkpoint_glob: str = ""
    grace_ms: int = 5000
    """Between the asking signal and the killing one."""
    network: bool = False
    restartable: bool = True
    service: bool = False
    submitter: str = ""


class Run(Struct, array_like=True, omit_defaults=True):
    """One attempt to make. `item` is the task's item; None when the stage counts only."""

    attempt: int
    index: int
    item: Any = None
    files: list[FileEntry] | None = None
    """Files of this task alone: its own input files and the outputs of the tasks it needs."""
    checkpoint: Payload | None = None
    number: int = 1
    """Which try of the task this is, counting from 1: the task sees it as SPAREGRID_ATTEMPT."""


class Assign(Struct, tag="assign", tag_field="t", omit_defaults=True):
    """Run these, in this order, as resources allow; what is not started may be taken back."""

    device: str
    job: int
    stage: int
    runs: list[Run]


class Cancel(Struct, tag="cancel", tag_field="t", omit_defaults=True):
    """Stop these attempts, whole trees; answer each with Ended, unless it is delivered already."""

    device: str
    attempts: list[int]
    reason: str = ""


class TakeBack(Struct, tag="take_back", tag_field="t", omit_defaults=True):
    """Give back those of these attempts that have not started: Ended with reason `taken back`, blame `grid`."""

    device: str
    attempts: list[int]


class Ack(Struct, tag="ack", tag_field="t", omit_defaults=True):
    """These attempts' Delivered or Ended are on disk here, or were not wanted: the worker forgets them."""

    device: str
    attempts: list[int]


class Release(Struct, tag="release", tag_field="t", omit_defaults=True):
    """The job is over: end its nursery, unpin its blobs."""

    device: str
    job: int


class Follow(Struct, tag="follow", tag_field="t", omit_defaults=True):
    """Send LogChunks of this attempt from `offset` on, until told otherwise."""

    device: str
    attempt: int
    on: bool = True
    offset: int = 0


class SetPause(Struct, tag="set_pause", tag_field="t", omit_defaults=True):
    """An administrator's or owner's verb given through the coordinator."""

    device: str
    verb: str
    until_ms: int = 0
    """Wall clock, Unix milliseconds; 0 is until resumed."""
    by: str = ""


class Welcome(Struct, tag="welcome", tag_field="t", omit_defaults=True):
    """The coordinator's answer to Hello."""

    grid: str
    grid_name: str
    version: str
    heartbeat_ms: int
    lease_ms: int
    major: int = PROTOCOL_MAJOR
    minor: int = PROTOCOL_MINOR
    epoch: int = 0
    wall_ms: int = 0


class Refused(Struct, tag="refused", tag_field="t", omit_defaults=True):
    """The connection ends after this; `code` is a code of the error tree."""

    code: str
    title: str
    message: str = ""
    hint: str = ""


class Attached(Struct, tag="attached", tag_field="t", omit_defaults=True):
    """The device is known now. `revoked`: attempts it reported that are not wanted any more; stop or drop them."""

    device: str
    revoked: list[int] = []


ToWorker = (
    Welcome | Refused | Attached | Template | Assign | Cancel | TakeBack | Ack | Release | Follow | SetPause
)


# ---- worker to coordinator ------------------------------------------------------------------------------------


class Hello(Struct, tag="hello", tag_field="t", omit_defaults=True):
    """First message of a connection."""

    major: int
    minor: int
    role: str
    token: str
    session: str
    version: str = ""


class Attach(Struct, tag="attach", tag_field="t", omit_defaults=True):
    """A device speaks through this connection from now on.

    `session` fences: the same session continues, a new one tells that what ran before is gone. `running` are attempts
    that this session holds unfinished, `spooled` finished ones whose Delivered or Ended follow.
    """

    device: str
    session: str
    name: str
    capability: Capability
    running: list[int] = []
    spooled: list[int] = []
    held: list[str] = []
    """Hashes of the blobs of at least 1 MiB in its cache."""
    state: str = DeviceState.READY
    reason: str = ""
    unclean: bool = False
    """The previous session ended without saying so (crash, power loss)."""


class Detach(Struct, tag="detach", tag_field="t", omit_defaults=True):
    """The device leaves this connection. `for_good`: it will not be back with this session (clean shutdown)."""

    device: str
    for_good: bool = False
    reason: str = ""


class Heartbeat(Struct, tag="heartbeat", tag_field="t", omit_defaults=True):
    """The device lives; also while paused. `suspended` lists the attempts that are stopped but kept."""

    device: str
    reading: Reading = field(default_factory=Reading)
    running: int = 0


class Started(Struct, tag="started", tag_field="t", omit_defaults=True):
    """These attempts run now."""

    device: str
    attempts: list[int]


class Suspended(Struct, tag="suspended", tag_field="t", omit_defaults=True):
    """These attempts are stopped but kept (`on`), or run again."""

    device: str
    attempts: list[int]
    on: bool = True


class Progress(Struct, tag="progress", tag_field="t", omit_defaults=True):
    """How far an attempt is, 0 to 1000 thousandths, with a word of its own."""

    device: str
    attempt: int
    permille: int
    note: str = ""


class Usage(Struct, array_like=True, omit_defaults=True):
    """What an attempt used: wall and CPU milliseconds, peak bytes of memory of its largest process."""

    wall_ms: int = 0
    cpu_ms: int = 0
    max_rss: int = 0


class Outcome(Struct, omit_defaults=True):
    """What an attempt left behind."""

    exit_code: int | None = None
    signal: str = ""
    """Name of the signal that ended it, such as SIGSEGV."""
    value: Payload | None = None
    """The result of a call; for a `python` task the value as JSON."""
    files: list[FileEntry] = []
    log: Payload | None = None
    """Standard output and error as they came, cut at the stage's limit."""
    log_bytes: int = 0
    """How much the task printed; more than kept when the log was cut."""
    log_cut: bool = False
    usage: Usage = field(default_factory=Usage)


class Delivered(Struct, tag="delivered", tag_field="t", omit_defaults=True):
    """An attempt succeeded. Kept by the worker until acknowledged, across restarts."""

    device: str
    job: int
    stage: int
    index: int
    attempt: int
    outcome: Outcome


class Ended(Struct, tag="ended", tag_field="t", omit_defaults=True):
    """An attempt ended without a result."""

    device: str
    job: int
    stage: int
    index: int
    attempt: int
    blame: str
    reason: str
    """In words, such as `exit code 3`, `timed out after 60 s`, `taken back`, `cancelled`."""
    outcome: Outcome = field(default_factory=Outcome)
    checkpoint: Payload | None = None
    unstarted: bool = False


class LogChunk(Struct, tag="log", tag_field="t", omit_defaults=True):
    """A piece of a followed attempt's log, from byte `offset` on; `skipped` bytes were left out before it."""

    device: str
    attempt: int
    offset: int
    data: bytes
    skipped: int = 0
    last: bool = False


class Held(Struct, tag="held", tag_field="t", omit_defaults=True):
    """Blobs of at least 1 MiB that came into the device's cache or left it."""

    device: str
    added: list[str] = []
    removed: list[str] = []


class PolicyChanged(Struct, tag="policy", tag_field="t", omit_defaults=True):
    """The device takes work (`ready`) or does not (`paused`, `draining`), with the reason in words."""

    device: str
    state: str
    reason: str = ""
    until_ms: int = 0


class CapabilityChanged(Struct, tag="capability", tag_field="t", omit_defaults=True):
    """What the device offers has changed."""

    device: str
    capability: Capability
    name: str = ""


FromWorker = (
    Hello
    | Attach
    | Detach
    | Heartbeat
    | Started
    | Suspended
    | Progress
    | Delivered
    | Ended
    | LogChunk
    | Held
    | PolicyChanged
    | CapabilityChanged
)
