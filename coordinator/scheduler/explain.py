"""Why a task waits, why a job waits, why a device idles: in plain words, from the state as it is."""

from __future__ import annotations

from coordinator.scheduler.fairness import tasks_before
from coordinator.scheduler.jobs import job_state
from coordinator.scheduler.needs import Verdict, needed_range, verdict_of
from coordinator.scheduler.placement import benched, credit
from coordinator.scheduler.requirements import concurrency, fits, grid_has
from coordinator.scheduler.state import (
    DONE,
    QUEUED,
    STARTED,
    STATES,
    WAITING,
    Device,
    Job,
    Stage,
    World,
)
from coordinator.scheduler.story import tell_past
from coordinator.scheduler.views import device_name, device_reason, device_state, job_reason, task_reason
from sparegrid.api import Explanation
from sparegrid.messages import DeviceState
from sparegrid.states import JobState

_LINES = 8
ENDED = {"done": "it is done", "failed": "it failed", "cancelled": "it was cancelled", "lost": "it was lost"}
"""How a job or task that has ended is told of."""


def told(subject: str, summary: str, details: list[str]) -> Explanation:
    """An explanation whose summary begins as a sentence does; details may begin with a device's name."""
    return Explanation(subject, summary[:1].upper() + summary[1:], details)


def explain_task(world: World, stage: Stage, index: int) -> Explanation:
    """Why the task is where it is; the first line is the answer."""
    return told(f"task {stage.ref(index)}", *_task_lines(world, stage, index))


def _task_lines(world: World, stage: Stage, index: int) -> tuple[str, list[str]]:
    """The answer, and more."""
    state = stage.states[index]
    details = [tell_past(past, device_name(world, past.device)) for past in stage.story.get(index, ())]
    if state > DONE:
        summary = (
            f"{ENDED[STATES[state]]}: {task_reason(world, stage, index) or 'its story is in the results'}"
        )
    elif state == DONE:
        summary = ENDED["done"]
    elif state == WAITING:
        summary, more = _waits(stage, index)
        details += more
    elif stage.live.get(index) is not None:
        summary, more = _lives(world, stage, index)
        details += more
    else:
        summary, more = _queued(world, stage, index)
        details += more
    return summary, details


def explain_job(world: World, job: Job) -> Explanation:
    """Why the job is not done; one line a stage that has something to say."""
    state = job_state(job)
    details: list[str] = []
    for stage in job.order:
        counts = [f"{n} {STATES[at]}" for at, n in enumerate(stage.counts) if n]
        line = f"stage {stage.spec.name}: {', '.join(counts) or 'no tasks yet'}"
        index = stage.queue.peek() if stage.queue.count else stage.states.find(WAITING)
        if index >= 0 and stage.states[index] in {WAITING, QUEUED}:
            line += f"; task {stage.ref(index)}: {_task_lines(world, stage, index)[0]}"
        elif stage.broken:
            line += f"; {stage.broken}"
        details.append(line)
    if state == JobState.ACTIVE:
        running = sum(1 for stage in job.stages for one in stage.live.values() if one.state == STARTED)
        summary = f"{running} of its {_several(job.unfinished, 'unfinished task')} {_runs(running)}"
        first = next((stage for stage in job.order if stage.queue.count), None)
        if not running and first is not None:
            summary = _task_lines(world, first, first.queue.peek())[0]
        elif job.ending:
            summary += f"; {_several(job.ending, 'attempt')} {_are(job.ending)} being stopped"
    elif state == JobState.OPEN:
        summary = "open: it waits for more items, or to be closed"
    elif job.ending:
        summary = f"{ENDED[state]}; {_several(job.ending, 'attempt')} {_are(job.ending)} still being stopped"
    else:
        reason = job_reason(world, job)
        summary = f"{ENDED[state]}: {reason}" if reason else ENDED[state]
    return told(f"job {job.id}", summary, details)


