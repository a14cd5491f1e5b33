"""The story of a task in words, for errors and explanations."""

from __future__ import annotations

from coordinator.scheduler.state import STATES, Past, Stage


def tell_task(stage: Stage, index: int) -> str:
    """One line: what the task is, and what happened to it."""
    if not 0 <= index < stage.total:
        return f"task {stage.ref(index)} does not exist: stage {stage.spec.name} has {stage.total} tasks"
    parts = [f"task {stage.ref(index)} ({stage.spec.name}) is {STATES[stage.states[index]]}"]
    parts += [tell_past(past) for past in stage.story.get(index, ())]
    parts += [
        f"attempt {one.id} on {one.device.name} since {one.assigned_ms} ms"
        for one in stage.attempts_of(index)
    ]
    if index in stage.queue:
        parts.append("waiting for a device")
    return "; ".join(parts)


def tell_past(past: Past, device_name: str = "") -> str:
    """One ended attempt."""
    blame = f" (blame: {past.blame})" if past.blame else ""
    return f"try {past.number} on {device_name or past.device}: {past.reason}{blame}"
