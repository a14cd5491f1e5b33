"""Where the programs keep their files. Knows names of folders, not what is written into them.

With `SPAREGRID_HOME=DIR` everything of all programs is below DIR (`config`, `data`, `cache`, `run`): for
tests, portable use, and several grids on one machine. Without it, the platform's own folders.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import platformdirs

from sparegrid.errors import ConfigError
from sparegrid.ids import GridId

HOME_VARIABLE = "SPAREGRID_HOME"
MAX_SOCKET_PATH_BYTES = 100
"""Of a Unix socket's path: the kernel takes 108 on Linux and 104 on macOS, with the final zero."""


@dataclass(frozen=True)
class Paths:
    """The four folders of one home. None of them needs to exist; `make` creates them."""

    config: Path
    data: Path
    cache: Path
    run: Path

    @classmethod
    def find(cls, environ: Mapping[str, str] | None = None) -> Paths:
        """The folders of this user, or those below `SPAREGRID_HOME`.

        Raises:
            ConfigError: `SPAREGRID_HOME` names something that is not a folder.
        """
        environ = os.environ if environ is None else environ
        home = environ.get(HOME_VARIABLE, "")
        if home:
            return cls.below(Path(home))
        name = "sparegrid"
        data = platformdirs.user_data_path(name, appauthor=False)
        return cls(
            config=platformdirs.user_config_path(name, appauthor=False),
            data=data,
            cache=platformdirs.user_cache_path(name, appauthor=False),
            # Services and bare logins have no runtime folder, and one in /tmp could be anybody's.
            run=Path(session, name) if (session := environ.get("XDG_RUNTIME_DIR", "")) else data / "run",
        )

    @classmethod
    def below(cls, home: Path) -> Paths:
        """The folders below one home.

        Raises:
            ConfigError: there is something at `home` that is not a folder.
        """
        home = Path(os.path.abspath(home.expanduser()))  # noqa: PTH100 - resolve() would follow links
        if home.exists() and not home.is_dir():
            raise ConfigError("Not a folder", f"{HOME_VARIABLE}={home} is a file", "Name a folder")
        return cls(home / "config", home / "data", home / "cache", home / "run")

    def make(self) -> Paths:
        """Create the folders, readable by this user only, and return self.

        Raises:
            ConfigError: a folder cannot be made.
        """
        for folder in (self.config, self.data, self.cache, self.run):
            try:
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            except OSError as error:
                raise ConfigError("Cannot make a folder", f"{folder}: {error.strerror}") from error
        return self

    @property
    def config_file(self) -> Path:
        """Settings of all programs of this home."""
        return self.config / "config.toml"

    @property
    def access_file(self) -> Path:
        """How programs of this home reach the coordinator of this home."""
        return self.data / "access.json"

    @property
    def certificate_file(self) -> Path:
        """The certificate of this home's coordinator, without its key."""
        return self.data / "cert.pem"

    @property
    def coordinator(self) -> Path:
        """What the coordinator of this home keeps."""
        return self.data / "coordinator"

    @property
    def worker(self) -> Path:
        """What the worker of this home keeps of itself, whichever grid it serves."""
        return self.data / "worker"

    @property
    def grids(self) -> Path:
        """A folder for each grid that was joined."""
        return self.data / "grids"

    def grid(self, grid: GridId | str) -> Path:
        """Keys, credentials and spool of one grid that was joined."""
        return self.grids / grid

    def grid_cache(self, grid: GridId | str) -> Path:
        """Blobs and scratch of one grid that was joined."""
        return self.cache / "grids" / grid

    def socket(self, name: str) -> Path:
        """The Unix socket `name` of this home.

        A home far down the tree makes a path that no kernel takes: such a socket lives in a short folder of
        the temporary folder instead, named by the home's hash, the same for every program of the home.
        """
        path = self.run / f"{name}.sock"
        if len(os.fsencode(path)) <= MAX_SOCKET_PATH_BYTES:
            return path
        digest = hashlib.sha256(os.fsencode(self.run)).hexdigest()[:16]
        user = os.getuid() if hasattr(os, "getuid") else 0
        return Path(tempfile.gettempdir()) / f"sparegrid-{user}-{digest}" / f"{name}.sock"
