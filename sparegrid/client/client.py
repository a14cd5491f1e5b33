"""The client itself: one method a route, typed. Retries, pins and transfers are its neighbours' matter."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import aclosing
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar, overload
from urllib.parse import quote

import msgspec

from sparegrid import api
from sparegrid.client.finding import find_target
from sparegrid.client.joining import join
from sparegrid.client.stream import WATCH_PATIENCE_S, follow_log, watch
from sparegrid.client.transfer import OnProgress, get_bytes, get_file, put_blob
from sparegrid.client.transport import PATIENCE_S, Transport
from sparegrid.errors import BadInputError, GridError, NotFoundError
from sparegrid.ids import TaskRef, TaskText, parse_task_text
from sparegrid.messages import BlobRef, Inline, Payload
from sparegrid.paths import Paths
from sparegrid.routes import ROUTES
from sparegrid.states import JobState
from sparegrid.trust.access import Credentials
from sparegrid.trust.pinning import Pin

if TYPE_CHECKING:
    from sparegrid.jobfile import LoadedJob

T = TypeVar("T")
PARALLEL_TRANSFERS = 4
ENDED_STATES = frozenset({JobState.DONE, JobState.FAILED, JobState.CANCELLED})
_ROUTES = {route.name: route for route in ROUTES}
_REPEATABLE_POSTS = frozenset({"cancel", "close", "priority", "pause", "change_device"})
"""Doing these twice is as good as once; every other POST is sent once."""


class Client:
    """A connection to one coordinator, for use in `async with`.

    Every method raises the error that the coordinator answered (`sparegrid.errors`), or UnreachableError.
    """

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    @classmethod
    def connect(
        cls, *, url: str | Sequence[str], fingerprint: str, token: str, patience_s: float = PATIENCE_S
    ) -> Client:
        """A client of the coordinator at `url` (or the first of several that answers) with this key.

        Raises:
            BadInputError: the URL or the fingerprint is none.
        """
        urls = (url,) if isinstance(url, str) else tuple(url)
        return cls(Transport(urls, Pin(fingerprint), token, patience_s=patience_s))

    @classmethod
    def find(
        cls,
        paths: Paths,
        environ: Mapping[str, str] | None = None,
        *,
        url: str | None = None,
        fingerprint: str | None = None,
        token: str | None = None,
    ) -> Client:
        """A client of the coordinator that this home knows; see `finding.find_target` for the order.

        Raises:
            UnreachableError: none is known; says what to do.
        """
        target = find_target(paths, environ, url=url, fingerprint=fingerprint, token=token)
        return cls.connect(url=target.urls, fingerprint=target.fingerprint, token=target.token)

    async def __aenter__(self) -> Self:
        await self._transport.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._transport.__aexit__(kind, error, trace)

    @property
    def url(self) -> str:
        """The address in use."""
        return self._transport.url

    # ---- the grid
    # -------------------------------------------------------------------------------------------------

    async def health(self) -> api.Health:
        """Is the coordinator there, and which; needs no token."""
        return await self._call("health", api.Health)

    async def grid(self) -> api.GridView:
        """The grid at a glance, and who is asking."""
        return await self._call("grid", api.GridView)

    async def join_code(self, request: api.JoinCodeRequest | None = None) -> api.JoinCode:
        """A new one-time code; for administrators."""
        return await self._call("join_code", api.JoinCode, body=request or api.JoinCodeRequest())

    @staticmethod
    async def join(code: str, name: str, public_key: bytes = b"", *, url: str | None = None) -> Credentials:
        """Join with a code: what `trust.access.save_credentials` keeps. See `joining.join`."""
        return await join(code, name, public_key, url=url)

    # ---- jobs
    # -----------------------------------------------------------------------------------------------------

    async def submit(self, spec: api.JobSpec) -> api.Submitted:
        """Submit a job whose files are uploaded already. It is durable when this returns."""
        return await self._call("submit", api.Submitted, body=spec)

    async def submit_loaded(self, loaded: LoadedJob, on_progress: OnProgress | None = None) -> api.Submitted:
        """Upload the files of a job that was loaded from a file, then submit it."""
        await self.upload(loaded.uploads, on_progress)
        return await self.submit(loaded.spec)

    async def upload(
        self, files: Mapping[BlobRef, Path | bytes], on_progress: OnProgress | None = None
    ) -> None:
        """Put these blobs, each from its file or bytes, a few at a time. Stops all of them when one fails."""
        gate = asyncio.Semaphore(PARALLEL_TRANSFERS)
        total = sum(ref.size for ref in files)
        done: dict[BlobRef, int] = {}

        async def one(ref: BlobRef, source: Path | bytes) -> None:
            def tell(sent: int, _size: int) -> None:
                done[ref] = sent
                if on_progress is not None:
                    on_progress(sum(done.values()), total)

            async with gate:
                await put_blob(self._transport, source, ref, tell)

        try:
            async with asyncio.TaskGroup() as group:
                for ref, source in files.items():
                    group.create_task(one(ref, source))
        except BaseExceptionGroup as errors:
            raise errors.exceptions[0] from errors

    async def jobs(self, states: Sequence[str] = (), limit: int = 100, after: str = "") -> api.JobList:
        """Jobs, newest first, of these states or all; `after` is the `next` of the page before."""
        query = {"state": ",".join(states), "limit": str(limit), "after": after}
        return await self._call("jobs", api.JobList, query=query)

    async def job(self, job: str | int) -> api.JobView:
        """One job."""
        return await self._call("job", api.JobView, job=job)

    async def spec(self, job: str | int) -> api.JobSpec:
        """The job as it was submitted."""
        return await self._call("job_spec", api.JobSpec, job=job)

    async def cancel(self, job: str | int) -> api.JobView:
        """Cancel a job: recorded at once, its tasks stop soon."""
        return await self._call("cancel", api.JobView, job=job)

    async def retry(self, job: str | int, request: api.RetryRequest | None = None) -> api.JobView:
        """Try tasks again: by default all that failed, were lost or cancelled."""
        return await self._call("retry", api.JobView, body=request or api.RetryRequest(), job=job)

    async def append(self, job: str | int, items: list[Any], stage: str = "") -> api.JobView:
        """More items for a stage of an open job."""
        return await self._call("append", api.JobView, body=api.Append(items, stage), job=job)

    async def close(self, job: str | int) -> api.JobView:
        """No more items follow for an open job."""
        return await self._call("close", api.JobView, job=job)

    async def priority(self, job: str | int, priority: int) -> api.JobView:
        """Change a job's priority, 1 to 10."""
        return await self._call("priority", api.JobView, body=api.PriorityChange(priority), job=job)

    async def remove_job(self, job: str | int) -> None:
        """Forget an ended job and its results."""
        await self._send("remove_job", job=job)

    async def wait(self, job: str | int) -> api.JobView:
        """The job's last view, once it has ended; survives restarts of the coordinator meanwhile."""
        async with aclosing(self.watch(api.Subscribe(devices=False))) as stream:
            async for events in stream:
                for event in events:
                    if isinstance(event, api.JobChanged) and event.job.id == str(job):
                        if event.gone:
                            raise NotFoundError("The job is gone", f"Job {job} was removed")
                        ended = event.job.state in ENDED_STATES
                    else:
                        # What happened before the stream began, or while it was broken, no event tells.
                        ended = isinstance(event, api.Snapshot)
                    if ended and (view := await self.job(job)).state in ENDED_STATES:
                        return view
        raise GridError("The event stream ended", f"before job {job} did")

    # ---- tasks
    # ----------------------------------------------------------------------------------------------------

    async def tasks(
        self, job: str | int, stage: str | int = "", first: int = 0, limit: int = 100, state: str = ""
    ) -> api.TaskPage:
        """A window of a stage's tasks, from index `first` on."""
        query = {"stage": str(stage), "first": str(first), "limit": str(limit), "state": state}
        return await self._call("tasks", api.TaskPage, query=query, job=job)

    async def task(self, ref: str | TaskRef) -> api.TaskView:
        """One task and its attempts: `17.0.5` or `17.render.5`."""
        named = _task_named(ref)
        return await self._call("task", api.TaskView, job=named.job, stage=named.stage, index=named.index)

    async def results(
        self, job: str | int, stage: str | int | None = None, limit: int = 500
    ) -> AsyncIterator[api.TaskResult]:
        """What the tasks left behind, in order of (stage, index), fetched in pages of `limit`."""
        after = ""
        while True:
            query = {"stage": "" if stage is None else str(stage), "after": after, "limit": str(limit)}
            page = await self._call("results", api.ResultPage, query=query, job=job)
            for result in page.results:
                yield result
            after = page.next
            if not after:
                return

    async def log(self, ref: str | TaskRef, attempt: str | int | None = None) -> bytes:
        """What a task printed, as kept from its newest ended attempt, or from the one named."""
        named = _task_named(ref)
        query = {"attempt": "" if attempt is None else str(attempt)}
        return await self._send("task_log", query=query, job=named.job, stage=named.stage, index=named.index)

    async def explain(self, text: str) -> api.Explanation:
        """Why a job (`17`) or a task (`17.0.5`) waits, in words."""
        named = parse_task_text(text)
        if named.index is None:
            return await self._call("explain_job", api.Explanation, job=named.job)
        return await self._call(
            "explain_task", api.Explanation, job=named.job, stage=named.stage, index=named.index
        )

    # ---- devices
    # --------------------------------------------------------------------------------------------------

    async def devices(self) -> api.DeviceList:
        """All devices, by name."""
        return await self._call("devices", api.DeviceList)

    async def device(self, device: str) -> api.DeviceView:
        """One device, by id or name."""
        return await self._call("device", api.DeviceView, device=device)

    async def explain_device(self, device: str) -> api.Explanation:
        """Why a device idles, in words."""
        return await self._call("explain_device", api.Explanation, device=device)

    async def pause(self, device: str, request: api.PauseRequest) -> api.DeviceView:
        """Pause, finish, give back or resume."""
        return await self._call("pause", api.DeviceView, body=request, device=device)

    async def change_device(self, device: str, change: api.DeviceChange) -> api.DeviceView:
        """Rename a device, set or remove labels."""
        return await self._call("change_device", api.DeviceView, body=change, device=device)

    async def remove_device(self, device: str) -> None:
        """Revoke a device's token and forget it."""
        await self._send("remove_device", device=device)

    # ---- bytes
    # ----------------------------------------------------------------------------------------------------

    async def put_blob(
        self, source: bytes | Path, on_progress: OnProgress | None = None, *, ref: BlobRef | None = None
    ) -> BlobRef:
        """Upload bytes or a file, resuming after cuts; nothing is sent that the coordinator has already."""
        return await put_blob(self._transport, source, ref, on_progress)

    @overload
    async def get_blob(
        self, ref: BlobRef, dest: None = None, on_progress: OnProgress | None = None
    ) -> bytes: ...
    @overload
    async def get_blob(self, ref: BlobRef, dest: Path, on_progress: OnProgress | None = None) -> Path: ...
    async def get_blob(
        self, ref: BlobRef, dest: Path | None = None, on_progress: OnProgress | None = None
    ) -> bytes | Path:
        """A blob's bytes, or the file `dest` with them; resumed after cuts and checked by its hash."""
        if dest is None:
            return await get_bytes(self._transport, ref, on_progress)
        await get_file(self._transport, ref, dest, on_progress)
        return dest

    async def payload(self, payload: Payload) -> bytes:
        """The bytes of a payload, wherever they are."""
        return payload.data if isinstance(payload, Inline) else await self.get_blob(payload)

    # ---- events
    # ---------------------------------------------------------------------------------------------------

    def watch(
        self, subscribe: api.Subscribe, *, patience_s: float | None = WATCH_PATIENCE_S
    ) -> AsyncGenerator[list[api.Event], None]:
        """Events as they happen, a Snapshot first and after each reconnect. See `stream.watch`."""
        return watch(self._transport, lambda: subscribe, patience_s)

    def follow_log(self, ref: str | TaskRef, offset: int = 0) -> AsyncGenerator[api.LogEvent, None]:
        """What a task prints, until its attempt has ended."""
        return follow_log(self._transport, str(ref), offset)

    # ---- how
    # ------------------------------------------------------------------------------------------------------

    async def _call(
        self,
        name: str,
        kind: type[T],
        *,
        body: msgspec.Struct | None = None,
        query: Mapping[str, str] | None = None,
        **parts: object,
    ) -> T:
        data = await self._send(name, body=body, query=query, **parts)
        try:
            return msgspec.json.decode(data, type=kind)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise GridError(
                "The answer is not readable",
                f"{self.url} answered `{name}` with something else: {error}",
                "Are both programs of the same version?",
            ) from error

    async def _send(
        self,
        name: str,
        *,
        body: msgspec.Struct | None = None,
        query: Mapping[str, str] | None = None,
        **parts: object,
    ) -> bytes:
        route = _ROUTES[name]
        return await self._transport.call(
            route.method,
            route.path.format_map({key: _quoted(key, part) for key, part in parts.items()}),
            body=None if body is None else api.dump_json(body),
            query={key: value for key, value in (query or {}).items() if value},
            repeatable=route.method in ("GET", "DELETE") or name in _REPEATABLE_POSTS,
        )


def _quoted(what: str, part: object) -> str:
    text = quote(str(part), safe="")
    if text in ("", ".", ".."):
        raise BadInputError(f"Not a {what}", f"{str(part)!r} names no {what}")
    return text


def _task_named(ref: str | TaskRef) -> TaskText:
    named = parse_task_text(str(ref))
    if named.index is None:
        raise BadInputError("Not a task id", f"{str(ref)!r} is a job; a task is like 17.0.5")
    return named
