"""What the settings of layers are checked for, in one sentence that names them."""

from ..typing import checked


@checked
def check_positive(name: str, value: int) -> None:
    """ValueError unless `value` is 1 or more."""
    if value < 1:
        raise ValueError(f"`{name}` must be 1 or more, got {value}")


@checked
def check_divides(name: str, value: int, whole: str, of: int) -> None:
    """ValueError unless `value` is 1 or more, and divides `of`, which is called `whole`."""
    if value < 1 or of % value:
        raise ValueError(f"`{name}` must divide {whole}={of}, got {value}")


@checked
def check_steps(name: str, low: float, high: float) -> None:
    """ValueError unless 0 < `low` <= `high`, the settings `name`_min and `name`_max."""
    if not 0 < low <= high:
        raise ValueError(
            f"`{name}_min` and `{name}_max` must be 0 < {name}_min <= {name}_max, "
            f"got {low} and {high}"
        )
