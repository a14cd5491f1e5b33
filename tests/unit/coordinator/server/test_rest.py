"""REST as anybody on the network meets it: real TLS, real tokens."""

from __future__ import annotations

import asyncio
import io
import json
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from openapi_spec_validator import validate

from coordinator.server import app as app_module
from coordinator.server.app import make_app
from sparegrid.api import (
    MAX_BODY_BYTES,
    DeviceChange,
    Items,
    JobSpec,
    JoinCodeRequest,
    PauseRequest,
    StageSpec,
    Subscribe,
)
from sparegrid.client import Client
from sparegrid.errors import (
    BadInputError,
    ConflictError,
    DeniedError,
    NotFoundError,
    StorageError,
    TooManyTriesError,
    UnauthenticatedError,
)
from sparegrid.messages import PolicyChanged
from sparegrid.routes import ROUTES
from sparegrid.states import Role
from sparegrid.trust.codes import decode_code
from sparegrid.trust.keys import DeviceKey
from sparegrid.trust.pinning import Pin
from tests.fakes.coordinator import RunningCoordinator, running_coordinator


@pytest.fixture
async def grid(tmp_path: Path) -> AsyncIterator[RunningCoordinator]:
    async with running_coordinator(tmp_path) as running:
        yield running


def spec(count: int = 1, **fields: Any) -> JobSpec:
    return JobSpec("j", [StageSpec(params={"argv": ["true"]}, items=Items(count=count))], **fields)


async def raw(
    grid: RunningCoordinator, method: str, path: str, *, token: str = "", **options: Any
) -> tuple[int, dict[str, Any], Any]:
    """Status, body and headers of a request that no client of ours would make."""
    connector = aiohttp.TCPConnector(ssl=Pin(grid.access.fingerprint))
    headers = {"Authorization": f"Bearer {token or grid.access.token}", **options.pop("headers", {})}
    async with (
        aiohttp.ClientSession(connector=connector) as http,
        http.request(method, grid.url + path, headers=headers, **options) as answer,
    ):
        body = await answer.read()
        is_json = answer.content_type == "application/json" and body
        return answer.status, json.loads(body) if is_json else {}, answer.headers


# ---- what is open, and what is not ------------------------------------------------------------------------------


async def test_health_is_told_to_anybody(grid: RunningCoordinator) -> None:
    async with grid.client_of("") as anybody:
        health = await anybody.health()
    assert (health.status, health.name, health.grid) == ("ok", "lab", grid.access.grid)


async def test_every_other_route_wants_a_token(grid: RunningCoordinator) -> None:
    connector = aiohttp.TCPConnector(ssl=Pin(grid.access.fingerprint))
    opened = {route.name for route in ROUTES if route.role is None}
    assert opened == {"health", "join", "job_schema"}
    async with aiohttp.ClientSession(connector=connector) as http:
        paths = [(route.method, "/v1" + route.path) for route in ROUTES if route.role is not None]
        for method, path in [*paths, ("GET", "/v1/events"), ("GET", "/metrics")]:
            for name, value in {
                "job": "1",
                "stage": "0",
                "index": "0",
                "device": "x",
                "hash": "ab" * 32,
            }.items():
                path = path.replace("{" + name + "}", value)
            async with http.request(method, grid.url + path) as answer:
                assert answer.status == 401, (method, path)
                assert answer.headers["WWW-Authenticate"] == "Bearer"


async def test_older_tls_is_refused(grid: RunningCoordinator) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    port = int(grid.url.rsplit(":", 1)[1])
    with pytest.raises((ssl.SSLError, ConnectionResetError)):
        await asyncio.open_connection("127.0.0.1", port, ssl=context)


async def test_ten_wrong_tokens_make_the_address_wait_but_right_ones_pass(grid: RunningCoordinator) -> None:
    async with grid.client_of("sgt_wrong") as stranger:
        for _ in range(10):
            with pytest.raises(UnauthenticatedError):
                await stranger.grid()
        with pytest.raises(TooManyTriesError, match=r"10 wrong tokens.*127\.0\.0\.1"):
            await stranger.grid()
    assert (await (await grid.client()).grid()).role == "admin"


