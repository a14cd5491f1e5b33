"""A slot: the process that runs one task after the other, in the order of its request channel.

It is a subreaper of its own, so that whatever a task leaves behind comes to it and to no other slot. It ends when the
agent's end of the control channel is gone, and takes what it runs with it.
"""

from __future__ import annotations

import os
import select
import signal
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from executors.nursery.call import CallRunner
from executors.nursery.folder import WorkFolder
from executors.nursery.protocol import (
    Control,
    Done,
    FollowLog,
    LogPiece,
    Request,
    RunCall,
    RunCommand,
    Spilled,
    StreamCodec,
    decode_request,
)
from executors.nursery.spawn import Agent, CommandRun
from executors.nursery.tree import become_subreaper, bury_children

_MAX_REQUEST_BYTES = 1 << 16


class AgentGoneError(Exception):
    """The agent's end of the control channel is closed."""


class Slot:
    """The loop of one slot process.

    Args:
        requests: the slot's end of the request channel.
        control: the slot's end of the control channel.
        folder: the nursery's folder; the slot keeps its own things below it.
        outbox: where large outputs go.
        number: which slot of the nursery this is.
    """

    def __init__(
        self, requests: socket.socket, control: socket.socket, folder: Path, outbox: Path, number: int
    ) -> None:
        self._requests = requests
        self._control = control
        self._codec = StreamCodec(Control)
        self._spill = str(folder / f"slot-{number}.log")
        self._base_environ = dict(os.environ)
        self._follows: dict[int, int] = {}
        self._folder = WorkFolder(folder / f"slot-{number}", outbox)
        self._calls = CallRunner(self._folder, folder / f"slot-{number}.out")
        requests.setblocking(False)
        control.setblocking(True)

    def run(self) -> None:
        """Run requests until the agent is gone."""
        try:
            while (request := self._next_request()) is not None:
                done = self._serve(request)
                self._folder.clear()
                self._folder.leave()
                self._send(done)
                if done.worn:
                    break
        except (AgentGoneError, BrokenPipeError, ConnectionResetError):
            pass
        finally:
            bury_children()
            self._folder.remove()

    def _serve(self, request: Request) -> Done:
        match request:
            case Spilled(path=path):
                data = Path(path).read_bytes()
                Path(path).unlink()
                return self._serve(decode_request(data))
            case RunCommand():
                request.env = {**self._base_environ, **request.env}
                return CommandRun(
                    request,
                    self._folder,
                    self._spill,
                    Agent(self._control.fileno(), self._read_control, self._send),
                    self._follows.pop(request.attempt, -1),
                ).run()
            case RunCall():
                return self._calls.run(request)

    # -- channels

    def _next_request(self) -> Request | None:
        """Wait for the next request. None when the agent is gone."""
        while True:
            try:
                data = self._requests.recv(_MAX_REQUEST_BYTES)
            except BlockingIOError:
                readable, _, _ = select.select([self._requests, self._control], [], [])
                if self._control in readable:
                    self._read_control()
            else:
                return decode_request(data) if data else None

    def _read_control(self) -> list[Any]:
        """What the agent says. To follow an attempt may be asked before its request is read: that is kept."""
        data = self._control.recv(1 << 16)
        if not data:
            raise AgentGoneError
        messages = self._codec.feed(data)
        for message in messages:
            if isinstance(message, FollowLog):
                self._follows = {message.attempt: message.offset if message.on else -1}
        return messages

    def _send(self, report: Done | LogPiece) -> None:
        """Tell the agent at once: a result that waited here would be lost with a later task that crashes."""
        self._control.sendall(self._codec.pack([report]))


def slot_main(
    requests: socket.socket,
    control: socket.socket,
    folder: Path,
    outbox: Path,
    number: int,
    forget: Callable[[], None],
) -> NoReturn:
    """Be a slot: what a forked child of the nursery does for the rest of its life.

    Args:
        forget: closes what the child has of the nursery's own.
    """
    code = 70  # EX_SOFTWARE
    try:
        forget()
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        become_subreaper()
        Slot(requests, control, folder, outbox, number).run()
        code = 0
    finally:
        # Never the nursery's own clean-up.
        os._exit(code)
