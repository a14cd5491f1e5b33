"""A whole worker, from settings to its end: joining, the lock, the local socket, removal, leftovers."""

from __future__ import annotations

import asyncio
import os
import signal
import stat
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import msgspec
import pytest
from aiohttp import web

from executors.agent.lock import MARKER, WorkerLock, hunt_leftovers
from executors.agent.membership import device_key, find_membership
from executors.main import work
from sparegrid.api import DeviceView, JoinCode, Joined, JoinRequest, PauseRequest, Problem
from sparegrid.errors import ConfigError, ConflictError, DeniedError, UnreachableError
from sparegrid.messages import Attach, Detach, PolicyChanged, Refused
from sparegrid.paths import Paths
from sparegrid.settings import WorkerSettings
from sparegrid.trust.access import Access, Credentials, load_credentials, save_credentials, write_access
from sparegrid.trust.codes import Address, Invitation, encode_code, make_secret
from tests.unit.executors.grids import FakeGrid, fake_grid
from tests.unit.executors.nurseries import DEADLINE_S, expect_soon, is_running
from tests.unit.sparegrid.fake_coordinator import TOKEN, answer, refuse

ENVIRON = {"PATH": os.environ["PATH"]}


class JoinableGrid:
    """A fake grid that takes a code once."""

    def __init__(self, grid: FakeGrid) -> None:
        self.grid = grid
        self.joins: list[JoinRequest] = []
        self.secret = make_secret()
        grid.fake.on("POST", "/join", self._join)

    @property
    def id(self) -> str:
        return self.grid.fake.certificate.grid

    @property
    def code(self) -> str:
        address = Address("127.0.0.1", self.grid.fake.port)
        return encode_code(Invitation((address,), self.grid.fake.certificate.fingerprint, self.secret))

    @property
    def access(self) -> Access:
        return Access(self.grid.fake.url, self.grid.fake.certificate.fingerprint, TOKEN, self.id, "lab")

    async def _join(self, request: web.Request) -> web.StreamResponse:
        asked = msgspec.json.decode(await request.read(), type=JoinRequest)
        if asked.secret != self.secret or self.joins:
            return refuse(403, "denied", "Wrong code", "the code is wrong or spent")
        self.joins.append(asked)
        return answer(Joined(self.id, "lab", TOKEN, "", "worker"), 201)


@asynccontextmanager
async def joinable(folder: Path) -> AsyncIterator[JoinableGrid]:
    async with fake_grid(folder) as grid:
        yield JoinableGrid(grid)


@asynccontextmanager
async def worker(paths: Paths, settings: WorkerSettings) -> AsyncIterator[asyncio.Task[None]]:
    """A worker that is at work, until the block ends."""
    said: list[str] = []
    stop = asyncio.Event()
    task = asyncio.create_task(work(settings, ready=said.append, stop=stop, paths=paths, environ=ENVIRON))
    try:
        await expect_soon(lambda: said or task.done(), "the worker is ready")
        if task.done():
            task.result()
        yield task
    finally:
        stop.set()
        await asyncio.wait_for(asyncio.gather(task, return_exceptions=True), 20)


async def test_a_worker_joins_by_code_works_and_leaves_well(tmp_path: Path) -> None:
    paths = Paths.below(tmp_path / "home")
    async with joinable(tmp_path) as lab:
        settings = WorkerSettings(
            join=lab.code, name="attic", slots=3, labels={"room": "attic"}, counts={"l": 2}
        )
        async with worker(paths, settings):
            attach = await lab.grid.until(Attach)
            assert (attach.name, attach.capability.slots, attach.unclean) == ("attic", 3, False)
            assert (attach.capability.labels, attach.capability.counts) == ({"room": "attic"}, {"l": 2})
            assert attach.device == device_key(paths).id
            assert (await lab.grid.outcome_of(await lab.grid.sh("true", job=9))).exit_code == 0
        assert lab.grid.heard[-1] == Detach(attach.device, for_good=True, reason="stopped")
        # The code is spent, but it is this grid's: a service starts with the same settings again.
        async with worker(paths, settings):
            pass
        async with worker(paths, WorkerSettings()):
            pass
    assert len(lab.joins) == 1
    assert stat.S_IMODE((paths.grid(lab.id) / "credentials.json").stat().st_mode) == 0o600