async def test_each_role_may_do_what_it_is_for(grid: RunningCoordinator) -> None:
    key = DeviceKey.make()
    tokens = {role: await grid.token(role, f"{role}-1", key if role == "worker" else None) for role in Role}
    async with (
        grid.client_of(tokens[Role.VIEWER]) as viewer,
        grid.client_of(tokens[Role.SUBMITTER]) as submitter,
        grid.client_of(tokens[Role.WORKER]) as worker,
    ):
        with pytest.raises(DeniedError, match="viewer"):
            await viewer.submit(spec())
        sent = await submitter.submit(spec())
        assert (await viewer.job(sent.id)).submitter == "submitter-1"
        with pytest.raises(DeniedError, match="admin"):
            await submitter.pause("pc", PauseRequest("pause"))
        with pytest.raises(DeniedError, match="worker"):
            await worker.jobs()
        await worker.put_blob(b"output")


async def test_submitters_see_and_change_their_own_jobs_only(grid: RunningCoordinator) -> None:
    async with (
        grid.client_of(await grid.token("submitter", "alice")) as alice,
        grid.client_of(await grid.token("submitter", "bob")) as bob,
    ):
        hers = await alice.submit(spec())
        for forbidden in (bob.job, bob.cancel, bob.remove_job, bob.spec):
            with pytest.raises(NotFoundError):
                await forbidden(hers.id)
        assert (await bob.jobs()).jobs == []
        assert [view.id for view in (await alice.jobs()).jobs] == [hers.id]
        assert [view.id for view in (await (await grid.client()).jobs()).jobs] == [hers.id]


async def test_who_joins_with_a_taken_name_gets_another(grid: RunningCoordinator) -> None:
    async with (
        grid.client_of(await grid.token("submitter", "alice")) as first,
        grid.client_of(await grid.token("submitter", "alice")) as second,
        grid.client_of(await grid.token("submitter", "local")) as third,
    ):
        names = [(await each.grid()).principal for each in (first, second, third)]
    assert names == ["alice", "alice-2", "local-2"]


async def test_a_join_code_works_once(grid: RunningCoordinator) -> None:
    code = await (await grid.client()).join_code()
    joined = await Client.join(code.code, "pc", DeviceKey.make().public)
    assert joined.role == "worker"
    with pytest.raises(DeniedError, match="used already"):
        await Client.join(code.code, "pc", DeviceKey.make().public)


async def test_a_worker_without_a_key_does_not_join(grid: RunningCoordinator) -> None:
    code = await (await grid.client()).join_code()
    secret = decode_code(code.code).secret
    status, body, _ = await raw(grid, "POST", "/v1/join", json={"secret": secret, "name": "x"})
    assert (status, body["code"]) == (400, "bad-input")
    assert "public key" in body["message"]


async def test_a_worker_code_is_not_spent_by_a_person(grid: RunningCoordinator) -> None:
    code = await (await grid.client()).join_code()
    with pytest.raises(BadInputError, match="for a worker: `sparegrid worker --join CODE`"):
        await Client.join(code.code, "alice")
    assert (await Client.join(code.code, "pc", DeviceKey.make().public)).role == "worker"


@pytest.mark.parametrize(("role", "named"), [("submitter", "a submitter"), ("admin", "an admin")])
async def test_a_persons_code_is_not_spent_by_a_worker(
    grid: RunningCoordinator, role: str, named: str
) -> None:
    code = await (await grid.client()).join_code(JoinCodeRequest(role=role))
    with pytest.raises(BadInputError, match=f"for {named}: `sparegrid join CODE`"):
        await Client.join(code.code, "pc", DeviceKey.make().public)
    assert (await Client.join(code.code, "alice")).role == role


