"""A picture of samples, to see whether the labels are right."""

from collections.abc import Mapping
from math import isqrt
from pathlib import Path

import numpy as np

from .task import Task

_GAP, _TEXT = 4, 14


def write_sheet(
    tasks: Mapping[str, Task], path: Path, columns: int = 8, zoom: int | None = None
) -> None:
    """Writes a PNG with a row of the first test samples of every class, for tasks by caption.

    `zoom` is the side of a pixel in the sheet (None: pictures become about 100 wide). Raises
    ValueError for a task whose sequences are not square pictures of one or three channels.
    """
    from PIL import Image, ImageDraw  # needed for sheets alone

    rows = [
        (caption, label, _pictures(task, label, columns))
        for caption, task in tasks.items()
        for label in range(task.outputs)
    ]
    zooms = [zoom or max(1, 100 // pictures.shape[1]) for *_, pictures in rows]
    heights = [
        pictures.shape[1] * scale + _GAP + _TEXT
        for (*_, pictures), scale in zip(rows, zooms, strict=True)
    ]
    width = max(
        columns * (pictures.shape[1] * scale + _GAP)
        for (*_, pictures), scale in zip(rows, zooms, strict=True)
    )
    sheet = Image.new("RGB", (width, sum(heights)), (64, 64, 64))
    draw = ImageDraw.Draw(sheet)
    top = 0
    for (caption, label, pictures), scale, height in zip(rows, zooms, heights, strict=True):
        draw.text((_GAP, top + 1), f"{caption}: label {label}", fill=(255, 255, 255))
        side = pictures.shape[1] * scale
        for column, picture in enumerate(pictures):
            tile = Image.fromarray(picture).resize((side, side), Image.Resampling.NEAREST)
            sheet.paste(tile, (column * (side + _GAP), top + _TEXT))
        top += height
    colours = sheet.quantize(64) if all(task.input_size == 1 for task in tasks.values()) else sheet
    colours.save(path, format="PNG", optimize=True)


def _pictures(task: Task, label: int, count: int) -> np.ndarray:
    """The first `count` test samples with this label, [count, side, side, 3] in uint8."""
    side = isqrt(task.length)
    if task.input_kind != "real" or side**2 != task.length or task.input_size not in (1, 3):
        raise ValueError(f"task {task.name} must hold square pictures to be drawn on a sheet")
    split = task.splits["test"]
    inputs = split.take(np.flatnonzero(split.labels == label)[:count]).inputs
    low, high = (
        float(extreme(split.take(np.arange(min(len(split), 256))).inputs))
        for extreme in (np.min, np.max)
    )
    grey = np.clip(255 * (inputs - low) / (high - low), 0, 255).astype(np.uint8)
    return np.broadcast_to(
        grey.reshape(-1, side, side, task.input_size), (len(grey), side, side, 3)
    )
