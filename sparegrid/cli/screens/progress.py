"""A job's progress while somebody waits for it: one line a stage, redrawn in place."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.text import Text

from sparegrid.api import JobView
from sparegrid.cli.screens.jobs import counts_line, done_of, job_bar, job_time, time_left
from sparegrid.cli.screens.look import Look, facts
from sparegrid.cli.wording import safe

_BAR_WIDTH = 40
_NAME_WIDTH = 16


def progress_lines(look: Look, job: JobView) -> RenderableType:
    """Bars of the stages that have tasks, then the counts."""
    lines: list[RenderableType] = []
    width = max(10, min(_BAR_WIDTH, look.width - _NAME_WIDTH - 20))
    names = [Text(safe(stage.name)) for stage in job.stages]
    longest = min(_NAME_WIDTH, max((name.cell_len for name in names), default=0))
    for stage, name in zip(job.stages, names, strict=True):
        name.truncate(longest, overflow="ellipsis" if look.unicode else "crop", pad=True)
        lines.append(Text.assemble(name, "  ", job_bar(look, stage, width), f"  {done_of(stage)}"))
    last = counts_line(look, job)
    times = facts(look, job_time(look, job), f"{time_left(job)} left" if time_left(job) else "")
    whole = Text.assemble(last, f" {look.dot} ", times)
    if whole.cell_len <= look.width:
        return Group(*lines, whole)
    last.truncate(look.width, overflow="ellipsis" if look.unicode else "crop")
    return Group(*lines, last, times)