async def test_five_wrong_secrets_close_the_code_they_guess_at_only(grid: RunningCoordinator) -> None:
    client = await grid.client()
    code, other = await client.join_code(), await client.join_code()
    guess = decode_code(code.code).secret[:4] + "0" * 12
    for _ in range(5):
        status, body, _ = await raw(grid, "POST", "/v1/join", json={"secret": guess, "name": "x"})
        assert (status, body["code"]) == (403, "denied")
    with pytest.raises(DeniedError, match="too many wrong tries"):
        await Client.join(code.code, "pc", DeviceKey.make().public)
    assert (await Client.join(other.code, "pc", DeviceKey.make().public)).role == "worker"


async def test_a_body_with_no_number_or_no_end_of_levels_is_refused(grid: RunningCoordinator) -> None:
    for items in (b"[NaN]", b"[" * 5000 + b"]" * 5000, b"[" * 1_000_000):
        body = b'{"name": "j", "stages": [{"params": {"argv": ["x"]}, "items": {"values": ' + items + b"}}]}"
        status, told, _ = await raw(grid, "POST", "/v1/jobs", data=body)
        assert (status, told["code"]) == (400, "bad-input")


# ---- bad input --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/v1/nothing", 404, "not-found"),
        ("PUT", "/v1/jobs", 405, "method-not-allowed"),
        ("GET", "/v1/jobs/x", 400, "bad-input"),
        ("GET", "/v1/jobs/99", 404, "not-found"),
        ("GET", "/v1/jobs/99/tasks/0/0", 404, "not-found"),
        ("GET", "/v1/jobs?state=running", 400, "bad-input"),
        ("GET", "/v1/jobs?limit=-1", 400, "bad-input"),
        ("GET", "/v1/jobs?after=x", 400, "bad-input"),
        ("GET", "/v1/devices/none", 404, "not-found"),
        ("GET", "/v1/blobs/abc", 400, "bad-input"),
        ("GET", "/v1/blobs/" + "ab" * 32, 404, "not-found"),
        ("POST", "/v1/jobs/99/cancel", 404, "not-found"),
    ],
)
async def test_what_is_not_there_is_told_as_a_problem(
    grid: RunningCoordinator, method: str, path: str, status: int, code: str
) -> None:
    got, body, _ = await raw(grid, method, path)
    assert (got, body["code"]) == (status, code)
    assert body["title"]
    assert body["message"]


async def test_malformed_json_is_located(grid: RunningCoordinator) -> None:
    status, body, _ = await raw(grid, "POST", "/v1/jobs", data=b'{"name": "j",\n "stages": [}')
    assert (status, body["title"]) == (400, "Malformed JSON")
    assert "line 2, column" in body["message"]


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"{}", "missing required field name"),
        (b"[]", "expected object, got array"),
        (b'{"name": "j", "stages": []}', "stages"),
        (b'{"name": "j", "stages": [{"retires": 3}]}', "unknown field retires"),
        (b'{"name": "j", "stages": [{}], "priority": 11}', "priority"),
        (b'{"name": "\xff", "stages": [{}]}', ""),
        (b'{"name": "", "stages": [{}]}', "name"),
    ],
)
async def test_a_wrong_job_is_refused_in_words(grid: RunningCoordinator, body: bytes, words: str) -> None:
    status, problem, _ = await raw(grid, "POST", "/v1/jobs", data=body)
    assert status == 400
    assert words in problem["message"]


async def test_a_body_of_64_mb_is_refused_naming_the_limit(grid: RunningCoordinator) -> None:
    status, body, _ = await raw(grid, "POST", "/v1/jobs", data=io.BytesIO(b" " * (64 << 20)))
    assert (status, body["code"]) == (413, "too-large")
    assert str(MAX_BODY_BYTES) in body["message"]


async def test_a_large_body_of_unknown_length_is_refused_too(grid: RunningCoordinator) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(40):
            yield b" " * (1 << 20)

    try:
        status, body, _ = await raw(grid, "POST", "/v1/jobs", data=pieces())
    except aiohttp.ClientConnectionError:
        return  # It hung up on the sender, which is as good.
    assert (status, body["code"]) == (413, "too-large")


