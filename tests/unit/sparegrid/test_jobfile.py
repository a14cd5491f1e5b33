"""Job files: what becomes of each key, and how each mistake is told."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import msgspec
import pytest

from sparegrid.api import MAX_TASKS_PER_JOB, Items, JobSpec, Need, RangeAxis, StageItems, StageSpec
from sparegrid.errors import BadInputError
from sparegrid.jobfile import LoadedJob, load_job, parse_job
from sparegrid.jobfile import files as job_files
from sparegrid.messages import BlobRef, FileEntry, Inline
from sparegrid.template import Template


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "job"
    for name, content in {
        "scene.pov": "scene",
        "textures/oak.png": "oak",
        "textures/deep/ash.png": "ash",
        "a[1].txt": "bracket",
        "lines.txt": "\ufeffone\n\n  two \r\nthree",
        "list.json": '[1, {"a": 2}]',
        "object.json": "{}",
        "bad.json": "[1,",
        "run.sh": "#!/bin/sh\n",
    }.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content, "utf-8")
    (folder / "run.sh").chmod(0o755)
    (folder / "empty").mkdir()
    (folder / "binary").write_bytes(b"\xff\xfe")
    (tmp_path / "outside.txt").write_text("outside")
    return folder


def loaded(text: str, folder: Path) -> LoadedJob:
    return parse_job(f'name = "test"\n{text}\n', folder / "job.toml")


def stage(text: str, folder: Path) -> StageSpec:
    (only,) = loaded(f'shell = "true"\n{text}' if "shell" not in text else text, folder).spec.stages
    return only


def entries(text: str, folder: Path) -> dict[str, str]:
    """The inputs of a stage: content by path."""
    found: dict[str, str] = {}
    for entry in stage(f"inputs = {text}", folder).inputs:
        assert isinstance(entry.content, Inline)
        found[entry.path] = entry.content.data.decode()
    return found


# ---- the job


def test_the_smallest_job_is_one_stage_of_one_task(folder: Path) -> None:
    job = parse_job('name = "Hello"\ncommand = ["echo", "hello"]', folder / "job.toml")
    (only,) = job.spec.stages
    assert (job.spec.name, job.spec.priority, job.spec.open, job.spec.keep_s) == ("Hello", 5, False, 0)
    assert (only.name, only.kind, only.items, only.params["argv"]) == (
        "main",
        "command",
        Items(),
        ["echo", "hello"],
    )
    assert job.uploads == {}


def test_all_keys_of_a_job_reach_the_specification(folder: Path) -> None:
    spec = loaded('shell = "x"\nversion = 1\npriority = 9\nopen = true\nkeep = "2d"', folder).spec
    assert (spec.priority, spec.open, spec.keep_s) == (9, True, 172_800)


def test_all_keys_of_a_stage_reach_the_specification(folder: Path) -> None:
    only = stage(
        """
        outputs = ["*.png"]
        requires = { memory = "2GiB", disk = 5, vram = "1GB", cpus = 0.5, gpus = 1, os = ["linux"], network = true }
        retries = 7
        timeout = "10m"
        restartable = false
        checkpoint = { signal = "SIGUSR1", files = "*.ckpt" }
        grace = "2s"
        env = { A = "b" }
        stdin = "text"
        ok_codes = [0, 3]
        max_log = "1MiB"
        """,
        folder,
    )
    requires = only.requires
    assert (requires.memory, requires.disk, requires.vram) == (2 << 30, 5, 1_000_000_000)
    assert (requires.cpus, requires.gpus, requires.os, requires.network) == (0.5, 1, ["linux"], True)
    assert (only.outputs, only.retries, only.timeout_s, only.restartable) == (["*.png"], 7, 600.0, False)
    assert (only.checkpoint_signal, only.checkpoint_files, only.grace_s) == ("SIGUSR1", "*.ckpt", 2.0)
    params = only.params
    assert (params["env"], params["stdin"], params["ok_codes"], params["max_log_bytes"]) == (
        {"A": "b"},
        "text",
        [0, 3],
        1 << 20,
    )


def test_a_specification_travels_as_json_unchanged(folder: Path) -> None:
    spec = loaded(
        'shell = "{{f}}{{n}}"\nsweep.f = { files = "*.pov" }\nsweep.n = [1, 2]\ninputs = ["run.sh"]', folder
    ).spec
    assert msgspec.json.decode(msgspec.json.encode(spec), type=JobSpec) == spec


def test_platforms_functions_and_other_kinds_say_what_runs(folder: Path) -> None:
    variant = stage(
        '[platforms.windows]\nshell = "dir"\n[platforms."linux/aarch64"]\ncommand = ["ls"]', folder
    )
    assert variant.params["platforms"] == {"windows": {"shell": "dir"}, "linux/aarch64": {"argv": ["ls"]}}
    (only,) = loaded('platforms.linux.command = ["ls"]', folder).spec.stages
    assert (only.kind, "argv" in only.params) == ("command", False)
    (function,) = loaded('python = "a.b:c"\nargs = [1]\nkwargs = { x = 2 }', folder).spec.stages
    assert (function.kind, function.params) == (
        "python",
        {"function": "a.b:c", "args": [1], "kwargs": {"x": 2}},
    )
    (other,) = loaded('kind = "wasm"\nparams = { module = "{{index}}" }', folder).spec.stages
    assert (other.kind, other.params) == ("wasm", {"module": "{{index}}"})


def test_needs_are_names_or_tables(folder: Path) -> None:
    job = loaded(
        """
        [[stages]]
        name = "a"
        shell = "x"
        [[stages]]
        name = "b"
        shell = "x"
        needs = ["a", { stage = "a", map = "groups", size = 3, files = "*.png", into = "in/{{index}}" }]
        [[stages]]
        name = "c"
        shell = "cat {{file}}"
        items = { stage = "a", files = "*.txt" }
        """,
        folder,
    )
    assert job.spec.stages[1].needs == [Need("a"), Need("a", "groups", 3, "*.png", "in/{{index}}")]
    assert job.spec.stages[2].items == Items(stage=StageItems("a", "*.txt"))


# ---- items


@pytest.mark.parametrize(
    ("text", "items"),
    [
        ("count = 0", Items(count=0)),
        ("count = 10", Items(count=10)),
        ('items = ["a", 1, 2.5, true]', Items(values=["a", 1, 2.5, True])),
        ("items = []", Items(values=[])),
        ('items = { lines = "lines.txt" }', Items(values=["one", "two", "three"])),
        ('items = { json = "list.json" }', Items(values=[1, {"a": 2}])),
        ("sweep.x = [1, 2]", Items(axes={"x": [1, 2]})),
        ("sweep.x = { start = 1, stop = 9, step = 2 }", Items(axes={"x": RangeAxis(1, 9, 2)})),
        ("sweep.x = { start = 1.5, stop = 0 , step = -0.5}", Items(axes={"x": RangeAxis(1.5, 0, -0.5)})),
        ('sweep.x = { lines = "lines.txt" }', Items(axes={"x": ["one", "two", "three"]})),
        ("sweep = { b = [1], a = [2] }", Items(axes={"b": [1], "a": [2]})),
    ],
)
def test_items_are_read(text: str, items: Items, folder: Path) -> None:
    found = stage(text, folder).items
    assert found == items
    assert list(found.axes or ()) == list(items.axes or ()), "the order of axes is the order of tasks"


def test_a_long_list_of_items_travels_as_a_blob(folder: Path) -> None:
    values = [f"item number {number}" for number in range(100_000)]
    (folder / "long.txt").write_text("\n".join(values))
    job = loaded('shell = "{{item}}"\nitems = { lines = "long.txt" }', folder)
    ref = job.spec.stages[0].items.blob
    assert isinstance(ref, BlobRef)
    data = job.uploads[ref]
    assert isinstance(data, bytes)
    assert msgspec.json.decode(data) == values
    assert len(msgspec.json.encode(job.spec)) < 1000


def test_a_sweep_of_files_carries_them_and_its_name_is_their_path(folder: Path) -> None:
    only = stage(
        'shell = "cat {{picture}} {{ picture }} {{n}}"\nsweep.picture = { files = "textures/**" }\nsweep.n = [1, 2]',
        folder,
    )
    axes: Any = only.items.axes
    assert list(axes) == ["file", "n"]
    found = [msgspec.convert(value, FileEntry) for value in axes["file"]]
    assert [entry.path for entry in found] == ["textures/deep/ash.png", "textures/oak.png"]
    assert only.params["shell"] == "cat {{file}} {{file}} {{n}}"
    assert Template(only.params["shell"]).fill({"file": "x", "n": 1}, 0) == "cat x x 1"


# ---- files


@pytest.mark.parametrize(
    ("text", "paths"),
    [
        ('["scene.pov"]', {"scene.pov": "scene"}),
        ('["textures"]', {"textures/deep/ash.png": "ash", "textures/oak.png": "oak"}),
        ('["textures/*"]', {"textures/oak.png": "oak"}),
        ('["textures/**"]', {"textures/deep/ash.png": "ash", "textures/oak.png": "oak"}),
        ('["**/*.png", "textures/oak.png"]', {"textures/deep/ash.png": "ash", "textures/oak.png": "oak"}),
        ('["a[1].txt"]', {"a[1].txt": "bracket"}),
        ('["./textures/../scene.pov"]', {"scene.pov": "scene"}),
        ('["../outside.txt"]', {"outside.txt": "outside"}),
        ('["../out*.txt"]', {"outside.txt": "outside"}),
        ('[{ from = "scene.pov" }]', {"scene.pov": "scene"}),
        ('[{ from = "scene.pov", path = "in/a.pov" }]', {"in/a.pov": "scene"}),
        ('[{ from = "scene.pov", path = "in/" }]', {"in/scene.pov": "scene"}),
        ('[{ from = "textures", path = "t" }]', {"t/deep/ash.png": "ash", "t/oak.png": "oak"}),
        ('[{ from = "textures/**", path = "t" }]', {"t/deep/ash.png": "ash", "t/oak.png": "oak"}),
        ('[{ from = "textures/o*", path = "t" }]', {"t/oak.png": "oak"}),
        ('[{ from = "textures", path = "." }]', {"deep/ash.png": "ash", "oak.png": "oak"}),
    ],
)
def test_inputs_are_placed(text: str, paths: dict[str, str], folder: Path) -> None:
    assert entries(text, folder) == paths


def test_the_right_to_run_goes_along(folder: Path) -> None:
    inputs = stage('inputs = ["run.sh", "scene.pov"]', folder).inputs
    assert [(entry.path, entry.executable) for entry in inputs] == [("run.sh", True), ("scene.pov", False)]


def test_large_files_are_uploaded_once_whoever_names_them(folder: Path) -> None:
    (folder / "big").write_bytes(os.urandom(9000))
    job = loaded('shell = "{{f}}"\ninputs = ["big"]\nsweep.f = { files = "bi*" }', folder)
    (ref,) = job.uploads
    assert (job.uploads[ref], ref.size, job.upload_bytes) == (folder / "big", 9000, 9000)
    assert job.spec.stages[0].inputs[0].content == ref


def test_many_small_files_do_not_make_a_large_job(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job_files, "INLINE_BUDGET_BYTES", 12_000)
    for number in range(4):
        (folder / f"small{number}").write_bytes(os.urandom(5000))
    job = loaded('shell = "x"\ninputs = ["small*"]', folder)
    assert len(job.uploads) == 2
    assert isinstance(job.spec.stages[0].inputs[0].content, Inline)


def test_a_job_is_loaded_from_its_file(folder: Path) -> None:
    (folder / "job.toml").write_text('name = "x 🎬/y"\nshell = "a"\ninputs = ["scene.pov"]\n')
    assert load_job(folder / "job.toml").spec.name == "x 🎬/y"


# ---- mistakes


MISTAKES = [
    ('shell = "{{a}}"', 2, "{{a}} means nothing to this stage"),
    ('shell = "{{item}}"\ncount = 2', 2, "{{item}} means nothing to a stage without `items`"),
    ('shell = "{{a b}}"', 2, "is in double braces, but is no name"),
    ('shell = "{{item}}"\nsweep.x = [1]', 2, "{{item}} means nothing"),
    ('command = "echo hi"', 2, 'command is "echo hi"; expected a list of text'),
    ("command = []", 2, "command is []; expected a program and its arguments"),
    ('comand = ["a"]', 2, "no key `comand`. Did you mean `command`?"),
    ('shell = "a"\n\npriority = 11', 4, "priority is 11; expected a whole number from 1 to 10"),
    ('shell = "a"\npriority = true', 3, "priority is true; expected a whole number"),
    ('shell = "a"\nretries = 2.5', 3, "retries is 2.5; expected a whole number from 0 to 100"),
    ('shell = "a"\nopen = "yes"', 3, 'open is "yes"; expected true or false'),
    ('shell = "a"\nversion = 2', 3, "version is 2; expected a whole number from 1 to 1"),
    ('shell = "a"\ncommand = ["b"]', 2, "`command` and `shell` says what runs"),
    ("count = 1", 1, "nothing says what runs"),
    ('shell = "a"\nargs = [1]', 3, "`args` has no meaning beside `shell`"),
    ('python = "a:b"\nenv = { A = "b" }', 3, "`env` has no meaning beside `python`"),
    ('shell = "a"\nparams = { a = 1 }', 3, "`params` has no meaning beside `shell`"),
    ('python = "a.b"', 2, 'python is "a.b"; expected a function as `module:function`'),
    ('kind = "command"\nparams = { argvv = ["a"] }', 3, "no parameter `argvv`. Did you mean `argv`?"),
    ('kind = "command"\nparams = { argv = "a" }', 3, "the parameters of kind 'command' are wrong"),
    ('kind = ""', 2, 'kind is ""; expected the name of a kind'),
    (
        'shell = "a"\n[platforms.windows]\nargv = ["a"]',
        4,
        "no key `argv` in platforms.windows. It is called `command`",
    ),
    ('shell = "a"\n[platforms.linux]\nshell = "b"\ncommand = ["c"]', 3, "both say what runs on linux"),
    ('shell = "a"\ncount = -1', 3, f"count is -1; expected a whole number from 0 to {MAX_TASKS_PER_JOB}"),
    (
        'shell = "a"\ncount = 10_000_001',
        3,
        f"count is 10_000_001; expected a whole number from 0 to {MAX_TASKS_PER_JOB}",
    ),
    ('shell = "a"\ncount = 1\nitems = [1]', 4, "`count` and `items` both say how many"),
    ('shell = "a"\nitems = "abc"', 3, 'items is "abc"; expected a list or a table'),
    (
        'shell = "a"\nitems = [1979-05-27]',
        3,
        "items[0] is 1979-05-27; expected text, a number, true or false",
    ),
    ('shell = "a"\nitems = [{ a = [nan] }]', 3, "items[0].a[0] is nan; expected text"),
    ('shell = "a"\nitems = { stage = "a", lines = "b" }', 3, "exactly one of `stage`, `lines` and `json`"),
    ('shell = "a"\nitems = { lines = "gone" }', 3, "cannot read"),
    ('shell = "a"\nitems = { lines = "binary" }', 3, "is not text in UTF-8"),
    ('shell = "a"\nitems = { json = "bad.json" }', 3, "bad.json is not JSON"),
    ('shell = "a"\nitems = { json = "object.json" }', 3, "object.json holds no array"),
    ('shell = "a"\nsweep."a b" = [1]', 3, "'a b' cannot name a sweep"),
    ('shell = "a"\nsweep.index = [1]', 3, "'index' cannot name a sweep"),
    ('shell = "a"\nsweep.x = 3', 3, "sweep.x is 3; expected a list or a table"),
    ('shell = "a"\nsweep.x = {}', 3, "a sweep is exactly one of"),
    ('shell = "a"\nsweep.x = { start = 1, files = "*" }', 3, "a sweep is exactly one of"),
    ('shell = "a"\nsweep.x = { start = 1 }', 3, "a range needs both `start` and `stop`"),
    (
        'shell = "a"\nsweep.x = { start = 1, stop = 2, step = 0 }',
        3,
        "sweep.x.step is 0; expected a step that is not 0",
    ),
    ('shell = "a"\nsweep.x = { start = inf, stop = 2 }', 3, "sweep.x.start is inf; expected a number"),
    ('shell = "a"\nsweep.x = { files = "*.nope" }', 3, "no file matches '*.nope'"),
    ('shell = "a"\nsweep.x = { files = ["*.pov", "*.nope"] }', 3, "no file matches '*.nope'"),
    (
        'shell = "a"\nsweep.a = { files = "*" }\nsweep.b = { files = "*" }',
        4,
        "`a` and `b` both sweep over files",
    ),
    ('shell = "a"\nsweep.a = { files = "*" }\nsweep.file = [1]', 4, "`file` cannot name another sweep"),
    ('shell = "a"\ninputs = ["scene.pov",\n  "gone.txt"]', 4, "there is no file 'gone.txt'"),
    ('shell = "a"\ninputs = ["empty"]', 3, "no file matches 'empty'"),
    ('shell = "a"\ninputs = ["gone/*.txt"]', 3, "no file matches 'gone/*.txt'"),
    ('shell = "a"\ninputs = [3]', 3, "inputs[0] is 3; expected text or a table"),
    ('shell = "a"\ninputs = [{ path = "x" }]', 3, "`from` is missing in inputs[0]"),
    (
        'shell = "a"\ninputs = [{ from = "scene.pov", path = "../x" }]',
        3,
        '\'../x\' is no path inside the work folder. Name one: { from = "scene.pov", path = "x" }',
    ),
    (
        'shell = "a"\ninputs = [{ from = "scene.pov", path = "/x" }]',
        3,
        "'/x' is no path inside the work folder",
    ),
    (
        'shell = "a"\ninputs = ["scene.pov", { from = "run.sh", path = "scene.pov" }]',
        3,
        """at 'scene.pov'. Give one another path: { from = "run.sh", path = "other/scene.pov" }""",
    ),
    ('shell = "a"\nneeds = ["b"]', 3, "there is no stage 'b'. The stages are 'main'"),
    ('shell = "a"\nneeds = ["main"]', 3, "in a circle: 'main' needs 'main'"),
    (
        'shell = "a"\nneeds = [{ stage = "a", map = "some" }]',
        3,
        'needs[0].map is "some"; expected one of all, same, groups',
    ),
    ('shell = "a"\nneeds = [{ map = "all" }]', 3, "`stage` is missing in needs[0]"),
    ('shell = "a"\nrequires.memory = "2 G x"', 3, 'requires.memory is "2 G x"; expected a size like 2GiB'),
    ('shell = "a"\nrequires = { memori = 1 }', 3, "no key `memori` in requires. Did you mean `memory`?"),
    ('shell = "a"\nrequires.labels = { room = 1 }', 3, "requires.labels.room is 1; expected text"),
    ('shell = "a"\ntimeout = "soon"', 3, 'timeout is "soon"; expected a duration like 90s'),
    ('shell = "a"\ntimeout = -1', 3, "timeout is -1; expected a number, 0 or more or text"),
    ('shell = "a"\ntimeout = inf', 3, "timeout is inf; expected a number"),
    ('shell = "a"\ngrace = "2h"', 3, 'grace is "2h"; expected at most an hour'),
    ('shell = "a"\ncheckpoint = { signal = "SIGKILL", files = "*" }', 3, "expected one of SIGUSR1"),
    ('shell = "a"\nenv = { A = 1 }', 3, "env.A is 1; expected text"),
    ('shell = "a"\nstages = []', 3, "a job needs at least one stage"),
    ('shell = "a"\nstages = [3]', 3, "stages[0] is 3; expected a table"),
    ('count = 3\n[[stages]]\nshell = "a"', 2, "`count` belongs to a stage"),
    ('[[stages]]\nshell = "a"\n[[stages]]\nname = "b"\nshell = "a"', 2, "a stage has no name"),
    (
        '[[stages]]\nname = "a"\nshell = "a"\n[[stages]]\nname = "a"\nshell = "a"',
        6,
        "two stages are called 'a'",
    ),
    (
        '[[stages]]\nname="a"\nshell="a"\nneeds=["b"]\n[[stages]]\nname="b"\nshell="{{file}}"\nitems={stage="a"}',
        0,
        "in a circle: ",
    ),
    ("a =", 2, "this is not TOML: Invalid value"),
]


@pytest.mark.parametrize(("text", "line", "message"), MISTAKES, ids=[text for text, _, _ in MISTAKES])
def test_a_mistake_is_told_with_its_line(text: str, line: int, message: str, folder: Path) -> None:
    with pytest.raises(BadInputError) as caught:
        loaded(text, folder)
    assert message in str(caught.value)
    if line:
        assert caught.value.message.startswith(f"{folder / 'job.toml'}:{line}: ")


def test_a_job_without_a_name_or_with_a_long_one_is_refused(folder: Path) -> None:
    for text in ('shell = "a"', 'name = ""\nshell = "a"', f'name = "{"x" * 201}"\nshell = "a"', "name = 3"):
        with pytest.raises(BadInputError, match="text of 1 to 200 characters"):
            parse_job(text, folder / "job.toml")


def test_a_job_file_that_cannot_be_read_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, message in (
        ("gone.toml", "No such file"),
        ("textures", "directory"),
        ("binary", "not text in UTF-8"),
    ):
        with pytest.raises(BadInputError, match=f"{name}.*{message}"):
            load_job(folder / name)
    monkeypatch.setattr("sparegrid.jobfile.loader.MAX_FILE_BYTES", 3)
    with pytest.raises(BadInputError, match="has 5 bytes; a job file has at most 3"):
        load_job(folder / "scene.pov")


def test_too_many_stages_or_files_are_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "".join(f'[[stages]]\nname = "{number}"\nshell = "a"\n' for number in range(1001))
    with pytest.raises(BadInputError, match="stages has 1001 entries; at most 1000"):
        loaded(text, folder)
    monkeypatch.setattr(job_files, "MAX_FILES", 1)
    with pytest.raises(BadInputError, match="'textures' matches 2 files; at most 1"):
        stage('inputs = ["textures"]', folder)


def test_what_cannot_be_read_as_a_file_is_named(folder: Path) -> None:
    os.mkfifo(folder / "pipe")
    with pytest.raises(BadInputError, match="'pipe' is neither a file nor a folder"):
        stage('inputs = ["pipe"]', folder)
    with pytest.raises(BadInputError, match="cannot read /proc/self/mem: Input/output error"):
        stage('inputs = ["/proc/self/mem"]', folder)


def test_a_json_file_is_the_job_as_rest_takes_it(tmp_path: Path) -> None:
    path = tmp_path / "job.json"
    path.write_text('{"name": "n", "stages": [{"params": {"argv": ["true"]}, "items": {"count": 3}}]}')
    loaded = load_job(path)
    assert (loaded.spec.name, loaded.spec.stages[0].items.count, loaded.uploads) == ("n", 3, {})
    path.write_text('{"name": "n", "stages": [{"parms": {}}]}')
    with pytest.raises(BadInputError, match=r"job\.json: .*unknown field `parms`.*\$\.stages\[0\]"):
        load_job(path)
