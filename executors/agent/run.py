"""Makes attempts: gives each lane a slot of its job's nursery, runs executors there, turns every end into a message.

It acts where `session` decides. It knows nurseries and executors, nothing of the coordinator: what became of an
attempt goes to its `Listener`.
"""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import signal
from collections.abc import Coroutine, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import msgspec

from executors.agent.nurseries import Nursery, RecalledError, SlotDiedError, SlotHandle
from executors.agent.nursery_pool import NurseryPool
from executors.agent.session import Attempt
from executors.base import AttemptFailedError, Executor
from executors.context import TaskContext
from executors.nursery.folder import size_of
from executors.nursery.protocol import Done, LogPiece, Place, RunCall, RunCommand
from executors.nursery.spawn import signal_name
from executors.nursery.tree import descendants
from sparegrid.messages import Blame, Delivered, Ended, Inline, Outcome, Template

log = logging.getLogger(__name__)

KILL_TIMEOUT_S = 5.0
"""After SIGKILL to a tree: what has not ended then has its slot killed."""
TERM_AFTER_CHECKPOINT_S = 1.0
IDLE_SLOTS_PER_JOB = 8
MAX_OUTPUT_BYTES = (16 << 20) + 1
"""One byte more than a call's log keeps, so that a log that was cut here is told as cut."""
_FOLLOW_EVERY_S = 0.25
_FOLLOW_BYTES = 32 << 10
_LAST_WORDS_BYTES = 8000


class Listener(Protocol):
    """Who is told what became of attempts."""

    def on_finished(self, message: Delivered | Ended) -> None:
        """The attempt has ended, and nothing of it is left."""

    def on_recalled(self, lane: int, attempts: list[int]) -> None:
        """These did not begin; the lane's slot does not know them any more."""

    def on_log(self, attempt: int, offset: int, data: bytes, skipped: int, last: bool) -> None:
        """A piece of a followed log."""


@dataclass(slots=True)
class LaneRun:
    """A lane's slot; which one changes when it dies."""

    job: int
    stage: int
    slot: SlotHandle | None = None


@dataclass(slots=True)
class AttemptRun:
    """An attempt in a lane."""

    attempt: Attempt
    lane: int
    files: list[Place]
    task: asyncio.Task[None] | None = None
    slot: SlotHandle | None = None
    begun: bool = False
    is_call: bool = False
    stop: tuple[Blame, str] | None = None
    stopping: asyncio.Task[None] | None = None


@dataclass(slots=True)
class JobRun:
    """A job's nursery and its idle slots."""

    nursery: Nursery
    submitter: str
    idle: list[SlotHandle] = field(default_factory=list)
    released: bool = False


