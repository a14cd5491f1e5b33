"""The demo's job: a picture in tiles, and a last stage that puts them together. Sends nothing."""

from __future__ import annotations

import importlib.util
import sys
import time
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from sparegrid.api import Items, JobSpec, Need, Requires, StageSpec
from sparegrid.cli.files import LocalFile
from sparegrid.errors import ConfigError
from sparegrid.messages import FileEntry

PROGRAMS = ("scene.py", "png.py")
PICTURE = "picture.png"
TILES, ASSEMBLE = "tiles", "assemble"
BUDGET_S = 30.0
"""A size is chosen so that one device alone should need no longer than this."""
TASK_START_S = 0.2
"""What starting an interpreter with numpy costs each task."""


@dataclass(frozen=True)
class Size:
    """A picture size: pixels, and the side of its square tiles."""

    width: int
    height: int
    side: int

    @property
    def corners(self) -> list[dict[str, int]]:
        """Upper left corners of the tiles, row by row."""
        return [
            {"x": x, "y": y}
            for y in range(0, self.height, self.side)
            for x in range(0, self.width, self.side)
        ]


SIZES = {"small": Size(640, 360, 80), "medium": Size(960, 540, 108), "large": Size(1280, 720, 120)}


def picture_job(size: Size, programs: list[FileEntry], *, device: str = "") -> JobSpec:
    """The picture as a job; with `device`, all of it on that one."""
    interpreter = [sys.executable, "scene.py"]
    shape = [str(size.width), str(size.height)]
    # One thread a task: a device of one slot has one CPU to give.
    env = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    requires = Requires(device=device)
    tiles = StageSpec(
        name=TILES,
        params={"argv": [*interpreter, "tile", *shape, str(size.side), "{{x}}", "{{y}}"], "env": env},
        items=Items(values=size.corners),
        inputs=programs,
        outputs=["tile-*.npy"],
        requires=requires,
    )
    assemble = StageSpec(
        name=ASSEMBLE,
        params={"argv": [*interpreter, "assemble", *shape], "env": env},
        needs=[Need(stage=TILES, map="all", files="tile-*.npy")],
        inputs=programs,
        outputs=[PICTURE],
        requires=requires,
    )
    return JobSpec(name=f"picture {size.width}x{size.height}", stages=[tiles, assemble])


def program_files() -> list[LocalFile]:
    """The renderer, as files that every task finds beside itself."""
    folder = Path(str(resources.files("resources"))) / "demo"
    return [LocalFile(folder / name, name) for name in PROGRAMS]


def require_numpy() -> None:
    """Raises ConfigError when the renderer's one library is missing."""
    if importlib.util.find_spec("numpy") is None:
        raise ConfigError("numpy is missing", "The demo renders with numpy", "pip install 'sparegrid[numpy]'")


def suitable_size() -> Size:
    """The largest size that one device of this computer should render within BUDGET_S, from a quick measurement."""
    from resources.demo.scene import render

    width, height = 96, 54
    began = time.perf_counter()
    render(width, height, 0, 0, width, height)
    per_pixel = (time.perf_counter() - began) / (width * height)
    for size in sorted(SIZES.values(), key=lambda one: -one.width):
        if size.width * size.height * per_pixel + len(size.corners) * TASK_START_S <= BUDGET_S:
            return size
    return SIZES["small"]
