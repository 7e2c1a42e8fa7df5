"""Figures of studies: colours tell series apart, labels do not overlap, files do not change."""

import itertools
import math

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text

from compress.analysis.tracking import Match
from training.studies.figures import ranks, score_against_state, score_against_time, spectra
from training.studies.rows import Row, Spread
from training.studies.stability import Move, stability
from training.studies.study import Published, Study, Variant
from training.studies.style import looks, paper_style, spread, write_figure

# Machado, Oliveira and Fernandes 2009, severity 1
DEFICIENCIES = {
    "none": np.eye(3),
    "deuteranopia": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
    "protanopia": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "tritanopia": [
        [1.255528, -0.076749, -0.178779],
        [-0.078411, 0.930809, 0.147602],
        [0.004733, 0.691367, 0.303900],
    ],
}
NAMES = [f"variant number {k}, tolerance 0.0{k}" for k in range(9)]
STUDY = Study(
    name="drawn",
    question="How does it look?",
    model="lru",
    task="digits",
    reference=NAMES[0],
    variants=tuple(
        Variant(name, published=Published(10 + k, 90.0)) for k, name in enumerate(NAMES)
    ),
)


def lab(color, matrix):
    """CIELAB of a colour as somebody with a deficiency sees it."""
    srgb = np.array([int(color.lstrip("#")[k : k + 2], 16) for k in (0, 2, 4)]) / 255
    linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    seen = np.clip(np.asarray(matrix) @ linear, 0, 1)
    xyz = [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
    f = np.cbrt(np.maximum(np.array(xyz) @ seen / [0.9505, 1, 1.089], 0.009))
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


@pytest.mark.parametrize("deficiency", DEFICIENCIES)
def test_colours_differ_for_everybody(deficiency):
    seen = [lab(look.color, DEFICIENCIES[deficiency]) for look in looks(6)]
    assert min(np.linalg.norm(a - b) for a, b in itertools.combinations(seen, 2)) > 18


def test_colours_differ_in_grey_and_the_next_six_looks_in_their_shapes():
    grey = sorted(lab(look.color, np.eye(3))[0] for look in looks(6))
    assert min(np.diff(grey)) > 5
    assert len({(look.color, look.marker, look.linestyle) for look in looks(24)}) == 24


def records():
    return {
        f"{name}-seed{seed}": {
            "variant": name,
            "seed": seed,
            "summary": {"total_steps": 1000},
            "shrinks": [
                {"step": step, "before": [64, 64], "after": [60 - k - step // 20, 50 - k]}
                for step in (50, 100)
            ],
            "spectra": [
                {"step": step, "sigma": [list(np.exp(-np.arange(40) / (5 + step / 100)))]}
                for step in (0, 500, 1000)
            ],
        }
        for k, name in enumerate(NAMES)
        for seed in (0, 1)
    }


def rows():
    return [
        Row(
            variant=variant,
            seeds=(0, 1),
            states=Spread(10.0 + 0.2 * k, 0.5),
            score=Spread(90 + 0.05 * k, 0.3),
            seconds=Spread(100.0 + k, math.nan),
            speedup=Spread(1.0, 0.1),
            step_speedup=Spread(1.0, 0.1),
            as_published=Spread.of([]),
        )
        for k, variant in enumerate(STUDY.variants)
    ]


def move(step):
    """One layer between two spectra."""
    found = Match(np.ones(4), np.ones(4), overlap=np.ones(4), rank=np.arange(4))
    return Move(step=step, largest=0.1, bound=0.3, found=found)


DRAWN = {
    "accuracy_state": lambda: score_against_state("test accuracy, %", rows()),
    "accuracy_time": lambda: score_against_time("test accuracy, %", rows()),
    "ranks": lambda: ranks(STUDY, records()),
    "spectra": lambda: spectra(STUDY, records()),
    "stability": lambda: stability({f"{m}-seed0": [move(1), move(2)] for m in ("lru", "s5")}),
}


def undrawn(figure):
    """Texts of hidden axes, and the labels of ticks that are hidden or outside of the limits."""
    found = {text for axes in figure.axes if not axes.get_visible() for text in axes.findobj(Text)}
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            low, high = sorted(axis.get_view_interval())
            for tick in (*axis.get_major_ticks(), *axis.get_minor_ticks()):
                for text in (tick.label1, tick.label2):
                    if not low <= tick.get_loc() <= high or not tick.label1.get_visible():
                        found.add(text)
    return found


@pytest.mark.parametrize("name", DRAWN)
def test_no_texts_of_a_figure_overlap(name):
    with paper_style():
        figure = DRAWN[name]()
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
        boxes = [
            (text.get_text(), Text.get_window_extent(text, canvas.get_renderer()))
            for text in figure.findobj(Text)
            if text.get_text() and text.get_visible() and text not in undrawn(figure)
        ]
    whole = figure.bbox
    assert len(boxes) > 5
    for said, box in boxes:
        assert whole.x0 <= box.x0 <= box.x1 <= whole.x1 + 1, said
    for (said, box), (other, beside) in itertools.combinations(boxes, 2):
        overlap = min(box.x1, beside.x1) - max(box.x0, beside.x0) > 1
        overlap &= min(box.y1, beside.y1) - max(box.y0, beside.y0) > 1
        assert not overlap, (said, other)


@pytest.mark.parametrize("name", ["ranks", "accuracy_state"])
def test_every_variant_is_named_beside_its_line(name):
    with paper_style():
        said = {text.get_text() for text in DRAWN[name]().findobj(Text)}
    assert set(NAMES) <= said


def test_the_same_figure_gives_the_same_files(tmp_path):
    with paper_style():
        for folder in ("one", "two"):
            files = write_figure(DRAWN["ranks"](), tmp_path / folder, "ranks")
            assert [file.suffix for file in files] == [".svg", ".pdf"]
    for file in files:
        assert file.read_bytes() == (tmp_path / "one" / file.name).read_bytes()
        assert len(file.read_bytes()) < 60_000


@pytest.mark.parametrize(
    ("heights", "expected"),
    [
        ([0.1, 0.5, 0.9], [0.1, 0.5, 0.9]),
        ([0.5, 0.5], [0.45, 0.55]),
        ([0.3, 0.31, 0.4], [0.2366667, 0.3366667, 0.4366667]),
        ([], []),
    ],
)
def test_labels_move_no_further_than_they_must(heights, expected):
    assert spread(heights, 0.1) == pytest.approx(expected)
