"""Jobs, stages and tasks as screens."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.text import Text

from sparegrid.api import JobView, StageView, TaskResult, TaskView
from sparegrid.cli.screens.listing import Column, listing
from sparegrid.cli.screens.look import STATE_STYLES, Look, facts
from sparegrid.cli.screens.messages import commands, headline
from sparegrid.cli.wording import ago, duration, number, plural, safe, sentence


def bar_width(look: Look) -> int:
    """Cells of a bar in a table."""
    return 10 if look.width < 100 else 16


_JOB_COLUMNS = (
    Column("Job", right=True),
    Column("Name", least=14),
    Column("State"),
    Column("Progress", rank=4, live_only=True),
    Column("Done", right=True),
    Column("Failed", right=True, rank=1),
    Column("Time", right=True, rank=2),
    Column("Left", right=True, rank=3),
    Column("Submitted", rank=5),
    Column("Priority", right=True, rank=7),
    Column("By", least=8, rank=6),
)

_STAGE_COLUMNS = (
    Column("Stage", least=10),
    Column("Kind", rank=4),
    Column("Progress", rank=2, live_only=True),
    Column("Done", right=True),
    Column("Running", right=True, rank=1),
    Column("Queued", right=True, rank=3),
    Column("Waiting", right=True, rank=3),
    Column("Failed", right=True, rank=1),
    Column("Mean", right=True, rank=5),
    Column("Needs", least=8, rank=6),
)


def job_bar(look: Look, job: JobView | StageView, width: int) -> Text:
    """What of a job or stage is done, running and failed, on one line."""
    bad = job.failed + job.lost
    parts = [(job.done, "done"), (job.running, "running"), (bad, "failed"), (job.cancelled, "cancelled")]
    return look.bar(parts, job.total, width)


def done_of(job: JobView | StageView) -> str:
    """`37/100`, or `37` of an unknown number while it is open."""
    return f"{number(job.done)}/{number(job.total)}{'+' if job.open else ''}"


def job_time(look: Look, job: JobView) -> str:
    """How long it took, or takes so far, since it was submitted."""
    if not job.submitted_ms:
        return ""
    return duration(max(0, (job.finished_ms or look.now_ms) - job.submitted_ms) / 1000)


def time_left(job: JobView) -> str:
    """How long it may still take; empty when nobody knows."""
    return duration(job.eta_ms / 1000) if job.eta_ms and not job.finished_ms else ""


def jobs_table(look: Look, jobs: Sequence[JobView]) -> RenderableType:
    """The jobs as a table, in the given order."""
    if not jobs:
        return Group(
            Text("No jobs yet."), commands(("sparegrid run -- uname -a", "runs a command on the grid"))
        )
    rows = []
    for job in jobs:
        bad = job.failed + job.lost
        rows.append(
            [
                Text(job.id),
                Text(safe(job.name)),
                look.state(job.state),
                job_bar(look, job, bar_width(look)),
                Text(done_of(job)),
                Text(number(bad) if bad else "", style="bold red"),
                Text(job_time(look, job)),
                Text(time_left(job)),
                Text(ago(job.submitted_ms, look.now_ms)),
                Text(str(job.priority)),
                Text(safe(job.submitter)),
            ]
        )
    return listing(look, _JOB_COLUMNS, rows)


def job_screen(look: Look, job: JobView, troubled: Sequence[TaskView | TaskResult]) -> RenderableType:
    """One job: what it is, how far, its stages, and the tasks in trouble (only the first few are given)."""
    title = Text.assemble(
        (f"Job {job.id}", "bold"), "  ", (safe(job.name), "bold"), "  ", look.state(job.state)
    )
    about = facts(
        look,
        f"priority {job.priority}",
        f"by {safe(job.submitter)}" if job.submitter else "",
        f"submitted {ago(job.submitted_ms, look.now_ms)}" if job.finished_ms else "",
        f"took {job_time(look, job)}" if job.finished_ms else f"for {job_time(look, job)} so far",
        f"{time_left(job)} left" if time_left(job) else "",
    )
    parts: list[RenderableType] = [title, about]
    if job.reason:
        parts.append(Text(sentence(job.reason), style=STATE_STYLES.get(job.state, "")))
    if look.live:
        parts += [Text(""), job_bar(look, job, min(look.width, 100))]
    parts += [counts_line(look, job), Text(""), stages_table(look, job.stages)]
    if troubled:
        parts += [Text(""), headline("Tasks in trouble"), troubled_table(look, troubled)]
    advice = _advice(job, troubled)
    if advice and look.live:
        parts += [Text(""), *advice]
    return Group(*parts)


def counts_line(look: Look, job: JobView) -> Text:
    """`37 of 100 tasks done · 4 running · 1 failed`."""
    line = Text(f"{number(job.done)} of {plural(job.total, 'task')} done")
    for count, state in (
        (job.running, "running"),
        (job.queued, "queued"),
        (job.waiting, "waiting"),
        (job.failed, "failed"),
        (job.lost, "lost"),
        (job.cancelled, "cancelled"),
    ):
        if count:
            line.append(f" {look.dot} ")
            line.append(f"{number(count)} {state}", style=STATE_STYLES.get(state, ""))
    return line


def stages_table(look: Look, stages: Sequence[StageView]) -> RenderableType:
    """The stages of a job as a table."""
    rows = []
    for stage in stages:
        bad = stage.failed + stage.lost
        rows.append(
            [
                Text(safe(stage.name)),
                Text(safe(stage.kind)),
                job_bar(look, stage, bar_width(look)),
                Text(done_of(stage)),
                Text(number(stage.running) if stage.running else "", style="cyan"),
                Text(number(stage.queued) if stage.queued else ""),
                Text(number(stage.waiting) if stage.waiting else ""),
                Text(number(bad) if bad else "", style="bold red"),
                Text(duration(stage.mean_ms / 1000) if stage.mean_ms else ""),
                Text(", ".join(safe(need) for need in stage.needs)),
            ]
        )
    return listing(look, _STAGE_COLUMNS, rows)


def troubled_table(look: Look, tasks: Sequence[TaskView | TaskResult]) -> RenderableType:
    """Tasks that failed or wait, each with its reason."""
    rows = []
    for task in tasks:
        where = ""
        if isinstance(task, TaskView) and task.attempts:
            where = safe(task.attempts[-1].device_name)
        rows.append(
            [
                Text(task.id),
                Text(safe(task.stage)),
                look.state(task.state),
                Text(where),
                Text(safe(task.reason)),
            ]
        )
    columns = (
        Column("Task"),
        Column("Stage", least=6, rank=3),
        Column("State"),
        Column("Device", least=8, rank=2),
        Column("Why", least=20),
    )
    return listing(look, columns, rows)


def task_screen(look: Look, task: TaskView) -> RenderableType:
    """One task and its attempts."""
    parts: list[RenderableType] = [
        Text.assemble((f"Task {task.id}", "bold"), f"  stage {safe(task.stage)}  ", look.state(task.state)),
    ]
    if task.item is not None:
        parts.append(Text(f"Item {safe(str(task.item))}"))
    if task.reason:
        parts.append(Text(sentence(task.reason), style=STATE_STYLES.get(task.state, "")))
    rows = []
    for attempt in task.attempts:
        ran = attempt.ended_ms - attempt.started_ms if attempt.ended_ms and attempt.started_ms else 0
        rows.append(
            [
                Text(str(attempt.number), justify="right"),
                Text(safe(attempt.device_name)),
                look.state(attempt.state),
                Text(duration(ran / 1000) if ran > 0 else ""),
                Text(f"{attempt.permille / 10:.0f}%" if attempt.permille else ""),
                Text(safe(attempt.blame)),
                Text(safe(attempt.reason or attempt.note)),
            ]
        )
    columns = (
        Column("Try", right=True),
        Column("Device", least=10),
        Column("State"),
        Column("Ran", right=True, rank=3),
        Column("Progress", right=True, rank=2),
        Column("Blame", rank=4),
        Column("Why", least=20, rank=1),
    )
    if rows:
        parts += [Text(""), listing(look, columns, rows)]
    return Group(*parts)


def _advice(job: JobView, troubled: Sequence[TaskView | TaskResult]) -> list[RenderableType]:
    bad = [task for task in troubled if task.state in {"failed", "lost"}]
    if bad:
        return [
            commands(
                (f"sparegrid logs {bad[0].id}", "what it printed"),
                (f"sparegrid retry {job.id} --failed", "tries the failed tasks again"),
            )
        ]
    if job.state == "done":
        return [commands((f"sparegrid results {job.id} -o DIR", "fetches the files it left behind"))]
    if job.state == "active" and not job.running:
        return [commands((f"sparegrid explain {job.id}", "why nothing runs"))]
    return []
