"""The items of a stage: how many there are, and the item of an index, without holding 10,000,000 objects.

Values are kept packed; products of axes are computed from the index. Items made of another stage's files have no
value here: the driver makes them from the file that `Machine.source_of` names.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from decimal import Decimal
from math import prod
from typing import Any

import msgspec

from sparegrid.api import Items, RangeAxis
from sparegrid.errors import BadInputError

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder().decode


class ItemList:
    """First `base` items that follow from the index (none, or a product of axes), then packed values."""

    __slots__ = ("_axes", "_bytes", "_ends", "base", "plain")

    def __init__(self, base: int = 0, axes: dict[str, list[Any] | RangeAxis] | None = None) -> None:
        self.base = base
        self.plain = axes is None
        """Without values, an item is None."""
        self._axes = {name: Axis(axis) for name, axis in (axes or {}).items()}
        self._bytes = bytearray()
        self._ends = array("Q")

    @classmethod
    def of(cls, items: Items) -> ItemList:
        """The items as they are known when a job is submitted.

        Raises:
            BadInputError: more than one form is given, or one that only the server can resolve.
        """
        forms = [name for name in items.__struct_fields__ if getattr(items, name) is not None]
        if len(forms) > 1:
            raise BadInputError("Items given twice", f"items have {' and '.join(forms)}; give one of them")
        if items.blob is not None:
            raise BadInputError(
                "Items not read", "items.blob must be read before the job reaches the scheduler"
            )
        if items.values is not None:
            made = cls()
            made.extend(items.values)
            return made
        if items.axes is not None:
            return cls(prod(len(Axis(axis)) for axis in items.axes.values()), items.axes)
        if items.stage is not None:
            return cls()
        return cls(1 if items.count is None else items.count)

    def __len__(self) -> int:
        return self.base + len(self._ends)

    def extend(self, values: Sequence[Any]) -> None:
        """Append values.

        Raises:
            BadInputError: a value cannot travel, such as an integer of more than 64 bits.
        """
        try:
            packed = [_encode(value) for value in values]
        except (OverflowError, TypeError, ValueError) as error:
            raise BadInputError(
                "Not a possible item", f"an item cannot be sent to a device: {error}"
            ) from error
        end = self._ends[-1] if self._ends else 0
        for one in packed:
            end += len(one)
            self._ends.append(end)
            self._bytes += one

    def item(self, index: int) -> Any:
        """The item of this index; None when it has none but its index."""
        if index >= self.base:
            at = index - self.base
            return _decode(memoryview(self._bytes)[self._ends[at - 1] if at else 0 : self._ends[at]])
        if not self._axes:
            return None
        made: dict[str, Any] = {}
        for name in reversed(self._axes):
            axis = self._axes[name]
            index, at = divmod(index, len(axis))
            made[name] = axis[at]
        return {name: made[name] for name in self._axes}

    def values(self) -> list[Any]:
        """The packed values, unpacked."""
        return [self.item(index) for index in range(self.base, len(self))]

    def dump(self) -> tuple[int, bytes, bytes]:
        """For a snapshot: (base, packed values, where each ends)."""
        return self.base, bytes(self._bytes), self._ends.tobytes()

    def load(self, dumped: tuple[int, bytes, bytes]) -> None:
        """Take over what `dump` gave."""
        self.base, self._bytes = dumped[0], bytearray(dumped[1])
        self._ends = array("Q")
        self._ends.frombytes(dumped[2])


class Axis:
    """One axis of a product: its values, listed or computed. Sums are decimal: 0.1 steps give 0.3, not 0.30…04."""

    __slots__ = ("_count", "_list", "_start", "_step")

    def __init__(self, axis: list[Any] | RangeAxis) -> None:
        self._list: list[Any] | None = None
        self._start = self._step = Decimal(0)
        if isinstance(axis, list):
            self._list, self._count = axis, len(axis)
            return
        self._start, self._step = Decimal(str(axis.start)), Decimal(str(axis.step))
        span = Decimal(str(axis.stop)) - self._start
        if not self._step or not self._step.is_finite() or not span.is_finite():
            raise BadInputError(
                "Not a range",
                f"from {axis.start} to {axis.stop} in steps of {axis.step} never ends",
                "Give a step",
            )
        self._count = max(0, int(span / self._step) + 1) if span == 0 or (span > 0) == (self._step > 0) else 0

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, at: int) -> Any:
        if self._list is not None:
            return self._list[at]
        value = self._start + at * self._step
        return int(value) if value == value.to_integral_value() and self._whole else float(value)

    @property
    def _whole(self) -> bool:
        return self._start == self._start.to_integral_value() and self._step == self._step.to_integral_value()


def large_hashes(item: Any, least_bytes: int) -> list[str]:
    """Hashes of the large blobs that an item brings: a FileEntry under its key `file`, as decoded from JSON."""
    content = (
        item["file"].get("content") if isinstance(item, dict) and isinstance(item.get("file"), dict) else None
    )
    if (
        isinstance(content, dict)
        and isinstance(content.get("hash"), str)
        and content.get("size", 0) >= least_bytes
    ):
        return [content["hash"]]
    return []
