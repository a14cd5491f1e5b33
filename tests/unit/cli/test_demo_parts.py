"""Parts of the demo: the picture file, the scene, the job and the honest sum."""

from __future__ import annotations

import struct
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest

from resources.demo.png import write_png
from resources.demo.scene import main, render
from sparegrid.cli.demo.picture import SIZES, picture_job, program_files, suitable_size
from sparegrid.cli.screens.demo import Round, rounds_screen, summary
from tests.unit.cli.drawing import drawn
from tests.unit.cli.running import run
from tests.unit.cli.views import a_look


def decoded(data: bytes) -> np.ndarray:
    """The pixels of a PNG whose rows are filtered by the row above."""
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    chunks: dict[bytes, bytes] = {}
    at = 8
    while at < len(data):
        (length,) = struct.unpack(">I", data[at : at + 4])
        kind, body = data[at + 4 : at + 8], data[at + 8 : at + 8 + length]
        (check,) = struct.unpack(">I", data[at + 8 + length : at + 12 + length])
        assert check == zlib.crc32(kind + body)
        chunks[kind] = chunks.get(kind, b"") + body
        at += 12 + length
    width, height, depth, color = struct.unpack(">2I2B", chunks[b"IHDR"][:10])
    assert (depth, color) == (8, 2)
    rows = np.frombuffer(zlib.decompress(chunks[b"IDAT"]), np.uint8).reshape(height, 1 + width * 3)
    assert set(rows[:, 0]) == {2}
    return np.cumsum(rows[:, 1:], axis=0, dtype=np.uint8).reshape(height, width, 3)


def test_a_png_holds_the_very_pixels(tmp_path: Path) -> None:
    pixels = np.random.default_rng(7).integers(0, 256, (13, 17, 3), dtype=np.uint8)
    write_png(tmp_path / "p.png", pixels)
    assert np.array_equal(decoded((tmp_path / "p.png").read_bytes()), pixels)
    with pytest.raises(ValueError, match="not 4"):
        write_png(tmp_path / "q.png", np.zeros((2, 2, 4), np.uint8))


def test_tiles_and_assembly_make_one_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(Path(program_files()[0].source).parent)
    for y in (0, 20):
        for x in (0, 20, 40):
            main(["tile", "48", "27", "20", str(x), str(y)])
    main(["assemble", "48", "27"])
    tiled = decoded(Path("picture.png").read_bytes())
    whole = render(48, 27, 0, 0, 48, 27)
    # Vector units may round the last bit differently for other array lengths.
    assert np.abs(tiled.astype(int) - whole).max() <= 2


def test_the_scene_shows_something() -> None:
    pixels = render(48, 27, 0, 0, 48, 27)
    assert pixels.std() > 30
    assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 500


@pytest.mark.parametrize("name", SIZES)
def test_every_size_is_covered_by_its_tiles_once(name: str) -> None:
    size = SIZES[name]
    covered = np.zeros((size.height, size.width), int)
    for corner in size.corners:
        covered[corner["y"] : corner["y"] + size.side, corner["x"] : corner["x"] + size.side] += 1
    assert covered.min() == covered.max() == 1


def test_a_size_is_chosen_by_measuring() -> None:
    assert suitable_size() in SIZES.values()


def test_the_job_of_one_device_differs_only_in_where_it_runs() -> None:
    free, pinned = picture_job(SIZES["small"], []), picture_job(SIZES["small"], [], device="device-1")
    assert {stage.requires.device for stage in pinned.stages} == {"device-1"}
    for stage in pinned.stages:
        stage.requires.device = ""
    assert pinned == free


def test_the_sum_is_the_ratio_of_two_measured_times() -> None:
    alone = Round("One device alone", 40, {"device-1": 40}, seconds=20.0, ended=True)
    both = Round("2 devices together", 40, {"device-1": 21, "device-2": 19}, seconds=10.5, ended=True)
    look = a_look()
    where = {"picture": "p.png", "size": "960 x 540", "cpus": "2 CPUs", "most": "2"}
    text = drawn(look, summary(look, [alone, both], where, same=True))
    assert "1.90×" in text
    assert "20.0 s on one device, 10.5 s on 2" in text
    assert "Other programs" not in text
    alone.others = 1.2
    assert "up to 1.2 CPUs" in drawn(look, summary(look, [alone, both], where, same=True))
    assert "equal, byte for byte" in text
    assert "differ" in drawn(look, summary(look, [alone, both], where, same=False))
    bars = drawn(look, rounds_screen(look, [alone, both], ["device-1", "device-2"]))
    assert "21 tiles" in bars
    assert "40/40 tiles" in bars


def test_without_numpy_the_demo_says_what_to_install(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "numpy", None)
    assert run(tmp_path, "demo", "-o", str(tmp_path / "result")) == 2
    assert "pip install 'sparegrid[numpy]'" in capsys.readouterr().err
    assert not (tmp_path / "result").exists()
