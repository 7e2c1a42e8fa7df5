"""Tasks: splits of labelled sequences of one kind."""

from .baselines import cell_baseline, majority_baseline
from .batch import Batch, InputKind, Kind, Progress
from .fingerprint import fingerprint
from .split import Missing, Split, text_split
from .task import Task

__all__ = [
    "Batch",
    "InputKind",
    "Kind",
    "Missing",
    "Progress",
    "Split",
    "Task",
    "cell_baseline",
    "fingerprint",
    "majority_baseline",
    "text_split",
]
