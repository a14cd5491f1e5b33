"""One run of the program: from arguments to an exit code. Owns how errors and interruptions end; draws no tables."""

from __future__ import annotations

import contextlib
import os
import sys
import traceback
from collections.abc import Mapping, Sequence

import click

from sparegrid.cli.exits import (
    CODE_INTERNAL,
    CODE_INTERRUPTED,
    CODE_PIPE_CLOSED,
    CODE_USAGE,
    PipeClosedError,
    TerminatedError,
)
from sparegrid.cli.invocation import Invocation
from sparegrid.cli.tree import root
from sparegrid.errors import DeniedError, GridError


def run_program(arguments: Sequence[str], environ: Mapping[str, str]) -> int:
    """Run one verb and return the exit code. Never raises; what went wrong is on standard error."""
    invocation = Invocation(environ)
    try:
        with invocation.consoles_closed_at_end():
            return _run_verb(list(arguments), invocation)
    except (BrokenPipeError, PipeClosedError):
        _forget_standard_output()
        return CODE_PIPE_CLOSED


def _run_verb(arguments: list[str], invocation: Invocation) -> int:
    try:
        code = root.main(arguments, prog_name="sparegrid", standalone_mode=False, obj=invocation)
    except click.UsageError as error:
        return _report_usage(error, invocation)
    except click.ClickException as error:
        invocation.report("Not understood", error.format_message(), "")
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        return CODE_INTERRUPTED
    except TerminatedError as error:
        return error.exit_code
    except GridError as error:
        if invocation.debug:
            traceback.print_exc()
        invocation.report_error(_in_words(error, invocation))
        return error.exit_code
    except Exception as error:  # the loop's boundary: whatever is left is a fault of this program
        if invocation.debug:
            traceback.print_exc()
        invocation.report(
            "Something went wrong inside Sparegrid",
            f"{type(error).__name__}: {error}",
            "Put --debug before the verb to see where, and please report it",
        )
        return CODE_INTERNAL
    return code if isinstance(code, int) else 0


def _in_words(error: GridError, invocation: Invocation) -> GridError:
    """The same error; a refusal in terms of what this home was joined as."""
    if not isinstance(error, DeniedError) or not invocation.asked:
        return error
    from sparegrid.cli.membership import home_role, refusal_in_words

    return refusal_in_words(error, home_role(invocation.paths(), invocation.environ))


def _report_usage(error: click.UsageError, invocation: Invocation) -> int:
    path = error.ctx.command_path if error.ctx else "sparegrid"
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        click.echo(error.format_message(), err=True)
        return CODE_USAGE
    invocation.report("Not understood", error.format_message(), f"See: {path} --help")
    return CODE_USAGE


def _forget_standard_output() -> None:
    """Keep the interpreter from complaining when it flushes a pipe whose reader has left."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
