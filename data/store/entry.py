"""The entry of a task: its options, and the function that loads it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ..task import Task
from .places import Places


@dataclass(frozen=True)
class TaskEntry:
    """A task's config dataclass, and the function that turns one into the task."""

    config_class: type
    load: Callable[[Any, Places], Task]
