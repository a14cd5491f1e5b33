"""What a coordinator keeps over restarts, what it leaves behind, and what it refuses to start with."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import ssl
import stat
from pathlib import Path

import aiohttp
import pytest

from coordinator.scheduler.events import JobRemoved
from coordinator.server.clock import wall_ms
from coordinator.server.housekeeping import forget_expired
from coordinator.server.listen import invited_addresses, listen, own_address
from sparegrid.api import Items, JobSpec, StageSpec
from sparegrid.client import Client
from sparegrid.errors import ConfigError, NotFoundError, StorageError
from sparegrid.ids import JobId
from sparegrid.messages import Attached, Inline, Outcome
from sparegrid.paths import Paths
from sparegrid.trust.access import Access, read_access, write_access
from sparegrid.trust.certificate import fingerprint_of
from sparegrid.trust.codes import Address, decode_code
from sparegrid.trust.keys import DeviceKey
from tests.fakes.coordinator import RunningCoordinator, running_coordinator
from tests.fakes.worker import FakeWorker, busy


def spec(count: int = 1, **fields: object) -> JobSpec:
    stage = StageSpec(params={"argv": ["true"]}, items=Items(count=count))
    return JobSpec("j", [stage], **fields)  # type: ignore[arg-type]  # fields of a JobSpec


def again(grid: RunningCoordinator, before: FakeWorker, **options: object) -> FakeWorker:
    """The same worker, on its way back."""
    return FakeWorker(
        grid.url,
        grid.access.fingerprint,
        before.token,
        before.key,
        session=before.session,
        **options,  # type: ignore[arg-type]  # as FakeWorker's
    )


async def test_jobs_results_devices_and_tokens_are_there_after_a_restart(tmp_path: Path) -> None:
    key = DeviceKey.make()
    async with running_coordinator(tmp_path) as grid:
        client = await grid.client()
        alice = await grid.token("submitter", "alice")
        async with await grid.worker("pc", key, answer=lambda *_: Outcome(value=Inline(b"42"))) as worker:
            await client.wait((await client.submit(spec(5))).id)
        await client.submit(spec(2))
        fingerprint = grid.access.fingerprint
    async with running_coordinator(tmp_path) as grid:
        assert grid.access.fingerprint == fingerprint
        client = await grid.client()
        assert [(view.id, view.state) for view in (await client.jobs()).jobs] == [
            ("2", "active"),
            ("1", "done"),
        ]
        assert [result.outcome.value async for result in client.results("1")] == [Inline(b"42")] * 5
        assert (await client.task("1.0.3")).attempts[0].device_name == "pc"
        assert [view.state for view in (await client.devices()).devices] == ["offline"]
        async with grid.client_of(alice) as hers:
            assert (await hers.grid()).principal == "alice"
        assert (await client.submit(spec())).id == "3"
        async with again(grid, worker) as back:
            assert back.welcome is not None
            assert back.welcome.epoch == 2
            assert (await client.wait("2")).done == 2
            assert (await client.wait("3")).done == 1


async def test_what_ran_goes_on_and_is_not_run_again(tmp_path: Path) -> None:
    async with running_coordinator(tmp_path) as grid, await grid.worker("pc", answer=busy) as worker:
        await (await grid.client()).submit(spec())
        run = (await worker.until_runs(1))[0]
        grid.stop.set()
        await grid.task
    async with (
        running_coordinator(tmp_path) as grid,
        again(grid, worker, running=[run.attempt], answer=busy) as back,
    ):
        assert (await back.until(Attached)).revoked == []
        back.attempts = worker.attempts
        await back.deliver(run.attempt)
        assert (await (await grid.client()).wait("1")).state == "done"
        assert back.runs == []


async def test_a_result_that_was_spooled_meanwhile_is_welcome(tmp_path: Path) -> None:
    async with running_coordinator(tmp_path) as grid, await grid.worker("pc", answer=busy) as worker:
        await (await grid.client()).submit(spec())
        run = (await worker.until_runs(1))[0]
    async with (
        running_coordinator(tmp_path) as grid,
        again(grid, worker, spooled=[run.attempt], answer=busy) as back,
    ):
        back.attempts = worker.attempts
        await back.deliver(run.attempt)
        assert (await (await grid.client()).wait("1")).state == "done"
        assert back.runs == []


async def test_programs_of_the_home_find_it_and_the_file_goes_with_it(tmp_path: Path) -> None:
    paths = Paths.below(tmp_path)
    async with running_coordinator(tmp_path):
        assert stat.S_IMODE(paths.access_file.stat().st_mode) == 0o600
        async with Client.find(paths, {}) as client:
            assert (await client.grid()).role == "admin"
    assert read_access(paths) is None


async def test_programs_that_hold_the_token_of_a_killed_coordinator_go_on(tmp_path: Path) -> None:
    async with running_coordinator(tmp_path) as grid:
        left = grid.access
    write_access(Paths.below(tmp_path), left)
    async with running_coordinator(tmp_path) as grid, grid.client_of(left.token) as client:
        assert (await client.grid()).principal == "local"


async def test_a_token_left_by_another_grid_is_not_taken_over(tmp_path: Path) -> None:
    paths = Paths.below(tmp_path).make()
    write_access(paths, Access("https://127.0.0.1:1", "00" * 32, "sgt_foreign", grid="other", pid=1))
    async with running_coordinator(tmp_path) as grid:
        assert grid.access.token != "sgt_foreign"


async def test_an_access_file_of_another_coordinator_is_left_alone(tmp_path: Path) -> None:
    paths = Paths.below(tmp_path)
    async with running_coordinator(tmp_path):
        write_access(paths, Access("https://127.0.0.1:1", "00" * 32, "t", pid=os.getpid() + 1))
    assert read_access(paths) is not None


async def test_the_local_socket_speaks_for_the_admin_and_is_private(tmp_path: Path) -> None:
    async with running_coordinator(tmp_path) as grid:
        path = Path(grid.access.local_socket)
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
        async with (
            aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(path))) as http,
            http.get("http://local/v1/grid") as answer,
        ):
            body = json.loads(await answer.read())
        assert (body["principal"], body["role"]) == ("local", "admin")
    assert not path.exists()


async def test_a_socket_left_by_a_killed_coordinator_is_replaced(tmp_path: Path) -> None:
    paths = Paths.below(tmp_path).make()
    path = paths.socket("coordinator")
    path.parent.mkdir(mode=0o700, exist_ok=True)
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(os.fspath(path))
    async with running_coordinator(tmp_path) as grid:
        assert grid.access.local_socket == str(path)


async def test_a_second_coordinator_of_one_home_is_refused(tmp_path: Path) -> None:
    async with running_coordinator(tmp_path):
        with pytest.raises(StorageError, match="in use"):
            async with running_coordinator(tmp_path):
                pass
        assert read_access(Paths.below(tmp_path)) is not None


async def test_a_port_in_use_is_named(tmp_path: Path) -> None:
    with listen("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=f"127.0.0.1:{port}"):
            async with running_coordinator(tmp_path, port=port):
                pass


async def test_jobs_are_forgotten_when_their_time_is_over(tmp_path: Path) -> None:
    async with running_coordinator(tmp_path) as grid:
        client = await grid.client()
        for keep_s in (0, 100):
            await client.cancel((await client.submit(spec(keep_s=keep_s))).id)
        server = grid.server
        assert await forget_expired(server) == 0
        server.driver.clock.wall_ms = lambda: wall_ms() + 101_000
        assert await forget_expired(server) == 1
        assert (await client.job("1")).state == "cancelled"
        with pytest.raises(NotFoundError):
            await client.job("2")


async def test_join_codes_carry_where_the_request_went(tmp_path: Path) -> None:
    async with running_coordinator(tmp_path) as grid:
        code = await (await grid.client()).join_code()
        invitation = decode_code(code.code)
        assert [each.url for each in invitation.addresses] == [grid.url]
        assert grid.access.fingerprint.startswith(invitation.fingerprint)


def test_addresses_for_others_and_for_oneself() -> None:
    assert own_address("0.0.0.0", 8443) == Address("127.0.0.1", 8443)
    assert own_address("::", 8443) == Address("::1", 8443)
    assert own_address("192.0.2.7", 1) == Address("192.0.2.7", 1)
    assert invited_addresses("192.0.2.7", 1, [], "10.0.0.1") == [Address("192.0.2.7", 1)]
    assert invited_addresses("0.0.0.0", 1, [], "grid.example")[0] == Address("grid.example", 1)
    assert all(each.host != "localhost" for each in invited_addresses("0.0.0.0", 1, [], "localhost"))


async def test_a_store_that_fails_ends_the_program_with_its_reason(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(StorageError, match="fsync failed"):
        async with running_coordinator(tmp_path) as grid:
            grid.server.driver.die(StorageError("Disk error", "fsync failed"))
            refused = grid.server.driver.submit(JobRemoved(job=JobId(1)))
            assert isinstance(refused.exception(), StorageError)
            await asyncio.wait([grid.task])
    assert read_access(Paths.below(tmp_path)) is None


async def test_the_certificate_to_pin_lies_beside_the_access_file_without_its_key(tmp_path: Path) -> None:
    for _ in range(2):
        async with running_coordinator(tmp_path) as grid:
            pem = (tmp_path / "data" / "cert.pem").read_text()
            assert fingerprint_of(ssl.PEM_cert_to_DER_cert(pem)) == grid.access.fingerprint
            assert "PRIVATE" not in pem
        (tmp_path / "data" / "cert.pem").write_text("of another grid")
