"""The form of `job.toml`: every key, its type and what it means. Read by the loader, the editor's schema and
the docs.

It is a friendlier spelling of `api.JobSpec`: files are named, not uploaded; sizes and times carry units; what
most jobs need is short.
"""

from __future__ import annotations

from typing import Annotated, Any

from msgspec import Meta, Struct, field

from sparegrid.api import MAX_NAME_CHARS, MAX_STAGES

Name = Annotated[str, Meta(min_length=1, max_length=MAX_NAME_CHARS)]
Size = Annotated[int, Meta(ge=0)] | str
Duration = Annotated[float, Meta(ge=0)] | str
Words = list[str]


class PlatformForm(Struct, forbid_unknown_fields=True, kw_only=True):
    """What differs on one platform."""

    command: Annotated[Words, Meta(description="Program and arguments for this platform")] = []
    shell: Annotated[str, Meta(description="A line for this platform's shell")] = ""
    env: Annotated[dict[str, str], Meta(description="Environment variables added for this platform")] = {}


class InputForm(Struct, forbid_unknown_fields=True, kw_only=True):
    """A file, folder or glob, and where it goes."""

    source: Annotated[
        str, Meta(min_length=1, description="File, folder or glob, relative to the job file")
    ] = field(name="from")
    path: Annotated[str, Meta(description="Its path in the work folder; the folder, for several files")] = ""


class SweepForm(Struct, forbid_unknown_fields=True, kw_only=True):
    """Values of a sweep: a range of numbers, the files that match, or the lines of a text file."""

    start: Annotated[float | int | None, Meta(description="First number of a range")] = None
    stop: Annotated[float | int | None, Meta(description="Last number, when the step meets it")] = None
    step: Annotated[float | int | None, Meta(description="Step of a range; 1 by default")] = None
    files: Annotated[
        str | Words,
        Meta(description="Globs, relative to the job file: one value per file, placed in the work folder"),
    ] = ""
    lines: Annotated[str, Meta(description="A text file: one value per line that is not empty")] = ""


class ItemsForm(Struct, forbid_unknown_fields=True, kw_only=True):
    """Items from elsewhere: the output files of another stage, or a file with a list."""

    stage: Annotated[str, Meta(description="A stage: one task per output file of it")] = ""
    files: Annotated[str, Meta(description="Only its files that match this glob")] = "**"
    lines: Annotated[str, Meta(description="A text file: one item per line that is not empty")] = ""
    json: Annotated[str, Meta(description="A JSON file that holds an array: one item per element")] = ""


class NeedForm(Struct, forbid_unknown_fields=True, kw_only=True):
    """A stage that must be done first, which of its tasks, and what happens with their files."""

    stage: Annotated[str, Meta(min_length=1, description="The stage's name")]
    map: Annotated[
        str,
        Meta(
            pattern="^(all|same|groups)$",
            description="`all` of its tasks, the one of the `same` index, or `groups` of `size`",
        ),
    ] = "all"
    size: Annotated[int, Meta(ge=1, description="Tasks of a group")] = 1
    files: Annotated[
        str, Meta(description="Glob of its output files to place in the work folder; empty for none")
    ] = "**"
    into: Annotated[
        str, Meta(description="Folder of the work folder for them; {{index}} is their task's")
    ] = ""


class RequiresForm(Struct, forbid_unknown_fields=True, kw_only=True):
    """What a device must have."""

    os: Annotated[Words, Meta(description="Any of these: linux, windows, macos, android, bare")] = []
    arch: Annotated[
        Words, Meta(description="Any of these: x86_64, aarch64, armv7, riscv64, rv32, xtensa")
    ] = []
    platforms: Annotated[Words, Meta(description="Any of these: linux, linux/aarch64, …")] = []
    cpus: Annotated[float, Meta(ge=0, le=4096, description="CPUs of one task; fractions count")] = 1.0
    memory: Annotated[Size, Meta(description="Memory of one task")] = 0
    disk: Annotated[Size, Meta(description="Disk of one task")] = 0
    gpus: Annotated[int, Meta(ge=0, le=64, description="GPUs of one task")] = 0
    vram: Annotated[Size, Meta(description="GPU memory of one task")] = 0
    counts: Annotated[
        dict[str, Annotated[int, Meta(ge=0)]], Meta(description="Named resources, such as licences")
    ] = {}
    programs: Annotated[Words, Meta(description="Programs the device must have, such as ffmpeg")] = []
    labels: Annotated[dict[str, str], Meta(description="Labels the device must carry")] = {}
    device: Annotated[str, Meta(description="Id or name of the one device to run on")] = ""
    network: Annotated[bool, Meta(description="The task needs the network")] = False


