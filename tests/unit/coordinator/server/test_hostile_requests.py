"""Requests that mean harm, or come of a mistake: refused with a reason, and the coordinator goes on."""

from __future__ import annotations

import gzip
import io
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest

from sparegrid.api import Items, JobSpec, StageSpec
from sparegrid.messages import Template
from sparegrid.trust.pinning import Pin
from tests.fakes.coordinator import RunningCoordinator, running_coordinator

HUGE = 10**30


@pytest.fixture
async def grid(tmp_path: Path) -> AsyncIterator[RunningCoordinator]:
    async with running_coordinator(tmp_path) as running:
        yield running


async def post(
    grid: RunningCoordinator, path: str, body: bytes, *, token: str | None = None, **headers: str
) -> tuple[int, dict[str, Any]]:
    """Status and body of a POST that no client of ours would make."""
    connector = aiohttp.TCPConnector(ssl=Pin(grid.access.fingerprint))
    token = grid.access.token if token is None else token
    sent = {"Authorization": f"Bearer {token}"} if token else {}
    async with (
        aiohttp.ClientSession(connector=connector) as session,
        session.post(f"{grid.url}/v1{path}", data=io.BytesIO(body), headers={**sent, **headers}) as answer,
    ):
        return answer.status, json.loads(await answer.read() or b"{}")


def job(**stage: Any) -> bytes:
    """A job of one stage as JSON, with numbers that no Struct would hold."""
    return json.dumps({"name": "j", "stages": [{"params": {"argv": ["true"]}, **stage}]}).encode()


def params(**more: Any) -> dict[str, Any]:
    return {"params": {"argv": ["true"], **more}}


@pytest.mark.parametrize(
    ("stage", "words"),
    [
        ({"requires": {"memory": HUGE}}, "requires.memory"),
        ({"requires": {"memory": 2**63}}, "requires.memory"),
        ({"requires": {"disk": 2**53 + 1}}, "requires.disk"),
        ({"requires": {"vram": HUGE}}, "requires.vram"),
        ({"requires": {"counts": {"licence": HUGE}}}, "requires.counts"),
        ({"requires": {"counts": {"licence": -1}}}, "requires.counts"),
        ({"timeout_s": 1e308}, "timeout_s"),
        ({"timeout_s": 1e18}, "timeout_s"),
        ({"items": {"count": HUGE}}, "items.count"),
        ({"items": {"axes": {"x": {"start": 0, "stop": HUGE}}}}, "items.axes"),
        ({"items": {"axes": {"x": {"start": 0, "stop": 1e308, "step": 1e307}}}}, "items.axes"),
        ({"items": {"axes": {"x": [HUGE]}}}, ""),
        ({"items": {"values": [HUGE]}}, "items.values"),
        (params(ok_codes=[HUGE]), "params.ok_codes"),
        ({"kind": "mine", "params": {"deep": [HUGE]}}, ""),
    ],
)
async def test_a_number_that_nothing_can_keep_is_refused_and_the_coordinator_goes_on(
    grid: RunningCoordinator, stage: dict[str, Any], words: str
) -> None:
    status, problem = await post(grid, "/jobs", job(**stage))
    assert status == 400
    assert words in problem["message"]
    assert (await post(grid, "/jobs", job()))[0] == 201


@pytest.mark.parametrize("seconds", [1e17, 1e308, -1])
async def test_a_pause_of_more_than_ten_years_is_refused(grid: RunningCoordinator, seconds: float) -> None:
    async with await grid.worker("pc"):
        body = json.dumps({"verb": "pause", "for_s": seconds}).encode()
        status, problem = await post(grid, "/devices/pc/pause", body)
        assert (status, "for_s" in problem["message"]) == (400, True)
        assert (await (await grid.client()).device("pc")).state == "ready"


