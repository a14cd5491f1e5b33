"""The event stream: snapshot first, again after each break, logs without gap or repeat."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from pathlib import Path
from typing import Any

import msgspec
import pytest
from aiohttp import web

from sparegrid import api
from sparegrid.errors import DeniedError, GridError, NotFoundError, UnreachableError
from tests.unit.sparegrid.fake_coordinator import FakeCoordinator, answer, fake_coordinator, refuse

SNAPSHOT = api.Snapshot(api.Revision(1, 1))


def job(state: str) -> api.JobView:
    return api.JobView("17", "film", state, 5, "ann", 1, [])


@pytest.fixture
async def fake(tmp_path: Path) -> AsyncIterator[FakeCoordinator]:
    async with fake_coordinator(tmp_path / "coordinator") as started:
        yield started


Script = Callable[[web.WebSocketResponse, api.Subscribe], Awaitable[None]]


def stream(fake: FakeCoordinator, *scripts: Script) -> list[api.Subscribe]:
    """The n-th connection plays the n-th script and then breaks; the list gathers the subscriptions."""
    subscriptions: list[api.Subscribe] = []

    async def handle(request: web.Request) -> web.StreamResponse:
        socket = web.WebSocketResponse(protocols=("v1.json",))
        await socket.prepare(request)
        assert socket.ws_protocol == "v1.json"
        (subscription,) = msgspec.json.decode(await socket.receive_str(), type=list[api.Subscribe])
        subscriptions.append(subscription)
        await scripts[min(len(subscriptions), len(scripts)) - 1](socket, subscription)
        assert request.transport is not None
        request.transport.abort()
        return socket

    fake.on("GET", "/events", handle)
    return subscriptions


def says(*frames: list[Any]) -> Script:
    async def script(socket: web.WebSocketResponse, _subscription: api.Subscribe) -> None:
        for frame in frames:
            await socket.send_str(msgspec.json.encode(frame).decode())

    return script


async def test_events_come_in_the_lists_they_were_sent_in(fake: FakeCoordinator) -> None:
    changed = api.JobChanged(job("active"))
    subscriptions = stream(fake, says([SNAPSHOT], [changed, changed], [{"t": "invented_later"}], [changed]))
    async with fake.client() as client, aclosing(client.watch(api.Subscribe(job="17"))) as events:
        assert [await anext(events) for _ in range(3)] == [[SNAPSHOT], [changed, changed], [changed]]
    assert subscriptions == [api.Subscribe(job="17")]


async def test_a_stream_that_breaks_begins_anew_with_a_snapshot(fake: FakeCoordinator) -> None:
    subscriptions = stream(fake, says([SNAPSHOT]))
    async with fake.client() as client, aclosing(client.watch(api.Subscribe())) as events:
        assert [await anext(events) for _ in range(3)] == [[SNAPSHOT]] * 3
    assert len(subscriptions) == 3


async def test_the_first_refusal_to_connect_is_told_at_once(fake: FakeCoordinator) -> None:
    await fake.stop()
    async with fake.client() as client:
        with pytest.raises(UnreachableError):
            await anext(client.watch(api.Subscribe()))
    await fake.start()


async def test_a_stream_that_worked_is_given_up_after_some_patience(fake: FakeCoordinator) -> None:
    async def once(socket: web.WebSocketResponse, _subscription: api.Subscribe) -> None:
        await socket.send_str(msgspec.json.encode([SNAPSHOT]).decode())
        fake.on("GET", "/events", gone)

    async def gone(request: web.Request) -> web.Response:
        assert request.transport is not None
        request.transport.abort()
        return web.Response()

    stream(fake, once)
    async with fake.client() as client, aclosing(client.watch(api.Subscribe(), patience_s=0.2)) as events:
        assert await anext(events) == [SNAPSHOT]
        with pytest.raises(UnreachableError):
            await anext(events)


async def test_a_refused_subscription_is_the_error_it_names(fake: FakeCoordinator) -> None:
    stream(fake, says([api.StreamError(api.Problem("not-found", "No such job", "17"))]))
    async with fake.client() as client:
        with pytest.raises(NotFoundError, match="No such job: 17"):
            await anext(client.watch(api.Subscribe(job="17")))


async def test_a_stream_without_a_token_is_denied(fake: FakeCoordinator) -> None:
    async with fake.client(token="") as client:
        with pytest.raises(DeniedError):
            await anext(client.watch(api.Subscribe()))


async def test_a_frame_that_is_not_readable_is_told(fake: FakeCoordinator) -> None:
    async def rubbish(socket: web.WebSocketResponse, _subscription: api.Subscribe) -> None:
        await socket.send_str("{")

    stream(fake, rubbish)
    async with fake.client() as client:
        with pytest.raises(GridError, match="not readable"):
            await anext(client.watch(api.Subscribe()))


def chunk(offset: int, data: bytes, attempt: str = "9", *, last: bool = False) -> api.LogEvent:
    return api.LogEvent("17.0.5", attempt, offset, data, last=last)


async def test_a_log_goes_on_after_a_break_where_it_stopped(fake: FakeCoordinator) -> None:
    subscriptions = stream(
        fake,
        says([SNAPSHOT], [chunk(0, b"abc")], [chunk(3, b"de")]),
        says([chunk(3, b"de"), chunk(5, b"f")], [chunk(6, b"", last=True)]),
    )
    async with fake.client() as client:
        events = [event async for event in client.follow_log("17.0.5")]
    assert b"".join(event.data for event in events) == b"abcdef"
    assert [subscription.log_offset for subscription in subscriptions] == [0, 5]
    assert subscriptions[0] == api.Subscribe(jobs=False, devices=False, task="17.0.5")


async def test_the_log_of_a_second_try_is_shown_from_its_start(fake: FakeCoordinator) -> None:
    stream(fake, says([chunk(0, b"first")], [chunk(0, b"second", "10"), chunk(6, b"!", "10", last=True)]))
    async with fake.client() as client:
        data = [event.data async for event in client.follow_log("17.0.5")]
    assert data == [b"first", b"second", b"!"]


# ---- waiting


async def test_waiting_ends_with_the_job(fake: FakeCoordinator) -> None:
    fake.on_value("GET", "/jobs/17", job("active"))

    async def script(socket: web.WebSocketResponse, _subscription: api.Subscribe) -> None:
        await says([SNAPSHOT], [api.JobChanged(msgspec.structs.replace(job("done"), id="18"))])(
            socket, _subscription
        )
        fake.on_value("GET", "/jobs/17", job("failed"))
        await says([api.JobChanged(job("failed"))])(socket, _subscription)

    stream(fake, script)
    async with fake.client() as client:
        assert (await client.wait(17)).state == "failed"


async def test_waiting_for_a_job_that_has_ended_already_returns(fake: FakeCoordinator) -> None:
    fake.on_value("GET", "/jobs/17", job("done"))
    stream(fake, says([SNAPSHOT]))
    async with fake.client() as client:
        assert (await client.wait("17")).state == "done"


async def test_an_end_while_the_stream_was_broken_is_noticed(fake: FakeCoordinator) -> None:
    fake.on_value("GET", "/jobs/17", job("active"))

    async def ends_unseen(socket: web.WebSocketResponse, subscription: api.Subscribe) -> None:
        await says([SNAPSHOT])(socket, subscription)

        async def late(_request: web.Request) -> web.Response:
            fake.on_value("GET", "/jobs/17", job("cancelled"))
            return answer(job("active"))

        fake.on("GET", "/jobs/17", late)

    stream(fake, ends_unseen, says([SNAPSHOT]))
    async with fake.client() as client:
        async with asyncio.timeout(10):
            assert (await client.wait(17)).state == "cancelled"


async def test_waiting_for_a_job_that_is_removed_or_unknown_is_an_error(fake: FakeCoordinator) -> None:
    fake.on_value("GET", "/jobs/17", job("active"))
    stream(fake, says([SNAPSHOT], [api.JobChanged(job("active"), gone=True)]))
    async with fake.client() as client:
        with pytest.raises(NotFoundError, match="was removed"):
            await client.wait(17)

        async def unknown(_request: web.Request) -> web.Response:
            return refuse(404, "not-found", "No such job")

        fake.on("GET", "/jobs/17", unknown)
        with pytest.raises(NotFoundError, match="No such job"):
            await client.wait(17)
