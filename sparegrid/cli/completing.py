"""What a shell is told while somebody types: names of devices, numbers of jobs, keys of settings. Never an error."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import CompletionItem

from sparegrid.cli.invocation import Invocation

if TYPE_CHECKING:
    from sparegrid.client import Client

WAIT_S = 1.5
"""Nobody waits longer for a key press."""
_SHOWN_JOBS = 50
ENDED_STATES = ("done", "failed", "cancelled")
UNFINISHED_STATES = ("open", "active")

Complete = Callable[[click.Context, click.Parameter, str], list[CompletionItem]]


def device_names(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Devices of the grid, each with its state."""

    async def ask(client: Client) -> list[CompletionItem]:
        return [CompletionItem(view.name, help=view.state) for view in (await client.devices()).devices]

    return _asked(ctx, ask, incomplete)


def job_numbers(*states: str) -> Complete:
    """A completer of job numbers, newest first, of these states or all."""

    def complete(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        async def ask(client: Client) -> list[CompletionItem]:
            found = (await client.jobs(states=states, limit=_SHOWN_JOBS)).jobs
            return [CompletionItem(view.id, help=f"{view.state}: {view.name}") for view in found]

        return _asked(ctx, ask, incomplete)

    return complete


def setting_keys(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Keys of settings, each with its meaning."""
    from sparegrid.config import all_settings

    return _matching((CompletionItem(one.key, help=one.help) for one in all_settings()), incomplete)


def job_files(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Job files and the folders on the way to them."""
    folder, slash, start = incomplete.rpartition("/")
    try:
        found = sorted(Path(folder + slash or ".").expanduser().iterdir())
    except OSError:
        return []
    items = []
    for path in found:
        if path.name.startswith(start) and (start or not path.name.startswith(".")):
            if path.is_dir():
                items.append(CompletionItem(f"{folder}{slash}{path.name}/"))
            elif path.suffix in {".toml", ".json"}:
                items.append(CompletionItem(f"{folder}{slash}{path.name}"))
    return items


def _asked(
    ctx: click.Context, ask: Callable[[Client], Awaitable[list[CompletionItem]]], incomplete: str
) -> list[CompletionItem]:
    invocation = ctx.find_object(Invocation)
    if invocation is None:
        return []
    invocation.url = ctx.find_root().params.get("url")

    async def main() -> list[CompletionItem]:
        async with asyncio.timeout(WAIT_S), invocation.client() as client:
            return await ask(client)

    try:
        return _matching(asyncio.run(main()), incomplete)
    except Exception:
        # The loop's boundary: whatever is wrong, a half-typed command line is no place to say so.
        return []


def _matching(items: Any, incomplete: str) -> list[CompletionItem]:
    return [item for item in items if str(item.value).startswith(incomplete)]