async def test_the_coordinator_of_the_same_home_is_joined_without_a_code(tmp_path: Path) -> None:
    paths = Paths.below(tmp_path / "home").make()
    async with joinable(tmp_path) as lab:
        write_access(paths, lab.access)
        lab.grid.fake.on_value("POST", "/join-codes", JoinCode(lab.code, "", 0))
        async with worker(paths, WorkerSettings()):
            await lab.grid.until(Attach)
    assert [one.role for one in load_credentials(paths)] == ["worker"]


async def test_without_any_grid_it_says_what_to_do(tmp_path: Path) -> None:
    paths = Paths.below(tmp_path).make()
    with pytest.raises(ConfigError, match="member of no grid") as caught:
        await find_membership(WorkerSettings(), paths, device_key(paths))
    assert "join-code" in caught.value.hint
    with pytest.raises(ConfigError, match="no member of the grid at 10"):
        await find_membership(WorkerSettings(coordinator="10.0.0.1"), paths, device_key(paths))


async def test_of_several_grids_one_is_named(tmp_path: Path) -> None:
    paths = Paths.below(tmp_path).make()
    key = device_key(paths)
    for name, letter in (("lab", "a"), ("home", "b")):
        save_credentials(
            paths, Credentials(name, name, (f"https://{name}:8443",), letter * 64, "t", "worker", key.id)
        )
    with pytest.raises(ConfigError, match="joined home, lab"):
        await find_membership(WorkerSettings(), paths, key)
    assert (await find_membership(WorkerSettings(coordinator="lab"), paths, key)).grid == "lab"
    assert (await find_membership(WorkerSettings(fingerprint="BB"), paths, key)).grid == "home"


async def test_a_home_whose_coordinator_is_gone_says_so(tmp_path: Path) -> None:
    paths = Paths.below(tmp_path).make()
    write_access(paths, Access("https://127.0.0.1:9", "a" * 64, "t", "grid", "lab"))
    with pytest.raises(UnreachableError, match="was this home's coordinator"):
        await find_membership(WorkerSettings(), paths, device_key(paths))


async def test_a_removed_device_ends_in_words_and_a_new_code_brings_it_back(tmp_path: Path) -> None:
    paths = Paths.below(tmp_path / "home")
    async with joinable(tmp_path) as lab:
        settings = WorkerSettings(join=lab.code)
        async with worker(paths, settings):
            await lab.grid.until(Attach)
        lab.grid.refusal = Refused("unauthenticated", "Not a member", "the token is not known")
        with pytest.raises(DeniedError, match="Not a member"):
            await until_it_ends(paths, WorkerSettings())
        lab.joins.clear()
        lab.secret = make_secret()
        with pytest.raises(DeniedError, match="Not a member"):
            await until_it_ends(paths, WorkerSettings(join=lab.code))
        assert len(lab.joins) == 1, "the code was spent when the old token was refused"


async def test_a_device_that_is_removed_while_it_works_ends(tmp_path: Path) -> None:
    paths = Paths.below(tmp_path / "home")
    async with joinable(tmp_path) as lab:
        ending = asyncio.create_task(until_it_ends(paths, WorkerSettings(join=lab.code)))
        await lab.grid.until(Attach)
        lab.grid.refusal = Refused("denied", "Removed from the grid", "it is no member any more")
        await lab.grid.send(lab.grid.refusal)
        with pytest.raises(DeniedError, match="Removed from the grid"):
            await ending


async def until_it_ends(paths: Paths, settings: WorkerSettings) -> None:
    """A worker that nobody stops."""
    async with asyncio.timeout(20):
        await work(settings, ready=lambda _: None, stop=asyncio.Event(), paths=paths, environ=ENVIRON)


# ---- one worker a home --------------------------------------------------------------------------------------------