class Runner:
    """Runs attempts in lanes.

    Args:
        device: its id, for messages.
        executors: by kind.
        folder: for work folders; emptied at the start, since nothing of an earlier run is of use.
        outbox: for large outputs.
        environ: environment of nurseries, and so of tasks.
        listener: is told what became of attempts.
        disk_bytes: what tasks may fill of the disk when they did not say; 0 is not known.
    """

    def __init__(
        self,
        device: str,
        executors: Mapping[str, Executor],
        folder: Path,
        outbox: Path,
        environ: Mapping[str, str],
        listener: Listener,
        disk_bytes: int = 0,
    ) -> None:
        self._device = device
        self._disk_bytes = disk_bytes
        self._executors = executors
        self._folder = folder
        self._outbox = outbox
        self._listener = listener
        self._lanes: dict[int, LaneRun] = {}
        self._jobs: dict[int, JobRun] = {}
        self._runs: dict[int, AttemptRun] = {}
        self._params: dict[int, tuple[Template, Any]] = {}
        self._follows: dict[int, int] = {}
        self._followers: dict[int, asyncio.Task[None]] = {}
        self._background: set[asyncio.Task[None]] = set()
        self._nurseries = NurseryPool(folder, outbox, environ, self._on_piece)
        shutil.rmtree(folder, ignore_errors=True)
        for path in (folder, outbox):
            path.mkdir(parents=True, exist_ok=True, mode=0o700)

    def warm_up(self) -> None:
        """Have a nursery ready for the first job. Raises OSError when none can be started."""
        self._nurseries.warm_up()

    # -- lanes

    def open_lane(self, lane: int, job: int, stage: int) -> None:
        """A lane for a stage of a job; its slot comes with its first attempt."""
        self._lanes[lane] = LaneRun(job, stage)

    def close_lane(self, lane: int) -> None:
        """The lane is empty: its slot idles, or ends when it cannot be used for others."""
        run = self._lanes.pop(lane)
        slot, run.slot = run.slot, None
        if slot is not None:
            self._put_back(run.job, slot)

    def _put_back(self, number: int, slot: SlotHandle) -> None:
        job = self._jobs.get(number)
        if job is None or not slot.alive:
            return
        if slot.worn:
            pass  # It ends by itself.
        elif job.released or len(job.idle) >= IDLE_SLOTS_PER_JOB:
            slot.close()
        else:
            job.idle.append(slot)
        if job.released:
            self._end_job_if_idle(number)

    def _slot_of(self, lane: LaneRun, submitter: str, *, is_call: bool) -> SlotHandle:
        """The lane's slot, or a new one when it has none that can be used. Raises OSError when none starts."""
        slot = lane.slot
        tag = lane.stage if is_call else None
        if slot is not None and slot.alive and not slot.worn and slot.tag in (tag, None):
            slot.tag = tag if is_call else slot.tag
            return slot
        job = self._job(lane.job, submitter)
        # Modules that one stage imported are not for another: its files may have the same names.
        fitting = [
            one for one in job.idle if one.alive and (one.tag == tag or (one.tag is None and not is_call))
        ]
        if fitting:
            slot = fitting[-1]
            job.idle.remove(slot)
        else:
            slot = job.nursery.fork_slot()
        slot.tag = tag
        lane.slot = slot
        return slot

    def _job(self, number: int, submitter: str) -> JobRun:
        job = self._jobs.get(number)
        if job is not None and job.nursery.alive:
            job.released = False
            return job
        if job is not None:
            self._spawn(self._nurseries.end(job.nursery))
        nursery = self._nurseries.take(submitter)
        self._jobs[number] = JobRun(nursery, submitter, [one for one in nursery.slots.values() if one.alive])
        return self._jobs[number]

    def release(self, number: int) -> None:
        """The job is over: its nursery ends when its last lane does."""
        job = self._jobs.get(number)
        if job is not None:
            job.released = True
            self._end_job_if_idle(number)

    def _end_job_if_idle(self, number: int) -> None:
        if any(lane.job == number for lane in self._lanes.values()):
            return
        job = self._jobs.pop(number)
        self._params = {key: kept for key, kept in self._params.items() if kept[0].job != number}
        for slot in job.idle:
            if slot.tag is not None:
                slot.close()
        self._spawn(self._nurseries.put_back(job.nursery, job.submitter))

    # -- attempts

    def start(self, attempt: Attempt, lane: int, files: list[Place]) -> None:
        """Run an attempt in a lane, after those that are in it. `Listener` is told of its end."""
        run = AttemptRun(attempt, lane, files)
        self._runs[attempt.id] = run
        run.task = asyncio.create_task(self._make(run))

    async def _make(self, run: AttemptRun) -> None:
        number = run.attempt.id
        try:
            message = await self._message_of(run)
        except RecalledError:
            if self._runs.pop(number, None) is not None:
                self._listener.on_recalled(run.lane, [number])
            return
        del self._runs[number]
        if run.stopping is not None:
            run.stopping.cancel()
        self._end_following(number, message.outcome)
        self._listener.on_finished(message)

    async def _message_of(self, run: AttemptRun) -> Delivered | Ended:
        attempt, stage = run.attempt, run.attempt.stage
        failure: AttemptFailedError
        try:
            outcome = await self._execute(run)
        except AttemptFailedError as error:
            failure = error
        except SlotDiedError as error:
            failure = self._slot_died(run, error)
        except RecalledError:
            raise
        except asyncio.CancelledError:
            if run.stop is None:
                raise
            failure = AttemptFailedError(*run.stop)
        except OSError as error:
            failure = AttemptFailedError(Blame.DEVICE, f"the task could not be started: {error}")
        except Exception as error:
            # The boundary to plug-ins: whatever an executor raises ends its attempt, not the worker.
            log.exception("the executor of %r failed with attempt %d", stage.kind, attempt.id)
            failure = AttemptFailedError(Blame.DEVICE, f"the executor failed: {error!r}")
        else:
            if run.stop is None:
                return Delivered(self._device, stage.job, stage.stage, attempt.run.index, attempt.id, outcome)
            failure = AttemptFailedError(*run.stop, outcome)
        blame, reason = run.stop or (failure.blame, failure.reason)
        return Ended(
            self._device,
            stage.job,
            stage.stage,
            attempt.run.index,
            attempt.id,
            blame,
            reason,
            failure.outcome,
            failure.checkpoint,
        )

    async def _execute(self, run: AttemptRun) -> Outcome:
        attempt, stage = run.attempt, run.attempt.stage
        executor = self._executors.get(stage.kind)
        if executor is None:
            raise AttemptFailedError(
                Blame.DEVICE, f"this device does not run tasks of the kind {stage.kind!r}"
            )

        async def in_slot(request: RunCommand | RunCall) -> Done:
            run.is_call = isinstance(request, RunCall)
            run.slot = self._slot_of(self._lanes[run.lane], stage.submitter, is_call=run.is_call)
            future = run.slot.submit(request)
            if attempt.id in self._follows:
                self._begin_following(run)
            return await future

        run.begun = True
        ctx = TaskContext(
            attempt.id,
            attempt.run.index,
            attempt.run.item,
            attempt.run.number,
            stage,
            run.files,
            stage.needed.disk or self._disk_bytes,
            in_slot,
        )
        return await executor.run(self._params_of(stage, executor), ctx)

    def _params_of(self, stage: Template, executor: Executor) -> Any:
        """The stage's parameters, decoded once."""
        kept = self._params.get(id(stage))
        if kept is None or kept[0] is not stage:
            try:
                params = msgspec.msgpack.decode(stage.params, type=executor.params)
            except (msgspec.DecodeError, UnicodeDecodeError) as error:
                reason = f"the parameters are not those of this version's {stage.kind!r}: {error}"
                raise AttemptFailedError(Blame.DEVICE, reason) from error
            kept = self._params[id(stage)] = (stage, params)
        return kept[1]

    def _slot_died(self, run: AttemptRun, died: SlotDiedError) -> AttemptFailedError:
        """In words, why the slot's process ended; its last words are the log."""
        if not run.is_call or run.slot is None:
            name = signal_name(died.signal) if died.signal else f"exit code {died.exit_code}"
            return AttemptFailedError(Blame.DEVICE, f"the worker's own process for the task ended: {name}")
        outcome = Outcome(signal=signal_name(died.signal) if died.signal else "")
        outcome.exit_code = None if died.signal else died.exit_code
        if died.signal == signal.SIGKILL:
            reason = "the function's process was ended by SIGKILL: it may have used up the memory"
        elif died.signal:
            reason = f"the function's process was ended by {outcome.signal}"
        else:
            reason = f"the function ended its process with exit code {died.exit_code}"
        words = self._read_output(run.slot, 0, _LAST_WORDS_BYTES)
        if words:
            outcome.log, outcome.log_bytes = Inline(words), len(words)
        return AttemptFailedError(Blame.TASK, reason, outcome)

    def recall(self, lane: int) -> list[int]:
        """Take back what the lane's slot has not begun."""
        run = self._lanes.get(lane)
        waiting = [one for one in self._runs.values() if one.lane == lane and not one.begun]
        taken = run.slot.recall() if run is not None and run.slot is not None else []
        for number in taken:
            self._runs.pop(number, None)
        for one in waiting:
            # Its executor was not called yet.
            assert one.task is not None, "every run has its task"
            one.task.cancel()
            del self._runs[one.attempt.id]
            taken.append(one.attempt.id)
        return taken

    # -- stop and suspend

    def stop(self, number: int, blame: Blame, reason: str) -> None:
        """End an attempt: ask, wait its grace, kill. `Listener` is told when it has ended or never began."""
        run = self._runs.get(number)
        if run is None or run.stop is not None:
            return
        taken = self.recall(run.lane)
        if taken:
            self._listener.on_recalled(run.lane, taken)
        if number in self._runs:
            run.stop = (blame, reason)
            run.stopping = asyncio.create_task(self._end(run))

    async def _end(self, run: AttemptRun) -> None:
        slot, stage, number = run.slot, run.attempt.stage, run.attempt.id
        if slot is None:
            assert run.task is not None, "every run has its task"
            run.task.cancel()
            return
        if not run.is_call:
            grace_s = stage.grace_ms / 1000
            if stage.checkpoint_signal:
                slot.signal(number, getattr(signal, stage.checkpoint_signal), tree=False)
                await asyncio.sleep(grace_s)
                grace_s = TERM_AFTER_CHECKPOINT_S
            slot.signal(number, signal.SIGTERM, tree=True)
            await asyncio.sleep(grace_s)
            slot.kill(number)
            await asyncio.sleep(KILL_TIMEOUT_S)
        # A call runs in the slot's own process, and a slot that does not answer is of no use.
        job = self._jobs.get(stage.job)
        if job is not None and slot.alive:
            job.nursery.kill_slot(slot)

    async def suspend(self, *, on: bool) -> None:
        """Stop every lane's tree where it is, or let it go on."""
        waiting = []
        for lane in self._lanes.values():
            job = self._jobs.get(lane.job)
            if lane.slot is not None and lane.slot.alive and job is not None:
                waiting.append(job.nursery.suspend(lane.slot, on=on))
        await asyncio.gather(*waiting)

    def cut_outputs(self) -> None:
        """Cut what calls that run print beyond what is kept: they write into a file that nobody else limits."""
        for run in self._runs.values():
            if run.is_call and run.slot is not None:
                with suppress(OSError):
                    if run.slot.output_path.stat().st_size > MAX_OUTPUT_BYTES:
                        os.truncate(run.slot.output_path, MAX_OUTPUT_BYTES)

    def largest(self) -> tuple[int, int] | None:
        """The running attempt whose work folder is the largest, and its bytes. Walks the disk: call it in a thread."""
        heads = [(run.attempt.id, run.slot) for run in list(self._runs.values()) if run.slot is not None]
        sizes = [(size_of(str(slot.folder)), number) for number, slot in heads if slot.head == number]
        if not sizes:
            return None
        size, number = max(sizes)
        return number, size

    def crowd(self) -> tuple[int, int] | None:
        """The running attempt with the most processes, and how many. Walks /proc: call it in a thread."""
        heads = [(run.attempt.id, run.slot) for run in list(self._runs.values()) if run.slot is not None]
        counts = [
            (len(descendants(slot.pid)), number) for number, slot in heads if slot.pid and slot.head == number
        ]
        if not counts:
            return None
        count, number = max(counts)
        return number, count

    def kill(self, number: int) -> None:
        """Do not wait for the grace of an attempt that is being stopped."""
        run = self._runs.get(number)
        if run is not None and run.slot is not None:
            run.slot.kill(number)

    # -- logs

    def follow(self, number: int, *, on: bool, offset: int) -> None:
        """Tell pieces of an attempt's log from `offset` on, or stop that."""
        if not on:
            self._follows.pop(number, None)
            self._stop_polling(number)
        else:
            self._follows[number] = offset
        run = self._runs.get(number)
        if run is not None and run.slot is not None:
            if on:
                self._begin_following(run)
            elif not run.is_call:
                run.slot.follow(number, on=False, offset=0)

    def _begin_following(self, run: AttemptRun) -> None:
        number = run.attempt.id
        if run.is_call:
            self._stop_polling(number)
            self._followers[number] = asyncio.create_task(self._poll_output(run))
        elif run.slot is not None:
            run.slot.follow(number, on=True, offset=self._follows[number])

    async def _poll_output(self, run: AttemptRun) -> None:
        """A call's output lies in a file: look into it while it is followed."""
        number = run.attempt.id
        while run.slot is not None:
            if run.slot.head == number:
                offset = self._follows[number]
                data = self._read_output(run.slot, offset, _FOLLOW_BYTES)
                if data:
                    self._follows[number] = offset + len(data)
                    self._listener.on_log(number, offset, data, 0, last=False)
            await asyncio.sleep(_FOLLOW_EVERY_S)

    def _stop_polling(self, number: int) -> None:
        task = self._followers.pop(number, None)
        if task is not None:
            task.cancel()

    def _on_piece(self, piece: LogPiece) -> None:
        if piece.attempt in self._follows:
            self._follows[piece.attempt] = piece.offset + len(piece.data)
            self._listener.on_log(piece.attempt, piece.offset, piece.data, piece.skipped, last=False)

    def _end_following(self, number: int, outcome: Outcome) -> None:
        """The rest of a followed log, as far as it is small; the whole log is in the outcome."""
        offset = self._follows.pop(number, None)
        self._stop_polling(number)
        if offset is None:
            return
        if isinstance(outcome.log, Inline):
            size, data = len(outcome.log.data), outcome.log.data[offset:]
        elif outcome.log is not None:
            size = outcome.log.size
            start = max(offset, size - _FOLLOW_BYTES)
            data = _read_at(self._outbox / outcome.log.hash, start, _FOLLOW_BYTES)
        else:
            size, data = offset, b""
        start = max(offset, size - len(data))
        self._listener.on_log(number, start, data, start - offset, last=True)

    def _read_output(self, slot: SlotHandle, offset: int, limit: int) -> bytes:
        return _read_at(slot.output_path, offset, limit)

    # -- end

    def _spawn(self, coroutine: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(coroutine)
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    async def close(self) -> None:
        """Kill everything and wait until it is gone. No Listener is told any more."""
        tasks = [run.task for run in self._runs.values() if run.task is not None]
        tasks += [run.stopping for run in self._runs.values() if run.stopping is not None]
        tasks += self._followers.values()
        self._runs.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.gather(*(job.nursery.close() for job in self._jobs.values()), *self._background)
        await self._nurseries.close()
        self._jobs.clear()
        self._lanes.clear()
        await asyncio.to_thread(shutil.rmtree, self._folder, ignore_errors=True)


def _read_at(path: Path, offset: int, limit: int) -> bytes:
    try:
        with path.open("rb") as file:
            file.seek(offset)
            return file.read(limit)
    except OSError:
        return b""
