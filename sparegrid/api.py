"""REST and events: the Structs of `/v1`; `sparegrid.routes` tells which route takes and answers which.

Bodies are JSON of these Structs; ids in JSON are strings. Submitted Structs forbid unknown fields, so
that a typing error is never ignored; views tolerate them, so that an older client reads a newer coordinator.
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct, field

from sparegrid.messages import Capability, FileEntry, Outcome, Payload, Reading

API_PREFIX = "/v1"
DEFAULT_PORT = 8443
MAX_BODY_BYTES = 32 << 20
"""A larger JSON body is refused (413): larger bytes travel as blobs."""
MAX_TASKS_PER_JOB = 10_000_000
MAX_STAGES = 1000
MAX_NAME_CHARS = 200
MAX_SECONDS = 315_360_000
"""Ten years: the longest time that anybody may ask for."""
MAX_BYTES = 1 << 53
"""The largest size that JSON carries exactly everywhere."""
MAX_COUNT = (1 << 31) - 1
MAX_AXIS_FLOAT = 1e100


# ---- what a submitter sends -------------------------------------------------------------------------------------

Scalar = str | int | float | bool | None
Name = Annotated[str, Meta(min_length=1, max_length=MAX_NAME_CHARS)]
AxisNumber = (
    Annotated[float, Meta(ge=-MAX_AXIS_FLOAT, le=MAX_AXIS_FLOAT)]
    | Annotated[int, Meta(ge=-MAX_BYTES, le=MAX_BYTES)]
)


class Requires(Struct, forbid_unknown_fields=True, omit_defaults=True):
    """What a device must have to run a task of the stage; sizes in bytes."""

    os: Annotated[list[str], Meta(description="Any of these: linux, windows, macos, android, bare")] = []
    arch: Annotated[
        list[str], Meta(description="Any of these: x86_64, aarch64, armv7, riscv64, rv32, xtensa")
    ] = []
    platforms: Annotated[list[str], Meta(description="Any of these: linux, linux/aarch64, …")] = []
    cpus: Annotated[float, Meta(ge=0, le=4096, description="CPUs of one task; thousandths count")] = 1.0
    memory: Annotated[int, Meta(ge=0, le=MAX_BYTES, description="Bytes of memory of one task")] = 0
    disk: Annotated[int, Meta(ge=0, le=MAX_BYTES, description="Bytes of disk of one task")] = 0
    gpus: Annotated[int, Meta(ge=0, le=64)] = 0
    vram: Annotated[int, Meta(ge=0, le=MAX_BYTES, description="Bytes of GPU memory of one task")] = 0
    counts: Annotated[
        dict[str, Annotated[int, Meta(ge=0, le=MAX_COUNT)]],
        Meta(description="Named integer resources, such as licences"),
    ] = {}
    programs: Annotated[list[str], Meta(description="Programs the device must have, such as ffmpeg")] = []
    labels: Annotated[dict[str, str], Meta(description="Labels the device must carry")] = {}
    device: Annotated[str, Meta(description="Id or name of the one device to run on")] = ""
    network: Annotated[bool, Meta(description="The task needs the network")] = False


class Need(Struct, forbid_unknown_fields=True, omit_defaults=True):
    """A stage that must be done first, and how tasks map.

    `map`: `all` (every task of it), `same` (the task of the same index), or `groups` (task i of this stage needs the
    `size` tasks from i*size on; the last group may be smaller).
    """

    stage: str
    map: Annotated[str, Meta(pattern="^(all|same|groups)$")] = "all"
    size: Annotated[int, Meta(ge=1, le=MAX_COUNT)] = 1
    files: Annotated[
        str, Meta(description="Glob of its output files to place in the work folder; empty for none")
    ] = "**"
    into: Annotated[
        str, Meta(description="Folder of the work folder to place them in; {{index}} is theirs")
    ] = ""


class StageItems(Struct, forbid_unknown_fields=True, omit_defaults=True):
    """Items made of another stage's output files: one task per file that matches, in order of (task, path)."""

    stage: str
    files: str = "**"


