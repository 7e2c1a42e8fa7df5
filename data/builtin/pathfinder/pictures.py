"""Pathfinder pictures and labels from contours, without a shortcut through the discs.

In the published procedure the label only decides which of the two tips gets the second disc. So all
but the discs is the same for both labels, but the discs are not: the two ends of one contour lie as
far apart as their dashes allow, the ends of two at any distance. A histogram of the distance of the
discs alone tells 56, 54 and 53 % of the labels of all pairs at 32x32 with 6, 9 and 14 dashes, 73
and 67 % at 16x16 with 3 and 4. Here pairs of contours are thinned out until the positions of the
discs have one distribution for both labels (`Acceptance`).

Also unlike the published pictures: dashes and discs are drawn with exact area coverage, not drawn
large and shrunk with Lanczos, and the brightness of a whole picture is not stretched to 0..255.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from jaxtyping import Bool, Float, Int, Int32, Integer, UInt8

from .contours import Dashes, add_distractors, grow_contours, origins, tips
from .geometry import Geometry, distance_to_dash


@dataclass(frozen=True)
class Acceptance:
    """Which pairs of contours to keep, by label and by where the discs lie.

    Cell by cell of disc positions (distance, then midpoint's distance from the centre), a share p1
    of the pairs labelled 1 and p0 of those labelled 0 falls into it. Keeping a pair labelled 1 with
    probability min(1, p0 / p1), and one labelled 0 likewise, leaves min(p0, p1) for both.
    """

    cells: "DiscCells"
    least: float
    """Pairs whose discs are nearer than this are discarded, since they are hard to distinguish."""
    probability: Float[np.ndarray, "2 cells"]

    def keep(
        self,
        labels: Int32[np.ndarray, " n"],
        discs: Integer[np.ndarray, "n 2 2"],
        rng: np.random.Generator,
    ) -> Bool[np.ndarray, " n"]:
        probability = self.probability[labels, self.cells.index(discs)]
        return (rng.random(len(labels)) < probability) & (disc_distance(discs) >= self.least)


@dataclass(frozen=True)
class DiscCells:
    """Cells of disc positions that hold about equally many of some sample.

    Two numbers hold nearly all information of the discs' positions about the label: their distance,
    and how far their midpoint lies from the centre. (Boosted trees on all coordinates find no
    more.)
    """

    centre: float
    distance_edges: Float[np.ndarray, " inner_rows"]
    midpoint_edges: Float[np.ndarray, "rows inner_columns"]

    @staticmethod
    def fit(discs: Integer[np.ndarray, "n 2 2"], resolution: int, rows: int, columns: int):
        """Cells for pictures of this resolution; ties in the distance can leave fewer rows."""
        centre = (resolution - 1) / 2
        distance, midpoint = disc_distance(discs), _midpoint_radius(discs, centre)
        edges = np.unique(np.quantile(distance, np.linspace(0, 1, rows + 1)[1:-1]))
        row = np.searchsorted(edges, distance)
        inner = np.linspace(0, 1, columns + 1)[1:-1]
        midpoint_edges = [
            np.quantile(midpoint[row == r] if (row == r).any() else midpoint, inner)
            for r in range(len(edges) + 1)
        ]
        return DiscCells(centre, edges, np.stack(midpoint_edges))

    @property
    def count(self) -> int:
        rows, inner = self.midpoint_edges.shape
        return rows * (inner + 1)

    def index(self, discs: Integer[np.ndarray, "n 2 2"]) -> Int[np.ndarray, " n"]:
        row = np.searchsorted(self.distance_edges, disc_distance(discs))
        midpoint = _midpoint_radius(discs, self.centre)
        column = (midpoint[:, None] > self.midpoint_edges[row]).sum(axis=1)
        return row * (self.midpoint_edges.shape[1] + 1) + column


def _midpoint_radius(discs: Integer[np.ndarray, "n 2 2"], centre: float) -> Float[np.ndarray, " n"]:
    return np.linalg.norm(discs.mean(axis=1) - centre, axis=1)


def disc_distance(discs: Integer[np.ndarray, "n 2 2"]) -> np.ndarray:
    """Distance of the two discs in pixels, [n]."""
    first, second = discs.astype(np.float32).swapaxes(0, 1)
    return np.linalg.norm(first - second, axis=1)


_TRIALS = {16: (32768, 64, 5), 32: (16384, 24, 8), 64: (4096, 8, 3), 128: (4096, 8, 3)}
"""By resolution: trial pairs, and rows and columns of cells."""


def estimate_acceptance(
    geometry: Geometry, length: int, seed: int, pairs: int | None = None
) -> Acceptance:
    """The `Acceptance` that evens out `pairs` trial pairs, each of which can be marked four ways.

    Small pictures need more of them (None: as many as they need), for the shortcut is larger.
    """
    most, rows, columns = _TRIALS[geometry.resolution]
    pairs = most if pairs is None else pairs
    rng = np.random.default_rng([seed, geometry.resolution, length])
    contours = grow_contours(geometry, length, pairs, rng)
    starts, ends = origins(geometry, contours), tips(geometry, contours)
    least = 2 * geometry.marker_radius + 1
    by_label = []
    for other in (1, 0):
        discs = np.concatenate([np.stack([starts[:, c], ends[:, c ^ other]], 1) for c in (0, 1)])
        by_label.append(discs[disc_distance(discs) >= least])
    cells = DiscCells.fit(np.concatenate(by_label), geometry.resolution, rows, columns)
    share = np.stack(
        [np.bincount(cells.index(discs), minlength=cells.count) / len(discs) for discs in by_label]
    )
    return Acceptance(cells, least, np.minimum(1, share[::-1] / np.maximum(share, 1e-9)))


@dataclass(frozen=True)
class Pictures:
    """Pictures, their labels, and their contents."""

    images: UInt8[np.ndarray, "n side side"]
    labels: Int32[np.ndarray, " n"]
    discs: UInt8[np.ndarray, "n 2 2"]
    """Centres of the two discs (row, column), in random order."""
    contours: Dashes
    """The two contours, [n, 2, length]. With label 1 both discs sit on the same one."""
    distractors: Dashes
    """[n, dashes]."""


def draw_pictures(
    geometry: Geometry, length: int, acceptance: Acceptance, count: int, rng: np.random.Generator
) -> Pictures:
    """`count` pictures, half of each label (give or take one), in random order."""
    labels = rng.permutation(np.arange(count) % 2 ^ rng.integers(2)).astype(np.int32)
    contours, discs = _accepted(geometry, length, acceptance, labels, rng)
    distractors = add_distractors(geometry, contours, rng)
    images = render(geometry, contours, distractors, discs)
    return Pictures(images, labels, discs.astype(np.uint8), contours, distractors)


def _accepted(
    geometry: Geometry,
    length: int,
    acceptance: Acceptance,
    labels: Int32[np.ndarray, " n"],
    rng: np.random.Generator,
) -> tuple[Dashes, Integer[np.ndarray, "n 2 2"]]:
    """Contours and discs, one pair for each label, of which `acceptance` has kept every one."""
    n = len(labels)
    pivot = np.zeros((n, 2, length, 2), np.int64)
    direction = np.zeros((n, 2, length), np.int64)
    discs = np.zeros((n, 2, 2), np.int64)
    missing = np.arange(n)
    while len(missing):
        contours = grow_contours(geometry, length, len(missing), rng)
        first = rng.integers(0, 2, len(missing))
        second = np.where(labels[missing] == 1, first, 1 - first)
        each = np.arange(len(missing))
        marks = np.stack(
            [origins(geometry, contours)[each, first], tips(geometry, contours)[each, second]],
            axis=1,
        )
        kept = acceptance.keep(labels[missing], marks, rng)
        rows = missing[kept]
        pivot[rows], direction[rows] = contours.pivot[kept], contours.direction[kept]
        discs[rows] = marks[kept]
        missing = missing[~kept]
    swap = rng.integers(0, 2, n)
    discs = discs[np.arange(n)[:, None], np.stack([swap, 1 - swap], axis=1)]
    return Dashes(pivot, direction), discs


def render(
    geometry: Geometry, contours: Dashes, distractors: Dashes, discs: Integer[np.ndarray, "n 2 2"]
) -> UInt8[np.ndarray, "n side side"]:
    """The pictures: dashes and discs on black, merged by maximum."""
    n, reach, side = len(discs), geometry.reach, geometry.frame
    canvas = np.zeros((n, side, side), np.uint8)
    flat = canvas.reshape(-1)
    corner = (np.arange(n) * side + reach) * side + reach

    def stamp(pivot, offsets, values, rows):
        at = (corner[rows] + pivot @ np.array([side, 1]))[:, None] + offsets
        flat[at] = np.maximum(flat[at], values)

    offsets, values = _dash_stamps(geometry)
    pivots = np.concatenate([contours.pivot.reshape(n, -1, 2), distractors.pivot], axis=1)
    directions = np.concatenate([contours.direction.reshape(n, -1), distractors.direction], axis=1)
    for dash in range(directions.shape[1]):
        rows = np.flatnonzero(directions[:, dash] >= 0)
        towards = directions[rows, dash]
        stamp(pivots[rows, dash], offsets[towards], values[towards], rows)
    for disc in (0, 1):
        stamp(discs[:, disc].astype(np.int64), *_disc_stamp(geometry), np.arange(n))
    return canvas[:, reach:-reach, reach:-reach].copy()


_OVERSAMPLING = 8


def _subpixels(geometry: Geometry) -> tuple[np.ndarray, np.ndarray]:
    """Pixels around a pivot [p, 2], and points spread evenly over each of them [p, s, 2]."""
    grid = np.arange(-geometry.reach, geometry.reach + 1)
    pixels = np.stack(np.meshgrid(grid, grid, indexing="ij"), axis=-1).reshape(-1, 2)
    inside = (np.arange(_OVERSAMPLING) + 0.5) / _OVERSAMPLING - 0.5
    points = np.stack(np.meshgrid(inside, inside, indexing="ij"), axis=-1).reshape(-1, 2)
    return pixels, pixels[:, None] + points


@lru_cache(maxsize=8)
def _dash_stamps(geometry: Geometry) -> tuple[np.ndarray, np.ndarray]:
    """Flat offsets in the frame and brightnesses, both [directions, pixels]."""
    pixels, points = _subpixels(geometry)
    coverage = np.stack(
        [
            (
                distance_to_dash(points.reshape(-1, 2) - start, direction, geometry)
                <= geometry.paddle_thickness / 2
            )
            .reshape(len(pixels), -1)
            .mean(axis=1)
            for start, direction in zip(geometry.starts, geometry.directions, strict=True)
        ]
    )
    values = np.rint(255 * geometry.contrast * coverage).astype(np.uint8)
    brightest = np.argsort(255 - values, axis=1, kind="stable")[:, : (values > 0).sum(axis=1).max()]
    offsets = (pixels @ np.array([geometry.frame, 1]))[brightest]
    return offsets, np.take_along_axis(values, brightest, axis=1)


@lru_cache(maxsize=8)
def _disc_stamp(geometry: Geometry) -> tuple[np.ndarray, np.ndarray]:
    """Flat offsets in the frame and brightnesses, both [pixels]."""
    pixels, points = _subpixels(geometry)
    coverage = (np.linalg.norm(points, axis=-1) <= geometry.marker_radius).mean(axis=1)
    lit = coverage > 0
    return pixels[lit] @ np.array([geometry.frame, 1]), np.rint(255 * coverage[lit]).astype(
        np.uint8
    )