def explain_device(world: World, device: Device) -> Explanation:
    """What the device does, or why it idles."""
    state = device_state(device)
    reason = device_reason(device)
    live = len(device.live)
    rest = live - device.running
    details = []
    if live:
        details.append(
            f"{_several(device.running, 'attempt')} {_runs(device.running)},"
            f" {_several(rest, 'other')} {_are(rest)} waiting there or suspended"
        )
    if state in {DeviceState.OFFLINE, DeviceState.PAUSED, DeviceState.DRAINING}:
        summary = f"{state}: {reason}" if reason else str(state)
        if state == DeviceState.OFFLINE and device.lease_until_ms and live:
            left = max(0, device.lease_until_ms - world.now_ms)
            details.append(
                f"its {_several(live, 'attempt')} {_are(live)} given to others in {left / 1000:.0f} s"
            )
        return told(f"device {device.name}", summary, details + device.capability.notes)
    waiting = [stage for job in world.jobs.values() for stage in job.stages if stage.queue.count]
    unfit: list[str] = []
    for stage in waiting:
        why = _why_not(world, stage, device)
        if why:
            unfit.append(f"stage {stage.spec.name} of job {stage.job.id} ({stage.queue.count} queued): {why}")
    if device.running:
        summary = f"computing: {_several(device.running, 'attempt')} {_runs(device.running)}"
    elif live:
        summary = f"{_several(live, 'attempt')} {_are(live)} assigned and about to start"
    elif not waiting:
        summary = "ready: no task is queued"
    elif len(unfit) == len(waiting):
        summary = "ready, but no queued task suits it: " + unfit[0].split(": ", 1)[1]
    else:
        summary = "ready"
    return told(f"device {device.name}", summary, [*details, *unfit[:_LINES], *device.capability.notes])


def _waits(stage: Stage, index: int) -> tuple[str, list[str]]:
    """Which needs are not met."""
    lines: list[str] = []
    for link in stage.needs:
        if verdict_of(link, index) is not Verdict.WAIT:
            continue
        tasks = needed_range(link, index)
        left = len(tasks) - link.up.states.count(DONE, tasks.start, tasks.stop)
        name = link.up.spec.name
        if left:
            lines.append(f"waits for {_several(left, 'task')} of stage {name}")
        elif not link.up.final:
            lines.append(f"waits until the number of tasks of stage {name} is known")
        else:
            lines.append(f"waits for stage {name}")
    return (lines[0] if lines else "waits for its needs"), lines[1:]


def _lives(world: World, stage: Stage, index: int) -> tuple[str, list[str]]:
    lines = []
    for attempt in stage.attempts_of(index):
        name = attempt.device.name
        since = (world.now_ms - (attempt.started_ms or attempt.assigned_ms)) / 1000
        if not attempt.device.attached:
            left = max(0, attempt.device.lease_until_ms - world.now_ms) / 1000
            lines.append(f"on {name}, which is not connected; given to another in {left:.0f} s")
        elif attempt.state == STARTED:
            note = f", {attempt.permille / 10:g} % done" if attempt.permille else ""
            lines.append(f"runs on {name} for {since:.0f} s{note}")
        elif attempt.booked:
            lines.append(f"assigned to {name} {since:.0f} s ago, about to start")
        else:
            lines.append(f"waits on {name} behind {_several(len(attempt.device.live) - 1, 'other')}")
    return lines[0], lines[1:]


