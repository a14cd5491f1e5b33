"""Draws a renderable as a terminal would, and gives the text back."""

from __future__ import annotations

import io

from rich.console import Console, RenderableType

from sparegrid.cli.invocation import UNCUT_WIDTH
from sparegrid.cli.screens.look import Look


def drawn(look: Look, renderable: RenderableType, *, color: bool = False) -> str:
    stream = io.StringIO()
    console = Console(
        file=stream,
        width=look.width if look.live else UNCUT_WIDTH,
        force_terminal=color,
        color_system="standard" if color else None,
        markup=False,
        highlight=False,
        emoji=False,
    )
    console.print(renderable)
    return stream.getvalue()


def lines_of(look: Look, renderable: RenderableType) -> list[str]:
    return [line.rstrip() for line in drawn(look, renderable).splitlines()]