async def test_items_over_the_grids_limit_are_refused(tmp_path: Path) -> None:
    async with running_coordinator(tmp_path, max_tasks=100) as grid:
        with pytest.raises(BadInputError, match="101 tasks in all; 100 is the limit"):
            await (await grid.client()).submit(spec(101))


# ---- jobs -------------------------------------------------------------------------------------------------------


async def test_a_job_waits_for_devices_and_explains_why(grid: RunningCoordinator) -> None:
    client = await grid.client()
    sent = await client.submit(spec(3))
    assert (sent.id, sent.tasks) == ("1", 3)
    view = await client.job(sent.id)
    assert (view.state, view.queued, view.revision.epoch) == ("active", 3, 1)
    assert (await client.explain("1.0.2")).summary
    assert (await client.explain("1")).summary
    assert (await client.spec("1")).stages[0].params == {"argv": ["true"]}
    page = await client.tasks("1", first=1, limit=1)
    assert ([task.id for task in page.tasks], page.total, page.next) == (["1.0.1"], 3, 2)


async def test_a_job_of_no_tasks_is_done_at_once(grid: RunningCoordinator) -> None:
    client = await grid.client()
    sent = await client.submit(spec(0))
    assert (await client.job(sent.id)).state == "done"


async def test_a_cancelled_job_can_be_looked_at_retried_and_removed(grid: RunningCoordinator) -> None:
    client = await grid.client()
    sent = await client.submit(spec(2))
    with pytest.raises(ConflictError):
        await client.remove_job(sent.id)
    assert (await client.cancel(sent.id)).state == "cancelled"
    assert (await client.cancel(sent.id)).state == "cancelled"
    assert (await client.task("1.0.1")).state == "cancelled"
    assert (await client.tasks(sent.id)).total == 2
    assert (await client.explain("1.0.0")).summary
    assert [view.state for view in (await client.jobs(states=["cancelled"])).jobs] == ["cancelled"]
    assert (await client.retry(sent.id)).queued == 2
    with pytest.raises(ConflictError, match="Nothing to retry"):
        await client.retry(sent.id)
    await client.cancel(sent.id)
    await client.remove_job(sent.id)
    with pytest.raises(NotFoundError):
        await client.job(sent.id)


async def test_an_open_job_takes_items_until_it_is_closed(grid: RunningCoordinator) -> None:
    client = await grid.client()
    stage = StageSpec(params={"argv": ["echo", "{{x}}"]}, items=Items(values=[{"x": 1}]))
    sent = await client.submit(JobSpec("open", [stage], open=True))
    assert (await client.append(sent.id, [{"x": 2}])).total == 2
    with pytest.raises(BadInputError, match=r"\{\{x\}\}.*items\[0\]"):
        await client.append(sent.id, [{"y": 2}])
    assert (await client.close(sent.id)).open is False
    with pytest.raises(ConflictError):
        await client.append(sent.id, [{"x": 3}])
    assert (await client.spec(sent.id)).stages[0].items.values == [{"x": 1}, {"x": 2}]


async def test_jobs_are_listed_newest_first_in_pages(grid: RunningCoordinator) -> None:
    client = await grid.client()
    for _ in range(3):
        await client.cancel((await client.submit(spec())).id)
    await client.submit(spec())
    first = await client.jobs(limit=2)
    assert [view.id for view in first.jobs] == ["4", "3"]
    second = await client.jobs(limit=2, after=first.next)
    assert ([view.id for view in second.jobs], second.next) == (["2", "1"], "")


async def test_the_priority_changes(grid: RunningCoordinator) -> None:
    client = await grid.client()
    sent = await client.submit(spec())
    assert (await client.priority(sent.id, 9)).priority == 9


# ---- devices ----------------------------------------------------------------------------------------------------


async def test_who_resumes_a_device_is_told_what_was_asked(grid: RunningCoordinator) -> None:
    client = await grid.client()
    async with await grid.worker("pc2") as worker:
        await worker.send(PolicyChanged(worker.device, "paused", "paused by local"))
        async with asyncio.timeout(20):
            async for _ in client.watch(Subscribe()):
                if (await client.device("pc2")).state == "paused":
                    break
        assert (await client.pause("pc2", PauseRequest("resume"))).reason == "asked to resume by local"
        with pytest.raises(NotFoundError, match="Did you mean `pc2`"):
            await client.device("pc1")


