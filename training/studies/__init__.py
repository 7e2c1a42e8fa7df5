"""Studies: lists of runs of the one training loop, and what they say together."""

from .catalogue import STUDIES
from .runner import StudyRunner, finished_runs
from .study import Study, Variant, plan_runs
from .summary import write_results

__all__ = [
    "STUDIES",
    "Study",
    "StudyRunner",
    "Variant",
    "finished_runs",
    "plan_runs",
    "write_results",
]
