"""Views of jobs, tasks and devices, whether the scheduler holds them or the store. Knows who may see what.

Views of what is in memory may be newer than the last commit: callers that show them to anybody wait for
`Driver.settled` or hand them over by `Driver.after_commit`.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence

import msgspec

from coordinator.scheduler.machine import Machine
from coordinator.server.auth import Principal
from coordinator.server.links import Links
from coordinator.server.store import Kept, Store
from sparegrid.api import AttemptView, DeviceView, JobSpec, JobView, Revision, TaskPage, TaskView
from sparegrid.errors import BadInputError, NotFoundError
from sparegrid.ids import DeviceId, JobId, StageIndex, TaskIndex, TaskRef
from sparegrid.messages import Blame
from sparegrid.states import AttemptState, TaskState

KEPT_VIEWS = 512
STATES = tuple(TaskState)
_ENDED = frozenset({TaskState.DONE, TaskState.FAILED, TaskState.CANCELLED, TaskState.LOST})


class Views:
    """Builds views, each with its revision."""

    def __init__(
        self, machine: Machine, store: Store, links: Links, epoch: int, settled: Callable[[], Awaitable[None]]
    ) -> None:
        self._machine = machine
        self._store = store
        self._links = links
        self._epoch = epoch
        self._settled = settled
        self._n = 0
        self._job_n: dict[JobId, int] = {}
        self._device_n: dict[DeviceId, int] = {}
        self._retired: OrderedDict[JobId, JobView] = OrderedDict()

    # ---- revisions --------------------------------------------------------------------------------------------

    @property
    def revision(self) -> Revision:
        """Of all that is shown now."""
        return Revision(self._epoch, self._n)

    def job_changed(self, job: JobId) -> None:
        """Its next view is newer than those before."""
        self._n += 1
        self._job_n[job] = self._n

    def device_changed(self, device: DeviceId) -> None:
        """Its next view is newer than those before."""
        self._n += 1
        self._device_n[device] = self._n

    def retire(self, job: JobId, view: bytes) -> None:
        """The job's last view, for those who look at it soon after."""
        self._retired[job] = msgspec.json.decode(view, type=JobView)
        while len(self._retired) > KEPT_VIEWS:
            old, _ = self._retired.popitem(last=False)
            self._job_n.pop(old, None)

    def forget(self, job: JobId) -> str:
        """The job was removed; whose it was, empty when that is not known any more."""
        self._n += 1
        self._job_n.pop(job, None)
        view = self._retired.pop(job, None)
        return "" if view is None else view.submitter

    # ---- jobs -------------------------------------------------------------------------------------------------

    def job_now(self, job: JobId) -> JobView | None:
        """The view of a job in memory, or that left it lately; None for others. Never touches the disk."""
        if self._machine.has_job(job):
            view = self._machine.job_view(job)
        elif job in self._retired:
            view = self._retired[job]
        else:
            return None
        view.revision = Revision(self._epoch, self._job_n.get(job, 0))
        return view

    async def job(self, job: JobId, principal: Principal) -> JobView:
        """The view of any job.

        Raises:
            NotFoundError: there is none, or the principal may not see it, which looks the same.
        """
        view = self.job_now(job) or await asyncio.to_thread(self._store.finished_view, job)
        if view is None or not principal.sees(view.submitter):
            raise NotFoundError("No such job", f"There is no job {job}", "`sparegrid jobs` lists them")
        return view

    async def spec(self, job: JobId, principal: Principal) -> JobSpec:
        """The job as it was submitted. Raises NotFoundError as `job` does."""
        await self.job(job, principal)
        if self._machine.has_job(job):
            return self._machine.spec(job)
        await self._settled()
        return await asyncio.to_thread(self._store.spec, job)

    async def jobs(
        self, principal: Principal, states: Sequence[str] = (), limit: int = 100, after: JobId | None = None
    ) -> list[JobView]:
        """Jobs before `after`, newest first, at most `limit`."""
        live = [job for job in self._machine.jobs() if after is None or job < after]
        views = [view for job in sorted(live, reverse=True) if (view := self.job_now(job)) is not None]
        own = None if principal.sees_all else principal.id
        found = await asyncio.to_thread(self._store.finished_jobs, states, limit, after, own)
        seen = {view.id for view in views}
        views += [row.view for row in found if str(row.job) not in seen]
        chosen = [
            view for view in views if principal.sees(view.submitter) and (not states or view.state in states)
        ]
        chosen.sort(key=lambda view: int(view.id), reverse=True)
        return chosen[:limit]

    # ---- devices ----------------------------------------------------------------------------------------------

    def device(self, device: DeviceId) -> DeviceView:
        """The view of a device. Raises NotFoundError."""
        view = self._machine.device_view(device)
        link = self._links.of(device)
        view.address = "" if link is None else link.address
        view.revision = Revision(self._epoch, self._device_n.get(device, 0))
        return view

    def devices(self) -> list[DeviceView]:
        """All devices, by name."""
        return sorted(
            (self.device(each) for each in self._machine.devices()), key=lambda view: (view.name, view.id)
        )

    # ---- tasks ------------------------------------------------------------------------------------------------

    async def ref(self, job: JobId, stage: str, index: str, principal: Principal) -> TaskRef:
        """A task by its job, its stage's name or number, and its index. Raises NotFoundError."""
        view = await self.job(job, principal)
        number = stage_number(view, stage)
        total = view.stages[number].total
        if not (index.isascii() and index.isdigit() and len(index) <= 10) or int(index) >= total:
            raise NotFoundError(
                "No such task",
                f"Stage {view.stages[number].name!r} of job {job} has tasks 0 to {total - 1}, not {index}",
            )
        return TaskRef(job, number, TaskIndex(int(index)))

    async def task(self, ref: TaskRef) -> TaskView:
        """One task and its attempts, as known."""
        return (await self.tasks_of([ref]))[0]

    async def tasks_of(self, refs: Sequence[TaskRef]) -> list[TaskView]:
        """These tasks of one job and their attempts, as known to the scheduler and the store together."""
        if not refs:
            return []
        if not self._machine.has_job(refs[0].job):
            # It may have left memory an instant ago: it is in the store after the commit.
            await self._settled()
            return await asyncio.to_thread(self._stored_tasks, refs)
        tasks = [self._machine.task_view(ref) for ref in refs]
        ended = [(ref, task) for ref, task in zip(refs, tasks, strict=True) if task.state in _ENDED]
        if ended:
            await asyncio.to_thread(self._add_stored, ended)
        return tasks

    def _add_stored(self, tasks: Sequence[tuple[TaskRef, TaskView]]) -> None:
        """The scheduler forgets the attempts of tasks that are done."""
        for ref, task in tasks:
            known = {attempt.id for attempt in task.attempts}
            kept = self._store.attempts(ref.job, ref.stage, ref.index)
            stored = [self._stored_attempt(each, number) for number, each in enumerate(kept, 1)]
            task.attempts += [attempt for attempt in stored if attempt.id not in known]
            task.attempts.sort(key=lambda attempt: int(attempt.id))

    async def tasks(
        self, view: JobView, stage: StageIndex, first: int, limit: int, state: str = ""
    ) -> TaskPage:
        """A window of a stage's tasks."""
        job = JobId(int(view.id))
        states = await self.states(job, stage)
        wanted: Callable[[int], bool] = (lambda _: True) if not state else _is_state(states, state)
        indices: list[int] = []
        following = -1
        for index in range(first, len(states)):
            if not wanted(index):
                continue
            if len(indices) == limit:
                following = index
                break
            indices.append(index)
        refs = [TaskRef(job, stage, TaskIndex(index)) for index in indices]
        return TaskPage(await self.tasks_of(refs), len(states), following)

    async def states(self, job: JobId, stage: StageIndex) -> bytes:
        """One TaskState ordinal per task."""
        if self._machine.has_job(job):
            return self._machine.task_states(job, stage)
        await self._settled()
        stages = await asyncio.to_thread(self._store.task_states, job)
        return stages[stage] if stage < len(stages) else b""

    def _stored_tasks(self, refs: Sequence[TaskRef]) -> list[TaskView]:
        """Tasks of a retired job: what their kept attempts tell."""
        job = refs[0].job
        view = self._store.finished_view(job)
        states = self._store.task_states(job)
        if view is None:
            raise NotFoundError("No such job", f"There is no job {job}")
        tasks: list[TaskView] = []
        for ref in refs:
            state = STATES[states[ref.stage][ref.index]]
            kept = self._store.attempts(ref.job, ref.stage, ref.index)
            tasks.append(
                TaskView(
                    id=str(ref),
                    stage=view.stages[ref.stage].name,
                    index=ref.index,
                    state=state,
                    attempts=[self._stored_attempt(each, number) for number, each in enumerate(kept, 1)],
                    failures=sum(1 for each in kept if each.blame == Blame.TASK),
                    reason="" if state == TaskState.DONE or not kept else kept[-1].reason,
                )
            )
        return tasks

    def _stored_attempt(self, kept: Kept, number: int) -> AttemptView:
        return AttemptView(
            id=str(kept.attempt),
            device=kept.device,
            device_name=self.device_name(kept.device),
            state=AttemptState.DELIVERED if kept.accepted else AttemptState.ENDED,
            number=number,
            blame=kept.blame,
            reason=kept.reason,
        )

    def device_name(self, device: DeviceId) -> str:
        """Its name, or its id when it is no member any more."""
        try:
            return self._machine.device_view(device).name
        except NotFoundError:
            return device


def stage_number(view: JobView, stage: str) -> StageIndex:
    """A stage by name or number. An empty text is the only stage. Raises NotFoundError."""
    names = [each.name for each in view.stages]
    if stage in names:
        return StageIndex(names.index(stage))
    if not stage and len(names) == 1:
        return StageIndex(0)
    if stage.isascii() and stage.isdigit() and len(stage) < 6 and int(stage) < len(names):
        return StageIndex(int(stage))
    shown = ", ".join(names[:10])
    if not stage:
        raise BadInputError("Which stage", f"Job {view.id} has several: {shown}", "Name one")
    raise NotFoundError("No such stage", f"Job {view.id} has no stage {stage!r}; it has {shown}")


def _is_state(states: bytes, state: str) -> Callable[[int], bool]:
    if state not in STATES:
        raise BadInputError("Not a task state", f"{state!r} is none of {', '.join(STATES)}")
    ordinal = STATES.index(TaskState(state))
    return lambda index: states[index] == ordinal
