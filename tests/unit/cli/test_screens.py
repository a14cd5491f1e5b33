"""Screens: they fit, they are safe, and they say what matters, with none, some and very many rows."""

from __future__ import annotations

import pytest
from rich.cells import cell_len

from sparegrid.api import AttemptView, Explanation, TaskView
from sparegrid.cli.screens.devices import device_screen, devices_table, explanation_screen
from sparegrid.cli.screens.jobs import job_screen, jobs_table, task_screen
from sparegrid.cli.screens.messages import commands, error_text
from sparegrid.cli.screens.progress import progress_lines
from sparegrid.cli.screens.top import TopModel, top_screen
from sparegrid.messages import Capability
from tests.unit.cli.drawing import drawn, lines_of
from tests.unit.cli.views import NOW_MS, a_device, a_job, a_look

EVIL = "\x1b[2J\x9b31m [bold]x[/bold] 🎬 \u202e very long name that goes on and on and on without an end in sight"


@pytest.mark.parametrize("width", [40, 80, 120, 160, 200])
@pytest.mark.parametrize("count", [1, 3, 500])
def test_tables_never_are_wider_than_the_terminal(width: int, count: int) -> None:
    look = a_look(width)
    jobs = [a_job(number, name=EVIL, submitter=EVIL, total=10**6, done=10**5) for number in range(count)]
    devices = [a_device(EVIL, reason=EVIL, labels={EVIL: EVIL}) for _ in range(count)]
    for table in (jobs_table(look, jobs), devices_table(look, devices)):
        lines = lines_of(look, table)
        assert len(lines) == count + 2
        assert max(cell_len(line) for line in lines) <= width


@pytest.mark.parametrize("live", [True, False])
def test_no_control_character_of_a_foreign_text_reaches_the_terminal(live: bool) -> None:
    look = a_look(120, live=live)
    job = a_job(name=EVIL, submitter=EVIL, reason=EVIL)
    task = TaskView(
        "17.0.5", EVIL, 5, "failed", EVIL, [AttemptView("1", "d", EVIL, "ended", reason=EVIL)], 1, EVIL
    )
    device = a_device(
        EVIL, reason=EVIL, address=EVIL, capability=Capability(cpu=EVIL, notes=[EVIL], arch=EVIL)
    )
    explanation = Explanation("17", EVIL, [EVIL])
    for screen in (
        jobs_table(look, [job]),
        job_screen(look, job, [task]),
        task_screen(look, task),
        devices_table(look, [device]),
        device_screen(look, device),
        explanation_screen(look, explanation),
        error_text(EVIL, EVIL, EVIL),
        progress_lines(look, job),
    ):
        text = drawn(look, screen)
        assert not [char for char in text if (ord(char) < 32 and char != "\n") or 0x7F <= ord(char) < 0xA0]
        assert "\u202e" not in text


def test_markup_in_a_name_is_shown_and_not_obeyed() -> None:
    look = a_look(200)
    assert "[bold]x[/bold]" in drawn(look, jobs_table(look, [a_job(name="[bold]x[/bold]")]))


def test_a_pipe_gets_every_column_uncut_and_no_bars() -> None:
    look = a_look(80, live=False)
    text = drawn(look, jobs_table(look, [a_job(name="n" * 150)]))
    assert "n" * 150 in text
    assert "Priority" in text
    assert "━" not in text
    assert "Progress" not in text


def test_a_narrow_terminal_keeps_what_matters_most() -> None:
    look = a_look(60)
    heading = lines_of(look, jobs_table(look, [a_job()]))[0].split()
    assert {"Job", "Name", "State", "Done"} <= set(heading)
    assert "Priority" not in heading


@pytest.mark.parametrize("unicode", [True, False])
def test_an_ascii_terminal_gets_ascii_only(unicode: bool) -> None:
    look = a_look(100, unicode=unicode)
    job = a_job(state="failed", finished_ms=NOW_MS)
    screens = (job_screen(look, job, []), devices_table(look, [a_device(), a_device(state="offline")]))
    assert all(drawn(look, screen).isascii() for screen in screens) is not unicode


def test_empty_lists_say_what_to_do_next() -> None:
    look = a_look()
    assert "sparegrid run" in drawn(look, jobs_table(look, []))
    assert "sparegrid worker" in drawn(look, devices_table(look, []))


def test_no_color_is_one_that_vanishes_on_white_or_black() -> None:
    look = a_look(160)
    devices = [a_device(state=state) for state in ("computing", "ready", "paused", "draining", "offline")]
    text = drawn(look, devices_table(look, devices), color=True) + drawn(
        look, jobs_table(look, [a_job()]), color=True
    )
    codes = {code for piece in text.split("\x1b[")[1:] for code in piece.split("m", 1)[0].split(";")}
    # 2 is dim, 30, 33, 37 and 90 to 97 are black, yellow, white and the bright ones.
    assert codes <= {"0", "1", "31", "32", "35", "36"}


def test_a_job_tells_how_far_it_is_and_where_it_fails() -> None:
    look = a_look()
    failed = TaskView(
        "17.0.5",
        "tiles",
        5,
        "failed",
        None,
        [AttemptView("9", "d", "raspi", "ended")],
        3,
        "exit code 3, three times",
    )
    text = drawn(look, job_screen(look, a_job(), [failed]))
    for piece in (
        "37 of 100 tasks done",
        "4 running",
        "1 failed",
        "17.0.5",
        "raspi",
        "exit code 3",
        "2 min 5 s left",
    ):
        assert piece in text
    assert "sparegrid logs 17.0.5" in text
    assert "sparegrid retry 17 --failed" in text


