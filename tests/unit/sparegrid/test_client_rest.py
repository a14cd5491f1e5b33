"""Calls of the client: paths and bodies, errors in the house's words, retries, the pin."""

from __future__ import annotations

import asyncio
import datetime
import socket
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from sparegrid import api
from sparegrid.client import Client, transport
from sparegrid.errors import (
    BadInputError,
    ConflictError,
    DeniedError,
    GridError,
    NotFoundError,
    StorageError,
    TooLargeError,
    UnauthenticatedError,
    UnreachableError,
    VersionError,
)
from sparegrid.ids import JobId, StageIndex, TaskIndex, TaskRef
from sparegrid.jobfile import LoadedJob
from sparegrid.messages import BlobRef
from sparegrid.trust.certificate import Certificate
from tests.unit.sparegrid.fake_coordinator import FakeCoordinator, answer, fake_coordinator, refuse

JOB = api.JobView("17", "film", "active", 5, "ann", 1, [])
TASK = api.TaskView("17.0.5", "main", 5, "queued")
DEVICE = api.DeviceView("dev", "attic pc", "ready")
WHY = api.Explanation("17", "because")


@pytest.fixture
async def fake(tmp_path: Path) -> AsyncIterator[FakeCoordinator]:
    async with fake_coordinator(tmp_path / "coordinator") as started:
        yield started


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def test_every_method_asks_its_route_and_reads_its_answer(fake: FakeCoordinator) -> None:
    spec = api.JobSpec("film", [api.StageSpec()])
    grid = api.GridView("g", "lab", "0", "ff")
    code = api.JoinCode("1234", "sparegrid://join?code=1234", 1)
    answers: list[tuple[str, str, Any]] = [
        ("GET", "/grid", grid),
        ("POST", "/join-codes", code),
        ("POST", "/jobs", api.Submitted("17", 1)),
        ("GET", "/jobs", api.JobList([JOB], "16")),
        ("GET", "/jobs/17", JOB),
        ("GET", "/jobs/17/spec", spec),
        ("POST", "/jobs/17/cancel", JOB),
        ("POST", "/jobs/17/retry", JOB),
        ("POST", "/jobs/17/items", JOB),
        ("POST", "/jobs/17/close", JOB),
        ("POST", "/jobs/17/priority", JOB),
        ("GET", "/jobs/17/tasks", api.TaskPage([TASK], 1)),
        ("GET", "/jobs/17/tasks/0/5", TASK),
        ("GET", "/jobs/17/tasks/a%2F%C3%BC%20b/5/explain", WHY),
        ("GET", "/jobs/17/explain", WHY),
        ("GET", "/devices", api.DeviceList([DEVICE])),
        ("GET", "/devices/attic%20pc", DEVICE),
        ("GET", "/devices/attic%20pc/explain", WHY),
        ("POST", "/devices/dev/pause", DEVICE),
        ("PATCH", "/devices/dev", DEVICE),
    ]
    for method, path, value in answers:
        fake.on_value(method, path, value)
    async with fake.client() as client:
        results = [
            await client.grid(),
            await client.join_code(),
            await client.submit(spec),
            await client.jobs(["active", "done"], 7, "x"),
            await client.job(17),
            await client.spec("17"),
            await client.cancel(17),
            await client.retry(17),
            await client.append(17, [1]),
            await client.close(17),
            await client.priority(17, 9),
            await client.tasks(17, "main", 5, 10, "queued"),
            await client.task(TaskRef(JobId(17), StageIndex(0), TaskIndex(5))),
            await client.explain("17.a/ü b.5"),
            await client.explain("17"),
            await client.devices(),
            await client.device("attic pc"),
            await client.explain_device("attic pc"),
            await client.pause("dev", api.PauseRequest("pause")),
            await client.change_device("dev", api.DeviceChange("new")),
        ]
        assert results == [value for _, _, value in answers]
        assert (await client.health()).grid == fake.certificate.grid
        assert client.url == fake.url
    assert "GET /v1/jobs?state=active,done&limit=7&after=x" in fake.requests


