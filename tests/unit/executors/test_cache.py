"""The blob cache keeps what is used and pinned, within its cap."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from executors.agent.cache import HELD_FROM_BYTES, BlobCache
from sparegrid.errors import BadInputError


def put(cache: BlobCache, text: str, size: int = 100) -> str:
    data = text.encode().ljust(size)
    name = hashlib.sha256(data).hexdigest()
    cache.path(name).write_bytes(data)
    cache.add(name)
    return name


def test_the_least_used_leaves_first(tmp_path: Path) -> None:
    cache = BlobCache(tmp_path, 300)
    first, second, third = [put(cache, text) for text in "abc"]
    assert cache.find(first) == tmp_path / first
    fourth = put(cache, "d")
    assert [cache.find(name) is not None for name in (first, second, third, fourth)] == [
        True,
        False,
        True,
        True,
    ]
    assert cache.total == 300
    assert not (tmp_path / second).exists()


def test_pinned_blobs_stay_over_the_cap_until_they_are_unpinned_as_often(tmp_path: Path) -> None:
    cache = BlobCache(tmp_path, 150)
    first = hashlib.sha256(b"a".ljust(100)).hexdigest()
    cache.pin([first])
    cache.pin([first])
    put(cache, "a")
    second = put(cache, "b")
    assert cache.find(second) is None
    assert cache.find(first) is not None
    cache.unpin([first])
    put(cache, "c", size=200)
    assert cache.find(first) is not None
    cache.unpin([first])
    put(cache, "d", size=140)
    assert cache.find(first) is None


def test_a_restart_finds_what_is_there_and_evicts_to_the_new_cap(tmp_path: Path) -> None:
    cache = BlobCache(tmp_path, 1000)
    old, new = put(cache, "a"), put(cache, "b")
    os.utime(tmp_path / old, (1, 1))
    (tmp_path / ".x.part").write_bytes(b"partial")
    again = BlobCache(tmp_path, 150)
    assert (again.find(old), again.find(new)) == (None, tmp_path / new)
    assert again.changes() == ([], [])
    assert (tmp_path / ".x.part").exists(), "a download goes on with it"


@pytest.mark.parametrize("spoil", ["grow", "touch", "remove"])
def test_a_changed_blob_is_dropped(tmp_path: Path, spoil: str) -> None:
    cache = BlobCache(tmp_path, 1000)
    name = put(cache, "a")
    path = tmp_path / name
    if spoil == "grow":
        path.write_bytes(b"longer" * 50)
    elif spoil == "touch":
        os.utime(path, (5, 5))
    else:
        path.unlink()
    assert cache.find(name) is None
    assert cache.total == 0


def test_large_blobs_are_told_of_as_they_come_and_go(tmp_path: Path) -> None:
    cache = BlobCache(tmp_path, 2 * HELD_FROM_BYTES)
    put(cache, "small")
    first = put(cache, "a", HELD_FROM_BYTES)
    assert cache.held() == [first]
    assert cache.changes() == ([first], [])
    second, third = put(cache, "b", HELD_FROM_BYTES), put(cache, "c", HELD_FROM_BYTES)
    added, removed = cache.changes()
    assert (added, removed) == ([second, third], [first])
    assert cache.changes() == ([], [])


def test_an_adopted_file_moves_and_a_disk_that_refuses_only_costs_the_copy(tmp_path: Path) -> None:
    cache = BlobCache(tmp_path / "cache", 1000)
    source = tmp_path / "source"
    source.write_bytes(b"x")
    name = hashlib.sha256(b"x").hexdigest()
    cache.adopt(source, name)
    assert cache.find(name) is not None
    assert not source.exists()
    (tmp_path / "cache" / ("0" * 64)).mkdir()
    source.write_bytes(b"y")
    cache.adopt(source, "0" * 64)
    assert not source.exists()
    assert cache.find("0" * 64) is None


def test_only_names_of_blobs_become_paths(tmp_path: Path) -> None:
    with pytest.raises(BadInputError):
        BlobCache(tmp_path, 10).path("../x")
