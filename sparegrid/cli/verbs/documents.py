"""Verbs that print documents of the interface: openapi, job-schema, version."""

from __future__ import annotations

import platform
from typing import Any

import click
from rich.text import Text

from sparegrid import __version__
from sparegrid.cli.invocation import Invocation
from sparegrid.cli.options import json_option


@click.command()
@click.pass_obj
def openapi(invocation: Invocation) -> None:
    """Print the REST interface as an OpenAPI 3.1 document. Needs no coordinator."""
    from coordinator.server.openapi import openapi_document

    invocation.show_json(openapi_document())


@click.command("job-schema")
@click.pass_obj
def job_schema(invocation: Invocation) -> None:
    """Print the JSON Schema of a job file, for editors. Needs no coordinator."""
    from sparegrid.jobfile import job_schema as schema

    invocation.show_json(schema())


@click.command()
@json_option
@click.pass_obj
def version(invocation: Invocation, as_json: bool) -> None:
    """Print the version of this program, of its protocol and of what it runs on."""
    from sparegrid.messages import PROTOCOL_MAJOR, PROTOCOL_MINOR

    about: dict[str, Any] = {
        "version": __version__,
        "protocol": f"{PROTOCOL_MAJOR}.{PROTOCOL_MINOR}",
        "python": platform.python_version(),
        "platform": f"{platform.system().lower()}/{platform.machine()}",
    }
    if as_json:
        invocation.show_json(about)
    else:
        invocation.show(
            Text(
                f"sparegrid {__version__} (protocol {about['protocol']}, Python {about['python']}, {about['platform']})"
            )
        )
