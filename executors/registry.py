"""Finds the executors that are installed. What is broken is left out, and said."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from importlib.metadata import EntryPoint, entry_points

from executors.base import Executor

log = logging.getLogger(__name__)

GROUP = "sparegrid.executors"


def load_executors(points: Iterable[EntryPoint] | None = None) -> Mapping[str, Executor]:
    """One executor per kind, by the kind's name.

    Args:
        points: entry points to load instead of those installed in the group `sparegrid.executors`.
    """
    found: dict[str, Executor] = {}
    for point in sorted(entry_points(group=GROUP) if points is None else points):
        try:
            executor: Executor = point.load()()
            kind = executor.kind
        except Exception:
            # A plug-in is other people's code: it must not keep the worker from its work.
            log.exception("the executor %r (%s) cannot be loaded and is left out", point.name, point.value)
            continue
        if kind in found:
            log.warning("a second executor for %r (%s) is left out", kind, point.value)
            continue
        found[kind] = executor
    return found
