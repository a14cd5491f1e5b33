"""Executor `command`: runs a program in the nursery, with a variant for this platform when there is one."""

from __future__ import annotations

import os
import platform
import sys
from typing import Any, ClassVar, NamedTuple

import msgspec

from executors.base import AttemptFailedError
from executors.context import TaskContext
from executors.nursery.protocol import RunCommand
from sparegrid.errors import BadInputError
from sparegrid.kinds import CommandParams
from sparegrid.messages import Blame, KindInfo, Outcome
from sparegrid.template import Template

_OS_NAMES = {"linux": "linux", "win32": "windows", "darwin": "macos"}
_ARCH_NAMES = {"amd64": "x86_64", "arm64": "aarch64", "armv7l": "armv7"}
_MAX_PLANS = 64


class Plan(NamedTuple):
    """Parameters as they apply to this device. `texts` is [argv, env, stdin]."""

    params: CommandParams
    texts: Template


class CommandExecutor:
    """Runs programs.

    Args:
        platform_name: `linux/x86_64` and so on; by default this machine's.
    """

    kind: ClassVar[str] = "command"
    params: ClassVar[type[msgspec.Struct]] = CommandParams

    def __init__(self, platform_name: str = "") -> None:
        self._platform = platform_name or this_platform()
        self._plans: dict[int, Plan] = {}

    def probe(self) -> KindInfo:
        """Every device that runs a worker runs commands."""
        return KindInfo(
            detail="sh" if os.name == "posix" else "cmd", schema=msgspec.json.schema(CommandParams)
        )

    async def run(self, params: CommandParams, ctx: TaskContext) -> Outcome:
        """Run the program to its end."""
        try:
            argv, env, stdin = self._plan(params).texts.fill(ctx.item, ctx.index)
        except BadInputError as error:
            raise AttemptFailedError(Blame.TASK, str(error)) from error
        if not argv:
            reason = f"the stage has no command for {self._platform}"
            raise AttemptFailedError(Blame.DEVICE, reason)
        done = await ctx.in_slot(
            RunCommand(
                attempt=ctx.attempt,
                argv=argv,
                env={**ctx.own_environ(), **env},
                max_log_bytes=params.max_log_bytes,
                stdin=stdin,
                ok_codes=tuple(params.ok_codes),
                files=ctx.files,
                outputs=ctx.stage.outputs,
                checkpoint_glob=ctx.stage.checkpoint_glob,
                disk_bytes=ctx.disk_bytes,
            )
        )
        if done.checkpoint is not None:
            # It was asked to stop, and a good exit code then means that it stopped well, not that it is finished.
            reason = done.reason or "stopped at a checkpoint"
            raise AttemptFailedError(Blame(done.blame or Blame.OWNER), reason, done.outcome, done.checkpoint)
        if done.blame:
            raise AttemptFailedError(Blame(done.blame), done.reason, done.outcome)
        return done.outcome

    def _plan(self, params: CommandParams) -> Plan:
        """The plan of these parameters. One Struct serves a whole stage: it is made once."""
        plan = self._plans.get(id(params))
        if plan is None or plan.params is not params:
            if len(self._plans) >= _MAX_PLANS:
                self._plans.clear()
            plan = self._plans[id(params)] = Plan(params, Template(choose(params, self._platform)))
        return plan


def choose(params: CommandParams, platform_name: str) -> list[Any]:
    """[argv, env, stdin] for a platform: its variant's own, the stage's where the variant says nothing."""
    system = platform_name.partition("/")[0]
    argv, shell, env = params.argv, params.shell, dict(params.env)
    for name in (system, platform_name):
        variant = params.platforms.get(name)
        if variant is None:
            continue
        env.update(variant.env)
        if variant.argv or variant.shell:
            argv, shell = variant.argv, variant.shell
    if shell:
        argv = ["cmd", "/d", "/c", shell] if system == "windows" else ["/bin/sh", "-c", shell]
    return [argv, env, params.stdin]


def this_platform() -> str:
    """`linux/x86_64`, `macos/aarch64`, `windows/x86_64`, …"""
    machine = platform.machine().lower()
    return f"{_OS_NAMES.get(sys.platform, sys.platform)}/{_ARCH_NAMES.get(machine, machine)}"
