"""How things look everywhere: widths, marks, bars and the colours of states. Colours are the terminal's own sixteen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.text import Text

from sparegrid.cli.wording import safe

STATE_STYLES = {
    "done": "green",
    "active": "cyan",
    "running": "cyan",
    "computing": "green",
    "ready": "cyan",
    "open": "cyan",
    "failed": "bold red",
    "lost": "bold red",
    "cancelled": "magenta",
    "paused": "magenta",
    "suspended": "magenta",
    "draining": "magenta",
}
"""Every colour here is readable on black and on white; grey, yellow and `dim` are not, so nothing uses them."""

_MARKS = {
    "done": ("✓", "+"),
    "active": ("▶", ">"),
    "running": ("▶", ">"),
    "computing": ("●", "*"),
    "ready": ("●", "*"),
    "open": ("◇", "o"),
    "queued": ("○", "."),
    "waiting": ("○", "."),
    "failed": ("✗", "!"),
    "lost": ("✗", "!"),
    "cancelled": ("■", "x"),
    "paused": ("‖", "="),
    "suspended": ("‖", "="),
    "draining": ("◐", "~"),
    "offline": ("○", "-"),
}

_CELLS = {"running": ("·", "."), "failed": ("✗", "!"), "lost": ("✗", "!"), "cancelled": ("░", "x")}
"""Cells of a bar that are not progress. What runs has no end yet: it is as empty as the rest, but for its colour."""


@dataclass(frozen=True)
class Look:
    """The terminal that a screen is drawn for.

    Args:
        width: columns.
        unicode: marks and lines beyond ASCII can be shown.
        live: a person looks at a terminal; bars are drawn, and texts are cut to the width.
        now_ms: the wall clock, for ages.
    """

    width: int
    unicode: bool
    live: bool
    now_ms: int

    @classmethod
    def of(cls, console: Console, now_ms: int) -> Look:
        """The look of a console at a time."""
        wide = console.encoding.lower().startswith("utf")
        return cls(console.width, wide, console.is_terminal, now_ms)

    def state(self, state: str) -> Text:
        """A state with its mark, in its colour."""
        mark = _MARKS.get(state, ("·", "-"))[0 if self.unicode else 1]
        return Text(f"{mark} {safe(state)}", style=STATE_STYLES.get(state, ""))

    def bar(self, parts: Sequence[tuple[int, str]], total: int, width: int) -> Text:
        """One line that shows how `total` divides into parts (count, state); the rest is left thin.

        A part that is not empty gets at least one cell when there is room, so that one failure of 10,000 is seen.
        """
        cells = _share_cells(width, [count for count, _ in parts], total)
        bar = Text()
        for (_, state), count in zip(parts, cells, strict=True):
            bar.append(self._filled(state) * count, style=STATE_STYLES.get(state, ""))
        bar.append(("·" if self.unicode else ".") * (width - sum(cells)))
        return bar

    def _filled(self, state: str) -> str:
        """The cell of a part: without colours, too, it tells what has ended well, what badly, and what not at all."""
        known = _CELLS.get(state, ("━", "#"))
        return known[0 if self.unicode else 1]

    @property
    def dash(self) -> str:
        """Stands for nothing to tell."""
        return "–" if self.unicode else "-"

    @property
    def dot(self) -> str:
        """Separates facts on one line."""
        return "·" if self.unicode else "-"


def _share_cells(width: int, counts: Sequence[int], total: int) -> list[int]:
    if total <= 0 or width <= 0:
        return [0 for _ in counts]
    cells = [count * width // total for count in counts]
    for at, count in enumerate(counts):
        if count > 0 and cells[at] == 0:
            cells[at] = 1
    while sum(cells) > width:
        cells[cells.index(max(cells))] -= 1
    if sum(counts) >= total and sum(cells) < width:
        cells[cells.index(max(cells))] += width - sum(cells)
    return cells


def facts(look: Look, *pieces: str) -> Text:
    """Pieces that are not empty, on one line with separators."""
    return Text(f" {look.dot} ".join(piece for piece in pieces if piece))
