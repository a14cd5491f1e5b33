"""Calls of functions in a real slot: values, failures, output, warmth, and what is left of a process that dies."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from executors.agent.slot_handle import SlotDiedError
from executors.nursery.protocol import Done
from sparegrid.messages import BlobRef, Inline
from tests.unit.executors.nurseries import bed, call, expect_soon, is_running, module, pids_in


def value_of(done: Done) -> object:
    assert isinstance(done.outcome.value, Inline), done.reason
    return json.loads(done.outcome.value.data)


async def test_a_call_gives_its_value_as_json(tmp_path: Path) -> None:
    async with bed(tmp_path) as it:
        assert value_of(await it.call("operator:add", 2, 3)) == 5
        files = module("def f(x, *, k): return {'x': x, 'k': k, 'l': [1.5, None, True]}")
        done = await it.call("m:f", {"a": 1}, kwargs={"k": "ü"}, files=files)
    assert value_of(done) == {"x": {"a": 1}, "k": "ü", "l": [1.5, None, True]}
    assert done.outcome.log is None


async def test_a_module_is_imported_once(tmp_path: Path) -> None:
    files = module("n = 0\ndef f():\n    global n\n    n += 1\n    return n")
    async with bed(tmp_path) as it:
        assert [value_of(await it.call("m:f", files=files)) for _ in range(3)] == [1, 2, 3]


async def test_a_large_value_is_a_blob(tmp_path: Path) -> None:
    async with bed(tmp_path) as it:
        done = await it.call("operator:mul", "x", 100_000)
        assert isinstance(done.outcome.value, BlobRef)
        assert json.loads((it.outbox / done.outcome.value.hash).read_bytes()) == "x" * 100_000


async def test_what_it_prints_is_its_own_log(tmp_path: Path) -> None:
    files = module(
        "import os, sys\ndef f(x):\n    print('out', x)\n    print('err', file=sys.stderr)\n    os.write(1, b'low\\n')"
    )
    async with bed(tmp_path) as it:
        first, second = [await it.call("m:f", number, files=files) for number in (1, 2)]
        silent = await it.call("operator:truth", 1)
    assert sorted(it.bytes_of(first).splitlines()) == [b"err", b"low", b"out 1"]
    assert sorted(it.bytes_of(second).splitlines()) == [b"err", b"low", b"out 2"]
    assert silent.outcome.log is None


async def test_a_function_that_closes_its_output_does_not_spoil_the_next_call(tmp_path: Path) -> None:
    files = module(
        "import sys\ndef f():\n    sys.stdout.close()\n    sys.stderr = None\ndef g(): print('here')"
    )
    async with bed(tmp_path) as it:
        assert (await it.call("m:f", files=files)).blame == ""
        assert it.bytes_of(await it.call("m:g", files=files)) == b"here\n"


async def test_an_exception_ends_it_with_a_traceback_of_the_users_own_lines(tmp_path: Path) -> None:
    files = module("def f():\n    return g()\ndef g():\n    raise ValueError('too\\nbad')")
    async with bed(tmp_path) as it:
        done = await it.call("m:f", files=files)
    text = it.bytes_of(done).decode()
    assert done.blame == "task"
    assert "bad" in done.reason
    assert text.startswith("Traceback")
    assert "in g" in text
    assert "call.py" not in text


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("import sys\ndef f(): sys.exit(3)", "called sys.exit(3)"),
        ("def f(): return object()", "returned object, which JSON cannot carry"),
        ("def f():\n    x = []\n    x.append(x)\n    return x", "JSON cannot carry"),
        ("def f(x): pass", "missing 1 required positional argument"),
        ("f = 3", "is int, which cannot be called"),
        ("g = 3", "the module 'm' has no 'f'"),
        ("import nowhere", "No module named 'nowhere'"),
        ("def f(:", "invalid syntax"),
        ("def f(): raise KeyboardInterrupt", "KeyboardInterrupt"),
        ("def f():\n    f()", "RecursionError"),
    ],
)
async def test_every_failure_is_named_and_the_slot_lives_on(tmp_path: Path, source: str, reason: str) -> None:
    async with bed(tmp_path) as it:
        done = await it.call("m:f", files=module(source))
        assert done.blame == "task"
        assert reason in done.reason
        pid = it.slot.pid
        assert value_of(await it.call("operator:add", 1, 1)) == 2
        assert it.slot.pid == pid


@pytest.mark.parametrize(
    ("source", "code", "number"),
    [
        ("import os\ndef f():\n    print('last', flush=True)\n    os._exit(5)", 5, 0),
        ("import os\ndef f():\n    print('last', flush=True)\n    os.kill(os.getpid(), 11)", 0, 11),
        ("import ctypes\ndef f():\n    print('last', flush=True)\n    ctypes.string_at(0)", 0, 11),
    ],
)
async def test_a_process_that_dies_is_told_with_its_last_words(
    tmp_path: Path, source: str, code: int, number: int
) -> None:
    async with bed(tmp_path) as it:
        with pytest.raises(SlotDiedError) as died:
            await it.call("m:f", files=module(source))
        assert (died.value.exit_code, died.value.signal) == (code, number)
        assert it.slot.output_path.read_bytes() == b"last\n"
        assert value_of(await it.call("operator:add", 1, 1)) == 2


async def test_calls_behind_one_that_dies_are_taken_back(tmp_path: Path) -> None:
    files = module("import os, time\ndef f():\n    time.sleep(0.2)\n    os._exit(1)")
    async with bed(tmp_path) as it:
        futures = [
            it.slot.submit(call("m:f", files=files)),
            *(it.slot.submit(call("operator:truth", 1)) for _ in "ab"),
        ]
        names = [type(error).__name__ for error in await _errors(futures)]
    assert names == ["SlotDiedError", "RecalledError", "RecalledError"]


async def _errors(futures: list[asyncio.Future[Done]]) -> list[BaseException]:
    return [
        error
        for error in await asyncio.gather(*futures, return_exceptions=True)
        if isinstance(error, BaseException)
    ]


async def test_a_stuck_call_is_killed_with_its_children(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    files = module(
        "import os, signal, subprocess\n"
        "def f(path):\n"
        "    signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "    child = subprocess.Popen(['setsid', 'sleep', '1000'])\n"
        "    open(path, 'w').write(f'{os.getpid()}\\n{child.pid}\\n')\n"
        "    while True: pass"
    )
    async with bed(tmp_path) as it:
        future = it.slot.submit(call("m:f", str(pids), files=files))
        await expect_soon(lambda: len(pids_in(pids)) == 2, "it runs")
        it.nursery.kill_slot(it.slot)
        with pytest.raises(SlotDiedError):
            await future
        assert not any(is_running(pid) for pid in pids_in(pids))


async def test_children_that_a_call_leaves_are_ended_with_it(tmp_path: Path) -> None:
    files = module(
        "import subprocess\ndef f(): return subprocess.Popen(['sleep', '1000'], start_new_session=True).pid"
    )
    async with bed(tmp_path) as it:
        pid = value_of(await it.call("m:f", files=files))
    assert isinstance(pid, int)
    assert not is_running(pid)


async def test_a_slot_with_left_threads_is_not_used_again(tmp_path: Path) -> None:
    source = "import threading, time\ndef f(): threading.Thread(target=time.sleep, args=(1000,)).start()"
    async with bed(tmp_path) as it:
        pid_before = it.slot
        assert (await it.call("m:f", files=module(source))).worn
        assert value_of(await it.call("operator:add", 1, 1)) == 2
        assert it.slot is not pid_before
        await expect_soon(lambda: not pid_before.alive, "the worn slot ends")


async def test_each_call_sees_its_own_variables_and_a_fresh_folder(tmp_path: Path) -> None:
    source = (
        "import os\ndef f():\n    open('x', 'w').close()\n"
        "    return os.getenv('A'), os.getenv('B'), sorted(os.listdir())"
    )
    async with bed(tmp_path) as it:
        first = value_of(await it.call("m:f", files=module(source), env={"A": "1"}))
        second = value_of(await it.call("m:f", files=module(source), env={"B": "2"}))
    assert first == ["1", None, ["m.py", "x"]]
    assert second == [None, "2", ["m.py", "x"]]


async def test_calls_write_outputs_too(tmp_path: Path) -> None:
    files = module("def f(): open('r.txt', 'w').write('r')")
    async with bed(tmp_path) as it:
        done = await it.call("m:f", files=files, outputs=["r.txt"])
        missing = await it.call("m:f", files=files, outputs=["s.txt"])
    assert [entry.path for entry in done.outcome.files] == ["r.txt"]
    assert missing.reason == "the output 's.txt' was not made"
