"""Tables that fit: columns that matter less leave first, long texts are cut, files and pipes get everything."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich import box
from rich.table import Table
from rich.text import Text

from sparegrid.cli.screens.look import Look

_GAP = 2
"""Columns between two cells: the padding of one, and the box's own."""


@dataclass(frozen=True)
class Column:
    """One column of a listing.

    Args:
        title: its heading.
        right: numbers are aligned to the right.
        least: columns that it can be cut to; 0 means that it is never cut.
        rank: 0 always stays; of the others the highest leaves first when there is no room.
        live_only: drawn only for a person at a terminal (bars).
    """

    title: str
    right: bool = False
    least: int = 0
    rank: int = 0
    live_only: bool = False


def listing(look: Look, columns: Sequence[Column], rows: Sequence[Sequence[Text]]) -> Table:
    """A table of rows whose cells are in the order of the columns."""
    natural = [
        max([len(column.title), *(row[at].cell_len for row in rows)]) for at, column in enumerate(columns)
    ]
    shown = [at for at, column in enumerate(columns) if look.live or not column.live_only]
    # A column without anything in any row tells nothing.
    shown = [at for at in shown if not rows or columns[at].rank == 0 or any(row[at].plain for row in rows)]
    widths = _fit(look.width, columns, natural, shown) if look.live else {at: natural[at] for at in shown}
    edge = (box.SIMPLE_HEAD if look.unicode else box.ASCII2) if look.live else None
    gap = _GAP - 1 if edge else _GAP
    table = Table(
        box=_thin(edge), pad_edge=False, padding=(0, gap, 0, 0), header_style="bold", show_edge=False
    )
    for at in shown:
        column = columns[at]
        if at in widths:
            table.add_column(
                column.title,
                justify="right" if column.right else "left",
                width=widths[at],
                no_wrap=True,
                overflow="ellipsis" if look.unicode else "crop",
            )
    for row in rows:
        table.add_row(*(row[at] for at in shown if at in widths))
    return table


def _thin(edge: box.Box | None) -> box.Box | None:
    """The heading's rule without the spaces that a box adds between columns."""
    if edge is None:
        return None
    rule = " ── " if edge is box.SIMPLE_HEAD else " -- "
    return box.Box(f"    \n    \n{rule}\n    \n    \n    \n    \n    \n")


def _fit(width: int, columns: Sequence[Column], natural: list[int], shown: list[int]) -> dict[int, int]:
    """Widths by column, of those that stay."""
    kept = list(shown)
    while True:
        needed = sum(_least(columns[at], natural[at]) + _GAP for at in kept)
        droppable = [at for at in kept if columns[at].rank > 0]
        if needed <= width or not droppable:
            break
        kept.remove(max(droppable, key=lambda at: (columns[at].rank, at)))
    widths = {at: natural[at] for at in kept}
    while sum(widths.values()) + _GAP * len(kept) > width:
        elastic = [at for at in kept if widths[at] > max(columns[at].least, 1) and columns[at].least]
        if not elastic:
            break
        widest = max(elastic, key=lambda at: widths[at])
        widths[widest] -= 1
    return widths


def _least(column: Column, natural: int) -> int:
    return min(natural, column.least) if column.least else natural
