"""Pictures of samples, for every kind of task."""

import numpy as np
import pytest
from PIL import Image

from data import (
    AANConfig,
    CharLMConfig,
    ListOpsConfig,
    MQARConfig,
    PendulumConfig,
    Split,
    Task,
    load_task,
)
from data.sheet import write_sheet

CONFIGS = {
    "digits": None,
    "aan": AANConfig(source="generated", length=200, train=10, validation=4, test=10),
    "pendulum": PendulumConfig(train=10, validation=4, test=4, samples=20),
    "listops": ListOpsConfig(
        train=20, validation=4, test=40, min_length=5, max_length=60, max_depth=4, workers=1
    ),
    "charlm": CharLMConfig(length=100),
    "mqar": MQARConfig(train=10, validation=4, test=4),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_a_sheet_shows_something(name, tmp_path):
    config = CONFIGS[name]
    if name == "charlm":
        path = tmp_path / "text.txt"
        path.write_text("".join(f"line {i} of it\n" for i in range(500)))
        config = CharLMConfig(text=path, length=100)
    write_sheet({name: load_task(name, config)}, tmp_path / "sheet.png")
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.width >= 700
        assert sheet.height > 100
        grey = np.asarray(sheet.convert("L"))
    assert grey.max() > 240
    assert grey.std() > 20


def test_what_cannot_be_drawn_is_refused(tmp_path):
    rows = np.zeros((4, 5, 2), np.float32)
    split = Split(rows, np.zeros(4, np.int32))
    splits = dict.fromkeys(("train", "validation", "test"), split)
    task = Task("waves", 5, "real", 2, splits, classes=2)
    with pytest.raises(ValueError, match="task waves must hold square pictures, sequences of"):
        write_sheet({"": task}, tmp_path / "sheet.png")
