"""Turns AssignTasks into Template and Assign: each task's item, its own files, and the files of the tasks it needs.

What the scheduler alone knows is taken while it is in the state that assigned; outcomes of needed tasks are read from
the store afterwards, in a thread, because they may be in the very commit that the assignment waits for. Files of `all`
needs are the same for every task of a stage and travel once, in its Template.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple, Protocol

import msgspec

from coordinator.scheduler.effects import AssignTasks
from coordinator.scheduler.events import AttemptEnded
from coordinator.scheduler.machine import Machine
from coordinator.server.links import Link, Parcel
from coordinator.server.placing import Found, place
from coordinator.server.refs import file_of_value
from sparegrid.api import Need, Requires, StageSpec
from sparegrid.codec import MAX_FRAME_BYTES
from sparegrid.errors import GridError, NotFoundError, TooLargeError
from sparegrid.globs import matching
from sparegrid.ids import AttemptId, DeviceId, JobId, StageIndex, TaskIndex
from sparegrid.messages import Assign, Blame, FileEntry, Needed, Outcome, Run, Template

log = logging.getLogger("sparegrid.coordinator.expand")

MAX_FILES = 50_000
"""Files that one task may get from the tasks it needs."""
MAX_MESSAGE_BYTES = MAX_FRAME_BYTES - (1 << 20)
"""Of a Template or of one run: a frame has room for it."""
MAX_SHARED_BYTES = 10 << 20
"""Of the files in a Template that come from needed tasks; a submission leaves this much room."""
MAX_GAP = 16
CACHED_STAGES = 16


class Outcomes(Protocol):
    """Accepted outcomes, readable from any thread."""

    def files(
        self, job: JobId, stage: StageIndex, first: TaskIndex, limit: int
    ) -> list[tuple[int, list[FileEntry]]]:
        """(index, output files) of the done tasks among `limit` indices from `first`."""


class _Wanted(NamedTuple):
    """A run whose files are still to be found."""

    run: Run
    ranges: list[tuple[Need, StageIndex, range]]
    source: tuple[StageIndex, TaskIndex, int] | None


class _Order(NamedTuple):
    """All that must be looked up for one AssignTasks."""

    job: JobId
    stage: StageIndex
    spec: StageSpec
    template: Template | None
    shared: list[tuple[Need, StageIndex, range]]
    wanted: list[_Wanted]


class Expander:
    """Expands assignments.

    Args:
        machine: asked in `expand` only.
        outcomes: read in threads.
        spawn: runs a coroutine that somebody owns.
        give_up: called with the end of each attempt whose inputs cannot be put together.
    """

    def __init__(
        self,
        machine: Machine,
        outcomes: Outcomes,
        spawn: Callable[[Any], object],
        give_up: Callable[[AttemptEnded], object],
    ) -> None:
        self._machine = machine
        self._outcomes = outcomes
        self._spawn = spawn
        self._give_up = give_up
        self._shared: OrderedDict[tuple[JobId, StageIndex], list[FileEntry]] = OrderedDict()

    def expand(self, effect: AssignTasks, link: Link) -> Parcel | list[Any]:
        """The messages, or a parcel that `begin` fills once the effect's cause is durable.

        What cannot be expanded fails its attempts as their task's fault: the assignment is durable and would come
        back after every start, so it must end, and never the process.
        """
        try:
            return self._expand(effect, link)
        except Exception as error:  # the boundary of one assignment
            log.exception("job %d stage %d cannot be assigned", effect.job, effect.stage)
            link.templates.discard((effect.device, int(effect.job), int(effect.stage)))
            for allot in effect.allots:
                for k in range(allot.count):
                    index, attempt = TaskIndex(allot.index + k), AttemptId(allot.attempt + k)
                    self._give_up(_given_up(effect, index, attempt, _in_words(error)))
            return []

    def _expand(self, effect: AssignTasks, link: Link) -> Parcel | list[Any]:
        job, stage, device = effect.job, effect.stage, effect.device
        spec = self._machine.stage_spec(job, stage)
        template: Template | None = None
        key = (device, int(job), int(stage))
        if key not in link.templates:
            link.templates.add(key)
            template = self._template(spec, effect)
            _check_size("its template", template, MAX_MESSAGE_BYTES)
        runs = self._runs(effect)
        if spec.items.stage is None and not any(need.files for need in spec.needs):
            assign = Assign(device=device, job=job, stage=stage, runs=runs)
            return [assign] if template is None else [template, assign]
        return self._order(effect, spec, template, runs)

    def begin(self, parcel: Parcel) -> None:
        """Look up what a parcel of `expand` still misses."""
        assert isinstance(parcel, _OrderParcel)
        self._spawn(self._fill(parcel))

    def forget(self, job: JobId) -> None:
        """The job has ended: drop what is cached for it."""
        for key in [key for key in self._shared if key[0] == job]:
            del self._shared[key]

    # ---- while the machine is in the state that assigned --------------------------------------------------------

    def _runs(self, effect: AssignTasks) -> list[Run]:
        item_of = self._machine.item
        job, stage = effect.job, effect.stage
        runs: list[Run] = []
        for allot in effect.allots:
            for k in range(allot.count):
                index = TaskIndex(allot.index + k)
                item, files = split_item(item_of(job, stage, index))
                runs.append(Run(allot.attempt + k, index, item, files, allot.checkpoint, allot.number))
        return runs

    def _template(self, stage: StageSpec, effect: AssignTasks) -> Template:
        job = self._machine.job_view(effect.job)
        return Template(
            device=effect.device,
            job=effect.job,
            stage=effect.stage,
            kind=stage.kind,
            params=msgspec.Raw(msgspec.msgpack.encode(stage.params)),
            job_name=job.name,
            stage_name=stage.name,
            inputs=stage.inputs,
            outputs=stage.outputs,
            needed=needed_of(stage.requires),
            timeout_ms=round(stage.timeout_s * 1000),
            checkpoint_signal=stage.checkpoint_signal,
            checkpoint_glob=stage.checkpoint_files,
            grace_ms=round(stage.grace_s * 1000),
            network=stage.requires.network,
            restartable=stage.restartable,
            service=stage.service,
            submitter=job.submitter,
        )

    def _order(
        self, effect: AssignTasks, spec: StageSpec, template: Template | None, runs: list[Run]
    ) -> _OrderParcel:
        shared: list[tuple[Need, StageIndex, range]] = []
        wanted: list[_Wanted] = []
        for number, run in enumerate(runs):
            index = TaskIndex(run.index)
            needed = self._machine.needed_tasks(effect.job, effect.stage, index)
            if number == 0:
                shared = [each for each in needed if each[0].map == "all" and each[0].files]
            source = None
            if spec.items.stage is not None:
                source = self._machine.source_of(effect.job, effect.stage, index)
            own = [each for each in needed if each[0].map != "all" and each[0].files]
            wanted.append(_Wanted(run, own, source))
        return _OrderParcel(effect, _Order(effect.job, effect.stage, spec, template, shared, wanted))

    # ---- in a thread, after the commit --------------------------------------------------------------------------

    async def _fill(self, parcel: _OrderParcel) -> None:
        order = parcel.order
        try:
            parcel.fill(await asyncio.to_thread(self._look_up, parcel.effect.device, order))
        except Exception as error:  # the boundary of one assignment: what waits behind the parcel must leave
            log.warning(
                "inputs of job %d stage %d cannot be put together: %s",
                order.job,
                order.stage,
                error,
                exc_info=not isinstance(error, GridError),
            )
            parcel.fill([] if order.template is None else [order.template])
            for wanted in order.wanted:
                index, attempt = TaskIndex(wanted.run.index), AttemptId(wanted.run.attempt)
                self._give_up(_given_up(parcel.effect, index, attempt, _in_words(error)))

    def _look_up(self, device: DeviceId, order: _Order) -> list[Any]:
        shared = self._shared_files(order)
        messages: list[Any] = []
        if order.template is not None:
            messages.append(msgspec.structs.replace(order.template, inputs=[*order.spec.inputs, *shared]))
        taken = [entry.path for entry in (*order.spec.inputs, *shared)]
        tasks: list[tuple[StageIndex, Iterable[int]]] = [
            (stage, indices) for wanted in order.wanted for _, stage, indices in wanted.ranges
        ]
        tasks += [
            (wanted.source[0], [wanted.source[1]]) for wanted in order.wanted if wanted.source is not None
        ]
        lookup = _Lookup(self._outcomes, order.job, tasks)
        runs: list[Run] = []
        for run, ranges, source in order.wanted:
            if source is not None:
                entry = lookup.item_file(source, order.spec)
                run.item, run.files = {"file": entry.path}, [entry]
            found = lookup.found(ranges)
            if found:
                own = [entry.path for entry in run.files or ()]
                run.files = [*(run.files or ()), *place(found, [*taken, *own])]
                _check_size(f"task {run.index} with its files", run, MAX_MESSAGE_BYTES)
            runs.append(run)
        messages.append(Assign(device=device, job=order.job, stage=order.stage, runs=runs))
        return messages

    def _shared_files(self, order: _Order) -> list[FileEntry]:
        if not order.shared:
            return []
        key = (order.job, order.stage)
        files = self._shared.get(key)
        if files is None:
            lookup = _Lookup(self._outcomes, order.job, [(stage, tasks) for _, stage, tasks in order.shared])
            found = lookup.found(order.shared)
            files = place(found, [entry.path for entry in order.spec.inputs])
            _check_size("what every task gets from the tasks it needs", files, MAX_SHARED_BYTES)
            self._shared[key] = files
            while len(self._shared) > CACHED_STAGES:
                self._shared.popitem(last=False)
        return files


class _OrderParcel(Parcel):
    """A parcel and what must be looked up for it."""

    def __init__(self, effect: AssignTasks, order: _Order) -> None:
        super().__init__()
        self.effect = effect
        self.order = order


class _Lookup:
    """Output files of needed tasks, read in as few spans as their indices allow."""

    def __init__(
        self, outcomes: Outcomes, job: JobId, tasks: Iterable[tuple[StageIndex, Iterable[int]]]
    ) -> None:
        wanted: dict[StageIndex, set[int]] = {}
        for stage, indices in tasks:
            wanted.setdefault(stage, set()).update(indices)
        self._job = job
        self._rows: dict[StageIndex, dict[int, list[FileEntry]]] = {}
        for stage, found in wanted.items():
            rows = self._rows.setdefault(stage, {})
            for first, last in spans(found):
                rows.update(outcomes.files(job, stage, TaskIndex(first), last - first + 1))

    def found(self, ranges: Iterable[tuple[Need, StageIndex, range]]) -> list[Found]:
        """The files that these needs name, in order of need, task and path."""
        found: list[Found] = []
        for need, stage, tasks in ranges:
            rows = self._rows[stage]
            for index in tasks:
                found.extend(
                    Found(stage, index, need.into, entry)
                    for entry in matching(rows.get(index, ()), need.files)
                )
                if len(found) > MAX_FILES:
                    raise TooLargeError(
                        "Too many input files",
                        f"the tasks it needs left more than {MAX_FILES} files",
                        "Pack them in an earlier stage, or narrow the need's `files`",
                    )
        return found

    def item_file(self, source: tuple[StageIndex, TaskIndex, int], spec: StageSpec) -> FileEntry:
        """The output file that is the task's item."""
        stage, index, ordinal = source
        glob = spec.items.stage.files if spec.items.stage is not None else "**"
        files = matching(self._rows[stage].get(index, ()), glob)
        if ordinal >= len(files):
            raise NotFoundError(
                "The item's file is gone",
                f"task {self._job}.{stage}.{index} left {len(files)} matching files",
            )
        return files[ordinal]