class CheckpointForm(Struct, forbid_unknown_fields=True, kw_only=True):
    """How a task saves its state before it is stopped, to go on elsewhere."""

    signal: Annotated[
        str,
        Meta(pattern="^(SIGUSR1|SIGUSR2|SIGTERM|SIGINT|SIGHUP)$", description="Signal that asks it to save"),
    ]
    files: Annotated[str, Meta(min_length=1, description="Glob of the files that are the checkpoint")]


class StageForm(Struct, forbid_unknown_fields=True, kw_only=True):
    """What runs, how often, on what, where."""

    name: Annotated[Name, Meta(description="The stage's name")] = "main"
    command: Annotated[Words, Meta(description="Program and arguments, run without a shell")] = []
    shell: Annotated[str, Meta(description="A line for the platform's shell, instead of `command`")] = ""
    python: Annotated[
        str, Meta(description="A function to call, as `module:function`, instead of `command`")
    ] = ""
    kind: Annotated[str, Meta(description="Any other kind of task, with its `params`")] = ""
    params: Annotated[dict[str, Any], Meta(description="Parameters of `kind`, in full")] = {}
    env: Annotated[dict[str, str], Meta(description="Environment variables of the command")] = {}
    stdin: Annotated[str, Meta(description="Text given to the command on standard input")] = ""
    ok_codes: Annotated[list[int], Meta(description="Exit codes of the command that mean success")] = field(
        default_factory=lambda: [0]
    )
    max_log: Annotated[Size, Meta(description="Output of the command kept per task; the rest is cut")] = (
        16 << 20
    )
    platforms: Annotated[
        dict[str, PlatformForm],
        Meta(
            description="What differs on `linux`, `windows`, `macos`, or more exactly on `linux/aarch64` and so on"
        ),
    ] = {}
    args: Annotated[list[Any], Meta(description="Arguments of the function")] = []
    kwargs: Annotated[dict[str, Any], Meta(description="Keyword arguments of the function")] = {}
    count: Annotated[int | None, Meta(description="So many tasks, told apart by {{index}} only")] = None
    items: Annotated[
        list[Any] | ItemsForm | None,
        Meta(description="One task per value, or per file or line of something else"),
    ] = None
    sweep: Annotated[
        dict[str, list[Any] | SweepForm],
        Meta(description="Named values; several make their product, the last varies fastest"),
    ] = {}
    needs: Annotated[list[str | NeedForm], Meta(description="Stages that must be done first")] = []
    inputs: Annotated[
        list[str | InputForm],
        Meta(
            description="Files, folders and globs, relative to the job file, placed in every task's work folder"
        ),
    ] = []
    outputs: Annotated[Words, Meta(description="Globs of files to keep")] = []
    requires: Annotated[RequiresForm, Meta(description="What a device must have")] = field(
        default_factory=RequiresForm
    )
    retries: Annotated[int, Meta(ge=0, le=100, description="Tries after a failure of the task itself")] = 2
    timeout: Annotated[Duration, Meta(description="Limit of one try's running time; 0 is none")] = 0.0
    restartable: Annotated[bool, Meta(description="A second try may run beside a slow first one")] = True
    checkpoint: Annotated[
        CheckpointForm | None, Meta(description="How a task saves its state before a stop")
    ] = None
    grace: Annotated[
        Duration, Meta(description="Between the signal that asks a task to end and the one that kills")
    ] = 5.0


class JobForm(StageForm, forbid_unknown_fields=True, kw_only=True):
    """A job file. A job of one stage has the stage's keys at the top; several are `[[stages]]`."""

    name: Annotated[Name, Meta(description="The job's name")]
    version: Annotated[int, Meta(ge=1, le=1, description="Version of this form")] = 1
    priority: Annotated[int, Meta(ge=1, le=10, description="10 is most urgent")] = 5
    open: Annotated[bool, Meta(description="Items may be appended until the job is closed")] = False
    keep: Annotated[
        Duration, Meta(description="How long results are kept after the end; 0 is until removed")
    ] = 0.0
    stages: Annotated[
        list[StageForm], Meta(max_length=MAX_STAGES, description="The stages, when there are several")
    ] = []


JOB_KEYS = frozenset({"name", "version", "priority", "open", "keep", "stages"})
"""Keys at the top that are the job's own; all others there are its only stage's."""
EXAMPLES = {
    "items": 'items = ["a", "b"]  or  items = { stage = "split", files = "*.txt" }',
    "sweep": 'sweep.x = [1, 2]  or  { start = 1, stop = 9 }  or  { files = "*.txt" }',
    "command": 'command = ["prog", "arg"]; a line for a shell goes into `shell`',
    "needs": 'needs = ["split"]  or  [{ stage = "split", map = "same" }]',
    "inputs": 'inputs = ["scene.pov", "textures/*.png", { from = "../a.txt", path = "b.txt" }]',
    "argv": "It is called `command` here",
}
"""Shown when the value of such a key has the wrong form."""
