"""Checks that the tasks' configurations and the readers of files share."""

import dataclasses
import functools
from collections.abc import Iterator
from contextlib import contextmanager
from numbers import Integral, Real
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import numpy as np

TOO_MANY = 2**31
"""Bound of the sizes that an array can have."""


def check_kinds(config: Any, prefix: str = "") -> None:
    """ValueError unless the fields of a dataclass are of the kinds that it declares.

    A float may be a whole number, or infinite, but not NaN. `prefix` comes before the names of the
    fields. Kinds that have no words below are not checked.
    """
    for name, kind in _kinds(type(config)).items():
        value = getattr(config, name)
        if not _is(value, kind):
            text = repr(value)
            text = text if len(text) <= 80 else f"{text[:80]}..."
            raise ValueError(f"`{prefix}{name}` must be {_words(kind)}, got {text}")


@functools.cache
def _kinds(config_class: type) -> dict[str, Any]:
    """The annotation of each field; none where a user's class has unknown names in them."""
    try:
        hints = get_type_hints(config_class)
    except (NameError, TypeError, AttributeError):
        return {}
    return {name: hints[name] for name in config_class.__dataclass_fields__ if name in hints}


def _is(value: Any, kind: Any) -> bool:
    """Whether `value` is of this kind."""
    origin, parts = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        return any(_is(value, part) for part in parts)
    if origin is Literal:
        return any(type(value) is type(part) and value == part for part in parts)
    if origin is tuple:
        some = parts[:1] * len(value) if Ellipsis in parts and isinstance(value, tuple) else parts
        fits = isinstance(value, tuple) and len(value) == len(some)
        return fits and all(map(_is, value, some))
    if kind in (int, float):
        number = isinstance(value, Integral if kind is int else Real)
        return number and not isinstance(value, bool) and bool(value == value)
    if isinstance(kind, type) and dataclasses.is_dataclass(kind):
        return isinstance(value, kind)
    if kind is Path:
        return isinstance(value, Path | str)
    return isinstance(value, kind) if kind in WORDS else True


WORDS: dict[Any, str] = {
    int: "a whole number",
    float: "a number",
    bool: "True or False",
    str: "text",
    Path: "a path",
    NoneType: "None",
}


def _words(kind: Any) -> str:
    """The kind in words."""
    parts = get_args(kind)
    if get_origin(kind) in (Union, UnionType):
        return " or ".join(map(_words, parts))
    if get_origin(kind) is Literal:
        return f"one of {', '.join(map(str, parts))}"
    if get_origin(kind) is tuple:
        return f"a tuple of {_words(parts[0])}"
    return WORDS.get(kind) or f"a {kind.__name__}"


def check_at_least(config: Any, **lowest: int) -> None:
    """ValueError for the first field that is below its given minimum, or absurdly large, and for
    fields of another kind than declared."""
    check_kinds(config)
    for name, low in lowest.items():
        value = getattr(config, name)
        if value < low:
            allowed = f"be at least {low}" if low else "not be negative"
            raise ValueError(f"{name} must {allowed}, got {value}")
        if value >= TOO_MANY and name != "seed":
            raise ValueError(f"{name} must be below {TOO_MANY}, got {value}")


def check_shares(config: Any) -> None:
    """ValueError unless the fields `validation` and `test` are shares that leave enough to train
    on."""
    check_kinds(config)
    for name in ("validation", "test"):
        if not 0 < getattr(config, name) < 0.5:
            raise ValueError(f"{name} must be in (0, 0.5), got {getattr(config, name)}")


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


def float32(array: Any) -> np.ndarray:
    """`array` in float32. What is too large becomes infinity, which a split refuses."""
    with np.errstate(over="ignore"):
        return np.asarray(array).astype(np.float32)


@contextmanager
def reading(file: Path, what: str) -> Iterator[None]:
    """Whatever a parser of `file` raises as one sentence, a ValueError: it must be `what`.

    Parsers of foreign formats have no common error: a damaged archive alone gives five kinds.
    """
    try:
        yield
    except Exception as error:
        said = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(f"{file} must be {what}, got: {said}") from error
