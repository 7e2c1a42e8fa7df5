"""Pathfinder pictures: the labels, checked on the pictures themselves, and the shortcuts."""

from dataclasses import replace
from functools import lru_cache

import numpy as np
import pytest
from scipy import ndimage

from data.builtin.pathfinder.contours import add_distractors, grow_contours, origins, tips
from data.builtin.pathfinder.geometry import GEOMETRIES
from data.builtin.pathfinder.job import PathfinderJob
from data.builtin.pathfinder.pictures import (
    Pictures,
    disc_distance,
    draw_pictures,
    estimate_acceptance,
    render,
)
from data.store.workers import chunks_of, draw_in_parallel
from data.task import cell_baseline

SLOW = [pytest.param(*case, marks=pytest.mark.slow) for case in [(64, 14), (128, 14)]]
CASES = [(16, 3), (16, 4), (32, 6), (32, 9), (32, 14), *SLOW]


@lru_cache
def pictures(resolution: int, length: int, count: int = 200) -> Pictures:
    geometry = GEOMETRIES[resolution]
    acceptance = estimate_acceptance(geometry, length, seed=0, pairs=500)
    return draw_pictures(geometry, length, acceptance, count, np.random.default_rng(1))


@pytest.mark.parametrize(("resolution", "length"), CASES)
def test_a_flood_from_one_disc_reaches_the_other_just_when_the_label_says_so(resolution, length):
    """Drawn large, as thin lines across the gaps, and without distractors, contours never touch."""
    drawn, geometry = pictures(resolution, length), GEOMETRIES[resolution]
    scale, agree = 8, []
    chains = drawn.contours
    starts = chains.pivot + geometry.starts[chains.direction]
    ends = chains.pivot + geometry.ends[chains.direction]
    corners = np.stack([starts, ends], axis=-2).reshape(len(drawn.labels), 2, 2 * length, 2)
    t = np.linspace(0, 1, 80)[:, None]
    lines = corners[:, :, :-1, None] * (1 - t) + corners[:, :, 1:, None] * t
    for line, discs, label in zip(lines[:80], drawn.discs, drawn.labels, strict=False):
        canvas = np.zeros((resolution * scale,) * 2, bool)
        canvas[tuple(np.rint(line * scale).astype(int).reshape(-1, 2).T)] = True
        for disc in discs.astype(int) * scale:
            canvas[tuple(slice(c - 5, c + 6) for c in disc)] = True
        blobs, _ = ndimage.label(canvas, np.ones((3, 3)))
        first, second = blobs[tuple((discs.astype(int) * scale).T)]
        agree.append((first == second) == (label == 1))
    assert all(agree)


@pytest.mark.parametrize(("resolution", "length"), CASES)
def test_contours_keep_clear_of_each_other_and_of_the_border(resolution, length):
    drawn, geometry = pictures(resolution, length), GEOMETRIES[resolution]
    chains = drawn.contours
    t = np.linspace(0, 1, 9)[:, None]
    starts = chains.pivot + geometry.starts[chains.direction]
    ends = chains.pivot + geometry.ends[chains.direction]
    points = starts[..., None, :] + (ends - starts)[..., None, :] * t
    assert points.min() >= geometry.padding
    assert points.max() <= resolution - 1 - geometry.padding
    one, two = (points[:, c].reshape(len(points), -1, 2) for c in (0, 1))
    gap = np.linalg.norm(one[:, :, None] - two[:, None], axis=-1)
    assert gap.min() > geometry.margin + geometry.paddle_thickness


@pytest.mark.parametrize(("resolution", "length"), CASES)
def test_contours_turn_as_little_as_continuity_allows(resolution, length):
    drawn, geometry = pictures(resolution, length), GEOMETRIES[resolution]
    direction = geometry.directions[drawn.contours.direction]
    turn = np.arccos(np.clip((direction[..., 1:, :] * direction[..., :-1, :]).sum(-1), -1, 1))
    assert turn.max() < np.pi / 2 / geometry.continuity
    assert turn.mean() > 0.1


