"""Checks of layers' settings, whose errors name the setting in one sentence."""

import dataclasses
import math
import sys
from collections.abc import Callable
from numbers import Integral, Real
from types import UnionType
from typing import Any, get_args

from ..typing import checked


@checked
def check_kinds(config: Any) -> None:
    """ValueError unless the settings of a configuration class are of the kinds that it declares.

    A float is a finite number, which may be whole. A pair of floats may hold infinity. Types that
    are not in `KINDS`, such as names of a choice, are checked by the layer.
    """
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        union = isinstance(field.type, UnionType)
        allowed = get_args(field.type) if union else (field.type,)
        if value is None and type(None) in allowed:
            continue
        for kind, (words, holds) in KINDS.items():
            if kind in allowed and not holds(value):
                raise ValueError(f"`{field.name}` must be {words}, got {value!r}")


@checked
def is_whole(value: Any) -> bool:
    """Whether `value` is a whole number, and no truth value."""
    return isinstance(value, Integral) and not isinstance(value, bool)


@checked
def is_number(value: Any) -> bool:
    """Whether `value` is a real number, infinite perhaps, and no truth value."""
    return isinstance(value, Real) and not isinstance(value, bool) and bool(value == value)


@checked
def is_finite(value: Any) -> bool:
    """Whether `value` is a real number that a float can be."""
    return is_number(value) and abs(value) <= sys.float_info.max


def _are_two(value: Any) -> bool:
    return isinstance(value, tuple | list) and len(value) == 2 and all(map(is_number, value))


KINDS: dict[Any, tuple[str, Callable[[Any], bool]]] = {
    int: ("a whole number", is_whole),
    float: ("a finite number", is_finite),
    bool: ("True or False", lambda value: isinstance(value, bool)),
    tuple[float, float]: ("two numbers", _are_two),
}
"""The wording for each type of setting, and whether a value has this type."""


@checked
def check_positive(name: str, value: Any) -> None:
    """ValueError unless `value` is a whole number of 1 or more."""
    if not is_whole(value) or value < 1:
        raise ValueError(f"`{name}` must be 1 or more, got {value}")


@checked
def check_divides(name: str, value: Any, whole: str, of: int) -> None:
    """ValueError unless `value` is 1 or more, and divides `of`, which is called `whole`."""
    if not is_whole(value) or value < 1 or of % value:
        raise ValueError(f"`{name}` must divide {whole}={of}, got {value}")


@checked
def check_floor(name: str, value: float) -> None:
    """ValueError unless `value`, the lower bound of something, is 0 or more and finite."""
    if not 0 <= value < math.inf:
        raise ValueError(f"`{name}` must be 0 or more and finite, got {value}")


@checked
def check_steps(name: str, low: float, high: float) -> None:
    """ValueError unless 0 < `low` <= `high`, the settings `name`_min and `name`_max."""
    if not 0 < low <= high < math.inf:
        raise ValueError(
            f"`{name}_min` and `{name}_max` must be 0 < {name}_min <= {name}_max, "
            f"got {low} and {high}"
        )
