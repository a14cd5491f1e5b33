"""Values as people type them on a command line: times, sizes, requirements, names with values. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import click

from sparegrid.errors import BadInputError
from sparegrid.units import DURATION_EXAMPLE, SIZE_EXAMPLE, parse_duration, parse_size

_LIST_NAMES = {"os": "os", "arch": "arch", "platform": "platforms", "program": "programs"}
_SIZES = ("memory", "disk", "vram")
REQUIREMENT_HELP = (
    "What the device must have; may be repeated. os=linux, arch=aarch64, platform=linux/aarch64, cpus=2, "
    "memory=4G, disk=20G, gpus=1, vram=8G, program=ffmpeg, label.room=attic, count.licence=1, device=NAME, network"
)


def seconds(text: str) -> float:
    """`90`, `90s`, `10m`, `2h`, `1d` in seconds. Raises BadInputError."""
    try:
        return parse_duration(text)
    except ValueError:
        raise BadInputError("Not a time", f"{text!r} is not a time", f"Write {DURATION_EXAMPLE}") from None


def size_bytes(text: str) -> int:
    """`512`, `64M`, `4G`, `1.5GiB` in bytes. Raises BadInputError."""
    try:
        return parse_size(text)
    except ValueError:
        raise BadInputError("Not a size", f"{text!r} is not a size", f"Write {SIZE_EXAMPLE}") from None


if TYPE_CHECKING:
    _FloatType = click.ParamType[float]
else:
    # Older versions of click have no type parameter here.
    _FloatType = click.ParamType


class Seconds(_FloatType):
    """A time on the command line, in seconds."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Read the text; numbers (defaults) pass."""
        if isinstance(value, int | float):
            return float(value)
        try:
            return seconds(value)
        except BadInputError as error:
            self.fail(f"{error.message}. {error.hint}", param, ctx)


def key_values(texts: Iterable[str], what: str, *, bare: bool = False) -> dict[str, str]:
    """`K=V` texts as a mapping. `bare` allows a K alone (its value is empty). Raises BadInputError naming `what`."""
    found: dict[str, str] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not key or not (equals or bare):
            raise BadInputError(f"Not a {what}", f"{text!r} is not NAME=VALUE")
        found[key] = value
    return found


def requirements(texts: Sequence[str]) -> dict[str, Any]:
    """Texts of `--require` as the fields of `api.Requires`.

    Raises:
        BadInputError: naming the requirement and what is known.
    """
    fields: dict[str, Any] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if key == "network" and not equals:
            fields["network"] = True
        elif not equals or not value:
            raise BadInputError("Not a requirement", f"{text!r} is not NAME=VALUE", REQUIREMENT_HELP)
        else:
            _add_requirement(fields, key, value)
    return fields


def _add_requirement(fields: dict[str, Any], key: str, value: str) -> None:
    if key in _LIST_NAMES:
        fields.setdefault(_LIST_NAMES[key], []).extend(part.strip() for part in value.split(","))
    elif key in _SIZES:
        fields[key] = size_bytes(value)
    elif key == "cpus":
        fields[key] = _number(key, value, float)
    elif key == "gpus":
        fields[key] = _number(key, value, int)
    elif key == "device":
        fields[key] = value
    elif key.startswith("label.") and len(key) > len("label."):
        fields.setdefault("labels", {})[key.removeprefix("label.")] = value
    elif key.startswith("count.") and len(key) > len("count."):
        fields.setdefault("counts", {})[key.removeprefix("count.")] = _number(key, value, int)
    else:
        raise BadInputError(
            "Not a requirement", f"{key!r} is none of the known requirements", REQUIREMENT_HELP
        )


def _number(key: str, value: str, kind: type[int | float]) -> int | float:
    try:
        return kind(value)
    except ValueError:
        raise BadInputError("Not a requirement", f"{key}={value}: {value!r} is not a number") from None