def test_a_second_worker_is_refused_and_names_the_first(tmp_path: Path) -> None:
    with (
        WorkerLock(tmp_path),
        pytest.raises(ConflictError, match=f"process id {os.getpid()}"),
        WorkerLock(tmp_path),
    ):
        pass
    with WorkerLock(tmp_path) as again:
        assert not again.was_unclean


def test_an_end_without_goodbye_is_noticed_by_the_next(tmp_path: Path) -> None:
    code = (
        "import os, sys; from pathlib import Path; from executors.agent.lock import WorkerLock\n"
        "WorkerLock(Path(sys.argv[1])).__enter__(); os.kill(os.getpid(), 9)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False)
    assert done.returncode == -signal.SIGKILL
    with WorkerLock(tmp_path) as lock:
        assert lock.was_unclean


def test_what_a_dead_worker_left_is_hunted_down_by_its_mark(tmp_path: Path) -> None:
    pipe = subprocess.PIPE
    marked, other = [
        subprocess.Popen(["cat"], env={MARKER: folder}, start_new_session=True, stdin=pipe, stdout=pipe)
        for folder in (str(tmp_path), str(tmp_path / "other"))
    ]
    try:
        for process in (marked, other):
            # Its environment is there to be read a moment after Popen has returned: at the latest when it answers.
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write(b"\n")
            process.stdin.flush()
            process.stdout.readline()
        assert hunt_leftovers(tmp_path) == 1
        assert not is_running(marked.pid)
        assert is_running(other.pid)
    finally:
        for process in (marked, other):
            process.kill()
            process.communicate()


# ---- the local socket ---------------------------------------------------------------------------------------------


async def test_the_local_socket_shows_pauses_and_logs_for_this_user_only(tmp_path: Path) -> None:
    paths = Paths.below(tmp_path / "home")
    async with joinable(tmp_path) as lab, worker(paths, WorkerSettings(join=lab.code, name="pc")):
        socket = paths.socket("worker")
        assert stat.S_IMODE(socket.stat().st_mode) == 0o600
        await lab.grid.until(Attach)
        async with aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(socket))) as session:
            async with session.get("http://worker/v1/status") as reply:
                view = msgspec.json.decode(await reply.read(), type=DeviceView)
            assert (view.name, view.state, view.address) == ("pc", "ready", "connected")
            pause = msgspec.json.encode(PauseRequest("pause", 0.3))
            async with session.post("http://worker/v1/pause", data=pause) as reply:
                view = msgspec.json.decode(await reply.read(), type=DeviceView)
            assert (view.state, view.reason) == ("paused", "paused by the owner")
            assert (await lab.grid.until(PolicyChanged)).until_ms > 0
            assert (await lab.grid.until(PolicyChanged, lambda one: one.state == "ready")).reason == ""
            async with session.post("http://worker/v1/pause", data=b'{"verb": "explode"}') as reply:
                problem = msgspec.json.decode(await reply.read(), type=Problem)
            assert (reply.status, problem.code) == (400, "bad-input")
            async with session.get("http://worker/v1/log") as reply:
                assert reply.status == 200
    assert not socket.exists()


async def test_a_worker_whose_coordinator_is_away_says_so_locally(tmp_path: Path) -> None:
    paths = Paths.below(tmp_path / "home")
    async with joinable(tmp_path) as lab, worker(paths, WorkerSettings(join=lab.code)):
        await lab.grid.until(Attach)
        lab.grid.refusal = Refused("conflict", "Not now", "it is being moved")
        lab.grid.cut()
        async with aiohttp.ClientSession(
            connector=aiohttp.UnixConnector(str(paths.socket("worker")))
        ) as session:

            async def address() -> str:
                async with session.get("http://worker/v1/status") as reply:
                    return msgspec.json.decode(await reply.read(), type=DeviceView).address

            async with asyncio.timeout(DEADLINE_S):
                seen = await address()
                while "Not now" not in seen:
                    seen = await address()
            assert seen.startswith("offline: Not now")
