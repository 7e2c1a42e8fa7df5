"""Sizes of Pathfinder pictures, and the tables that follow from them.

Coordinates are (row, column) in pixels; directions are indices into `Geometry.directions`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType

import numpy as np
from jaxtyping import Bool, Float, Int


@dataclass(frozen=True)
class Geometry:
    """Sizes of one family of pictures, in pixels. The names are those of the published settings."""

    resolution: int
    paddle_length: int
    """Length of a dash."""
    paddle_thickness: float
    margin: int
    """Half the gap between the dashes of a contour, and the clearance around every dash."""
    seed_distance: int
    """Distance of the beginnings of the two contours."""
    marker_radius: float
    """Radius of the discs."""
    continuity: float
    """How much a contour resists turning: 1 allows up to 90 degrees a dash."""
    distractor_paddles: int
    """Dashes in all distractors together."""
    contrast: float
    """Brightness of a dash that covers a whole pixel; a disc has 1."""
    inset: int
    """How far the first contour's first dash begins from the border; published: 2 seed_distance."""
    padding: int = 1
    horizon: int = 8
    """How many dashes a contour looks ahead to see the border coming."""

    @cached_property
    def reach(self) -> int:
        """How far from its pivot anything that belongs to a dash can lie."""
        clearance = int(np.ceil(self.margin + self.paddle_thickness / 2))
        return self.paddle_length + 2 * self.margin + clearance + 1

    @cached_property
    def frame(self) -> int:
        """Side of the occupancy maps: the picture and a forbidden frame as wide as the reach."""
        return self.resolution + 2 * self.reach

    @cached_property
    def ends(self) -> Int[np.ndarray, "k 2"]:
        """Ends of a dash relative to its pivot: the pixels of a circle, by angle."""
        radius = self.paddle_length + self.margin
        angles = np.linspace(-np.pi, np.pi, 64 * radius, endpoint=False)
        points = np.rint(radius * np.stack([np.sin(angles), np.cos(angles)], axis=1)).astype(int)
        points = np.unique(points, axis=0)
        return points[np.argsort(np.arctan2(points[:, 0], points[:, 1]))]

    @cached_property
    def directions(self) -> Float[np.ndarray, "k 2"]:
        return self.ends / np.linalg.norm(self.ends, axis=1, keepdims=True)

    @cached_property
    def starts(self) -> Float[np.ndarray, "k 2"]:
        """Beginnings of a dash relative to its pivot."""
        return self.ends - self.paddle_length * self.directions

    @cached_property
    def next_pivots(self) -> Int[np.ndarray, "k 2"]:
        """The pivot of the next dash relative to that of this one."""
        return np.rint(self.ends + self.margin * self.directions).astype(int)

    @cached_property
    def turn_weights(self) -> Float[np.ndarray, "k k"]:
        """Row: direction of the last dash; column: of the next one. Not normalised."""
        turn = np.arccos(np.clip(self.directions @ self.directions.T, -1, 1))
        weights = np.cos(np.minimum(self.continuity * turn, np.pi / 2)) ** 2
        return np.where(weights < 1e-4, 0, weights)  # else a dead end would allow any turn

    @cached_property
    def inside(self) -> Bool[np.ndarray, "pixels k"]:
        """Which dashes, by pivot and direction, stay clear of the border."""
        edge = self.reach + self.padding
        border = np.ones((self.frame, self.frame), bool)
        border[edge:-edge, edge:-edge] = False
        pixel = np.arange(self.resolution) + self.reach
        pivots = (pixel[:, None] * self.frame + pixel).ravel()
        return np.logical_not(border.ravel()[pivots[:, None, None] + self.footprints].any(axis=-1))

    @cached_property
    def outlook(self) -> Float[np.ndarray, "steps pixels k"]:
        """Chance that a contour which takes direction k from a pivot stays clear of the border.

        Row t looks t dashes past that one. Contours that run into the border are thrown away, so
        weighting every choice by this gives the distribution of those that are kept, without
        growing the others (for what lies within the horizon; for the border, not for contours).
        """
        side = self.resolution
        pixel = np.stack(np.divmod(np.arange(side * side), side), axis=-1)
        following = np.clip(pixel[:, None] + self.next_pivots, 0, side - 1) @ np.array([side, 1])
        weights = self.turn_weights.astype(np.float32)
        inside = self.inside.astype(np.float32)
        total = np.maximum(inside @ weights.T, np.float32(1e-9))
        rows = [inside]
        for _ in range(self.horizon):
            survival = (rows[-1] @ weights.T) / total
            onward = survival[following, np.arange(len(self.ends))]
            rows.append((inside * onward).astype(np.float32))
        return np.stack(rows)

    @cached_property
    def footprints(self) -> Int[np.ndarray, "k m"]:
        """Flat offsets, in the frame, of the pixels a dash with its clearance covers."""
        radius = self.margin + self.paddle_thickness / 2
        grid = np.arange(-self.reach, self.reach + 1)
        pixels = np.stack(np.meshgrid(grid, grid, indexing="ij"), axis=-1).reshape(-1, 2)
        rows = []
        for start, direction in zip(self.starts, self.directions, strict=True):
            covered = pixels[distance_to_dash(pixels - start, direction, self) <= radius]
            rows.append(covered @ np.array([self.frame, 1]))
        width = max(map(len, rows))
        return np.stack([np.pad(row, (0, width - len(row)), mode="edge") for row in rows])


def distance_to_dash(
    points: Float[np.ndarray, "p 2"] | Int[np.ndarray, "p 2"],
    direction: Float[np.ndarray, " 2"],
    geometry: Geometry,
) -> Float[np.ndarray, " p"]:
    """Distance of points, relative to a dash's beginning, from the dash's centre line."""
    along = np.clip(points @ direction, 0, geometry.paddle_length)
    return np.linalg.norm(points - along[:, None] * direction, axis=1)


GEOMETRIES: Mapping[int, Geometry] = MappingProxyType(
    {
        geometry.resolution: geometry
        for geometry in (
            Geometry(16, 2, 0.5, 1, 5, 1.0, 1.0, 5, 0.8, 3),
            Geometry(32, 2, 0.5, 1, 7, 1.5, 1.0, 20, 0.8, 14),
            Geometry(64, 5, 1.0, 1, 12, 2.5, 1.8, 22, 0.8, 24),
            Geometry(128, 5, 1.5, 2, 20, 3.0, 1.8, 35, 0.9, 40),
        )
    }
)
"""By resolution. 32, 64 and 128 are the settings of Long Range Arena (its data module states them),
except that the dashes at 32 peak at 0.4 of a disc and that 128 always has the smaller of its two
margins. 16 is ours: the same dashes at half the side, a quarter of the distractors."""
