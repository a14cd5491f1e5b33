"""A ray-marched picture, tile by tile: a power-8 Mandelbulb over a dark mirror at dusk. Pure numpy.

As a program, on a device of the grid:
    scene.py tile WIDTH HEIGHT SIDE X Y     renders the tile at (X, Y) into tile-YYYYY-XXXXX.npy
    scene.py assemble WIDTH HEIGHT          puts all tile-*.npy files here together into picture.png

Nothing in it is random. The distance estimate is Daniel White's and Paul Nylander's formula with Inigo Quilez's
derivative.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt

Vectors = npt.NDArray[np.float32]
Scalars = npt.NDArray[np.float32]

SAMPLES = 2
"""Rays per pixel and direction: 2 x 2 for each pixel."""
POWER = 8
ITERATIONS = 7
STEPS = 110
BOUND = 1.25
"""Radius of a sphere around all of the fractal."""
FLOOR = np.float32(-1.22)
FAR = np.float32(40.0)


def _unit(x: float, y: float, z: float) -> Vectors:
    vector = np.array([x, y, z], np.float32)
    return vector / np.float32(np.linalg.norm(vector))


EYE = np.array([1.50, -0.10, -2.95], np.float32)
TARGET = np.array([0.0, -0.26, 0.0], np.float32)
SUN = _unit(0.80, 0.50, -0.50)
RIM = _unit(-0.75, 0.20, 0.62)
GLOW = _unit(-0.80, 0.045, 0.60)
SUN_COLOR = np.array([2.3, 1.65, 1.12], np.float32)
RIM_COLOR = np.array([0.95, 0.32, 0.42], np.float32)
SKY_COLOR = np.array([0.34, 0.42, 0.62], np.float32)


def estimate(points: Vectors) -> tuple[Scalars, Vectors]:
    """Distance to the fractal from each point (N, 3), and the orbit's nearest approaches (N, 3) for colour."""
    count = len(points)
    radius = np.linalg.norm(points, axis=1)
    derivative = np.ones(count, np.float32)
    trap = np.full((count, 3), 4.0, np.float32)
    alive = np.arange(count)
    z = points.copy()
    for _ in range(ITERATIONS):
        r = radius[alive]
        alive = alive[r < 2.0]
        if not len(alive):
            break
        here, r = z[alive], radius[alive]
        np.maximum(r, np.float32(1e-6), out=r)
        azimuth = POWER * np.arctan2(here[:, 0], here[:, 2])
        polar = POWER * np.arccos(np.clip(here[:, 1] / r, -1, 1))
        r7 = r**7
        derivative[alive] = POWER * r7 * derivative[alive] + 1
        r8, sine = r7 * r, np.sin(polar)
        turned = np.stack([sine * np.sin(azimuth), np.cos(polar), sine * np.cos(azimuth)], axis=1)
        here = points[alive] + r8[:, None] * turned
        z[alive] = here
        radius[alive] = np.linalg.norm(here, axis=1)
        trap[alive] = np.minimum(
            trap[alive], np.stack([np.abs(here[:, 0]), np.abs(here[:, 1]), radius[alive]], axis=1)
        )
    safe = np.maximum(radius, np.float32(1e-6))
    return (0.5 * np.log(safe) * safe / derivative).astype(np.float32), trap


def march(origins: Vectors, directions: Vectors) -> Scalars:
    """Distance along each ray to the fractal; infinite where it misses."""
    found = np.full(len(origins), np.inf, np.float32)
    near, far = _bounds(origins, directions)
    alive = np.flatnonzero(far > near)
    t = near[alive]
    for _ in range(STEPS):
        if not len(alive):
            break
        gap = estimate(origins[alive] + t[:, None] * directions[alive])[0]
        hit = gap < np.float32(0.0007) * t
        found[alive[hit]] = t[hit]
        t = t + np.float32(0.9) * gap
        keep = ~hit & (t < far[alive])
        alive, t = alive[keep], t[keep]
    return found


def _bounds(origins: Vectors, directions: Vectors) -> tuple[Scalars, Scalars]:
    """Where each ray enters and leaves the bounding sphere; an empty range where it misses."""
    b = np.einsum("ij,ij->i", origins, directions)
    c = np.einsum("ij,ij->i", origins, origins) - np.float32(BOUND * BOUND)
    root = b * b - c
    half = np.sqrt(np.maximum(root, 0))
    near = np.maximum(-b - half, np.float32(0.02))
    far = np.where(root > 0, -b + half, np.float32(-1))
    return near.astype(np.float32), far.astype(np.float32)