class RangeAxis(Struct, forbid_unknown_fields=True, omit_defaults=True):
    """Numbers from `start` to `stop`, inclusive of `stop` when the step meets it."""

    start: AxisNumber
    stop: AxisNumber
    step: AxisNumber = 1


class Items(Struct, forbid_unknown_fields=True, omit_defaults=True):
    """The items of a stage: exactly one of these fields, or none for a stage of one task.

    A value is a scalar, an object of scalars, or a FileEntry under the key `file` of an object (placed in the work
    folder; `{{file}}` is its path).
    """

    count: Annotated[int, Meta(ge=0, le=MAX_BYTES, description="So many tasks without items")] | None = None
    values: Annotated[list[Any] | None, Meta(description="One task per value")] = None
    axes: Annotated[
        dict[str, list[Any] | RangeAxis] | None,
        Meta(
            description="Product of named axes; the last varies fastest; each item is an object of their values"
        ),
    ] = None
    blob: Annotated[Payload | None, Meta(description="A JSON array of values, as a blob")] = None
    stage: Annotated[StageItems | None, Meta(description="Output files of another stage")] = None


class StageSpec(Struct, forbid_unknown_fields=True, omit_defaults=True):
    """A template and its items; yields one task an item."""

    name: Name = "main"
    kind: str = "command"
    params: dict[str, Any] = {}
    items: Items = field(default_factory=Items)
    needs: list[Need] = []
    inputs: Annotated[list[FileEntry], Meta(description="Files every task finds in its work folder")] = []
    outputs: Annotated[list[str], Meta(description="Globs of files to keep")] = []
    requires: Requires = field(default_factory=Requires)
    retries: Annotated[int, Meta(ge=0, le=100, description="Tries after a failure of the task itself")] = 2
    timeout_s: Annotated[float, Meta(ge=0, le=MAX_SECONDS, description="Of one try; 0 is no limit")] = 0.0
    restartable: Annotated[bool, Meta(description="A second try may run beside a slow first one")] = True
    checkpoint_signal: Annotated[str, Meta(pattern=r"^(|SIG(USR1|USR2|TERM|INT|HUP))$")] = ""
    checkpoint_files: Annotated[str, Meta(description="Glob of the files that are the checkpoint")] = ""
    grace_s: Annotated[
        float, Meta(ge=0, le=3600, description="From the asking signal to the killing one")
    ] = 5.0
    replicas: Annotated[int, Meta(ge=1, le=1)] = 1
    agree: Annotated[int, Meta(ge=1, le=1)] = 1
    service: bool = False


class JobSpec(Struct, forbid_unknown_fields=True, omit_defaults=True):
    """What a submitter sends: a name, a priority (10 is most urgent), stages."""

    name: Name
    stages: Annotated[list[StageSpec], Meta(min_length=1, max_length=MAX_STAGES)]
    priority: Annotated[int, Meta(ge=1, le=10)] = 5
    open: Annotated[bool, Meta(description="More items may be appended until it is closed")] = False
    keep_s: Annotated[
        int,
        Meta(ge=0, le=MAX_SECONDS, description="How long results are kept after the end; 0 is until removed"),
    ] = 0


class Append(Struct, forbid_unknown_fields=True):
    """More items for a stage of an open job."""

    items: list[Any]
    stage: str = ""


class RetryRequest(Struct, forbid_unknown_fields=True, omit_defaults=True):
    """Which tasks to try again: those that failed, were lost or cancelled, or all that are listed."""

    failed: bool = True
    tasks: list[str] = []


class PriorityChange(Struct, forbid_unknown_fields=True):
    """A new priority, 1 to 10."""

    priority: Annotated[int, Meta(ge=1, le=10)]


class PauseRequest(Struct, forbid_unknown_fields=True, omit_defaults=True):
    """A verb for a device: pause, finish, give_back or resume."""

    verb: Annotated[str, Meta(pattern="^(pause|finish|give_back|resume)$")]
    for_s: Annotated[float, Meta(ge=0, le=MAX_SECONDS, description="Seconds; 0 is until resumed")] = 0.0


