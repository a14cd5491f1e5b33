"""Files of a task on their way: local files into a job, and a job's output files into a folder."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Coroutine, Iterable, Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from sparegrid.api import TaskResult
from sparegrid.errors import BadInputError, StorageError
from sparegrid.messages import INLINE_LIMIT_BYTES, FileEntry, Inline, Payload

if TYPE_CHECKING:
    from sparegrid.client import Client

T = TypeVar("T")

PARALLEL_TRANSFERS = 4
VALUE_NAME = "value.json"


class LocalFile(NamedTuple):
    """A file to send: where it is here, and its path in the work folder."""

    source: Path
    path: str


def local_files(texts: Iterable[str]) -> list[LocalFile]:
    """`PATH` or `PATH=NAME` texts as files; a folder stands for all files below it.

    A relative path is kept in the work folder, so that a command may name the file as it is named here.

    Raises:
        BadInputError: no such file, or two files want the same path.
    """
    found: dict[str, LocalFile] = {}
    for text in texts:
        source_text, equals, name = text.partition("=")
        source = Path(source_text).expanduser()
        if not source.exists():
            raise BadInputError("No such file", f"{source_text!r} is not a file or folder here")
        target = name if equals else _target_of(source)
        for file in _files_below(source, target):
            if file.path in found and found[file.path].source != file.source:
                raise BadInputError(
                    "Two files want one name",
                    f"{found[file.path].source} and {file.source} would both be {file.path!r}",
                    "Name one of them: -i PATH=NAME",
                )
            found[file.path] = file
    return list(found.values())


def _target_of(source: Path) -> str:
    if source.is_absolute() or ".." in source.parts:
        return source.resolve().name
    return source.as_posix()


def _files_below(source: Path, target: str) -> list[LocalFile]:
    if source.is_file():
        return [LocalFile(source, target)]
    files = sorted(path for path in source.rglob("*") if path.is_file())
    return [
        LocalFile(path, str(PurePosixPath(target) / path.relative_to(source).as_posix())) for path in files
    ]


async def upload(client: Client, files: Sequence[LocalFile]) -> list[FileEntry]:
    """Send the files, small ones inside the entries, larger ones as blobs. In the order given."""
    gate = asyncio.Semaphore(PARALLEL_TRANSFERS)

    async def one(file: LocalFile) -> FileEntry:
        async with gate:
            return FileEntry(file.path, await _content(client, file.source), os.access(file.source, os.X_OK))

    return await _all(one(file) for file in files)


async def _content(client: Client, source: Path) -> Payload:
    small = await asyncio.to_thread(_read_small, source)
    return await client.put_blob(source) if small is None else Inline(small)


def _read_small(source: Path) -> bytes | None:
    try:
        return source.read_bytes() if source.stat().st_size <= INLINE_LIMIT_BYTES else None
    except OSError as error:
        raise BadInputError("Cannot read a file", f"{source}: {error.strerror}") from error


class Saved(NamedTuple):
    """A file that was fetched."""

    path: Path
    size: int


class Fetch(NamedTuple):
    """A file to fetch, and where it goes."""

    content: Payload
    target: Path
    executable: bool


def plan_fetches(folder: Path, results: Sequence[TaskResult], *, by_stage: bool) -> list[Fetch]:
    """Where each output file of these results goes below `folder`.

    Files lie directly in the folder (in one folder a stage when `by_stage`); when two tasks of a stage left files of
    the same path, each task of that stage gets a folder named by its index.

    Raises:
        BadInputError: a path that would leave the folder, or that two files would share on some disks.
    """
    stages: dict[str, list[TaskResult]] = {}
    for result in results:
        stages.setdefault(result.stage, []).append(result)
    plans: list[Fetch] = []
    names = _folder_names(list(stages))
    for stage, members in stages.items():
        base = folder / names[stage] if by_stage else folder
        entries = [(result, entry) for result in members for entry in _entries(result)]
        collide = len({entry.path for _, entry in entries}) < len(entries)
        digits = len(str(max(result.index for result in members)))
        for result, entry in entries:
            task_folder = base / f"{result.index:0{digits}}" if collide else base
            plans.append(Fetch(entry.content, _inside(task_folder, entry.path), entry.executable))
    _refuse_shared(plans)
    return plans


def _folder_names(stages: Sequence[str]) -> dict[str, str]:
    """A folder's name for each stage, different also where letter case does not count."""
    names: dict[str, str] = {}
    taken: set[str] = set()
    for stage in stages:
        name, number = safe_file_name(stage), 2
        while name.casefold() in taken:
            name, number = f"{safe_file_name(stage)}-{number}", number + 1
        taken.add(name.casefold())
        names[stage] = name
    return names


def _refuse_shared(plans: Sequence[Fetch]) -> None:
    seen: dict[str, Path] = {}
    for plan in plans:
        other = seen.setdefault(str(plan.target).casefold(), plan.target)
        if other is not plan.target:
            raise BadInputError(
                "Two files for one place",
                f"{other} and {plan.target} would overwrite each other",
                "Fetch by stage",
            )


def _entries(result: TaskResult) -> list[FileEntry]:
    entries = list(result.outcome.files)
    if result.outcome.value is not None:
        name = VALUE_NAME
        while any(entry.path == name for entry in entries):
            name = f"call-{name}"
        entries.append(FileEntry(name, result.outcome.value))
    return entries


def safe_file_name(text: str) -> str:
    """A stage's name as a folder's name: nothing in it leads elsewhere."""
    kept = "".join(char if char.isalnum() or char in "-_ " else "_" for char in text).strip()
    return kept or "stage"


def _inside(folder: Path, path: str) -> Path:
    pure = PurePosixPath(path)
    parts = pure.parts
    bad = (
        not parts or pure.is_absolute() or any(part == ".." or "\\" in part or ":" in part for part in parts)
    )
    if bad:
        raise BadInputError("A file's path leads out of the folder", f"A task left a file named {path!r}")
    target = folder.joinpath(*parts)
    if not target.parent.resolve().is_relative_to(folder.resolve()):
        raise BadInputError(
            "A file's path leads out of the folder", f"{path!r} passes through a link in {folder}"
        )
    return target


async def fetch(client: Client, plans: Sequence[Fetch], on_saved: Callable[[Saved], None]) -> None:
    """Fetch the files, a few at a time; `on_saved` is called after each."""
    gate = asyncio.Semaphore(PARALLEL_TRANSFERS)

    async def one(plan: Fetch) -> None:
        async with gate:
            on_saved(await _save(client, plan))

    await _all(one(plan) for plan in plans)


async def _save(client: Client, plan: Fetch) -> Saved:
    try:
        plan.target.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(plan.content, Inline):
            plan.target.write_bytes(plan.content.data)
            size = len(plan.content.data)
        else:
            await client.get_blob(plan.content, plan.target)
            size = plan.content.size
        if plan.executable:
            plan.target.chmod(plan.target.stat().st_mode | 0o111)
    except OSError as error:
        raise StorageError("Cannot write a file", f"{plan.target}: {error.strerror}") from error
    return Saved(plan.target, size)


async def _all(coroutines: Iterable[Coroutine[None, None, T]]) -> list[T]:
    """Results in order; the first error cancels the rest and is raised as it is, without a group around it."""
    tasks = [asyncio.ensure_future(coroutine) for coroutine in coroutines]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
