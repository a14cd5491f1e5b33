"""Reads a job file into a JobSpec: the one public step, and what concerns the job as a whole."""

from __future__ import annotations

import graphlib
from pathlib import Path
from typing import Any

import msgspec

from sparegrid.api import JobSpec, StageSpec
from sparegrid.errors import BadInputError
from sparegrid.jobfile.check import TITLE, Document
from sparegrid.jobfile.files import Files
from sparegrid.jobfile.form import JOB_KEYS, JobForm, StageForm
from sparegrid.jobfile.loaded import LoadedJob
from sparegrid.jobfile.stage import StageReader
from sparegrid.tomlfile import KeyPath, TomlError, parse_toml

MAX_FILE_BYTES = 32 << 20


def load_job(path: Path) -> LoadedJob:
    """The job that a file describes, and the files that it names. Reads and hashes them: call it in a thread.

    Raises:
        BadInputError: names the file and line, the key and value, and what was expected.
    """
    return parse_job(_read(path), path)


def parse_job(text: str, path: Path) -> LoadedJob:
    """The same of a text; `path` is the file that errors name, and files are looked for beside it.

    A path that ends in `.json` holds the job as REST takes it: nothing is uploaded, blobs must be there already.
    """
    if path.suffix == ".json":
        return _parse_json(text, path)
    try:
        toml = parse_toml(text)
    except TomlError as error:
        raise BadInputError(TITLE, f"{path}:{error.line}: this is not TOML: {error.message}") from error
    document = Document(path, toml)
    document.check(JobForm)
    form = msgspec.convert(document.data, JobForm)
    files = Files(document)
    reader = StageReader(document, files)
    places = _stages(document, form)
    stages = [reader.read(stage, place, len(places) > 1) for stage, place in places]
    _check_needs(document, stages, [place for _, place in places])
    spec = JobSpec(
        name=form.name,
        stages=stages,
        priority=form.priority,
        open=form.open,
        keep_s=round(reader.seconds(form.keep, ("keep",))),
    )
    return LoadedJob(spec, files.uploads)


def _parse_json(text: str, path: Path) -> LoadedJob:
    try:
        return LoadedJob(msgspec.json.decode(text, type=JobSpec))
    except msgspec.DecodeError as error:
        raise BadInputError(TITLE, f"{path}: {error}") from error


def _read(path: Path) -> str:
    try:
        size = path.stat().st_size
        if size > MAX_FILE_BYTES:
            raise BadInputError(TITLE, f"{path} has {size} bytes; a job file has at most {MAX_FILE_BYTES}")
        return path.read_text("utf-8")
    except OSError as error:
        raise BadInputError("Cannot read the job file", f"{path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise BadInputError(TITLE, f"{path} is not text in UTF-8") from error


def _stages(document: Document, form: JobForm) -> list[tuple[StageForm, KeyPath]]:
    """The stages and where they stand: the `[[stages]]`, or the file itself."""
    if not form.stages:
        if "stages" in document.data:
            document.refuse(("stages",), "a job needs at least one stage")
        own: dict[str, Any] = {
            name: getattr(form, name) for name in StageForm.__struct_fields__ if name != "name"
        }
        return [(StageForm(**own), ())]
    for key in document.data:
        if key not in JOB_KEYS:
            document.refuse(
                (key,),
                f"`{key}` belongs to a stage, and this job has [[stages]]",
                "Move it below one of them",
            )
    return [(stage, ("stages", number)) for number, stage in enumerate(form.stages)]


def _check_needs(document: Document, stages: list[StageSpec], places: list[KeyPath]) -> None:
    """Every need names another stage, and none leads back to itself."""
    numbers: dict[str, int] = {}
    for number, stage in enumerate(stages):
        if stage.name in numbers:
            document.refuse((*places[number], "name"), f"two stages are called {stage.name!r}")
        numbers[stage.name] = number
    upstream: dict[str, list[str]] = {}
    for stage, place in zip(stages, places, strict=True):
        named = [(need.stage, (*place, "needs", number)) for number, need in enumerate(stage.needs)]
        if stage.items.stage is not None:
            named.append((stage.items.stage.stage, (*place, "items")))
        for name, path in named:
            if name not in numbers:
                known = ", ".join(repr(one) for one in numbers)
                document.refuse(path, f"there is no stage {name!r}", f"The stages are {known}")
        upstream[stage.name] = [name for name, _ in named]
    try:
        graphlib.TopologicalSorter(upstream).prepare()
    except graphlib.CycleError as error:
        # Its second argument lists a circle from need to needing stage, the first name again at the end.
        circle = list(reversed(error.args[1]))
        story = " needs ".join(repr(name) for name in circle)
        document.refuse(
            (*places[numbers[circle[0]]], "needs"), f"stages need each other in a circle: {story}"
        )
