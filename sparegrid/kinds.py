"""The parameters of each built-in kind of task: one Struct a kind, the same in the CLI, REST, forms and executors.

Texts in parameters may hold placeholders: `{{name}}` for a key of the task's item, `{{item}}` for an item that is a
single value, `{{index}}` for the task's index. Anything else in double braces is refused when a job is submitted.
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct


class CommandVariant(Struct, forbid_unknown_fields=True, omit_defaults=True):
    """A program for one platform; what it leaves out comes from the stage's own parameters."""

    argv: Annotated[list[str], Meta(description="Program and arguments, run without a shell")] = []
    shell: Annotated[str, Meta(description="A line for the platform's shell (sh, or cmd on Windows)")] = ""
    env: Annotated[dict[str, str], Meta(description="Environment variables added for this platform")] = {}


class CommandParams(Struct, forbid_unknown_fields=True, omit_defaults=True):
    """Run a program: `argv`, or one line for a shell; per platform where they differ."""

    argv: Annotated[list[str], Meta(description="Program and arguments, run without a shell")] = []
    shell: Annotated[str, Meta(description="A line for the platform's shell (sh, or cmd on Windows)")] = ""
    env: Annotated[dict[str, str], Meta(description="Environment variables added to the task's own")] = {}
    stdin: Annotated[str, Meta(description="Text given on standard input; empty for none")] = ""
    ok_codes: Annotated[
        list[Annotated[int, Meta(ge=-(1 << 31), le=(1 << 32) - 1)]],
        Meta(description="Exit codes that mean success"),
    ] = msgspec.field(default_factory=lambda: [0])
    platforms: Annotated[
        dict[str, CommandVariant],
        Meta(
            description="Variants by `linux`, `windows`, `macos` or, more exactly, `linux/aarch64` and so on"
        ),
    ] = {}
    max_log_bytes: Annotated[
        int, Meta(ge=0, le=1 << 30, description="Output kept per task; the rest is cut")
    ] = 16 << 20


class PythonParams(Struct, forbid_unknown_fields=True, omit_defaults=True):
    """Call an importable function in a warm child: `module:function` with plain arguments."""

    function: Annotated[
        str, Meta(pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_][\w.]*$", description="module:function")
    ]
    args: Annotated[
        list[Any], Meta(description="Positional arguments; the item comes first when there is one")
    ] = []
    kwargs: Annotated[dict[str, Any], Meta(description="Keyword arguments")] = {}


KIND_PARAMS: dict[str, type[Struct]] = {"command": CommandParams, "python": PythonParams}
"""Kinds whose parameters the coordinator can check by itself when a job arrives."""

Params = msgspec.Raw
"""Parameters as they travel: the encoded Struct of the stage's kind."""
