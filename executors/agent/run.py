"""Makes attempts: runs executors in the slots of lanes, and turns every end into a message.

It acts where `session` decides. It knows nurseries and executors, nothing of the coordinator: what became of an
attempt goes to its `Listener`.
"""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import signal
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import msgspec

from executors.agent.attempts import Attempt
from executors.agent.followed import FollowedLogs, LogListener, read_at
from executors.agent.job_processes import JobProcesses
from executors.agent.nursery_pool import NurseryPool
from executors.agent.slot_handle import RecalledError, SlotDiedError, SlotHandle
from executors.base import AttemptFailedError, Executor
from executors.context import TaskContext
from executors.nursery.folder import size_of
from executors.nursery.protocol import Done, Place, RunCall, RunCommand
from executors.nursery.tree import descendants, signal_name
from sparegrid.messages import Blame, Delivered, Ended, Inline, Outcome, Template

log = logging.getLogger(__name__)

KILL_TIMEOUT_S = 5.0
"""After SIGKILL to a tree: what has not ended then has its slot killed."""
TERM_AFTER_CHECKPOINT_S = 1.0
MAX_OUTPUT_BYTES = (16 << 20) + 1
"""One byte more than a call's log keeps, so that a log that was cut here is told as cut."""
_LAST_WORDS_BYTES = 8000


class Listener(LogListener, Protocol):
    """Who is told what became of attempts."""

    def on_finished(self, message: Delivered | Ended) -> None:
        """The attempt has ended, and nothing of it is left."""

    def on_recalled(self, lane: int, attempts: list[int]) -> None:
        """These did not begin; the lane's slot does not know them any more."""


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
        self._listener = listener
        self._runs: dict[int, AttemptRun] = {}
        self._params: dict[int, tuple[Template, Any]] = {}
        self._logs = FollowedLogs(outbox, listener)
        self._nurseries = NurseryPool(folder, outbox, environ, self._logs.on_piece)
        self.processes = JobProcesses(self._nurseries, self._forget_params)
        """Lanes are opened and closed, jobs released and everything is suspended here."""
        shutil.rmtree(folder, ignore_errors=True)
        for path in (folder, outbox):
            path.mkdir(parents=True, exist_ok=True, mode=0o700)

    def warm_up(self) -> None:
        """Have a nursery ready for the first job. Raises OSError when none can be started."""
        self._nurseries.warm_up()

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
            # The attempt may have been started anew already, as another run.
            if self._runs.get(number) is run:
                del self._runs[number]
                self._listener.on_recalled(run.lane, [number])
            return
        del self._runs[number]
        if run.stopping is not None:
            run.stopping.cancel()
        self._logs.end(number, message.outcome)
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
            run.slot = self.processes.slot_of(run.lane, stage.submitter, is_call=run.is_call)
            future = run.slot.submit(request)
            if attempt.id in self._logs:
                self._logs.begin(attempt.id, run.slot, is_call=run.is_call)
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

    def _forget_params(self, job: int) -> None:
        self._params = {key: kept for key, kept in self._params.items() if kept[0].job != job}

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
        words = read_at(run.slot.output_path, 0, _LAST_WORDS_BYTES)
        if words:
            outcome.log, outcome.log_bytes = Inline(words), len(words)
        return AttemptFailedError(Blame.TASK, reason, outcome)

    def recall(self, lane: int) -> list[int]:
        """Take back what the lane's slot has not begun."""
        waiting = [one for one in self._runs.values() if one.lane == lane and not one.begun]
        taken = self.processes.recall(lane)
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
        self.processes.kill(stage.job, slot)

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

    def follow(self, number: int, *, on: bool, offset: int) -> None:
        """Tell pieces of an attempt's log from `offset` on, or stop that."""
        run = self._runs.get(number)
        slot = run.slot if run is not None else None
        is_call = run is not None and run.is_call
        if on:
            self._logs.add(number, offset)
            if slot is not None:
                self._logs.begin(number, slot, is_call=is_call)
        else:
            self._logs.drop(number)
            if slot is not None and not is_call:
                slot.follow(number, on=False, offset=0)

    # -- end

    async def close(self) -> None:
        """Kill everything and wait until it is gone. No Listener is told any more."""
        tasks = [run.task for run in self._runs.values() if run.task is not None]
        tasks += [run.stopping for run in self._runs.values() if run.stopping is not None]
        self._runs.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._logs.close()
        await self.processes.close()
        await asyncio.to_thread(shutil.rmtree, self._folder, ignore_errors=True)