@pytest.mark.parametrize(("resolution", "length"), CASES)
def test_discs_sit_on_ends_and_are_the_brightest_things(resolution, length):
    drawn, geometry = pictures(resolution, length), GEOMETRIES[resolution]
    begin, end = origins(geometry, drawn.contours), tips(geometry, drawn.contours)
    every_end = np.concatenate([begin, end], axis=1)
    assert (drawn.discs[:, :, None] == every_end[:, None]).all(-1).any(-1).all()
    assert (disc_distance(drawn.discs) >= 2 * geometry.marker_radius + 1).all()
    each = np.arange(len(drawn.images))
    for disc in (0, 1):
        row, column = drawn.discs[:, disc].astype(int).T
        assert (drawn.images[each, row, column] == 255).all()
    without = render(geometry, drawn.contours, drawn.distractors, drawn.discs[:, [0, 0]])
    assert (without <= drawn.images).all()
    plain = replace(geometry, marker_radius=0.01)
    assert render(plain, drawn.contours, drawn.distractors, drawn.discs).max() <= (
        255 * geometry.contrast + 1
    )


@pytest.mark.parametrize(
    ("resolution", "length"),
    [(16, 3), pytest.param(16, 4, marks=pytest.mark.slow), (32, 6)],
)
def test_neither_discs_nor_brightness_give_the_label_away(resolution, length):
    geometry = GEOMETRIES[resolution]
    acceptance = estimate_acceptance(geometry, length, seed=0, pairs=8192)
    drawn = draw_pictures(geometry, length, acceptance, 6000, np.random.default_rng(0))
    assert accuracy_of(disc_distance(drawn.discs), drawn.labels) < 0.54
    assert accuracy_of(drawn.images.mean(axis=(1, 2)), drawn.labels) < 0.54
    kept_all = replace(acceptance, probability=np.ones_like(acceptance.probability))
    raw = draw_pictures(geometry, length, kept_all, 6000, np.random.default_rng(0))
    assert accuracy_of(disc_distance(raw.discs), raw.labels) > 0.54


def accuracy_of(feature: np.ndarray, labels: np.ndarray) -> float:
    """Of a histogram of one feature, made from one half of the samples, on the other half."""
    cells = np.searchsorted(np.quantile(feature, np.linspace(0, 1, 21)[1:-1]), feature)
    half = len(labels) // 2
    return cell_baseline(cells[:half], labels[:half], cells[half:], labels[half:])


def test_distractors_avoid_the_contours_and_each_other():
    geometry = GEOMETRIES[32]
    rng = np.random.default_rng(0)
    contours = grow_contours(geometry, 9, 50, rng)
    distractors = add_distractors(geometry, contours, rng)
    at = contours.pivot.reshape(50, -1, 2), contours.direction.reshape(50, -1)
    pivot = np.concatenate([at[0], distractors.pivot], axis=1)
    direction = np.concatenate([at[1], distractors.direction], axis=1)
    assert (distractors.direction >= 0).mean() > 0.8
    middle = pivot + (geometry.starts + geometry.ends)[direction] / 2
    for i in range(50):
        there = middle[i][direction[i] >= 0]
        gap = np.linalg.norm(there[:, None] - there, axis=-1) + 99 * np.eye(len(there))
        assert gap.min() > 1.7


def test_labels_are_balanced_and_discs_in_no_order():
    drawn = pictures(32, 6)
    assert (drawn.labels == 1).sum() == 100
    chain = origins(GEOMETRIES[32], drawn.contours)
    first_is_origin = (drawn.discs[:, :1] == chain).all(-1).any(-1)
    assert 60 < first_is_origin.sum() < 140


def make_job(**changes) -> PathfinderJob:
    acceptance = estimate_acceptance(GEOMETRIES[16], 3, seed=0, pairs=200)
    return replace(PathfinderJob(16, 3, seed=0, acceptance=acceptance), **changes)


def test_pictures_do_not_depend_on_the_number_of_processes():
    count = make_job().chunk + 300
    one, two = (
        [
            np.concatenate(parts)
            for parts in zip(
                *draw_in_parallel(make_job(), chunks_of(count, make_job().chunk), workers),
                strict=True,
            )
        ]
        for workers in (1, 2)
    )
    for a, b in zip(one, two, strict=True):
        assert len(a) == count
        assert np.array_equal(a, b)


def test_pictures_depend_on_seed_and_stream():
    images = [
        next(draw_in_parallel(make_job(**changes), [(0, 50)], 1))[0]
        for changes in ({}, {}, {"seed": 1}, {"stream": 1})
    ]
    assert np.array_equal(images[0], images[1])
    assert not np.array_equal(images[0], images[2])
    assert not np.array_equal(images[0], images[3])
