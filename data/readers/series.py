"""Forecasts of one long series in a table (CSV)."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..checks import check_at_least, check_shares, float32, reading
from ..store.places import Places
from ..task import Missing, Task
from .forecast import forecast_task

ROWS = "rows"
WINDOW = 168
"""Hours of a week."""
CALLED = ("time", "times", "date", "datetime", "timestamp", "ds", "hour")
"""Usual names of a column of times that holds words or numbers."""
FORMATS = (
    "%Y-%m-%d %H:%M:%S",
    "%Y-%m-%d %H:%M",
    "%Y-%m-%d",
    "%Y/%m/%d %H:%M:%S",
    "%Y/%m/%d %H:%M",
    "%d.%m.%Y %H:%M",
    "%d/%m/%Y %H:%M:%S",
    "%d/%m/%Y %H:%M",
    "%m/%d/%Y %H:%M:%S",
    "%m/%d/%Y %H:%M",
    "%m/%d/%y %H:%M",
    "%d/%m/%Y",
    "%m/%d/%Y",
)
"""Usual formats of times that Arrow does not detect."""


@dataclass(frozen=True)
class SeriesConfig:
    """A series, a row for each time: from a window of it, the next values of some columns."""

    time: str | None = None
    """Column of the times. None: the first with times, or with a usual name (time, date, ...).
    `rows`: there is none, and rows have equal distances."""
    time_format: str | None = None
    """The format of times, as for strptime. None: a usual format, or numbers."""
    columns: tuple[str, ...] = ()
    """Input columns; none: all columns of numbers."""
    targets: tuple[str, ...] = ()
    """Columns to predict, among the input columns; none: all."""
    window: int | None = None
    """Rows of a window; None: 168, or a twentieth of all rows if that is less."""
    horizon: int = 24
    """Rows ahead that are predicted."""
    missing: Missing = "refuse"
    """The meaning of an empty cell: an error, or a missing value."""
    intervals: bool = False
    """Whether the model gets the time before each row, for irregular times."""
    validation: float = 0.1
    """Share of the rows for validation, before those for testing."""
    test: float = 0.2
    """Share of the rows for testing, at the end."""

    def __post_init__(self):
        check_at_least(self, horizon=1)
        if self.window is not None:
            check_at_least(self, window=1)
        check_shares(self)
        for name in ("columns", "targets"):
            names = getattr(self, name)
            if len(set(names)) < len(names):
                raise ValueError(f"{name} must name each column once, got {', '.join(names)}")


def load_series(path: Path, config: SeriesConfig, places: Places) -> Task:
    """The series in a CSV file, or in the only one in a folder, as a task."""
    del places
    file = _only_file(path)
    table = _read(file)
    time, times = _times(table, config)
    columns = _columns(table, config.columns, "columns", time)
    targets = config.targets or tuple(columns)
    for name in targets:
        if name not in columns:
            raise ValueError(f"targets must be among the columns {', '.join(columns)}, got {name}")
    values = float32(np.stack(list(columns.values()), axis=-1))
    _check_cells(values, list(columns), config.missing)
    window = config.window or max(2, min(WINDOW, len(values) // 20))
    return forecast_task(
        file.stem,
        values,
        tuple(columns),
        targets,
        window=window,
        horizon=config.horizon,
        shares=(config.validation, config.test),
        intervals=_steps(times) if config.intervals else None,
        notes=_notes(times),
    )


def _check_cells(values: np.ndarray, columns: list[str], missing: Missing) -> None:
    """ValueError for the first cell that is empty, unless it may be, or too large."""
    wrong = np.isinf(values) if missing == "mask" else ~np.isfinite(values)
    if wrong.any():
        row, column = np.argwhere(wrong)[0]
        where = f"row {row + 2}, column {columns[column]}"
        if np.isinf(values[row, column]):
            raise ValueError(f"cells must hold numbers that float32 has, got another in {where}")
        raise ValueError(f'cells must hold numbers unless missing="mask", got none in {where}')


def read_windows(path: Path, config: SeriesConfig, task: Task) -> dict[str, np.ndarray]:
    """Windows of a series like that of `task`, one that ends at each of its rows.

    `inputs` [n window c] are views of the columns that the model was trained on, in its order;
    `intervals` [n window] are there if the task has them, and `rows` [n] is how the time of the
    last row of each window is written, or its number. ValueError for a series without these
    columns, or of fewer rows than a window has.
    """
    table = _read(_only_file(path))
    name, times = _times(table, config)
    names = task.input_names or ()
    columns = _columns(table, names, "the columns of the training", name)
    if len(times) < task.length:
        raise ValueError(
            f"{path} must have {task.length} rows or more, as many as a forecast looks back on, "
            f"got {len(times)}"
        )
    values = float32(np.stack(list(columns.values()), axis=-1))
    _check_cells(values, list(columns), "mask")
    window = np.lib.stride_tricks.sliding_window_view
    rows = range(len(times)) if name is None else table.column(name).to_pylist()
    found = {
        "inputs": window(values, task.length, axis=0).swapaxes(1, 2),
        "rows": np.array([str(row) for row in rows][task.length - 1 :]),
    }
    if config.intervals:
        found["intervals"] = window(_steps(times), task.length)
    return found


def _only_file(path: Path) -> Path:
    """The file, or the only one in a folder."""
    if not path.is_dir():
        return path
    files = sorted(path.glob("*.csv"))
    if len(files) != 1:
        raise ValueError(f"there must be one CSV file in the folder, got {len(files)}")
    return files[0]


def _read(file: Path) -> Any:
    from pyarrow import csv

    with reading(file, "a CSV file with a line of names"):
        table = csv.read_csv(file)
        names = table.column_names  # read as UTF-8 only here
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"{file} must have columns of different names, got {twice[0]!r} twice")
    if not table.num_rows:
        raise ValueError(f"{file} must hold a row or more, got none")
    return table


def _times(table: Any, config: SeriesConfig) -> tuple[str | None, np.ndarray]:
    """The column of times, if there is one, and the times [s, or what numbers count]."""
    from pyarrow import types

    if config.time == ROWS:
        return None, np.arange(table.num_rows, dtype=np.float64)
    kinds = {field.name: field.type for field in table.schema}
    name = config.time
    if name is None:
        timed = [k for k, kind in kinds.items() if types.is_temporal(kind)]
        called = [k for k in kinds if k.strip().lower() in CALLED]
        if not (timed or called):
            raise ValueError(
                f"time must name the column of times, or be {ROWS}, got columns "
                f"{', '.join(kinds)} without any"
            )
        name = (timed or called)[0]
    if name not in kinds:
        raise ValueError(f"time must be one of {', '.join(kinds)}, got {name}")
    times = _seconds(table.column(name), name, config.time_format)
    if np.isinf(times).any():
        raise ValueError(f"times must be finite, got infinity in column {name}")
    falls = _falls(times)
    if len(falls):
        row = int(falls[0])
        before, after = (table.column(name)[k].as_py() for k in (row, row + 1))
        raise ValueError(
            f"times must rise from row to row, got {after} after {before} in row {row + 3} (column "
            f"{name}; --data.time names another, or {ROWS})"
        )
    return name, times


def _falls(times: np.ndarray) -> np.ndarray:
    """Rows after which the time does not rise."""
    return np.flatnonzero(~(np.diff(times) > 0))


def _seconds(column: Any, name: str, form: str | None) -> np.ndarray:
    """Times as numbers: seconds, or numbers as they are.

    The first usual format that reads all times is taken, preferably one with rising times, since
    days and months cannot be distinguished otherwise.
    """
    from pyarrow import ArrowException, compute, types

    read: Any = compute
    if not types.is_string(column.type):
        return _as_numbers(column, name)
    found = []
    for each in FORMATS if form is None else (form,):
        try:
            found.append(_as_numbers(read.strptime(column, format=each, unit="us"), name))
        except (ArrowException, ValueError):
            continue
    if not found:
        raise ValueError(
            f"column {name} must hold times (--data.time-format says how they are written), got "
            f"{column[0].as_py()!r}"
        )
    return next((times for times in found if not len(_falls(times))), found[0])


def _as_numbers(column: Any, name: str) -> np.ndarray:
    from pyarrow import ArrowException, timestamp, types

    try:
        if types.is_temporal(column.type):
            zone = column.type.tz if types.is_timestamp(column.type) else None
            column = column.cast(timestamp("us", tz=zone)).cast("int64").cast("float64")
            return column.to_numpy() / 1e6
        return column.cast("float64").to_numpy()
    except (ArrowException, ValueError, TypeError) as error:
        raise ValueError(f"column {name} must hold times, got: {error}") from None


def _columns(
    table: Any, wanted: tuple[str, ...], option: str, time: str | None
) -> dict[str, np.ndarray]:
    """The columns of numbers by name, NaN where a cell is empty."""
    from pyarrow import types

    def is_number(name: str) -> bool:
        kind = table.schema.field(name).type
        return types.is_integer(kind) or types.is_floating(kind) or types.is_boolean(kind)

    names = wanted or tuple(k for k in table.column_names if k != time and is_number(k))
    for name in names:
        if name not in table.column_names or not is_number(name):
            numbers = ", ".join(filter(is_number, table.column_names))
            raise ValueError(f"{option} must be among the columns of numbers {numbers}, got {name}")
    if not names:
        there = ", ".join(table.column_names)
        raise ValueError(f"there must be a column of numbers besides the times, got {there}")
    return {name: table.column(name).cast("float64", safe=False).to_numpy() for name in names}


def _steps(times: np.ndarray) -> np.ndarray:
    """The time before each row, in units of a usual one."""
    steps = np.diff(times, prepend=times[0])
    usual = np.median(steps[1:]) if len(steps) > 1 else 1.0
    steps[0] = usual
    return float32(steps / usual)


def _notes(times: np.ndarray) -> tuple[str, ...]:
    steps = _steps(times)
    odd = int((np.abs(steps - 1) > 1e-3).sum())
    if not odd:
        return ()
    return (f"{odd} of {len(times)} rows do not follow at the usual distance in time",)