def test_a_done_job_names_the_way_to_its_results() -> None:
    look = a_look()
    done = a_job(
        state="done", done=100, running=0, queued=0, waiting=0, failed=0, finished_ms=NOW_MS - 100_000
    )
    text = drawn(look, job_screen(look, done, []))
    assert "took 1 min 40 s" in text
    assert "sparegrid results 17 -o DIR" in text


def test_a_task_goes_by_its_id_beside_its_stage() -> None:
    text = drawn(a_look(), task_screen(a_look(), TaskView("17.1.4", "v1.2", 4, "done")))
    assert "Task 17.1.4  stage v1.2" in text


def test_one_failure_of_ten_thousand_is_seen_in_the_bar() -> None:
    bar = a_look().bar([(9_999, "done"), (0, "running"), (1, "failed")], 10_000, 20)
    assert bar.cell_len == 20
    assert [str(span.style) for span in bar.spans] == ["green", "bold red"]


def test_a_bar_is_full_only_when_everything_is_counted() -> None:
    look = a_look(unicode=False)
    assert look.bar([(99, "done")], 100, 10).plain == "#########."
    assert look.bar([(100, "done")], 100, 10).plain == "##########"
    assert look.bar([(0, "done")], 0, 10).plain == ".........."


def test_bars_of_done_failed_and_cancelled_differ_without_colors() -> None:
    bars = [
        drawn(a_look(unicode=unicode), a_look(unicode=unicode).bar([(1, state)], 1, 4)).strip()
        for unicode in (True, False)
        for state in ("done", "failed", "cancelled")
    ]
    assert bars == ["━━━━", "✗✗✗✗", "░░░░", "####", "!!!!", "xxxx"]


def test_what_runs_is_no_progress_yet() -> None:
    look = a_look()
    assert look.bar([(0, "done"), (4, "running")], 4, 8).plain == look.bar([(0, "done")], 4, 8).plain


def test_a_job_that_runs_tells_how_long_so_far_and_how_long_still() -> None:
    look = a_look()
    assert "for 3 min 20 s so far · 2 min 5 s left" in drawn(look, job_screen(look, a_job(), []))
    row = drawn(look, jobs_table(look, [a_job()])).splitlines()[2]
    assert "3 min 20 s" in row
    assert "2 min 5 s" in row


def test_the_missing_sandbox_is_told_once() -> None:
    look = a_look()
    device = a_device(
        capability=Capability(notes=["no sandbox: tasks run with this user's rights", "slow disk"])
    )
    text = drawn(look, device_screen(look, device))
    assert text.lower().count("sandbox") == 1
    assert "slow disk" in text


def test_the_heading_of_the_live_screen_is_whole_at_80_columns() -> None:
    look = a_look(80)
    model = TopModel("a grid with a rather long name of its own")
    for number in range(120):
        model.set_device(a_device(f"pc-{number}"), NOW_MS)
    heading = lines_of(look, top_screen(look, model, 24))[0]
    assert "tasks/s" in heading
    assert cell_len(heading) <= 80


def test_a_paused_device_tells_why_and_how_long() -> None:
    look = a_look(200)
    device = a_device(state="paused", reason="its owner is using it", until_ms=NOW_MS + 600_000)
    assert "its owner is using it, for 10 min more" in drawn(look, devices_table(look, [device]))


def test_an_error_has_a_title_a_message_and_the_next_step() -> None:
    lines = lines_of(a_look(), error_text("No coordinator answers", "10.0.0.5 is silent", "Start one"))
    assert lines == ["No coordinator answers", "  10.0.0.5 is silent", "  Start one"]


def test_advice_is_aligned() -> None:
    assert commands(("a", "one"), ("longer", "two")).plain == "  a        one\n  longer   two"


@pytest.mark.parametrize("height", [12, 24, 50])
def test_the_live_screen_fits_its_terminal(height: int) -> None:
    look = a_look(100)
    model = TopModel("home")
    for number in range(500):
        model.set_device(a_device(f"pc-{number}"), NOW_MS)
        model.set_job(a_job(number))
    lines = lines_of(look, top_screen(look, model, height))
    assert len(lines) <= max(height, 13)
    assert any("more devices" in line for line in lines)
    assert any("more jobs" in line for line in lines)


def test_the_live_screen_shows_those_at_work_first_and_counts_what_is_finished() -> None:
    model = TopModel("home")
    model.set_device(a_device("off", state="offline"), NOW_MS)
    model.set_device(a_device("busy", done=100), NOW_MS)
    model.set_device(a_device("busy", done=150), NOW_MS + 1000)
    model.set_job(a_job(3, state="done"))
    model.set_job(a_job(2))
    assert [view.name for view in model.sorted_devices()] == ["busy", "off"]
    assert [job.id for job in model.sorted_jobs()] == ["2", "3"]
    assert model.rate(NOW_MS + 2000) == 5.0
    assert model.rate(NOW_MS + 60_000) == 0.0
