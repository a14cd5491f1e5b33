"""How tasks of one stage wait for those of others: releasing, cancelling upstream, and stages made of outputs.

Only `waiting` tasks are decided here, and only from the states of the stages they need; so the same facts give the
same states in any order. Reactions go through a worklist (`World.ripples`), because a job may be 1,000 stages deep.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from enum import IntEnum

from coordinator.scheduler.fairness import list_stage, unlist_stage
from coordinator.scheduler.state import (
    CANCELLED,
    DONE,
    FAILED,
    LOST,
    QUEUED,
    STATE_COUNT,
    WAITING,
    NeedLink,
    Stage,
    World,
)
from sparegrid.ids import StageIndex, TaskIndex

_WAITING_RUNS = re.compile(rb"\x00+")
_BAD = bytes((FAILED, CANCELLED, LOST))


class Verdict(IntEnum):
    """What a task's needs say; the largest of all needs counts."""

    READY = 0
    WAIT = 1
    DOOMED = 2


def set_state(world: World, stage: Stage, index: int, new: int) -> None:
    """Change one task's state, with every count that follows."""
    old = stage.states[index]
    if old == new:
        return
    stage.states[index] = new
    counts = stage.counts
    counts[old] -= 1
    counts[new] += 1
    ended = (new >= DONE) - (old >= DONE)
    if ended:
        stage.unfinished -= ended
        stage.job.unfinished -= ended
        if new == DONE:
            world.done_tasks += 1
    world.marks.task(stage, index, index + 1)


def set_run(world: World, stage: Stage, low: int, high: int, new: int) -> None:
    """The same for a run of tasks."""
    ended = 0
    for old in range(STATE_COUNT):
        held = stage.states.count(old, low, high)
        stage.counts[old] -= held
        ended += held if old >= DONE else 0
    stage.states[low:high] = bytes((new,)) * (high - low)
    stage.counts[new] += high - low
    ended = (high - low if new >= DONE else 0) - ended
    stage.unfinished -= ended
    stage.job.unfinished -= ended
    world.marks.task(stage, low, high)


def add_tasks(world: World, stage: Stage, count: int) -> None:
    """The stage has so many more tasks; their needs say what they wait for."""
    low = stage.total
    if count:
        stage.states.extend(bytes(count))
        stage.counts[WAITING] += count
        stage.unfinished += count
        stage.job.unfinished += count
        stage.queue.grow(stage.total)
        world.marks.task(stage, low, stage.total)
        classify(world, stage, low, stage.total)
        for link in stage.dependents:
            if link.need.map != "all":
                # A dependent that waits for the upstream task of its number may have one now.
                classify(world, link.down)


def classify(world: World, stage: Stage, low: int = 0, high: int | None = None) -> None:
    """Decide the waiting ones of tasks low to high - 1."""
    high = stage.total if high is None else min(high, stage.total)
    if low >= high or not stage.counts[WAITING]:
        return
    whole = max((_of_all(link) for link in stage.needs if link.need.map == "all"), default=Verdict.READY)
    single = [link for link in stage.needs if link.need.map != "all"]
    doomed = whole is Verdict.DOOMED or any(_any_bad(link) or _beyond(link) for link in single)
    if not doomed and (whole is Verdict.WAIT or not all(link.up.counts[DONE] for link in single)):
        return
    runs = [found.span() for found in _WAITING_RUNS.finditer(stage.states, low, high)]
    if whole is Verdict.DOOMED or not single:
        for run in runs:
            _settle(world, stage, *run, whole)
        return
    for run_low, run_high in runs:
        for index in range(run_low, run_high):
            verdict = max(whole, *(_of_one(link, index) for link in single))
            _settle(world, stage, index, index + 1, verdict)


def after_done(world: World, stage: Stage, index: int) -> None:
    """A task is done: release those that needed it."""
    for link in stage.dependents:
        mapping = link.need.map
        if mapping == "same":
            classify(world, link.down, index, index + 1)
        elif mapping == "groups":
            _count_in_group(world, link, index)
    for fed in stage.feeds:
        grow(world, fed)
    if stage.unfinished == 0:
        world.ripples.append((stage, 0, 0))


def after_bad(world: World, stage: Stage, low: int, high: int) -> None:
    """Tasks low to high - 1 failed, were lost or cancelled: their dependents will be."""
    if stage.dependents:
        world.ripples.append((stage, low, high))
    if stage.unfinished == 0:
        world.ripples.append((stage, 0, 0))


