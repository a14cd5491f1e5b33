"""Jobs built from a command line. Pure: options in, a JobSpec out; sends nothing."""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from sparegrid.api import Items, JobSpec, Requires, StageSpec
from sparegrid.cli.values import key_values, requirements
from sparegrid.errors import BadInputError
from sparegrid.messages import FileEntry

_SHORT_NAME_CHARS = 60
DEFAULT_PRIORITY = 5


@dataclass(frozen=True)
class TaskOptions:
    """What `options.task_options` collects."""

    require: Sequence[str] = ()
    inputs: Sequence[str] = ()
    outputs: Sequence[str] = ()
    into: str = "."
    env: Sequence[str] = ()
    shell: bool = False
    timeout: float = 0.0
    name: str = ""
    priority: int = DEFAULT_PRIORITY
    detach: bool = False


def command_stage(
    command: Sequence[str],
    options: TaskOptions,
    *,
    name: str = "main",
    items: Items | None = None,
    files: Sequence[FileEntry] = (),
    retries: int = 0,
    device: str = "",
) -> StageSpec:
    """One stage that runs `command`; with `device`, on that one only.

    Raises:
        BadInputError: a requirement or variable is not understood.
    """
    fields = requirements(options.require)
    if device:
        fields["device"] = device
    return StageSpec(
        name=name,
        kind="command",
        params=command_params(command, options),
        items=items or Items(),
        inputs=list(files),
        outputs=list(options.outputs),
        requires=_requires(fields),
        retries=retries,
        timeout_s=options.timeout,
    )


def command_params(command: Sequence[str], options: TaskOptions) -> dict[str, Any]:
    """Parameters of kind `command`."""
    params: dict[str, Any] = {"shell": " ".join(command)} if options.shell else {"argv": list(command)}
    if options.env:
        params["env"] = key_values(options.env, "variable")
    return params


def _requires(fields: dict[str, Any]) -> Requires:
    try:
        return msgspec.convert(fields, Requires)
    except msgspec.ValidationError as error:
        raise BadInputError("Not a requirement", str(error)) from error


def job_of(stages: list[StageSpec], command: Sequence[str], options: TaskOptions) -> JobSpec:
    """A job of these stages, named as asked or after its command."""
    return JobSpec(name=options.name or job_name(command), stages=stages, priority=options.priority)


def job_name(command: Sequence[str]) -> str:
    """A short name for a job that runs `command`: the program without its folders, and its arguments."""
    words = [os.path.basename(command[0]) or command[0], *command[1:]]  # noqa: PTH119 - it may be another OS's path
    text = shlex.join(words) if len(command) > 1 else words[0]
    text = " ".join(text.split()) or "command"
    return text if len(text) <= _SHORT_NAME_CHARS else text[: _SHORT_NAME_CHARS - 1] + "…"
