"""Tasks and their pipelines: NumPy arrays in memory, prepared once, indexed by (seed, step)."""

from .aan import AANConfig
from .charlm import CharLMConfig
from .digits import DigitsConfig
from .imdb import IMDBConfig
from .listops import ListOpsConfig
from .pathfinder import PathfinderConfig, PathXConfig
from .pendulum import PendulumConfig
from .pipeline import Shard, eval_batches, train_batch
from .registry import TASKS, TaskEntry, import_builders, load_task, task_entry
from .scifar import SCIFARConfig
from .smnist import SMNISTConfig
from .store import default_cache_dir
from .task import Batch, Progress, Split, Task, text_split

__all__ = [
    "TASKS",
    "AANConfig",
    "Batch",
    "CharLMConfig",
    "DigitsConfig",
    "IMDBConfig",
    "ListOpsConfig",
    "PathXConfig",
    "PathfinderConfig",
    "PendulumConfig",
    "Progress",
    "SCIFARConfig",
    "SMNISTConfig",
    "Shard",
    "Split",
    "Task",
    "TaskEntry",
    "default_cache_dir",
    "eval_batches",
    "import_builders",
    "load_task",
    "task_entry",
    "text_split",
    "train_batch",
]