def drain(world: World) -> None:
    """Work off the reactions, until nothing follows any more."""
    while world.ripples:
        stage, low, high = world.ripples.popleft()
        if low == high:
            review(world, stage)
            continue
        for link in stage.dependents:
            if link.need.map == "all":
                classify(world, link.down)
            elif link.need.map == "same":
                classify(world, link.down, low, high)
            else:
                classify(world, link.down, low // link.need.size, (high - 1) // link.need.size + 1)


def review(world: World, stage: Stage) -> None:
    """Nothing of the stage is unfinished, or its number of tasks became final: what follows for its dependents?"""
    if stage.complete or stage.unfinished:
        return
    if stage.final and not stage.broken and stage.counts[DONE] == stage.total:
        stage.complete = True
        for fed in stage.feeds:
            grow(world, fed)
            finish_growing(world, fed)
        for link in stage.dependents:
            classify(world, link.down)
    elif stage.broken or stage.final:
        for fed in stage.feeds:
            if not fed.broken and not fed.final:
                break_stage(world, fed, f"stage {stage.spec.name} did not give all its files")
        if stage.broken:
            for link in stage.dependents:
                classify(world, link.down)


def finish_growing(world: World, stage: Stage) -> None:
    """Its number of tasks is final now."""
    if stage.final or stage.broken:
        return
    stage.final = True
    for link in stage.dependents:
        if link.need.map != "all":
            classify(world, link.down)
    world.ripples.append((stage, 0, 0))


def break_stage(world: World, stage: Stage, reason: str) -> None:
    """Its items cannot all be known: those who need the whole of it are cancelled."""
    stage.broken = reason
    world.marks.jobs[stage.job] = None
    world.ripples.append((stage, 0, 0))
    if stage.unfinished:
        for link in stage.dependents:
            classify(world, link.down)


def grow(world: World, stage: Stage) -> None:
    """Make tasks of the files of the source's tasks, as far as these are done without a gap."""
    source = stage.source
    if source is None or stage.broken:
        return
    added = 0
    while len(stage.starts) < source.total and source.states[len(stage.starts)] == DONE:
        upstream = len(stage.starts)
        start = stage.total + added
        count = source.file_counts.get(upstream, 0)
        if added + count + sum(one.total for one in stage.job.stages) > world.limits.max_tasks_per_job:
            break_stage(world, stage, f"its job would have more than {world.limits.max_tasks_per_job} tasks")
            break
        stage.starts.append(start)
        added += count
        hashes = source.large.get(upstream, ())
        if len(hashes) == count:
            for at, name in enumerate(hashes):
                want(stage, start + at, name)
    stage.items.base += added
    add_tasks(world, stage, added)


def source_task(stage: Stage, index: int) -> tuple[StageIndex, TaskIndex, int] | None:
    """Whose file made this task: (stage, upstream task, ordinal of the file among its matching ones)."""
    if stage.source is None:
        return None
    upstream = bisect_right(stage.starts, index) - 1
    return stage.source.index, TaskIndex(upstream), index - stage.starts[upstream]


def needed_range(link: NeedLink, index: int) -> range:
    """Which tasks of the needed stage a task is mapped to."""
    if link.need.map == "all":
        return range(link.up.total)
    if link.need.map == "same":
        return range(index, min(index + 1, link.up.total))
    low = min(index * link.need.size, link.up.total)
    return range(low, min(low + link.need.size, link.up.total))


def verdict_of(link: NeedLink, index: int) -> Verdict:
    """What one need says about a task."""
    return _of_all(link) if link.need.map == "all" else _of_one(link, index)


def want(stage: Stage, index: int, blob: str) -> None:
    """The task alone needs this large blob."""
    stage.task_hashes.setdefault(index, []).append(blob)
    stage.wants.setdefault(blob, []).append(index)


def _settle(world: World, stage: Stage, low: int, high: int, verdict: Verdict) -> None:
    if verdict is Verdict.READY:
        set_run(world, stage, low, high, QUEUED)
        stage.queue.add(low, high)
        list_stage(world, stage)
    elif verdict is Verdict.DOOMED:
        set_run(world, stage, low, high, CANCELLED)
        after_bad(world, stage, low, high)


def _count_in_group(world: World, link: NeedLink, index: int) -> None:
    size = link.need.size
    group = index // size
    expected = min(size, link.up.total - group * size)
    done = link.done_of_group.get(group, 0) + 1
    link.done_of_group[group] = done
    if done >= expected and (expected == size or link.up.final):
        del link.done_of_group[group]
        classify(world, link.down, group, group + 1)


def _of_all(link: NeedLink) -> Verdict:
    if link.up.complete:
        return Verdict.READY
    return Verdict.DOOMED if link.up.broken or _any_bad(link) else Verdict.WAIT


def _of_one(link: NeedLink, index: int) -> Verdict:
    up = link.up
    tasks = needed_range(link, index)
    if not tasks:
        return Verdict.DOOMED if up.final or up.broken else Verdict.WAIT
    low, high = tasks.start, tasks.stop
    if _any_bad(link) and any(up.states.count(bad, low, high) for bad in _BAD):
        return Verdict.DOOMED
    whole = link.need.map == "same" or high - low == link.need.size or up.final
    return Verdict.READY if whole and up.states.count(DONE, low, high) == high - low else Verdict.WAIT


def _any_bad(link: NeedLink) -> bool:
    counts = link.up.counts
    return bool(counts[FAILED] or counts[CANCELLED] or counts[LOST] or link.up.broken)


def _beyond(link: NeedLink) -> bool:
    """Whether `down` has tasks that `up` has none for, and never will."""
    size = 1 if link.need.map == "same" else link.need.size
    return link.up.final and link.down.total > -(-link.up.total // size)


def unlist_if_empty(stage: Stage) -> None:
    """Leave the line when nothing is queued."""
    if not stage.queue.count:
        unlist_stage(stage)