def spans(indices: Iterable[int]) -> list[tuple[int, int]]:
    """Indices as few inclusive ranges; a gap of up to MAX_GAP is read along, which costs less than another query."""
    found: list[tuple[int, int]] = []
    for index in sorted(indices):
        if found and index <= found[-1][1] + MAX_GAP:
            found[-1] = (found[-1][0], index)
        else:
            found.append((index, index))
    return found


def needed_of(requires: Requires) -> Needed:
    """The resources of one task, as a worker books them."""
    return Needed(
        milli_cpus=max(1, round(requires.cpus * 1000)),
        memory=requires.memory,
        disk=requires.disk,
        gpus=requires.gpus,
        vram=requires.vram,
        counts=requires.counts,
    )


def split_item(item: Any) -> tuple[Any, list[FileEntry] | None]:
    """An item as a task sees it, and the file it carries: `{"file": FileEntry}` becomes `{"file": its path}`."""
    if type(item) is not dict or "file" not in item:
        return item, None
    entry = file_of_value(item["file"])
    if entry is None:
        return item, None
    return {**item, "file": entry.path}, [entry]


def _check_size(what: str, message: object, limit: int) -> None:
    """Raise what encoding raises, or TooLargeError for what no frame has room for."""
    size = len(msgspec.msgpack.encode(message))
    if size > limit:
        raise TooLargeError(
            "Too large to be sent",
            f"{what} has {size} bytes; {limit} is the limit",
            "Put large inputs into files of more than 8 KiB each: they travel as blobs",
        )


def _in_words(error: Exception) -> str:
    return str(error) if isinstance(error, GridError) else f"{type(error).__name__}: {error}"


def _given_up(effect: AssignTasks, index: TaskIndex, attempt: AttemptId, reason: str) -> AttemptEnded:
    return AttemptEnded(
        device=effect.device,
        job=effect.job,
        stage=effect.stage,
        index=index,
        attempt=attempt,
        blame=Blame.TASK,
        reason=f"its inputs cannot be put together: {reason}",
        outcome=Outcome(),
        unstarted=False,
    )
