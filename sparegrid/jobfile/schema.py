"""JSON Schema of `job.toml` for editors: they complete keys, show what they mean and underline mistakes."""

from __future__ import annotations

from typing import Any

import msgspec

from sparegrid.jobfile.form import JobForm


def job_schema() -> dict[str, Any]:
    """The schema of a job file (draft 2020-12)."""
    (root,), components = msgspec.json.schema_components([JobForm], ref_template="#/$defs/{name}")
    schema: dict[str, Any] = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Sparegrid job file",
        **root,
        "$defs": components,
    }
    return schema
