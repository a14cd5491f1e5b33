"""Job files: `job.toml` for people, read into the same JobSpec that REST takes. Submits nothing."""

from sparegrid.jobfile.loaded import LoadedJob
from sparegrid.jobfile.loader import load_job, parse_job
from sparegrid.jobfile.schema import job_schema

__all__ = ["LoadedJob", "job_schema", "load_job", "parse_job"]
