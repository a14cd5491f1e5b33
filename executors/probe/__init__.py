"""The probe: what this device is and offers, found cheaply and told truthfully."""

from executors.probe.capability import probe_capability, read_machine

__all__ = ["probe_capability", "read_machine"]
