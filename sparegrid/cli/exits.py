"""Exit codes of the program, and the exceptions that mean one. The codes of errors are with the errors themselves."""

from __future__ import annotations

from sparegrid.errors import error_classes

CODE_FAILED = 1
CODE_USAGE = 2
CODE_INTERNAL = 70
CODE_TIMED_OUT = 124
CODE_INTERRUPTED = 130
CODE_PIPE_CLOSED = 141
CODE_TERMINATED = 143


class PipeClosedError(BaseException):
    """The reader of standard output has left. Not an Exception: click and rich would make it exit code 1."""


class TerminatedError(BaseException):
    """A signal asked the program to end. Not an Exception: no verb may swallow it.

    Args:
        exit_code: 128 and the signal's number, as shells have it.
    """

    def __init__(self, exit_code: int) -> None:
        super().__init__(exit_code)
        self.exit_code = exit_code


def exit_code_table() -> list[tuple[str, str]]:
    """Every documented exit code with its meaning, for the reference."""
    rows = {
        0: ["it worked"],
        CODE_INTERNAL: ["a fault of the program itself; `--debug` shows where"],
        CODE_TIMED_OUT: ["`run`: the command ran into its time limit"],
        CODE_INTERRUPTED: ["interrupted with Ctrl-C"],
        CODE_PIPE_CLOSED: ["the reader of its output has left"],
        CODE_TERMINATED: ["ended by SIGTERM"],
    }
    for cls in error_classes().values():
        text = (cls.__doc__ or "").splitlines()[0].rstrip(".")
        rows.setdefault(cls.exit_code, []).append(f"{text[0].lower()}{text[1:]}")
    rows[CODE_USAGE].append("the command line was not understood")
    rows[CODE_FAILED] = ["a job that was waited for failed or was cancelled, or another error"]
    table = [(str(code), "; ".join(sorted(set(texts)))) for code, texts in sorted(rows.items())]
    table.append(
        ("the command's own", "`run` and `device NAME exec` end as their command did; 128 + n for signal n")
    )
    return table
