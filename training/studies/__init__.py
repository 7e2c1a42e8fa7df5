"""Studies: lists of training runs, and their common results."""

from .catalogue import STUDIES
from .record import RECORDS, finished_runs
from .runner import StudyRunner
from .study import Study, Variant, plan_runs
from .summary import write_results

__all__ = [
    "RECORDS",
    "STUDIES",
    "Study",
    "StudyRunner",
    "Variant",
    "finished_runs",
    "plan_runs",
    "write_results",
]