async def test_a_device_is_renamed_labelled_paused_and_removed(grid: RunningCoordinator) -> None:
    client = await grid.client()
    worker = await grid.worker("pc")
    other = await grid.worker("laptop")
    async with worker, other:
        assert [view.name for view in (await client.devices()).devices] == ["laptop", "pc"]
        assert (await client.device("pc")).address == "127.0.0.1"
        changed = await client.change_device("pc", DeviceChange("attic", {"room": "attic"}))
        assert (changed.name, changed.labels) == ("attic", {"room": "attic"})
        with pytest.raises(ConflictError, match="attic"):
            await client.change_device("laptop", DeviceChange("attic"))
        with pytest.raises(BadInputError, match="Nothing to change"):
            await client.change_device("laptop", DeviceChange())
        assert (await client.pause("attic", PauseRequest("pause", 60))).state == "paused"
        assert (await client.pause("attic", PauseRequest("resume"))).state == "ready"
        assert (await client.explain_device("attic")).summary
        await client.remove_device("attic")
        with pytest.raises(NotFoundError):
            await client.device("attic")
    with pytest.raises(ConnectionError):
        await worker.connect()
        await worker.until(int)
    assert worker.received[-1].code == "unauthenticated"
    await worker.close()


# ---- documents --------------------------------------------------------------------------------------------------


async def test_the_openapi_document_is_valid_and_complete(grid: RunningCoordinator) -> None:
    status, document, _ = await raw(grid, "GET", "/v1/openapi.json")
    assert status == 200
    validate(document)
    operations = {
        operation["operationId"] for path in document["paths"].values() for operation in path.values()
    }
    assert operations == {route.name for route in ROUTES}


async def test_the_schema_of_jobs_is_open(grid: RunningCoordinator) -> None:
    connector = aiohttp.TCPConnector(ssl=Pin(grid.access.fingerprint))
    async with (
        aiohttp.ClientSession(connector=connector) as http,
        http.get(grid.url + "/v1/job.schema.json") as answer,
    ):
        assert answer.status == 200
        assert "properties" in await answer.text()


async def test_metrics_are_prometheus_text(grid: RunningCoordinator) -> None:
    connector = aiohttp.TCPConnector(ssl=Pin(grid.access.fingerprint))
    headers = {"Authorization": f"Bearer {await grid.token('viewer')}"}
    async with (
        aiohttp.ClientSession(connector=connector, headers=headers) as http,
        http.get(grid.url + "/metrics") as answer,
    ):
        text = await answer.text()
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    names = {line.split("{")[0].split(" ")[0] for line in lines}
    assert {"sparegrid_devices", "sparegrid_facts_total", "sparegrid_blob_bytes"} <= names
    assert all(float(line.rsplit(" ", 1)[1]) >= 0 for line in lines)
    assert 'sparegrid_devices{state="offline"} 0' in lines


async def test_a_route_without_a_handler_stops_the_start(
    grid: RunningCoordinator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app_module, "ROUTES", ROUTES[:-1])
    with pytest.raises(LookupError, match="job_schema"):
        make_app(None)  # type: ignore[arg-type]  # it does not get so far as to use the server


async def test_a_full_disk_pauses_intake_with_a_hint_and_reading_goes_on(grid: RunningCoordinator) -> None:
    client = await grid.client()
    await client.submit(spec())
    grid.server.driver.held(StorageError("Disk full", "there is no space left"))
    with pytest.raises(StorageError, match="Free space") as caught:
        await client.submit(spec())
    assert caught.value.http_status == 507
    assert (await client.job("1")).state == "active"
    assert "no space left" in (await client.grid()).notices[0]
    assert (await client.health()).status == "paused"
    grid.server.driver.resumed()
    assert (await client.submit(spec())).id == "2"
