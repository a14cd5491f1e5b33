"""The verbs on a real grid, as a person or a script uses them."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from sparegrid.client import Client
from sparegrid.paths import Paths
from sparegrid.trust.access import save_credentials
from tests.e2e.local_grid import LocalGrid, clean_environ, program


@pytest.fixture(scope="module")
def grid() -> Iterator[LocalGrid]:
    with LocalGrid() as grid:
        yield grid


def newest(grid: LocalGrid) -> str:
    """The id of the newest job."""
    return str(grid.json("jobs", "--limit", "1")["jobs"][0]["id"])


# ---- run --------------------------------------------------------------------------------------------------------


def test_run_prints_what_the_command_prints_and_nothing_else(grid: LocalGrid) -> None:
    done = grid.run("run", "--", "sh", "-c", "echo out; echo err >&2; printf end")
    assert (done.returncode, done.stdout, done.stderr) == (0, "out\nerr\nend", "")


def test_run_gives_a_pipe_every_byte_however_fast_they_come(grid: LocalGrid) -> None:
    done = grid.run("run", "--", "sh", "-c", "for k in 1 2 3 4; do seq 1 100000; sleep 0.3; done")
    assert done.returncode == 0
    assert done.stdout == "".join(f"{number}\n" for number in range(1, 100_001)) * 4


@pytest.mark.parametrize(
    ("line", "code"), [("exit 7", 7), ("exit 1", 1), ("kill -SEGV $$", 139), ("kill -KILL $$", 137)]
)
def test_run_ends_with_the_code_of_its_command(line: str, code: int, grid: LocalGrid) -> None:
    assert grid.run("run", "--", "sh", "-c", line).returncode == code


def test_a_failed_command_is_not_tried_again(grid: LocalGrid) -> None:
    assert grid.run("run", "--", "sh", "-c", "echo once; exit 3").stdout == "once\n"


def test_a_command_over_its_time_ends_with_124(grid: LocalGrid) -> None:
    done = grid.run("run", "--timeout", "1s", "--", "sleep", "60")
    assert done.returncode == 124
    assert "timed out" in done.stderr


def test_a_program_that_no_device_has_fails_and_says_so(grid: LocalGrid) -> None:
    done = grid.run("run", "--", "no-such-program")
    assert done.returncode == 1
    assert "'no-such-program' is not found" in done.stderr


def told_while_it_waits(grid: LocalGrid, *arguments: str) -> str:
    """The first line on standard error of a verb that waits for ever; it is ended then."""
    process = subprocess.Popen(
        program(*arguments),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=clean_environ(grid.home),
        start_new_session=True,
    )
    with process:
        assert process.stderr is not None
        told = process.stderr.readline().decode()
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=30)
    assert process.returncode == 143
    assert grid.json("jobs", "--limit", "1")["jobs"][0]["state"] == "cancelled"
    return told


def test_run_sends_files_along_and_brings_files_back(grid: LocalGrid) -> None:
    (grid.work / "data").mkdir(exist_ok=True)
    (grid.work / "data" / "a.txt").write_text("hello\n")
    large = bytes(range(256)) * 4096
    (grid.work / "large.bin").write_bytes(large)
    script = grid.work / "script.sh"
    script.write_text("#!/bin/sh\ntr a-z A-Z < data/a.txt > out.txt; cp big copy.bin\n")
    script.chmod(0o755)
    sent = ("-i", "data", "-i", "script.sh", "-i", "large.bin=big")
    brought = ("-o", "out.txt", "-o", "*.bin", "-d", "back")
    grid.ok("run", *sent, *brought, "--", "./script.sh")
    assert (grid.work / "back" / "out.txt").read_text() == "HELLO\n"
    assert (grid.work / "back" / "copy.bin").read_bytes() == large


def test_run_passes_variables_and_shell_lines(grid: LocalGrid) -> None:
    assert grid.ok("run", "-e", "WHAT=a b", "--shell", "--", 'echo "$WHAT" | tr a-z A-Z') == "A B\n"


def test_output_is_streamed_while_the_command_runs(grid: LocalGrid) -> None:
    line = "echo first; while [ ! -e go ]; do sleep 0.05; done; echo second"
    process = subprocess.Popen(
        program("run", "--", "sh", "-c", f"cd {grid.work}; {line}"),
        stdout=subprocess.PIPE,
        env=clean_environ(grid.home),
        start_new_session=True,
    )
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"first\n"
        (grid.work / "go").touch()
        assert process.stdout.read() == b"second\n"
    assert process.returncode == 0


def test_ctrl_c_cancels_the_job_and_ends_with_130(grid: LocalGrid) -> None:
    process = subprocess.Popen(
        program("run", "--name", "to be cancelled", "--", "sh", "-c", "echo up; exec sleep 600"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=clean_environ(grid.home),
        start_new_session=True,
    )
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"up\n"
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert b"Cancelling job" in err
    assert b"Traceback" not in err
    job = grid.json("jobs", "--limit", "1")["jobs"][0]
    assert (job["name"], job["state"]) == ("to be cancelled", "cancelled")


def test_a_job_that_nobody_can_run_says_why_while_it_waits(grid: LocalGrid) -> None:
    assert "3 GPUs" in told_while_it_waits(grid, "run", "-r", "gpus=3", "--", "true")


def test_a_requirement_that_nobody_meets_is_explained(grid: LocalGrid) -> None:
    job = grid.ok("run", "--detach", "-r", "gpus=3", "--", "true").strip()
    assert "3 GPUs" in grid.json("explain", job)["summary"]
    assert "3 GPUs" in grid.ok("explain", f"{job}.0.0")
    grid.ok("cancel", job)


def test_a_detached_job_is_followed_later(grid: LocalGrid) -> None:
    job = grid.ok("run", "--detach", "--", "sh", "-c", "echo later; sleep 0.5; echo done").strip()
    assert grid.ok("logs", "-f", job) == "later\ndone\n"
    assert grid.ok("logs", f"{job}.0.0") == "later\ndone\n"
    assert grid.json("job", f"{job}.main.0")["state"] == "done"


# ---- map --------------------------------------------------------------------------------------------------------


def test_map_prints_outputs_in_the_order_of_the_values(grid: LocalGrid) -> None:
    done = grid.ok(
        "map", "--", "sh", "-c", "sleep 0.$((3 - {{index}})); echo {{item}}", ":::", "a", "b c", "d"
    )
    assert done == "a\nb c\nd\n"


def test_map_reads_lines_and_appends_the_value(grid: LocalGrid) -> None:
    assert grid.ok("map", "--", "echo", "got", stdin="one\ntwo words\n\n") == "got one\ngot two words\n"


def test_map_multiplies_axes(grid: LocalGrid) -> None:
    printed = grid.ok("map", "--over", "a=1:3", "--over", "b=x,y", "--", "echo", "{{a}}{{b}}")
    assert printed.split() == ["1x", "1y", "2x", "2y", "3x", "3y"]


def test_map_sends_files_and_brings_files_back(grid: LocalGrid) -> None:
    for name in ("p.txt", "q.txt"):
        (grid.work / name).write_text(name * 3)
    grid.ok(
        "map",
        "-o",
        "*.up",
        "-d",
        "ups",
        "--shell",
        "--",
        "tr a-z A-Z < {{file}} > {{file}}.up",
        ":::",
        "p.txt",
        "q.txt",
    )
    assert {path.name: path.read_text() for path in (grid.work / "ups").iterdir()} == {
        "p.txt.up": "P.TXT" * 3,
        "q.txt.up": "Q.TXT" * 3,
    }


def test_map_tells_which_values_failed_and_ends_with_1(grid: LocalGrid) -> None:
    done = grid.run(
        "map", "--retries", "0", "--", "sh", "-c", "echo {{item}}; exit {{item}}", ":::", "0", "4"
    )
    assert (done.returncode, done.stdout) == (1, "0\n4\n")
    assert "exit code 4" in done.stderr
    assert "1 of 2 tasks done" in done.stderr
    assert f"sparegrid retry {newest(grid)} --failed" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--", "echo", "{{nothing}}", ":::", "a"), "nothing"),
        (("--over", "a=1:2", "--", "echo", ":::", "b"), "--over and ::: are both given"),
        (("--", "cat", "{{file}}", ":::", "missing.txt"), "missing.txt"),
    ],
)
def test_a_wrong_map_is_refused_with_the_reason(
    arguments: tuple[str, ...], said: str, grid: LocalGrid
) -> None:
    done = grid.run("map", *arguments)
    assert done.returncode == 2
    assert said in done.stderr


# ---- jobs -------------------------------------------------------------------------------------------------------


def job_file(grid: LocalGrid, text: str) -> str:
    path = grid.work / "job.toml"
    path.write_text(text)
    return str(path)


def test_a_job_file_is_submitted_followed_and_fetched(grid: LocalGrid) -> None:
    file = job_file(
        grid,
        """
        name = "squares 🎬"
        [[stages]]
        name = "square"
        shell = "echo $(({{n}} * {{n}})) > {{n}}.txt"
        sweep.n = { start = 1, stop = 5 }
        outputs = ["*.txt"]
        [[stages]]
        name = "sum"
        shell = "cat *.txt | paste -sd+ | bc > sum.txt || awk '{ s += $1 } END { print s }' *.txt > sum.txt"
        needs = ["square"]
        outputs = ["sum.txt"]
        """,
    )
    grid.ok("submit", file, "-o", "squares", "--priority", "9", "--name", "renamed 🎬")
    assert (grid.work / "squares" / "sum" / "sum.txt").read_text() == "55\n"
    assert sorted(path.name for path in (grid.work / "squares" / "square").iterdir()) == [
        f"{n}.txt" for n in range(1, 6)
    ]
    job = grid.json("job", newest(grid))
    assert (job["name"], job["priority"], job["state"]) == ("renamed 🎬", 9, "done")
    assert "renamed 🎬" in grid.ok("jobs")


def test_a_submission_without_waiting_prints_the_id(grid: LocalGrid) -> None:
    file = job_file(grid, 'name = "three"\ncommand = ["true"]\ncount = 3\n')
    submitted = grid.json("submit", file)
    assert submitted["tasks"] == 3
    assert submitted["id"] == newest(grid)


def test_the_log_of_several_tasks_is_followed_line_by_line_with_the_reason_of_a_failure(
    grid: LocalGrid,
) -> None:
    text = """
    name = "letters"
    shell = "echo one {{letter}}; printf 'two {{letter}}'; test {{letter}} != b"
    retries = 0
    sweep.letter = ["a", "b"]
    """
    submitted = grid.run("submit", job_file(grid, text))
    job = newest(grid)
    assert f"sparegrid logs -f {job}" in submitted.stderr
    done = grid.run("logs", "-f", job)
    assert sorted(done.stdout.splitlines()) == [
        f"{job}.0.0: one a",
        f"{job}.0.0: two a",
        f"{job}.0.1: one b",
        f"{job}.0.1: two b",
    ]
    assert f"Task {job}.0.1 failed: exit code 1" in done.stderr


def test_the_log_of_a_task_that_failed_in_silence_tells_why(grid: LocalGrid) -> None:
    grid.run("run", "--", "false")
    done = grid.run("logs", newest(grid))
    assert (done.returncode, done.stdout) == (0, "")
    assert "failed: exit code 1" in done.stderr


def test_a_wrong_job_file_names_line_key_and_value(grid: LocalGrid) -> None:
    done = grid.run("submit", job_file(grid, 'name = "x"\ncommand = ["true"]\npriority = 99\n'))
    assert done.returncode == 2
    for piece in ("job.toml", "3", "priority", "99"):
        assert piece in done.stderr


def test_a_missing_job_file_is_named(grid: LocalGrid) -> None:
    done = grid.run("submit", "nowhere.toml")
    assert done.returncode == 2
    assert "nowhere.toml" in done.stderr


def test_a_failed_submission_that_was_waited_for_ends_with_1(grid: LocalGrid) -> None:
    file = job_file(grid, 'name = "bad"\ncommand = ["false"]\nretries = 0\n')
    done = grid.run("submit", file, "--wait")
    assert done.returncode == 1
    assert "failed" in done.stderr


def test_failed_tasks_are_tried_again(grid: LocalGrid) -> None:
    flag = grid.work / "flag"
    file = job_file(grid, f'name = "flag"\nshell = "test -e {flag}"\nretries = 0\n')
    grid.run("submit", file, "--wait")
    job = newest(grid)
    shown = grid.ok("job", job)
    assert "Tasks in trouble" in shown
    assert "exit code 1" in shown
    flag.touch()
    assert "active: 1 task tried again" in grid.ok("retry", job, "--failed")
    wait_for(grid, job, "done")


def wait_for(grid: LocalGrid, job: str, state: str) -> None:
    deadline = time.monotonic() + 30
    while grid.json("job", job)["state"] != state:
        assert time.monotonic() < deadline, grid.ok("job", job)
        time.sleep(0.1)


def test_jobs_are_cancelled_reprioritised_and_removed(grid: LocalGrid) -> None:
    job = grid.ok("run", "--detach", "-r", "gpus=9", "--", "true").strip()
    assert "priority 8" in grid.ok("priority", job, "8")
    assert grid.run("remove", job).returncode == 6, "an active job cannot be removed"
    assert "cancelled" in grid.ok("cancel", job)
    assert "had ended already" in grid.ok("cancel", job)
    assert job in [one["id"] for one in grid.json("jobs", "--state", "cancelled")["jobs"]]
    grid.ok("remove", job)
    assert grid.run("job", job).returncode == 5


@pytest.mark.parametrize(
    "verb", [["job", "999999"], ["logs", "999999"], ["results", "999999"], ["device", "nobody"]]
)
def test_what_is_not_there_ends_with_5(verb: list[str], grid: LocalGrid) -> None:
    done = grid.run(*verb)
    assert done.returncode == 5
    assert verb[1] in done.stderr
    assert done.stdout == ""


def test_results_are_listed_and_their_absence_is_told(grid: LocalGrid) -> None:
    grid.ok("run", "-o", "r.txt", "--", "sh", "-c", "echo x > r.txt")
    listed = grid.ok("results", newest(grid))
    assert "r.txt (2 B)" in listed
    document = grid.json("results", newest(grid))
    assert document["results"][0]["outcome"]["files"][0]["path"] == "r.txt"
    grid.ok("run", "--", "true")
    done = grid.run("results", newest(grid), "-o", "nothing")
    assert done.returncode == 5
    assert "outputs" in done.stderr


# ---- devices ----------------------------------------------------------------------------------------------------


def test_a_device_is_shown_labelled_and_renamed(grid: LocalGrid) -> None:
    assert "attic" in grid.ok("devices")
    assert grid.json("device", "attic")["labels"]["room"] == "attic"
    grid.ok("device", "attic", "label", "shelf=top")
    assert grid.json("device", "attic", "show")["labels"]["shelf"] == "top"
    assert grid.ok("run", "-r", "label.shelf=top", "--", "echo", "labelled") == "labelled\n"
    grid.ok("device", "attic", "label", "shelf=")
    assert "shelf" not in grid.json("device", "attic")["labels"]
    grid.ok("device", "attic", "rename", "loft")
    grid.ok("device", "loft", "rename", "attic")


@pytest.mark.parametrize(
    ("verb", "state"), [("pause", "paused"), ("drain", "draining"), ("give-back", "paused")]
)
def test_a_device_takes_no_work_until_it_is_resumed(verb: str, state: str, grid: LocalGrid) -> None:
    told = grid.ok("device", "attic", verb, "--for", "1h")
    assert "(until " in told
    wait_for_device(grid, {state, "paused"})
    assert grid.json("explain", "attic")["summary"]
    assert "ready" in grid.ok("device", "attic", "resume")
    assert grid.ok("run", "--", "echo", "again") == "again\n"


def wait_for_device(grid: LocalGrid, states: set[str]) -> None:
    deadline = time.monotonic() + 30
    while grid.json("device", "attic")["state"] not in states:
        assert time.monotonic() < deadline, grid.ok("device", "attic")
        time.sleep(0.1)


def test_exec_runs_on_one_device_or_on_all(grid: LocalGrid) -> None:
    assert grid.ok("device", "attic", "exec", "--", "echo", "here") == "here\n"
    assert grid.run("device", "attic", "exec", "--", "sh", "-c", "exit 5").returncode == 5
    done = grid.run("device", "*", "exec", "--", "echo", "everywhere")
    assert (done.returncode, done.stdout) == (0, "everywhere\n")
    assert "attic" in done.stderr


def test_top_prints_one_screen_into_a_pipe(grid: LocalGrid) -> None:
    shown = grid.ok("top")
    assert "home" in shown
    assert "attic" in shown
    assert "\x1b" not in shown


# ---- the grid ---------------------------------------------------------------------------------------------------


def test_the_programs_say_what_they_are_and_what_to_type_next(grid: LocalGrid) -> None:
    coordinator, worker = grid.output_of(0), grid.output_of(1)
    assert "Grid home is up at https://127.0.0.1:" in coordinator
    assert "sparegrid worker --join " in coordinator
    assert "sparegrid run -- uname -a" in coordinator
    assert "attic works for the grid home" in worker


def test_a_person_of_another_home_joins_and_submits(grid: LocalGrid, tmp_path: Path) -> None:
    code = grid.json("join-code", "--role", "submitter")["code"]
    elsewhere = {"SPAREGRID_HOME": str(tmp_path / "other")}
    assert grid.run("jobs", environ=elsewhere).returncode == 3
    joined = grid.run("join", code, "--name", "ada", environ=elsewhere)
    assert joined.returncode == 0, joined.stderr
    assert "Joined home as submitter" in joined.stdout
    done = grid.run("run", "--", "echo", "from elsewhere", environ=elsewhere)
    assert (done.returncode, done.stdout) == (0, "from elsewhere\n")
    assert grid.json("jobs", "--limit", "1")["jobs"][0]["submitter"] == "ada"
    assert grid.run("join-code", environ=elsewhere).returncode == 4, "a submitter makes no codes"
    assert grid.run("join", code, environ=elsewhere).returncode == 4, "a code works once"


def test_a_computer_that_only_computes_is_told_how_a_person_joins(grid: LocalGrid, tmp_path: Path) -> None:
    code = grid.json("join-code")["code"]
    elsewhere = {"SPAREGRID_HOME": str(tmp_path / "worker")}
    joined = asyncio.run(Client.join(code, "cellar", os.urandom(32)))
    save_credentials(Paths.find(elsewhere).make(), joined)
    done = grid.run("devices", environ=elsewhere)
    assert done.returncode == 4
    assert "joined as a worker only" in done.stderr
    assert "sparegrid join-code --role submitter" in done.stderr
    assert "/v1" not in done.stderr


def test_the_code_of_a_device_is_printed_with_the_command_to_type(grid: LocalGrid) -> None:
    assert "sparegrid worker --join " in grid.ok("join-code", "--valid", "5m")


def test_reading_verbs_print_json_that_scripts_can_read(grid: LocalGrid) -> None:
    for verb in (
        ["jobs"],
        ["devices"],
        ["device", "attic"],
        ["explain", "attic"],
        ["version"],
        ["config", "show"],
    ):
        assert json.loads(grid.ok(*verb, "--json"))


def test_nothing_that_is_piped_holds_control_codes_or_is_cut(grid: LocalGrid) -> None:
    name = "evil 🎬 [bold]" + " long" * 30
    grid.ok("run", "--name", name, "--", "true")
    for verb in (["jobs"], ["job", newest(grid)]):
        shown = grid.ok(*verb)
        assert "\x1b" not in shown
        assert name in shown


def test_a_stopped_coordinator_ends_with_0_and_verbs_tell_that_it_is_gone() -> None:
    with LocalGrid(slots=1) as grid:
        assert grid.stop(1) == 0
        assert grid.stop(0) == 0
        done = grid.run("jobs")
        assert done.returncode == 3
        assert "sparegrid coordinator" in done.stderr
