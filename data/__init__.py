"""Tasks and their pipelines: NumPy arrays in memory, prepared once, indexed by (seed, step)."""

from .digits import DigitsConfig
from .pathfinder import PathfinderConfig
from .pipeline import eval_batches, train_batch
from .registry import TASKS, TaskEntry, load_task, task_entry
from .store import default_cache_dir
from .task import Progress, Split, Task

__all__ = [
    "TASKS",
    "DigitsConfig",
    "PathfinderConfig",
    "Progress",
    "Split",
    "Task",
    "TaskEntry",
    "default_cache_dir",
    "eval_batches",
    "load_task",
    "task_entry",
    "train_batch",
]