async def test_answers_without_a_body_and_bytes_come_through(fake: FakeCoordinator) -> None:
    async def nothing(_request: web.Request) -> web.Response:
        return web.Response(status=204)

    async def log(request: web.Request) -> web.Response:
        return web.Response(body=b"\xff" + request.query.get("attempt", "").encode())

    fake.on("DELETE", "/jobs/17", nothing)
    fake.on("DELETE", "/devices/dev", nothing)
    fake.on("GET", "/jobs/17/tasks/0/5/log", log)
    async with fake.client() as client:
        await client.remove_job(17)
        await client.remove_device("dev")
        assert await client.log("17.0.5") == b"\xff"
        assert await client.log("17.0.5", 3) == b"\xff3"


async def test_results_are_read_page_by_page(fake: FakeCoordinator) -> None:
    async def page(request: web.Request) -> web.Response:
        first = int(request.query.get("after") or 0)
        assert request.query["stage"] == "main"
        found = [
            api.TaskResult(f"17.0.{index}", "main", index, "done")
            for index in range(first, min(first + 2, 5))
        ]
        return answer(api.ResultPage(found, str(first + 2) if first + 2 < 5 else ""))

    fake.on("GET", "/jobs/17/results", page)
    async with fake.client() as client:
        assert [result.index async for result in client.results(17, "main")] == [0, 1, 2, 3, 4]


async def test_a_loaded_job_is_uploaded_and_then_submitted(fake: FakeCoordinator, tmp_path: Path) -> None:
    sources: dict[BlobRef, Path | bytes] = {}
    async with fake.client() as client:
        for number in range(6):
            path = tmp_path / str(number)
            path.write_bytes(b"%d" % number * 10_000)
            sources[await client.put_blob(path)] = path
        fake.blobs.clear()
        fake.whole.clear()
        fake.on_value("POST", "/jobs", api.Submitted("1", 1))
        told: list[tuple[int, int]] = []
        loaded = LoadedJob(api.JobSpec("x", [api.StageSpec()]), sources)
        submitted = await client.submit_loaded(loaded, lambda done, total: told.append((done, total)))
    assert submitted.id == "1"
    assert len(fake.whole) == 6
    assert told[-1] == (loaded.upload_bytes, loaded.upload_bytes) == (60_000, 60_000)
    assert fake.requests[-1] == "POST /v1/jobs"


async def test_a_missing_file_stops_an_upload_before_anything_is_submitted(
    fake: FakeCoordinator, tmp_path: Path
) -> None:
    loaded = LoadedJob(api.JobSpec("x", [api.StageSpec()]), {BlobRef("0" * 64, 5): tmp_path / "gone"})
    async with fake.client() as client:
        with pytest.raises(BadInputError, match="gone: No such file"):
            await client.submit_loaded(loaded)
    assert "POST /v1/jobs" not in fake.requests


# ---- errors


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (400, "bad-input", BadInputError),
        (403, "denied", DeniedError),
        (404, "not-found", NotFoundError),
        (409, "conflict", ConflictError),
        (413, "too-large", TooLargeError),
        (426, "version", VersionError),
        (507, "storage", StorageError),
        (404, "invented-later", NotFoundError),
        (418, "invented-later", GridError),
    ],
)
async def test_a_refusal_comes_back_as_the_error_that_was_raised(
    fake: FakeCoordinator, status: int, code: str, kind: type[GridError]
) -> None:
    async def no(_request: web.Request) -> web.Response:
        return refuse(status, code, "Title", "what", "Do this")

    fake.on("GET", "/jobs/17", no)
    async with fake.client() as client:
        with pytest.raises(kind) as caught:
            await client.job(17)
    assert type(caught.value) is kind
    assert (caught.value.title, caught.value.message, caught.value.hint) == ("Title", "what", "Do this")


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (401, UnauthenticatedError),
        (404, NotFoundError),
        (413, TooLargeError),
        (500, GridError),
        (502, GridError),
    ],
)
async def test_a_refusal_that_is_no_problem_keeps_its_status(
    fake: FakeCoordinator, status: int, kind: type[GridError]
) -> None:
    async def no(_request: web.Request) -> web.Response:
        return web.Response(status=status, text="<html>")

    fake.on("GET", "/jobs/17", no)
    async with fake.client() as client:
        with pytest.raises(kind, match=f"answered {status}") as caught:
            await client.job(17)
    assert type(caught.value) is kind


