"""The reference of the job file tells every key, and its examples are job files."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import jsonschema  # type: ignore[import-untyped]  # it ships no stubs
import pytest

from sparegrid.jobfile import form, job_schema, parse_job

ROOT = Path(__file__).resolve().parents[3]
PAGE = (ROOT / "docs" / "reference" / "job-file.md").read_text("utf-8")
GUIDE = (ROOT / "docs" / "guide" / "jobs.md").read_text("utf-8")
EXAMPLES = re.findall(r"```toml\n(.*?)```", PAGE + GUIDE, re.DOTALL)
FILES = (
    "scene.pov",
    "textures/oak.png",
    "merge.py",
    "text.txt",
    "texts/a.txt",
    "lists/one.txt",
    "more/a.txt",
)
FORMS = [
    form.JobForm,
    form.StageForm,
    form.PlatformForm,
    form.InputForm,
    form.SweepForm,
    form.ItemsForm,
    form.NeedForm,
    form.RequiresForm,
    form.CheckpointForm,
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in (*FILES, "book.txt", "simulate"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    return tmp_path


@pytest.mark.parametrize("text", EXAMPLES)
def test_an_example_loads_and_fits_the_schema(text: str, folder: Path) -> None:
    loaded = parse_job(text, folder / "job.toml")
    assert loaded.spec.stages
    jsonschema.validate(tomllib.loads(text), job_schema(), jsonschema.Draft202012Validator)


def test_every_key_is_in_the_reference() -> None:
    told = set(re.findall(r"`([a-z_]+)`", PAGE)) | set(re.findall(r"\b([a-z_]+) = ", PAGE))
    for one in FORMS:
        missing = set(one.__struct_encode_fields__) - told
        assert not missing, f"{one.__name__}: {missing}"


def test_the_schema_is_a_schema_and_describes_every_key() -> None:
    schema = job_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    for name, definition in schema["$defs"].items():
        for key, entry in definition["properties"].items():
            assert "description" in entry or "$ref" in str(entry), f"{name}.{key}"


@pytest.mark.parametrize(
    "text",
    ['shell = "a"', 'name = "x"\nshel = "a"', 'name = "x"\npriority = 11', 'name = "x"\ncommand = "echo"'],
)
def test_the_schema_refuses_what_the_loader_refuses(text: str) -> None:
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(tomllib.loads(text), job_schema(), jsonschema.Draft202012Validator)
