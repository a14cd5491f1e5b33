"""Whether a stage can reach a device and be started there: sizes of messages, names of variables, paths. Pure.

What no device could ever run is refused when it is submitted, not when it has failed on each of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from sparegrid.api import StageSpec
from sparegrid.errors import BadInputError, TooLargeError
from sparegrid.kinds import CommandParams
from sparegrid.messages import FileEntry

TITLE = "Not accepted"
MAX_TEMPLATE_BYTES = 4 << 20
"""Of what all tasks of a stage share, encoded: it travels as one message."""


def check_runnable(stage: StageSpec, params: object, where: str) -> None:
    """Raise BadInputError or TooLargeError for a stage that nothing can run."""
    size = len(msgspec.msgpack.encode((stage.params, stage.inputs, stage.outputs, stage.checkpoint_files)))
    if size > MAX_TEMPLATE_BYTES:
        raise TooLargeError(
            TITLE,
            f"{where}: what its tasks share (params, inputs, outputs) has {size} bytes; "
            f"{MAX_TEMPLATE_BYTES} ({MAX_TEMPLATE_BYTES >> 20} MiB) is the limit",
            "Put large texts into input files: they travel as blobs",
        )
    _check_folders(stage.inputs, where)
    if isinstance(params, CommandParams):
        _check_program(params.argv, params.shell, params.env, f"{where}.params")
        for name, variant in params.platforms.items():
            _check_program(variant.argv, variant.shell, variant.env, f"{where}.params.platforms.{name}")


def _check_program(argv: Sequence[str], shell: str, env: Mapping[str, str], where: str) -> None:
    if argv and not argv[0].strip():
        raise BadInputError(TITLE, f"{where}.argv[0]: the program's name is empty")
    texts: list[tuple[str, Any]] = [(f"argv[{at}]", text) for at, text in enumerate(argv)]
    texts.append(("shell", shell))
    for name, value in env.items():
        if not name or "=" in name or "\0" in name:
            raise BadInputError(
                TITLE,
                f"{where}.env: {name[:80]!r} cannot name a variable: it is empty, or has `=` or NUL in it",
            )
        texts.append((f"env.{name[:80]}", value))
    for place, text in texts:
        if "\0" in text:
            raise BadInputError(TITLE, f"{where}.{place}: a NUL character cannot be handed to a program")


def _check_folders(inputs: Iterable[FileEntry], where: str) -> None:
    """No input lies where another input has a folder; letter case is ignored, as some devices ignore it."""
    paths = {entry.path.casefold(): at for at, entry in enumerate(inputs)}
    for path, at in paths.items():
        end = path.find("/")
        while end > 0:
            other = paths.get(path[:end])
            if other is not None:
                raise BadInputError(
                    TITLE,
                    f"{where}.inputs[{at}].path: inputs[{other}] is a file where this one needs a folder",
                )
            end = path.find("/", end + 1)