async def test_an_answer_of_another_form_is_told(fake: FakeCoordinator) -> None:
    async def other(_request: web.Request) -> web.Response:
        return web.Response(body=b'{"id": 3}')

    fake.on("GET", "/jobs/17", other)
    async with fake.client() as client:
        with pytest.raises(GridError, match="answered `job` with something else"):
            await client.job(17)


async def test_names_that_would_be_another_path_are_refused_before_they_are_sent(
    fake: FakeCoordinator,
) -> None:
    async with fake.client() as client:
        for name in ("", ".", ".."):
            with pytest.raises(BadInputError, match="names no device"):
                await client.device(name)
        with pytest.raises(BadInputError, match=r"a task is like 17\.0\.5"):
            await client.task("17")
    assert fake.requests == []


async def test_a_client_is_used_inside_async_with_only(fake: FakeCoordinator) -> None:
    with pytest.raises(RuntimeError, match="async with"):
        await fake.client().job(17)


# ---- dropped connections


def drops(fake: FakeCoordinator, method: str, path: str, times: int, value: Any) -> list[int]:
    """Cut the connection the first `times` times, then answer. The list grows by one entry a request."""
    seen: list[int] = []

    async def handle(request: web.Request) -> web.Response:
        seen.append(1)
        if len(seen) <= times:
            assert request.transport is not None
            request.transport.abort()
        return answer(value)

    fake.on(method, path, handle)
    return seen


async def test_a_call_that_may_be_repeated_outlives_dropped_connections(fake: FakeCoordinator) -> None:
    seen = drops(fake, "GET", "/jobs/17", 2, JOB)
    async with fake.client() as client:
        assert await client.job(17) == JOB
    assert len(seen) == 3


async def test_a_submission_is_never_sent_twice(fake: FakeCoordinator) -> None:
    seen = drops(fake, "POST", "/jobs", 1, api.Submitted("1", 1))
    async with fake.client() as client:
        with pytest.raises(UnreachableError):
            await client.submit(api.JobSpec("x", [api.StageSpec()]))
    assert len(seen) == 1


async def test_a_removal_that_was_done_before_the_drop_counts_as_done(fake: FakeCoordinator) -> None:
    calls: list[int] = []

    async def once(request: web.Request) -> web.Response:
        calls.append(1)
        if len(calls) == 1:
            assert request.transport is not None
            request.transport.abort()
        return refuse(404, "not-found", "No such job")

    fake.on("DELETE", "/jobs/17", once)
    async with fake.client() as client:
        await client.remove_job(17)
        with pytest.raises(NotFoundError):
            await client.remove_job(17)


async def test_a_call_outlives_a_restart_of_the_coordinator(fake: FakeCoordinator) -> None:
    restarted: list[asyncio.Task[None]] = []

    async def restart() -> None:
        await fake.stop()
        await fake.start()

    async def die(request: web.Request) -> web.Response:
        fake.on_value("GET", "/jobs/17", JOB)
        restarted.append(asyncio.create_task(restart()))
        assert request.transport is not None
        request.transport.abort()
        return web.Response()

    fake.on("GET", "/jobs/17", die)
    async with fake.client() as client:
        assert await client.job(17) == JOB
        await restarted[0]


async def test_patience_ends(fake: FakeCoordinator) -> None:
    drops(fake, "GET", "/jobs/17", 1000, JOB)
    async with fake.client(patience_s=0.2) as client:
        with pytest.raises(UnreachableError, match=fake.url):
            await client.job(17)


async def test_a_coordinator_that_never_answers_is_given_up(
    fake: FakeCoordinator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transport, "CALL_S", 0.2)

    async def wait(_request: web.Request) -> web.Response:
        await asyncio.Event().wait()
        return web.Response()

    fake.on("GET", "/jobs/17", wait)
    async with fake.client() as client:
        with pytest.raises(UnreachableError, match="no answer in time"):
            await client.job(17)


# ---- who answers