async def test_what_cannot_be_assigned_fails_its_tasks_and_not_the_coordinator(
    grid: RunningCoordinator, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    client = await grid.client()

    def broken(*_values: object) -> Template:
        raise OverflowError("cannot convert float infinity to integer")

    async with await grid.worker():
        with monkeypatch.context() as patch:
            patch.setattr("coordinator.server.expand.Expander._template", broken)
            sent = await client.submit(JobSpec("j", [StageSpec(params={"argv": ["true"]}, retries=1)]))
            view = await client.wait(sent.id)
        assert view.state == "failed"
        assert "float infinity" in (await client.task(f"{sent.id}.0.0")).reason
        assert "cannot be assigned" in caplog.text
        caplog.clear()
        good = await client.submit(JobSpec("j", [StageSpec(params={"argv": ["true"]})]))
        assert (await client.wait(good.id)).state == "done"


async def test_a_template_that_no_frame_has_room_for_fails_its_tasks(
    grid: RunningCoordinator, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    client = await grid.client()
    monkeypatch.setattr("coordinator.server.expand.MAX_MESSAGE_BYTES", 10_000)
    async with await grid.worker():
        large = StageSpec(params={"argv": ["true", "x" * 20_000]}, items=Items(count=2), retries=0)
        sent = await client.submit(JobSpec("j", [large]))
        assert (await client.wait(sent.id)).failed == 2
        assert "Too large to be sent" in (await client.task(f"{sent.id}.0.1")).reason
    caplog.clear()


async def test_a_message_that_cannot_be_encoded_drops_the_link_and_is_logged(
    grid: RunningCoordinator, caplog: pytest.LogCaptureFixture
) -> None:
    async with await grid.worker("pc") as worker:
        (link,) = grid.server.links.open
        link.outbox.put(
            msgspec.structs.replace(Template(worker.device, 1, 0, "x", msgspec.Raw(b"\xc0")), timeout_ms=HUGE)
        )
        with pytest.raises(ConnectionError):
            await worker.until(int)
    assert "messages cannot be sent" in caplog.text
    caplog.clear()
    async with await grid.worker("other"):
        assert (await (await grid.client()).device("other")).state == "ready"


@pytest.mark.parametrize(
    ("stage", "words"),
    [
        ({"params": {"argv": ["true", "a\0b"]}}, "argv[1]"),
        ({"params": {"argv": [""]}}, "argv[0]"),
        ({"params": {"shell": "echo \0"}}, "shell"),
        ({"params": {"argv": ["true"], "env": {"": "x"}}}, "env"),
        ({"params": {"argv": ["true"], "env": {"A=B": "x"}}}, "env"),
        ({"params": {"argv": ["true"], "env": {"A": "x\0"}}}, "env.A"),
        ({"params": {"argv": ["true"], "platforms": {"linux": {"argv": [""]}}}}, "platforms.linux.argv[0]"),
        (
            {"inputs": [{"path": p, "content": {"t": "inline", "data": ""}} for p in ("a/b/c", "x", "A/b")]},
            "inputs[0]",
        ),
        ({"inputs": [{"path": "a\0", "content": {"t": "inline", "data": ""}}]}, "inputs[0]"),
    ],
)
async def test_what_no_device_could_start_is_refused_with_its_place(
    grid: RunningCoordinator, stage: dict[str, Any], words: str
) -> None:
    status, problem = await post(grid, "/jobs", job(**stage))
    assert status == 400
    assert words in problem["message"]


async def test_what_tasks_share_is_refused_over_4_mib_naming_the_limit(grid: RunningCoordinator) -> None:
    status, problem = await post(grid, "/jobs", job(params={"argv": ["true", "x" * (5 << 20)]}))
    assert status == 413
    assert "4194304" in problem["message"]


@pytest.mark.parametrize("path", ["/jobs", "/join"])
async def test_a_compressed_body_is_refused_unread(grid: RunningCoordinator, path: str) -> None:
    body = gzip.compress(b" " * (1 << 20))
    status, problem = await post(grid, path, body, **{"Content-Encoding": "gzip"})
    assert (status, problem["title"]) == (400, "Compressed body")


async def test_joining_takes_4_kib_from_anybody(grid: RunningCoordinator) -> None:
    status, problem = await post(grid, "/join", b" " * 5000, token="")
    assert status == 413
    assert "4096" in problem["message"]


async def test_an_address_that_waits_is_told_so_before_its_body_is_looked_at(
    grid: RunningCoordinator,
) -> None:
    for _ in range(10):
        grid.server.auth.tries.failed("127.0.0.1")
    status, problem = await post(grid, "/join", b"no JSON", token="")
    assert (status, problem["title"]) == (429, "Too many wrong tries")
