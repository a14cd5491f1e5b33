"""`sparegrid config`: settings, where each came from, and changing them."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import click
from rich.table import Table
from rich.text import Text

from sparegrid.cli.completing import setting_keys
from sparegrid.cli.invocation import Invocation
from sparegrid.cli.options import json_option
from sparegrid.cli.screens.listing import Column, listing
from sparegrid.cli.wording import safe
from sparegrid.units import format_size

if TYPE_CHECKING:
    from sparegrid.config import Row

_HIDDEN = "(hidden)"
_PROGRAMS = frozenset({"coordinator", "worker"})
"""They read their settings when they start."""


@click.group()
def config() -> None:
    """Show and change the settings. A variable beats the file, the file beats the default."""


@config.command()
@click.argument("section", required=False, default="", metavar="[SECTION|KEY]", shell_complete=setting_keys)
@json_option
@click.pass_obj
def show(invocation: Invocation, section: str, as_json: bool) -> None:
    """Show every setting, its value and where it came from."""
    from sparegrid.config import load
    from sparegrid.errors import NotFoundError

    loaded = load(invocation.paths(), invocation.environ)
    rows = [row for row in loaded.explain() if _belongs(row, section)]
    if not rows:
        raise NotFoundError(
            "No such setting", f"{section!r} is neither a section nor a key", "sparegrid config show"
        )
    if as_json:
        invocation.show_json([_as_json(row) for row in rows])
        return
    if len(rows) == 1:
        invocation.show(_card(rows[0]))
        return
    columns = (
        Column("Setting"),
        Column("Value", least=10),
        Column("From", least=10),
        Column("Variable", rank=2),
        Column("Meaning", least=20, rank=1),
    )
    texts = [
        [
            Text(row.key),
            Text(_shown(row), style="" if row.source == "default" else "bold"),
            Text(safe(row.source)),
            Text(row.env),
            Text(row.help),
        ]
        for row in rows
    ]
    invocation.show(listing(invocation.look(), columns, texts))


def _card(row: Row) -> Table:
    """One setting with all there is to tell, a line a fact."""
    grid = Table.grid(padding=(0, 2))
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    for title, text in (
        ("Setting", row.key),
        ("Value", _shown(row)),
        ("From", safe(row.source)),
        ("Default", _shown(replace(row, value=row.default, secret=False))),
        ("Variable", row.env),
        ("Meaning", row.help),
    ):
        grid.add_row(Text(title), Text(text or "(empty)", style="bold" if title == "Value" else ""))
    return grid


def _belongs(row: Row, section: str) -> bool:
    return not section or row.key == section or row.key.startswith(f"{section}.")


def _as_json(row: Row) -> dict[str, object]:
    value = _HIDDEN if row.secret and row.value else row.value
    return {"key": row.key, "value": value, "source": row.source, "env": row.env, "help": row.help}


def _shown(row: Row) -> str:
    if row.secret and row.value:
        return _HIDDEN
    if isinstance(row.value, bool):
        return str(row.value).lower()
    if isinstance(row.value, list):
        return ", ".join(safe(str(part)) for part in row.value)
    if isinstance(row.value, dict):
        return ", ".join(safe(f"{key}={value}") for key, value in row.value.items())
    if row.value and isinstance(row.value, int) and _is_size(row.key):
        return format_size(row.value)
    return safe(str(row.value))


def _is_size(key: str) -> bool:
    from sparegrid.config import find_setting

    return find_setting(key).unit == "size"


@config.command("set")
@click.argument("key", shell_complete=setting_keys)
@click.argument("value")
@click.pass_obj
def set_(invocation: Invocation, key: str, value: str) -> None:
    """Write one setting into the file, such as: worker.slots 2. The rest of the file stays as it is."""
    from sparegrid.config import load, set_value

    set_value(invocation.paths(), key, value)
    row = next(row for row in load(invocation.paths(), invocation.environ).explain() if row.key == key)
    invocation.show(Text(f"{key} = {_shown(row)}"))
    section = key.partition(".")[0]
    if section in _PROGRAMS:
        invocation.note(Text(f"It counts from the next start of `sparegrid {section}` on"))
    if row.locked:
        invocation.note(Text(f"{safe(row.source)} is set and beats the file"))


@config.command()
@click.argument("key", shell_complete=setting_keys)
@click.pass_obj
def unset(invocation: Invocation, key: str) -> None:
    """Take one setting out of the file, back to its default."""
    from sparegrid.config import unset_value

    unset_value(invocation.paths(), key)


@config.command()
@click.pass_obj
def path(invocation: Invocation) -> None:
    """Print where the settings file is."""
    click.echo(invocation.paths().config_file)