def shadow(points: Vectors, direction: Vectors) -> Scalars:
    """How much light arrives from a direction, 0 to 1, with soft edges."""
    light = np.ones(len(points), np.float32)
    directions = np.broadcast_to(direction, points.shape)
    near, far = _bounds(points, directions)
    alive = np.flatnonzero(far > near)
    t = near[alive]
    for _ in range(28):
        if not len(alive):
            break
        gap = estimate(points[alive] + t[:, None] * direction)[0]
        light[alive] = np.minimum(light[alive], np.clip(14 * gap / t, 0, 1))
        t = t + np.clip(gap, 0.012, 0.25)
        keep = (light[alive] > 0.01) & (t < far[alive])
        alive, t = alive[keep], t[keep]
    return light * light * (3 - 2 * light)


def sky(directions: Vectors) -> Vectors:
    """The dusk behind everything."""
    height = directions[:, 1:2]
    up = np.clip(height, 0, 1)
    band = np.exp(-up * 7.5)
    low, high = np.array([0.62, 0.22, 0.13], np.float32), np.array([0.018, 0.040, 0.115], np.float32)
    middle = np.array([0.22, 0.13, 0.27], np.float32)
    color = low * band**2 + middle * 1.5 * band * (1 - band) + high * (1 - band * 0.4)
    glow = np.clip(directions @ GLOW, 0, 1)[:, None]
    color = color + np.array([1.25, 0.55, 0.20], np.float32) * (glow**70 * 0.30 + glow**900 * 1.6) * (
        0.35 + band
    )
    result: Vectors = color.astype(np.float32)
    return result


def shade(points: Vectors, directions: Vectors) -> Vectors:
    """Colour of the fractal where rays hit it."""
    _, trap = estimate(points)
    normals = _normals(points)
    open_sky = np.ones(len(points), np.float32)
    for step, weight in ((0.02, 0.55), (0.06, 0.30), (0.14, 0.20)):
        gap = estimate(points + np.float32(step) * normals)[0]
        open_sky -= np.float32(weight) * np.clip(1 - gap / np.float32(step), 0, 1)
    open_sky = np.clip(open_sky, 0.04, 1)[:, None]
    albedo = _albedo(trap)
    lit = shadow(points + np.float32(0.004) * normals, SUN)[:, None]
    sun = np.clip(normals @ SUN, 0, 1)[:, None] * lit
    rim = np.clip(normals @ RIM, 0, 1)[:, None]
    up = (0.5 + 0.5 * normals[:, 1:2]) * open_sky
    color = albedo * (SUN_COLOR * sun + RIM_COLOR * rim * open_sky * 0.55 + SKY_COLOR * up * 0.75)
    half = SUN - directions
    half /= np.linalg.norm(half, axis=1)[:, None]
    gloss = np.clip(np.einsum("ij,ij->i", half, normals), 0, 1)[:, None] ** 48
    edge = (1 - np.clip(-np.einsum("ij,ij->i", directions, normals), 0, 1))[:, None] ** 4
    color = color + SUN_COLOR * gloss * sun * 0.55 + RIM_COLOR * edge * open_sky * 0.45
    result: Vectors = color.astype(np.float32)
    return result


def _normals(points: Vectors) -> Vectors:
    """Gradient of the distance by four samples on a tetrahedron."""
    total = np.zeros_like(points)
    for corner in ((1, -1, -1), (-1, -1, 1), (-1, 1, -1), (1, 1, 1)):
        offset = np.array(corner, np.float32)
        total += offset * estimate(points + np.float32(0.0009) * offset)[0][:, None]
    result: Vectors = total / np.maximum(np.linalg.norm(total, axis=1), np.float32(1e-12))[:, None]
    return result


def _albedo(trap: Vectors) -> Vectors:
    """Gold on the outside, teal and violet in the folds."""
    depth = np.clip((trap[:, 2:3] - 0.42) * 2.4, 0, 1)
    fold = np.clip(trap[:, 0:1] * 3.2, 0, 1)
    ridge = np.clip(trap[:, 1:2] * 2.6, 0, 1)
    gold, teal = np.array([1.0, 0.50, 0.17], np.float32), np.array([0.03, 0.42, 0.50], np.float32)
    violet = np.array([0.42, 0.07, 0.38], np.float32)
    color = teal * (1 - depth) + gold * depth
    color = color * fold + violet * (1 - fold)
    result: Vectors = (color * (0.45 + 0.55 * ridge)).astype(np.float32)
    return result


