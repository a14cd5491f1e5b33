"""Do the stages of a job wait for each other in an order that ends? Pure."""

from __future__ import annotations

from sparegrid.api import JobSpec, StageSpec
from sparegrid.errors import BadInputError
from sparegrid.expect import nearest

TITLE = "Not accepted"


def check_graph(spec: JobSpec) -> None:
    """Every needed stage is known, needed once, and no stage waits for itself.

    Raises:
        BadInputError: names the need, or the whole cycle.
    """
    stages = {stage.name: stage for stage in spec.stages}
    for number, stage in enumerate(spec.stages):
        where = f"stages[{number}]"
        seen: set[tuple[str, str, str]] = set()
        for place, need in enumerate(stage.needs):
            _check_known(need.stage, stages, f"{where}.needs[{place}].stage")
            key = (need.stage, need.files, need.into)
            if key in seen:
                raise BadInputError(
                    TITLE, f"{where}.needs[{place}]: the same need of {need.stage!r} is given twice"
                )
            seen.add(key)
        source = stage.items.stage
        if source is not None:
            _check_known(source.stage, stages, f"{where}.items.stage.stage")
            if not stages[source.stage].outputs:
                raise BadInputError(
                    TITLE,
                    f"{where}.items.stage: stage {source.stage!r} keeps no files, so that there would never be an item",
                    "Give that stage `outputs`",
                )
    _check_cycles(spec)


def _check_known(name: str, stages: dict[str, StageSpec], where: str) -> None:
    if name not in stages:
        shown = ", ".join(list(stages)[:10])
        raise BadInputError(
            TITLE, f"{where}: there is no stage {name[:200]!r}; there are {shown}", nearest(name, stages)
        )


def _check_cycles(spec: JobSpec) -> None:
    """Take away stages that wait for nobody left; what remains holds a cycle."""
    waits = {stage.name: _needed(stage) for stage in spec.stages}
    free = [name for name, needed in waits.items() if not needed]
    wanted_by: dict[str, list[str]] = {}
    for name, needed in waits.items():
        for other in needed:
            wanted_by.setdefault(other, []).append(name)
    while free:
        done = free.pop()
        del waits[done]
        for name in wanted_by.get(done, ()):
            waits[name].discard(done)
            if not waits[name]:
                free.append(name)
    if not waits:
        return
    # Going from need to need among the rest must meet a stage again.
    path = [next(iter(waits))]
    while path[-1] not in path[:-1]:
        path.append(min(waits[path[-1]] & waits.keys()))
    cycle = path[path.index(path[-1]) :]
    raise BadInputError(
        TITLE, f"stages wait for each other: {' → '.join(cycle)}", "Take one of these needs away"
    )


def _needed(stage: StageSpec) -> set[str]:
    source = stage.items.stage
    return {need.stage for need in stage.needs} | ({source.stage} if source is not None else set())
