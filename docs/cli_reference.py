"""Writes docs/reference/cli.md from the tree of verbs: `python docs/cli_reference.py`, checked by a test.

It owns the page's introduction and its order; every word about a verb lives with the verb.
"""

from __future__ import annotations

import inspect
from pathlib import Path

import click

from sparegrid.cli.exits import exit_code_table
from sparegrid.cli.tree import SECTIONS, root

FILE = Path(__file__).parent / "reference" / "cli.md"

INTRO = """# Command line

`sparegrid VERB --help` tells the same as this page. Every verb that reads takes `--json` and prints the same document
as the REST interface. Tables fit the terminal: columns that matter less leave first; a pipe or a file gets everything,
whole and without colours. `NO_COLOR=1` turns colours off, `SPAREGRID_DEBUG=1` is the same as `--debug`.

Programs on the coordinator's machine, of the same user, need no code. Elsewhere: `sparegrid worker --join CODE` lends
the computer, `sparegrid join CODE` lets a person submit.

In commands of `map` and of job files `{{item}}`, `{{name}}`, `{{file}}` and `{{index}}` stand for the task's
own values.
"""


def page() -> str:
    """docs/reference/cli.md."""
    parts = [INTRO, _options("## Options before the verb", root, "sparegrid"), _exit_codes()]
    context = click.Context(root, info_name="sparegrid")
    for section, verbs in SECTIONS.items():
        parts.append(f"## {section}\n")
        for name in verbs:
            command = root.get_command(context, name)
            assert command is not None, f"the tree names {name}"
            parts += _command(command, f"sparegrid {name}", context)
    return "\n".join(parts).rstrip() + "\n"


def _command(command: click.Command, path: str, parent: click.Context) -> list[str]:
    context = click.Context(command, info_name=path.rpartition(" ")[2], parent=parent)
    usage = " ".join(command.collect_usage_pieces(context))
    parts = [f"### {path}\n", f"```\n{path} {usage}\n```\n", _help(command), _options("", command, path)]
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            child = command.get_command(context, name)
            if child is not None:
                middle = f"{path} NAME" if path.endswith(" device") else path
                parts += _command(child, f"{middle} {name}", context)
    return [part for part in parts if part]


def _help(command: click.Command) -> str:
    """The verb's text; paragraphs after `\\b` are shown as they are."""
    blocks = []
    for block in inspect.cleandoc(command.help or "").split("\n\n"):
        if block.startswith("\b"):
            blocks.append("```\n" + block.removeprefix("\b").strip("\n") + "\n```")
        else:
            blocks.append(block.replace("<", "&lt;"))
    return "\n\n".join(blocks) + "\n"


def _options(title: str, command: click.Command, path: str) -> str:
    context = click.Context(command, info_name=path)
    rows = []
    for parameter in command.params:
        record = parameter.get_help_record(context)
        if isinstance(parameter, click.Option) and record is not None:
            rows.append(f"| `{_cell(record[0])}` | {_cell(record[1])} |")
    if not rows:
        return ""
    head = f"{title}\n\n" if title else ""
    return f"{head}| option | |\n|---|---|\n" + "\n".join(rows) + "\n"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def _exit_codes() -> str:
    rows = "\n".join(f"| {code} | {_cell(meaning)} |" for code, meaning in exit_code_table())
    return f"## Exit codes\n\n| code | meaning |\n|---|---|\n{rows}\n"


def main() -> None:
    """Write the page."""
    FILE.parent.mkdir(parents=True, exist_ok=True)
    FILE.write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main()
