"""`sparegrid completion`: the script that makes a shell complete verbs and options."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print the completion script for a shell.

    \b
    bash and zsh:  eval "$(sparegrid completion bash)"   in the shell's start-up file
    fish:          sparegrid completion fish > ~/.config/fish/completions/sparegrid.fish
    """
    found = get_completion_class(shell)
    assert found is not None, "the choices are the shells that click knows"
    root = ctx.find_root().command
    click.echo(found(root, {}, "sparegrid", "_SPAREGRID_COMPLETE").source())