async def test_nobody_there_is_told_at_once_with_the_address_and_a_next_step() -> None:
    port = free_port()
    async with Client.connect(url=f"https://127.0.0.1:{port}", fingerprint="ab" * 32, token="t") as client:
        with pytest.raises(UnreachableError, match=rf"127\.0\.0\.1:{port}: connection refused") as caught:
            await client.job(17)
    assert "sparegrid coordinator" in caught.value.hint


async def test_a_name_that_does_not_resolve_is_told() -> None:
    async with Client.connect(url="https://nowhere.invalid:1", fingerprint="ab" * 32, token="t") as client:
        with pytest.raises(UnreachableError, match=r"nowhere\.invalid:1: "):
            await client.health()


async def test_another_key_is_refused_and_sees_no_token(fake: FakeCoordinator) -> None:
    async with Client.connect(url=fake.url, fingerprint="ab" * 32, token="secret") as client:
        with pytest.raises(UnreachableError, match="Another key answered"):
            await client.grid()
        with pytest.raises(UnreachableError, match="Another key answered"):
            await anext(client.watch(api.Subscribe()))
    assert fake.requests == []


async def test_the_first_128_bits_are_enough_of_a_pin(fake: FakeCoordinator) -> None:
    pin = fake.certificate.fingerprint[:32].upper()
    colons = ":".join(pin[start : start + 2] for start in range(0, len(pin), 2))
    async with Client.connect(url=fake.url, fingerprint=colons, token="") as client:
        assert (await client.health()).status == "ok"


@pytest.mark.parametrize("fingerprint", ["", "ab", "xy" * 32, "ab" * 33, "abc"])
async def test_what_is_no_fingerprint_is_refused(fingerprint: str) -> None:
    with pytest.raises(BadInputError, match="fingerprint"):
        Client.connect(url="https://a:1", fingerprint=fingerprint, token="")


@pytest.mark.parametrize(
    "url", ["", "http://a:1", "ftp://a", "https://", "https://a:port", "https://a:70000", "a b"]
)
async def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(BadInputError, match="Not an address"):
        Client.connect(url=url, fingerprint="ab" * 32, token="")


async def test_the_second_address_is_used_when_the_first_does_not_answer(fake: FakeCoordinator) -> None:
    urls = [f"127.0.0.1:{free_port()}", fake.url]
    async with Client.connect(url=urls, fingerprint=fake.certificate.fingerprint, token="") as client:
        assert (await client.health()).status == "ok"
        assert client.url == fake.url


async def serve_plainly(context: ssl.SSLContext | None) -> tuple[asyncio.Server, str]:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(100)
        writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0, ssl=context)
    return server, f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"


async def test_a_server_without_tls_is_told_apart(tmp_path: Path) -> None:
    server, url = await serve_plainly(None)
    async with server, Client.connect(url=url, fingerprint="ab" * 32, token="t", patience_s=0.1) as client:
        with pytest.raises(UnreachableError):
            await client.grid()


async def test_the_right_key_over_old_tls_is_refused(tmp_path: Path) -> None:
    certificate = Certificate.load_or_make(tmp_path / "identity.pem")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(certificate.path)
    server, url = await serve_plainly(context)
    async with server, Client.connect(url=url, fingerprint=certificate.fingerprint, token="t") as client:
        with pytest.raises(UnreachableError):
            await client.grid()


async def test_a_client_that_speaks_old_tls_is_refused(fake: FakeCoordinator) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with pytest.raises((ssl.SSLError, ConnectionError)):
        await asyncio.open_connection("127.0.0.1", fake.port, ssl=context)


async def test_dates_and_names_of_the_certificate_do_not_matter(tmp_path: Path) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "elsewhere")])
    past = datetime.datetime(2001, 1, 1, tzinfo=datetime.UTC)
    expired = x509.CertificateBuilder(
        name, name, key.public_key(), 1, past, past + datetime.timedelta(1)
    ).sign(key, hashes.SHA256())
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path = tmp_path / "old" / "coordinator.pem"
    path.parent.mkdir()
    path.write_bytes(pem + expired.public_bytes(serialization.Encoding.PEM))
    async with fake_coordinator(path.parent) as fake, fake.client() as client:
        assert (await client.health()).status == "ok"
