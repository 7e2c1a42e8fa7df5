"""Tasks and their pipelines: NumPy arrays in memory, prepared once, indexed by (seed, step).

    task = load_task("digits")
    task.splits["train"]                                  # a Split: inputs, labels, lengths
    batch = train_batch(task.splits["train"], 32, seed=0, step=0)

`TASKS` maps names to tasks, each with a configuration class. `load_task` also takes a file or a
function of your own. `register_task` adds a task. Prepared data is kept in `default_cache_dir()`.
"""

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

__version__ = "0.1.0"
"""The version of the distribution compressm-zoo, which holds the four packages."""


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
