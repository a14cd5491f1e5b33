"""Integer accounting of what a device lends: thousandths of CPUs, bytes, GPUs by id, VRAM, named counts. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field

from sparegrid.messages import Capability, Needed


@dataclass(frozen=True, slots=True)
class Grant:
    """What was taken from the ledger for one lane."""

    needed: Needed
    gpus: tuple[str, ...] = ()
    """Ids of the GPUs that are its own; of a GPU without known VRAM nothing is shared."""


@dataclass(slots=True)
class Ledger:
    """What is free. Built from a capability; grants are given back whole."""

    milli_cpus: int
    memory: int
    disk: int
    vram: dict[str, int]
    """Bytes by GPU id; GPUs in use are not there."""
    counts: dict[str, int]
    limits_memory: bool = True
    grants: int = 0
    _vram_of: dict[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, capability: Capability) -> Ledger:
        """The ledger of a device on which nothing runs. Unknown memory or disk (0) limits nothing."""
        vram = {gpu.id: gpu.vram for gpu in capability.gpus}
        return cls(
            milli_cpus=capability.slots * 1000,
            memory=capability.memory,
            disk=capability.disk_free,
            vram=dict(vram),
            counts=dict(capability.counts),
            limits_memory=capability.memory > 0,
            _vram_of=vram,
        )

    def take(self, needed: Needed) -> Grant | None:
        """Take resources; None when they are not free now."""
        gpus = self._fitting_gpus(needed)
        if (
            needed.milli_cpus > self.milli_cpus
            or (self.limits_memory and needed.memory > self.memory)
            or needed.disk > self.disk
            or len(gpus) < needed.gpus
            or any(amount > self.counts.get(name, 0) for name, amount in needed.counts.items())
        ):
            return None
        self._change(needed, -1)
        for gpu in gpus:
            del self.vram[gpu]
        self.grants += 1
        return Grant(needed, gpus)

    def give_back(self, grant: Grant) -> None:
        """Free what was granted."""
        self._change(grant.needed, 1)
        for gpu in grant.gpus:
            self.vram[gpu] = self._vram_of[gpu]
        self.grants -= 1

    def _fitting_gpus(self, needed: Needed) -> tuple[str, ...]:
        """Free GPUs, the smallest that suffice first."""
        if not needed.gpus:
            return ()
        fitting = sorted((size, gpu) for gpu, size in self.vram.items() if size >= needed.vram)
        return tuple(gpu for _size, gpu in fitting[: needed.gpus])

    def _change(self, needed: Needed, sign: int) -> None:
        self.milli_cpus += sign * needed.milli_cpus
        self.memory += sign * needed.memory
        self.disk += sign * needed.disk
        for name, amount in needed.counts.items():
            self.counts[name] = self.counts.get(name, 0) + sign * amount
