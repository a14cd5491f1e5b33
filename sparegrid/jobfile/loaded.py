"""A job as it came out of a job file: what to submit, and the files to upload before."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from sparegrid.api import JobSpec
from sparegrid.messages import BlobRef


@dataclass(frozen=True)
class LoadedJob:
    """A complete specification, and for every blob that it names the file on this disk, or the bytes."""

    spec: JobSpec
    uploads: Mapping[BlobRef, Path | bytes] = field(default_factory=dict)

    @property
    def upload_bytes(self) -> int:
        """Bytes to upload at most; what the coordinator has already is not sent."""
        return sum(ref.size for ref in self.uploads)