def trace(origins: Vectors, directions: Vectors, *, mirror: bool = True) -> Vectors:
    """Light that arrives along each ray; `mirror` follows one reflection in the floor."""
    color = sky(directions)
    distance = march(origins, directions)
    with np.errstate(divide="ignore", invalid="ignore"):
        floor = (FLOOR - origins[:, 1]) / directions[:, 1]
    floor = np.where(floor > 0.001, floor, np.inf).astype(np.float32)
    bulb = np.flatnonzero(np.isfinite(distance) & (distance < floor))
    if len(bulb):
        points = origins[bulb] + distance[bulb, None] * directions[bulb]
        color[bulb] = shade(points, directions[bulb])
    below = np.flatnonzero(mirror & np.isfinite(floor) & (floor <= distance) & (floor < FAR))
    if len(below):
        points = origins[below] + floor[below, None] * directions[below]
        color[below] = _floor_color(points, directions[below], floor[below], color[below])
    return color


def _floor_color(points: Vectors, directions: Vectors, distance: Scalars, behind: Vectors) -> Vectors:
    """A dark wet floor: more mirror at flat angles, faded into the distance."""
    ripple = np.stack(
        [np.sin(points[:, 0] * 9 + points[:, 2] * 4), np.cos(points[:, 2] * 11 - points[:, 0] * 3)]
    )
    normals = np.stack([ripple[0] * 0.012, np.ones(len(points)), ripple[1] * 0.012], axis=1).astype(
        np.float32
    )
    normals /= np.linalg.norm(normals, axis=1)[:, None]
    facing = np.einsum("ij,ij->i", directions, normals)
    mirrored = (directions - 2 * facing[:, None] * normals).astype(np.float32)
    mirrored[:, 1] = np.maximum(mirrored[:, 1], np.float32(0.002))
    reflected = trace(points, mirrored, mirror=False)
    strength = (0.10 + 0.90 * (1 - np.clip(-facing, 0, 1)) ** 4)[:, None]
    lit = shadow(points, SUN)[:, None]
    ground = np.array([0.012, 0.020, 0.038], np.float32) * (0.3 + 1.2 * lit)
    color = ground + reflected * strength * np.array([0.86, 0.92, 1.0], np.float32)
    mist = 1 - np.exp(-((distance[:, None] / 26) ** 2))
    mixed: Vectors = (color * (1 - mist) + behind * mist).astype(np.float32)
    return mixed


def render(width: int, height: int, x: int, y: int, columns: int, rows: int) -> npt.NDArray[np.uint8]:
    """Pixels (rows, columns, 3) of a part of the picture whose upper left corner is (x, y)."""
    sub = (np.arange(SAMPLES) + 0.5) / SAMPLES
    u = (np.add.outer(np.arange(x, x + columns), sub).reshape(-1) * 2 - width) / height
    v = (height - np.add.outer(np.arange(y, y + rows), sub).reshape(-1) * 2) / height
    forward = (TARGET - EYE) / np.linalg.norm(TARGET - EYE)
    right = np.cross(np.array([0.0, 1.0, 0.0]), forward)
    right /= np.linalg.norm(right)
    above = np.cross(forward, right)
    lens = 0.47
    plane = u[None, :, None] * lens * right + v[:, None, None] * lens * above + forward
    directions = (plane / np.linalg.norm(plane, axis=2)[:, :, None]).reshape(-1, 3).astype(np.float32)
    color = trace(np.broadcast_to(EYE, directions.shape), directions)
    color = color.reshape(rows, SAMPLES, columns, SAMPLES, 3)
    exposed = np.clip(color * 1.05, 0, None)
    # The curve is applied per ray, before averaging: bright edges stay smooth.
    toned = exposed * (2.51 * exposed + 0.03) / (exposed * (2.43 * exposed + 0.59) + 0.14)
    mean: Vectors = np.clip(toned, 0, 1).mean(axis=(1, 3))
    return (mean ** (1 / 2.2) * 255 + 0.5).astype(np.uint8)


def tile_name(x: int, y: int) -> str:
    """The file of the tile at (x, y)."""
    return f"tile-{y:05}-{x:05}.npy"


def main(arguments: list[str]) -> None:
    """See the module's text."""
    verb, width, height = arguments[0], int(arguments[1]), int(arguments[2])
    if verb == "tile":
        side, x, y = (int(text) for text in arguments[3:6])
        np.save(tile_name(x, y), render(width, height, x, y, min(side, width - x), min(side, height - y)))
    elif verb == "assemble":
        from png import write_png  # type: ignore[import-not-found]  # both files lie in the task's work folder

        picture = np.zeros((height, width, 3), np.uint8)
        for path in sorted(Path().glob("tile-*.npy")):
            y, x = (int(part) for part in path.stem.split("-")[1:])
            pixels = np.load(path)
            picture[y : y + pixels.shape[0], x : x + pixels.shape[1]] = pixels
        write_png(Path("picture.png"), picture)
    else:
        raise SystemExit(f"{verb!r} is neither tile nor assemble")


if __name__ == "__main__":
    main(sys.argv[1:])