class DeviceChange(Struct, forbid_unknown_fields=True, omit_defaults=True):
    """A new name, and labels to set (an empty value removes one)."""

    name: Annotated[str, Meta(max_length=MAX_NAME_CHARS)] = ""
    labels: dict[str, str] = {}


class JoinCodeRequest(Struct, forbid_unknown_fields=True, omit_defaults=True):
    """Ask for a one-time code with which one device or person may join."""

    role: Annotated[str, Meta(pattern="^(worker|submitter|viewer|admin)$")] = "worker"
    valid_s: Annotated[int, Meta(ge=10, le=86400)] = 600


class JoinRequest(Struct, forbid_unknown_fields=True, omit_defaults=True):
    """Sent without a token: the code's secret and the device's public key (raw Ed25519, 32 bytes).

    `role` is what the sender means to become, empty for whatever the code says: a code of another kind stays good.
    """

    secret: str
    name: Name
    public_key: bytes = b""
    role: Annotated[str, Meta(pattern="^(worker|person)?$")] = ""


# ---- what the coordinator answers -------------------------------------------------------------------------------


class Revision(Struct, omit_defaults=True):
    """Orders views: (epoch, n) grows with every change; the epoch with every start of the coordinator."""

    epoch: int = 0
    n: int = 0


class Health(Struct):
    """The only thing told without a token."""

    status: str
    version: str
    grid: str
    name: str
    major: int


class GridView(Struct, omit_defaults=True):
    """The grid at a glance, and who is asking."""

    id: str
    name: str
    version: str
    fingerprint: str
    principal: str = ""
    role: str = ""
    devices: int = 0
    devices_online: int = 0
    slots: int = 0
    running: int = 0
    queued: int = 0
    jobs_active: int = 0
    tasks_done: int = 0
    uptime_s: float = 0.0
    wall_ms: int = 0
    notices: list[str] = []
    """What an administrator should know, such as `intake is paused: disk full`."""


class StageView(Struct, omit_defaults=True):
    """A stage and its tasks by state."""

    name: str
    kind: str
    total: int
    needs: list[str] = []
    waiting: int = 0
    queued: int = 0
    running: int = 0
    suspended: int = 0
    done: int = 0
    failed: int = 0
    cancelled: int = 0
    lost: int = 0
    open: bool = False
    """Its number of tasks is not final yet."""
    mean_ms: int = 0
    """Mean wall time of its finished tasks."""


class JobView(Struct, omit_defaults=True):
    """A job as every screen shows it. Wall times in Unix milliseconds."""

    id: str
    name: str
    state: str
    priority: int
    submitter: str
    submitted_ms: int
    stages: list[StageView]
    finished_ms: int = 0
    total: int = 0
    done: int = 0
    failed: int = 0
    running: int = 0
    queued: int = 0
    waiting: int = 0
    cancelled: int = 0
    lost: int = 0
    open: bool = False
    eta_ms: int = 0
    """Estimated milliseconds to the end; 0 when unknown."""
    reason: str = ""
    """Why it failed or waits, in words."""
    revision: Revision = field(default_factory=Revision)


class AttemptView(Struct, omit_defaults=True):
    """One try of a task."""

    id: str
    device: str
    device_name: str
    state: str
    number: int = 1
    assigned_ms: int = 0
    started_ms: int = 0
    ended_ms: int = 0
    blame: str = ""
    reason: str = ""
    permille: int = 0
    note: str = ""


class TaskView(Struct, omit_defaults=True):
    """A task with the attempts that are known."""

    id: str
    stage: str
    index: int
    state: str
    item: Any = None
    attempts: list[AttemptView] = []
    failures: int = 0
    reason: str = ""


class TaskPage(Struct, omit_defaults=True):
    """A window of a stage's tasks."""

    tasks: list[TaskView]
    total: int
    next: int = -1
    """Index to ask for next; -1 at the end."""


