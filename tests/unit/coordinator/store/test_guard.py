"""One coordinator at a time, on a local disk."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from coordinator.server.store import Store
from coordinator.server.store.guard import NETWORK_FILESYSTEMS, filesystem_of, refuse_network_filesystem
from sparegrid.errors import StorageError

HOLDER = """
import sys
from pathlib import Path
from coordinator.server.store import Store
with Store.open(Path(sys.argv[1])):
    print("open", flush=True)
    sys.stdin.read()
"""

MOUNTS = """\
/dev/vda / ext4 rw 0 0
server:/export /home nfs4 rw 0 0
/dev/vdb /home/anna ext4 rw 0 0
anna@host:/ /mnt/with\\040space fuse.sshfs rw 0 0
tmpfs /data tmpfs rw 0 0
//nas/share /data cifs rw 0 0
malformed
"""


def test_a_second_store_on_the_same_file_is_refused_naming_the_process(tmp_path: Path) -> None:
    path = tmp_path / "grid.db"
    with Store.open(path):
        with pytest.raises(StorageError, match=f"process {os.getpid()}") as caught:
            Store.open(path)
        assert caught.value.title == "Store is in use"
        assert str(path) in caught.value.message
    Store.open(path).close()


def test_a_store_of_another_process_is_refused_and_free_once_that_one_is_killed(tmp_path: Path) -> None:
    path = tmp_path / "grid.db"
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=Path.cwd()
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"open\n"
        with pytest.raises(StorageError, match=f"process {other.pid}"):
            Store.open(path)
        other.kill()
        other.wait(10)
    with Store.open(path) as store:
        assert store.epoch == 2


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("/var/lib/grid", ("/", "ext4")),
        ("/home/otto/grid", ("/home", "nfs4")),
        ("/home/anna/grid", ("/home/anna", "ext4")),
        ("/homes/grid", ("/", "ext4")),
        ("/mnt/with space/grid", ("/mnt/with space", "fuse.sshfs")),
        ("/data", ("/data", "cifs")),
    ],
)
def test_the_file_system_of_a_path_is_that_of_its_nearest_and_last_mount(
    path: str, found: tuple[str, str]
) -> None:
    assert filesystem_of(Path(path), MOUNTS) == found


@pytest.mark.parametrize("kind", sorted(NETWORK_FILESYSTEMS))
def test_a_network_file_system_is_refused_by_name(tmp_path: Path, kind: str) -> None:
    mounts = tmp_path / "mounts"
    mounts.write_text(f"somewhere {tmp_path} {kind} rw 0 0\n")
    with pytest.raises(StorageError) as caught:
        refuse_network_filesystem(tmp_path / "data", mounts)
    assert caught.value.title == "Store on a network file system"
    assert f"{tmp_path}, which is {kind}" in caught.value.message
    assert "SPAREGRID_HOME" in caught.value.hint


def test_local_file_systems_and_systems_that_cannot_tell_are_accepted(tmp_path: Path) -> None:
    mounts = tmp_path / "mounts"
    mounts.write_text(f"/dev/vda {tmp_path} btrfs rw 0 0\n")
    for table in (mounts, tmp_path / "absent"):
        refuse_network_filesystem(tmp_path, table)
    assert tmp_path.exists(), "neither was refused"


def test_folders_are_made_and_private(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "grid.db"
    Store.open(path).close()
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert {file.name: file.stat().st_mode & 0o777 for file in path.parent.iterdir()} == {
        "grid.db": 0o600,
        "grid.db.lock": 0o600,
    }


def test_the_log_and_its_index_are_private_too(tmp_path: Path) -> None:
    with Store.open(tmp_path / "grid.db"):
        assert {file.stat().st_mode & 0o777 for file in tmp_path.glob("grid.db*")} == {0o600}


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="Store cannot be made"):
        Store.open(tmp_path / "file" / "data" / "grid.db")


def test_a_path_that_is_a_folder_is_told(tmp_path: Path) -> None:
    (tmp_path / "grid.db").mkdir()
    with pytest.raises(StorageError, match="SQLITE_CANTOPEN"):
        Store.open(tmp_path / "grid.db")


def test_a_lock_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "grid.db.lock").mkdir()
    with pytest.raises(StorageError, match="Store cannot be locked"):
        Store.open(tmp_path / "grid.db")
