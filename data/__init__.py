"""Tasks and their pipelines: NumPy arrays in memory, prepared once, indexed by (seed, step)."""

from .digits import DigitsConfig
from .pathfinder import PathfinderConfig
from .pipeline import Shard, eval_batches, train_batch
from .registry import TASKS, TaskEntry, load_task, task_entry
from .store import default_cache_dir
from .task import Batch, Progress, Split, Task, text_split

__all__ = [
    "TASKS",
    "Batch",
    "DigitsConfig",
    "PathfinderConfig",
    "Progress",
    "Shard",
    "Split",
    "Task",
    "TaskEntry",
    "default_cache_dir",
    "eval_batches",
    "load_task",
    "task_entry",
    "text_split",
    "train_batch",
]