class TaskResult(Struct, omit_defaults=True):
    """What a task left behind."""

    id: str
    stage: str
    index: int
    state: str
    device: str = ""
    outcome: Outcome = field(default_factory=Outcome)
    reason: str = ""


class ResultPage(Struct, omit_defaults=True):
    """A window of results of a job, in order of (stage, index). `next` is a cursor, empty at the end."""

    results: list[TaskResult]
    next: str = ""


class Explanation(Struct, omit_defaults=True):
    """In words: why a task waits, or why a device idles. The first line is the answer, the rest the evidence."""

    subject: str
    summary: str
    details: list[str] = []


class DeviceView(Struct, omit_defaults=True):
    """A device as every screen shows it."""

    id: str
    name: str
    state: str
    reason: str = ""
    until_ms: int = 0
    capability: Capability = field(default_factory=Capability)
    reading: Reading = field(default_factory=Reading)
    labels: dict[str, str] = {}
    running: int = 0
    assigned: int = 0
    done: int = 0
    failed: int = 0
    last_seen_ms: int = 0
    joined_ms: int = 0
    address: str = ""
    revision: Revision = field(default_factory=Revision)


class Submitted(Struct):
    """A job's id: it survives a crash and a power loss from now on."""

    id: str
    tasks: int


class JobList(Struct, omit_defaults=True):
    """Jobs, newest first."""

    jobs: list[JobView]
    next: str = ""


class DeviceList(Struct):
    """All devices, by name."""

    devices: list[DeviceView]


class JoinCode(Struct, omit_defaults=True):
    """A one-time code, and the same as a link."""

    code: str
    link: str
    expires_ms: int
    role: str = "worker"


class Joined(Struct):
    """The answer to a join: the token is shown this once and stored hashed."""

    grid: str
    name: str
    token: str
    device: str
    role: str


class Problem(Struct, omit_defaults=True):
    """Any error: a code of the error tree, a title, a message, the next step."""

    code: str
    title: str
    message: str = ""
    hint: str = ""


# ---- the event stream -------------------------------------------------------------------------------------------


class Subscribe(Struct, tag="subscribe", tag_field="t", omit_defaults=True):
    """What to watch. `task` follows one task's log, as `17.0.5`; `job` adds a window of its tasks."""

    jobs: bool = True
    devices: bool = True
    job: str = ""
    stage: str = ""
    first: int = 0
    limit: int = 0
    task: str = ""
    log_offset: int = 0


class Snapshot(Struct, tag="snapshot", tag_field="t", omit_defaults=True):
    """The answer to Subscribe: everything in scope now."""

    revision: Revision
    jobs: list[JobView] = []
    devices: list[DeviceView] = []
    tasks: list[TaskView] = []


class JobChanged(Struct, tag="job", tag_field="t", omit_defaults=True):
    """A job's view is now this; `gone` when it was removed."""

    job: JobView
    gone: bool = False


class DeviceChanged(Struct, tag="device", tag_field="t", omit_defaults=True):
    """A device's view is now this; `gone` when it was removed."""

    device: DeviceView
    gone: bool = False


class TasksChanged(Struct, tag="tasks", tag_field="t", omit_defaults=True):
    """Tasks in the subscribed window are now these."""

    job: str
    tasks: list[TaskView]


class LogEvent(Struct, tag="log", tag_field="t", omit_defaults=True):
    """A piece of the followed task's log; `last` when the task has ended. A retry starts again at offset 0."""

    task: str
    attempt: str
    offset: int
    data: bytes
    skipped: int = 0
    last: bool = False


class StreamError(Struct, tag="error", tag_field="t", omit_defaults=True):
    """The subscription was refused."""

    problem: Problem


Event = Snapshot | JobChanged | DeviceChanged | TasksChanged | LogEvent | StreamError


def dump_json(value: object) -> bytes:
    """JSON of a Struct as it travels."""
    return msgspec.json.encode(value)
