"""Tasks and their pipelines: NumPy arrays in memory, prepared once, indexed by (seed, step)."""

from .builtin.aan import AANConfig
from .builtin.charlm import CharLMConfig
from .builtin.digits import DigitsConfig
from .builtin.imdb import IMDBConfig
from .builtin.listops import ListOpsConfig
from .builtin.mqar import MQARConfig
from .builtin.pathfinder import PathfinderConfig, PathXConfig
from .builtin.pendulum import PendulumConfig
from .builtin.scifar import SCIFARConfig
from .builtin.smnist import SMNISTConfig
from .pipeline import Shard, eval_batches, train_batch
from .readers.arrays import array_task
from .readers.stored import save_task
from .registry import (
    TASKS,
    check_task,
    import_builders,
    kept_name,
    load_task,
    register_task,
    task_entry,
    task_label,
)
from .store.entry import TaskEntry
from .store.places import Places, default_cache_dir
from .task import (
    Batch,
    Progress,
    Split,
    Task,
    fingerprint,
    text_split,
)

__all__ = [
    "TASKS",
    "AANConfig",
    "Batch",
    "CharLMConfig",
    "DigitsConfig",
    "IMDBConfig",
    "ListOpsConfig",
    "MQARConfig",
    "PathXConfig",
    "PathfinderConfig",
    "PendulumConfig",
    "Places",
    "Progress",
    "SCIFARConfig",
    "SMNISTConfig",
    "Shard",
    "Split",
    "Task",
    "TaskEntry",
    "array_task",
    "check_task",
    "default_cache_dir",
    "eval_batches",
    "fingerprint",
    "import_builders",
    "kept_name",
    "load_task",
    "register_task",
    "save_task",
    "task_entry",
    "task_label",
    "text_split",
    "train_batch",
]
