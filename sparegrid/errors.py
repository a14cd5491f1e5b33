"""The tree of errors that a user may see. Each carries a title, a message and the next step.

GridError
├── BadInputError          what was given is wrong (HTTP 400; exit code 2)
│   ├── TooLargeError      it is over a named limit (HTTP 413)
│   └── MethodNotAllowedError  there is something at this address, but not for this method (HTTP 405)
├── DeniedError            no, wrong or insufficient token (HTTP 401 or 403; exit code 4)
│   └── TooManyTriesError  too many wrong ones lately (HTTP 429)
├── NotFoundError          no such job, task, device or blob (HTTP 404; exit code 5)
├── ConflictError          the thing's state does not allow it (HTTP 409; exit code 6)
├── UnreachableError       no coordinator answers (exit code 3)
├── VersionError           the other side speaks another major protocol (HTTP 426; exit code 7)
├── StorageError           disk full, damaged or foreign store (HTTP 507; exit code 8)
├── ConfigError            a configuration file or variable is wrong (exit code 2)
└── JobFailedError         a job that was waited for failed or was cancelled (exit code 1)
"""

from __future__ import annotations

from typing import ClassVar


class GridError(Exception):
    """Base of every error that is shown to a user.

    Args:
        title: a few words, no full stop.
        message: one sentence that names the thing, the value and the limit.
        hint: the next step, empty when there is none.
    """

    code: ClassVar[str] = "error"
    http_status: ClassVar[int] = 500
    exit_code: ClassVar[int] = 1

    def __init__(self, title: str, message: str = "", hint: str = "") -> None:
        super().__init__(title, message, hint)
        self.title = title
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return ": ".join(part for part in (self.title, self.message) if part) + (
            f". {self.hint}" if self.hint else ""
        )


class BadInputError(GridError):
    """What was given is wrong."""

    code = "bad-input"
    http_status = 400
    exit_code = 2


class TooLargeError(BadInputError):
    """What was given is over a named limit."""

    code = "too-large"
    http_status = 413


class MethodNotAllowedError(BadInputError):
    """Something is at this address, but not for this method."""

    code = "method-not-allowed"
    http_status = 405


class DeniedError(GridError):
    """No token, a wrong one, or one whose role does not allow this."""

    code = "denied"
    http_status = 403
    exit_code = 4


class UnauthenticatedError(DeniedError):
    """No token, or one that the coordinator does not know."""

    code = "unauthenticated"
    http_status = 401


class TooManyTriesError(DeniedError):
    """Too many wrong tokens or codes came from this address lately."""

    code = "too-many-tries"
    http_status = 429


class NotFoundError(GridError):
    """No such job, task, device or blob."""

    code = "not-found"
    http_status = 404
    exit_code = 5


class ConflictError(GridError):
    """The thing exists, but its state does not allow this."""

    code = "conflict"
    http_status = 409
    exit_code = 6


class UnreachableError(GridError):
    """No coordinator answers at the address, or it is not the one whose key was pinned."""

    code = "unreachable"
    http_status = 503
    exit_code = 3


class VersionError(GridError):
    """The other side speaks another major version of the protocol."""

    code = "version"
    http_status = 426
    exit_code = 7


class StorageError(GridError):
    """A disk is full, or a store is damaged or of a newer version."""

    code = "storage"
    http_status = 507
    exit_code = 8


class ConfigError(GridError):
    """A configuration file or an environment variable is wrong."""

    code = "config"
    http_status = 500
    exit_code = 2


class JobFailedError(GridError):
    """A job that was waited for failed or was cancelled."""

    code = "job-failed"
    http_status = 409
    exit_code = 1


def error_classes() -> dict[str, type[GridError]]:
    """Every class of the tree by its `code`, for turning an answer from the wire back into an error."""
    found: dict[str, type[GridError]] = {}
    pending: list[type[GridError]] = [GridError]
    while pending:
        cls = pending.pop()
        found[cls.code] = cls
        pending.extend(cls.__subclasses__())
    return found