def _queued(world: World, stage: Stage, index: int) -> tuple[str, list[str]]:
    """Why no device has taken it."""
    cls = stage.cls
    devices = list(world.devices.values())
    present = [device for device in devices if device.attached]
    if not devices:
        return "no device has joined the grid", []
    lacking = _lacking(stage, devices)
    if not any(all(test(device) for _, test in cls.wishes) for device in devices):
        first = lacking[0] if lacking else "no device meets all requirements together"
        return first, lacking[1:]
    if not present:
        return "no device is connected", [
            f"{device.name}: {device_reason(device)}" for device in devices[:_LINES]
        ]
    suitable = list(cls.devices)
    if not suitable:
        return "the devices that suit are not connected", [
            f"{device.name}: {device_reason(device)}" for device in devices if cls.suits(device)
        ][:_LINES] + lacking
    reasons = {device: _why_not(world, stage, device, index) for device in suitable}
    excluded = [device for device in suitable if index in stage.excluded_on.get(device.id, {})]
    lines = [f"{device.name}: {why}" for device, why in reasons.items() if why]
    if len(excluded) == len(suitable):
        one = excluded[0]
        why = f"excluded on {one.name} after: {stage.excluded_on[one.id][index]}"
        return why + (f" (and on {len(excluded) - 1} more)" if len(excluded) > 1 else ""), lines[:_LINES]
    if not grid_has(world, cls):
        names = [
            f"{world.grid_used.get(name, 0)} of {world.limits.counts[name]} {name}"
            for name in cls.grid_counts
        ]
        return f"waits for a grid-wide count: {', '.join(names)} are taken", lines[:_LINES]
    accepting = [device for device in suitable if device.accepting and device not in excluded]
    if not accepting:
        if len(suitable) == 1:
            return f"the only suitable device, {suitable[0].name}, is paused", lines[:_LINES]
        return f"all {len(suitable)} suitable devices are paused or excluded", lines[:_LINES]
    ahead = tasks_before(stage, cls) + sum(1 for at in _queued_before(stage, index))
    count = len(accepting)
    busy = (
        f"all {count} suitable devices are busy"
        if count > 1
        else f"the only suitable device, {accepting[0].name}, is busy"
    )
    if any(not reasons[device] for device in accepting):
        busy = "about to be assigned"
    order = f"{_several(ahead, 'task')} {_are(ahead)} ahead" if ahead else "this is the next task"
    return f"{busy}; {order}", lines[:_LINES]


def _queued_before(stage: Stage, index: int) -> range:
    """As many numbers as there are queued tasks of the stage before this one."""
    before = (
        sum(1 for at in range(index) if at in stage.queue)
        if index < 100_000
        else min(index, stage.queue.count)
    )
    return range(before)


def _lacking(stage: Stage, devices: list[Device]) -> list[str]:
    """Requirements that some device does not meet, the rarest first."""
    lines: list[tuple[int, int, str]] = []
    for at, (text, test) in enumerate(stage.cls.wishes):
        have = sum(1 for device in devices if test(device))
        if have < len(devices):
            verb = "has it" if have == 1 else "have it"
            lines.append(
                (have, at, f"needs a device that {text}; {have} of {_several(len(devices), 'device')} {verb}")
            )
    return [line for _, _, line in sorted(lines)]


def _why_not(world: World, stage: Stage, device: Device, index: int | None = None) -> str:
    """Why this device has not taken a queued task of the stage; empty when nothing stands against it."""
    cls = stage.cls
    for text, test in cls.wishes:
        if not test(device):
            return f"is not a device that {text}"
    if not device.accepting:
        return f"{device_state(device)}: {device_reason(device)}"
    if index is not None and index in stage.excluded_on.get(device.id, {}):
        return f"excluded after: {stage.excluded_on[device.id][index]}"
    if benched(world, stage, device):
        bench = device.benches[stage]
        left = (bench.until_ms - world.now_ms) / 1000
        return f"sits out for {left:.0f} s after {bench.strikes} endings in a row: {bench.reason}"
    if device.blocked or not fits(device, cls):
        most = credit(world.limits, stage, concurrency(device, cls))
        return f"busy: {device.running} {_runs(device.running)}, {device.ahead_count} of {most} ahead wait"
    return ""


def _several(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def _are(count: int) -> str:
    return "is" if count == 1 else "are"


def _runs(count: int) -> str:
    return "runs" if count == 1 else "run"
