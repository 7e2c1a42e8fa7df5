"""A picture of samples, to see whether the labels are right: pictures as pictures, text as text."""

from collections.abc import Iterator, Mapping
from math import isqrt
from pathlib import Path
from textwrap import wrap
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float32, UInt8

from .task import Split, Task
from .text import show
from .typing import checked

if TYPE_CHECKING:
    from PIL.Image import Image

_GAP, _TEXT, _WIDTH = 4, 14, 860
_LINE, _LETTERS = 12, 140  # height of a line, and letters that fit into one
_TEXTS = 10  # of all classes together
_LINES = 8  # of each text


@checked
def write_sheet(
    tasks: Mapping[str, Task], path: Path, columns: int = 8, zoom: int | None = None
) -> None:
    """Writes a PNG with the first test samples of every class, for tasks by caption.

    Square pictures come in rows, with `columns` of them; so do the first pictures of sequences of
    pictures, with their labels in red. Texts are shown by their beginning. `zoom` is the side of a
    pixel in the sheet (None: pictures become about 100 wide). Raises ValueError for other kinds of
    tasks.
    """
    from PIL import Image, ImageDraw  # needed for sheets alone

    bands = [
        (f"{caption}: {title}", band)
        for caption, task in tasks.items()
        for title, band in _bands(task, columns, zoom)
    ]
    width = max(band.width for _, band in bands)
    sheet = Image.new("RGB", (width, sum(b.height + _GAP + _TEXT for _, b in bands)), (64, 64, 64))
    draw = ImageDraw.Draw(sheet)
    top = 0
    for caption, band in bands:
        draw.text((_GAP, top + 1), caption, fill=(255, 255, 255))
        sheet.paste(band, (0, top + _TEXT))
        top += band.height + _GAP + _TEXT
    coloured = any(task.input_size == 3 for task in tasks.values())
    (sheet if coloured else sheet.quantize(64)).save(path, format="PNG", optimize=True)


def _bands(task: Task, columns: int, zoom: int | None) -> Iterator[tuple[str, "Image"]]:
    """A title and a strip of samples for each class, or for each of some samples."""
    split, side = task.splits["test"], isqrt(task.length)
    if task.symbols is not None:
        yield from _texts(task, split)
    elif task.frame is not None:
        for row in range(min(4, len(split))):
            yield f"sample {row}", _film(task, split, row, columns, zoom)
    elif side**2 == task.length and task.input_size in (1, 3) and task.classes is not None:
        for label in range(task.classes):
            rows = np.flatnonzero(split.labels == label)[:columns]
            pictures = _grey(split, split.take(rows).inputs)
            shape = (len(rows), side, side, task.input_size)
            yield f"label {label}", _strip(pictures.reshape(shape), columns, zoom)
    else:
        raise ValueError(
            f"task {task.name} must hold square pictures, sequences of pictures or text to be "
            f"drawn on a sheet"
        )


def _strip(
    pictures: UInt8[np.ndarray, "n height width c"], columns: int, zoom: int | None
) -> "Image":
    from PIL import Image

    scale = zoom or max(1, 100 // pictures.shape[1])
    height, width = pictures.shape[1] * scale, pictures.shape[2] * scale
    strip = Image.new("RGB", (columns * (width + _GAP), height), (64, 64, 64))
    for column, picture in enumerate(np.broadcast_to(pictures, (*pictures.shape[:3], 3))):
        tile = Image.fromarray(picture).resize((width, height), Image.Resampling.NEAREST)
        strip.paste(tile, (column * (width + _GAP), 0))
    return strip


def _film(task: Task, split: Split, row: int, columns: int, zoom: int | None) -> "Image":
    """The first pictures of a sequence; in red the direction (sine, cosine from straight down) that
    is asked for, below them the time before each."""
    from PIL import Image, ImageDraw

    assert task.frame is not None
    batch = split.take(np.array([row]))
    frames = _grey(split, batch.inputs[0, :columns]).reshape(-1, *task.frame, 1)
    strip = _strip(frames, columns, zoom)
    film = Image.new("RGB", (strip.width, strip.height + _TEXT), (64, 64, 64))
    film.paste(strip, (0, 0))
    draw = ImageDraw.Draw(film)
    tile = strip.width // columns
    middle = (tile - _GAP) / 2
    for column, (sine, cosine) in enumerate(batch.labels[0, : len(frames)]):
        x = column * tile + middle
        end = (x + middle * float(sine), middle + middle * float(cosine))
        draw.line([(x, middle), end], fill=(255, 0, 0))
        if batch.intervals is not None:
            text = f"+{batch.intervals[0, column]:.2f}"
            draw.text((column * tile, strip.height), text, fill=(200, 200, 200))
    return film


def _texts(task: Task, split: Split) -> Iterator[tuple[str, "Image"]]:
    """Texts with their labels, or with the token that follows."""
    assert task.symbols is not None
    if task.kind in ("language", "recall"):
        for row in range(min(4, len(split))):
            batch = split.take(np.array([row]))
            (asked,) = np.nonzero(batch.labels[0] >= 0)
            answer = show(batch.labels[0, asked[-1:]], task.symbols)
            text = show(batch.inputs[0], task.symbols)
            yield f"sample {row}, at step {asked[-1] + 1} {answer!r}", _page(text)
        return
    assert task.classes is not None
    for label in range(task.classes):
        for row in np.flatnonzero(split.labels == label)[: max(1, _TEXTS // 2 // task.classes)]:
            batch = split.take(np.array([row]))
            texts = batch.inputs.reshape(-1, task.length)
            lengths = np.full(len(texts), task.length)
            if batch.lengths is not None:
                lengths = batch.lengths.reshape(-1)
            for which, (text, length) in enumerate(zip(texts, lengths, strict=True)):
                part = f", text {which + 1}" if task.kind == "pair" else ""
                title = f"label {label}, sample {row}{part}, {length} tokens"
                yield title, _page(show(text[:length], task.symbols))


def _page(text: str) -> "Image":
    """The beginning of a text, black on white."""
    from PIL import Image, ImageDraw

    lines = [
        line
        for paragraph in text.split("\n")
        for line in wrap(paragraph, _LETTERS, drop_whitespace=False) or [""]
    ]
    shown = lines[:_LINES] + (["..."] if len(lines) > _LINES else [])
    page = Image.new("RGB", (_WIDTH, _LINE * len(shown) + _GAP), (255, 255, 255))
    draw = ImageDraw.Draw(page)
    for number, line in enumerate(shown):
        draw.text((_GAP, number * _LINE), line, fill=(0, 0, 0))
    return page


def _grey(split: Split, inputs: Float32[np.ndarray, "..."]) -> UInt8[np.ndarray, "..."]:
    """Inputs as brightness, by the least and the largest of the split's first samples."""
    first = split.take(np.arange(min(len(split), 256))).inputs
    low, high = float(first.min()), float(first.max())
    return np.clip(255 * (inputs - low) / (high - low), 0, 255).astype(np.uint8)
