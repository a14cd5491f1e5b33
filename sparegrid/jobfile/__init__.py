"""Job files: `job.toml` for people, read into the same JobSpec that REST takes. Submits nothing."""

from sparegrid.jobfile.loaded import LoadedJob

__all__ = ["LoadedJob"]
