"""The demo's screen: which round runs, what each device has rendered, and the honest sum at the end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from rich.console import Group, RenderableType
from rich.text import Text

from sparegrid.cli.screens.look import Look
from sparegrid.cli.screens.messages import headline
from sparegrid.cli.wording import plural

_BAR_WIDTH = 44
_WORTH_TELLING = 0.3
"""CPUs of other programs that explain a poor result."""


@dataclass
class Round:
    """One run of the job: who takes part and how far it is.

    Args:
        title: what is compared.
        tiles: how many tiles the picture has.
        done: tiles rendered, by device.
        seconds: since its start; the final time once it has ended.
    """

    title: str
    tiles: int
    done: dict[str, int] = field(default_factory=dict)
    running: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0
    ended: bool = False
    others: float = 0.0
    """CPUs that other programs used meanwhile."""


def rounds_screen(look: Look, rounds: Sequence[Round], devices: Sequence[str]) -> RenderableType:
    """The rounds that have begun, each with a bar per device."""
    lines: list[RenderableType] = []
    for one in rounds:
        lines += [Text(""), _round_title(look, one)]
        lines += [_device_line(look, one, device) for device in devices]
    return Group(*lines)


def _round_title(look: Look, one: Round) -> Text:
    text = headline(one.title)
    done = sum(one.done.values())
    text.append(f"  {min(done, one.tiles)}/{one.tiles} tiles  ", style="not bold")
    text.append(_time(one.seconds), style="bold green" if one.ended else "not bold cyan")
    return text


def _device_line(look: Look, one: Round, device: str) -> Text:
    width = max(10, min(_BAR_WIDTH, look.width - 32))
    done, running = one.done.get(device, 0), one.running.get(device, 0)
    idle = not done and not running
    bar = look.bar([(done, "done"), (running, "running")], one.tiles, width)
    line = Text.assemble("  ", device.ljust(10), " ", bar, f"  {plural(done, 'tile')}")
    if idle and not one.ended:
        line.append(" (idle)")
    return line


def summary(look: Look, rounds: Sequence[Round], where: Mapping[str, str], *, same: bool) -> RenderableType:
    """What came out. `where` holds the picture's path and the computer's CPUs; `same`: both pictures are equal."""
    alone, together = rounds
    count = len([device for device, tiles in together.done.items() if tiles])
    factor = alone.seconds / together.seconds if together.seconds else 0.0
    sign = "×" if look.unicode else "x"
    busy = max(alone.others, together.others)
    lines: list[RenderableType] = [
        Text(""),
        Text.assemble("Picture   ", (where["picture"], "bold"), f"  ({where['size']})"),
        Text.assemble(
            "Speed-up  ",
            (f"{factor:.2f}{sign}", "bold green" if factor > 1 else "bold"),
            f"  {_time(alone.seconds)} on one device, {_time(together.seconds)} on {count}",
        ),
        Text(
            f"          Both times were measured: the same job twice, from submitting to the finished file.\n"
            f"          All devices share this computer's {where['cpus']}, "
            f"so at most {where['most']}{sign} is possible here."
        ),
    ]
    if busy >= _WORTH_TELLING:
        lines.append(
            Text(f"          Other programs used up to {busy:.1f} CPUs meanwhile, so the figure is rough.")
        )
    if same:
        lines.append(Text("          Both pictures are equal, byte for byte."))
    else:
        lines.append(Text("          The two pictures differ!", style="bold red"))
    return Group(*lines)


def _time(seconds: float) -> str:
    return f"{seconds:.1f} s"
