"""Checks that the tasks' configurations share."""

from typing import Any

TOO_MANY = 2**31
"""Bound of the sizes that an array can have."""


def check_at_least(config: Any, **lowest: int) -> None:
    """ValueError for the first field that is below its given minimum, or absurdly large."""
    for name, low in lowest.items():
        value = getattr(config, name)
        if value < low:
            allowed = f"be at least {low}" if low else "not be negative"
            raise ValueError(f"{name} must {allowed}, got {value}")
        if value >= TOO_MANY and name != "seed":
            raise ValueError(f"{name} must be below {TOO_MANY}, got {value}")


def check_workers(workers: int | None) -> None:
    """ValueError unless `workers` is a number of processes, or None."""
    if workers is not None and workers < 1:
        raise ValueError(f"workers must be at least 1 or None, got {workers}")


def check_choice(config: Any, name: str, allowed: tuple[Any, ...]) -> None:
    """ValueError unless the field `name` is one of `allowed`."""
    value = getattr(config, name)
    if value not in allowed:
        *most, last = map(str, allowed)
        raise ValueError(f"{name} must be {', '.join(most)} or {last}, got {value!r}")
