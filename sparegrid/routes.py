"""The table of the routes of `/v1`: declared once; the server, the client, OpenAPI and the docs follow it."""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from sparegrid.api import (
    Append,
    DeviceChange,
    DeviceList,
    DeviceView,
    Explanation,
    GridView,
    Health,
    JobList,
    JobSpec,
    JobView,
    JoinCode,
    JoinCodeRequest,
    Joined,
    JoinRequest,
    PauseRequest,
    PriorityChange,
    ResultPage,
    RetryRequest,
    Submitted,
    TaskPage,
    TaskView,
)
from sparegrid.states import Role


class Route(Struct, frozen=True):
    """One route: its path under `/v1`, bodies, the least role that may use it, and a line for the document."""

    name: str
    method: str
    path: str
    summary: str
    role: Role | None = Role.VIEWER
    """None: open to anybody. A submitter may do what a viewer may, an admin everything."""
    body: Any = None
    answer: Any = None
    status: int = 200
    query: dict[str, str] = {}
    media: str = "application/json"


ROUTES: tuple[Route, ...] = (
    Route("health", "GET", "/health", "Is the coordinator there, and which", role=None, answer=Health),
    Route(
        "join",
        "POST",
        "/join",
        "Join with a one-time code",
        role=None,
        body=JoinRequest,
        answer=Joined,
        status=201,
    ),
    Route("grid", "GET", "/grid", "The grid at a glance, and who is asking", answer=GridView),
    Route(
        "join_code",
        "POST",
        "/join-codes",
        "Make a one-time code",
        Role.ADMIN,
        JoinCodeRequest,
        JoinCode,
        status=201,
    ),
    Route("submit", "POST", "/jobs", "Submit a job", Role.SUBMITTER, JobSpec, Submitted, status=201),
    Route(
        "jobs",
        "GET",
        "/jobs",
        "Jobs, newest first",
        answer=JobList,
        query={
            "state": "Only these states, comma-separated",
            "limit": "At most so many (100)",
            "after": "Cursor",
        },
    ),
    Route("job", "GET", "/jobs/{job}", "One job", answer=JobView),
    Route(
        "remove_job",
        "DELETE",
        "/jobs/{job}",
        "Forget an ended job and its results",
        Role.SUBMITTER,
        status=204,
    ),
    Route("job_spec", "GET", "/jobs/{job}/spec", "The job as it was submitted", answer=JobSpec),
    Route("cancel", "POST", "/jobs/{job}/cancel", "Cancel a job", Role.SUBMITTER, answer=JobView),
    Route("retry", "POST", "/jobs/{job}/retry", "Try tasks again", Role.SUBMITTER, RetryRequest, JobView),
    Route(
        "append", "POST", "/jobs/{job}/items", "Append items to an open job", Role.SUBMITTER, Append, JobView
    ),
    Route("close", "POST", "/jobs/{job}/close", "No more items", Role.SUBMITTER, answer=JobView),
    Route(
        "priority",
        "POST",
        "/jobs/{job}/priority",
        "Change the priority",
        Role.SUBMITTER,
        PriorityChange,
        JobView,
    ),
    Route(
        "tasks",
        "GET",
        "/jobs/{job}/tasks",
        "A window of a stage's tasks",
        answer=TaskPage,
        query={
            "stage": "Name or number",
            "state": "Only this state",
            "first": "From this index",
            "limit": "(100)",
        },
    ),
    Route("task", "GET", "/jobs/{job}/tasks/{stage}/{index}", "One task and its attempts", answer=TaskView),
    Route(
        "results",
        "GET",
        "/jobs/{job}/results",
        "What the tasks left behind",
        answer=ResultPage,
        query={"stage": "Name or number", "after": "Cursor", "limit": "At most so many (100)"},
    ),
    Route(
        "task_log",
        "GET",
        "/jobs/{job}/tasks/{stage}/{index}/log",
        "What the task printed, as kept from its newest ended attempt",
        media="application/octet-stream",
        query={"attempt": "An older attempt's id"},
    ),
    Route("explain_job", "GET", "/jobs/{job}/explain", "Why a job waits", answer=Explanation),
    Route(
        "explain_task",
        "GET",
        "/jobs/{job}/tasks/{stage}/{index}/explain",
        "Why a task waits",
        answer=Explanation,
    ),
    Route("devices", "GET", "/devices", "All devices", answer=DeviceList),
    Route("device", "GET", "/devices/{device}", "One device, by id or name", answer=DeviceView),
    Route("explain_device", "GET", "/devices/{device}/explain", "Why a device idles", answer=Explanation),
    Route(
        "pause", "POST", "/devices/{device}/pause", "Pause or resume", Role.ADMIN, PauseRequest, DeviceView
    ),
    Route(
        "change_device", "PATCH", "/devices/{device}", "Rename, label", Role.ADMIN, DeviceChange, DeviceView
    ),
    Route(
        "remove_device", "DELETE", "/devices/{device}", "Revoke and forget a device", Role.ADMIN, status=204
    ),
    Route(
        "blob_head", "HEAD", "/blobs/{hash}", "Is the blob there; Upload-Offset tells how far an upload got"
    ),
    Route("blob", "GET", "/blobs/{hash}", "A blob's bytes; ranges work", media="application/octet-stream"),
    Route(
        "put_blob",
        "PUT",
        "/blobs/{hash}",
        "Upload a blob; Content-Range resumes at Upload-Offset",
        Role.WORKER,
        status=201,
        media="application/octet-stream",
    ),
    Route("openapi", "GET", "/openapi.json", "This interface, as OpenAPI 3.1"),
    Route(
        "job_schema",
        "GET",
        "/job.schema.json",
        "JSON Schema of `job.toml` for editors; of a REST body: /v1/openapi.json, JobSpec",
        role=None,
    ),
)

ERROR_STATUSES = (400, 401, 403, 404, 409, 413, 429, 507)
