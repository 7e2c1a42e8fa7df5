"""Checks of the entries of a Hugging Face config.json, whose errors name the key in one line."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..layers.checks import is_finite, is_number, is_whole
from ..typing import checked

CONFIG = "config.json"

MOST_BLOCKS = 10_000
"""Largest number of blocks."""

LARGEST = 2**31 - 1
"""Largest size of an axis."""


@checked
def read_object(path: Path) -> dict[str, Any]:
    """The JSON object in the file `path`; a ValueError in one line if there is none."""
    try:
        text = path.read_text(encoding="utf-8")
        found = json.loads(text, parse_int=_number, object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:  # no text, or no JSON
        raise ValueError(f"{path} must be JSON, got: {error}") from error
    if not isinstance(found, dict):
        raise ValueError(f"{path} must hold an object, got a {type(found).__name__}")
    return found


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object, whose keys must all be different."""
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the key {twice!r} twice")
    return found


def _number(digits: str) -> int | float:
    """A whole number. One with too many digits becomes infinity, which the check of its key
    refuses."""
    return int(digits) if len(digits) < 100 else float(digits)


@checked
def check_settings(config: dict[str, Any]) -> None:
    """ValueError unless every entry of `config` satisfies its rule in `RULES`, if it has one."""
    for key, value in config.items():
        words, holds = RULES.get(key, ("", lambda _: True))
        if not holds(value):
            raise ValueError(f"{CONFIG}: `{key}` must be {words}, got {shown(value)}")


@checked
def number(value: Any) -> float:
    """JSON has no infinity; Hugging Face writes {"__float__": "Infinity"}."""
    return float(value["__float__"]) if isinstance(value, dict) else float(value)


@checked
def times(size: int, share: int | float) -> int:
    """`share` times `size`, rounded as in the layouts."""
    return int(share * size)


@checked
def share_of(whole: int, size: int) -> int | float:
    """The factor by which `times` gives `whole`, as a whole number if possible."""
    if whole % size == 0:
        return whole // size
    share = whole / size
    return share if times(size, share) == whole else math.nextafter(share, math.inf)


@checked
def shown(value: Any) -> str:
    """`value` as JSON, cut where it is long."""
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:60]}..."


def _is_size(value: Any, most: int = LARGEST) -> bool:
    return is_whole(value) and 1 <= value <= most


def _is_step(value: Any) -> bool:
    if isinstance(value, dict):
        return value in ({"__float__": "Infinity"}, {"__float__": "inf"})
    return is_number(value)


def _are_steps(value: Any) -> bool:
    pair = isinstance(value, list | tuple) and len(value) == 2 and all(map(_is_step, value))
    return pair and 0 <= number(value[0]) <= number(value[1])


Rule = tuple[str, Callable[[Any], bool]]

SIZE: Rule = (f"a whole number from 1 to {LARGEST}", _is_size)
SIZE_OR_NULL: Rule = (f"null or {SIZE[0]}", lambda value: value is None or _is_size(value))
EPSILON: Rule = (
    "a finite number of 0 or more",
    lambda value: is_finite(value) and value >= 0,
)
SHARE: Rule = (
    "a number of more than 0, and at most 1000",
    lambda value: is_number(value) and 0 < value <= 1000,
)
TRUTH: Rule = ("true or false", lambda value: isinstance(value, bool))

RULES: dict[str, Rule] = {
    "vocab_size": SIZE,
    "hidden_size": SIZE,
    "state_size": SIZE,
    "mapped_state_size": SIZE,
    "num_hidden_layers": (
        f"a whole number from 1 to {MOST_BLOCKS}",
        lambda value: _is_size(value, MOST_BLOCKS),
    ),
    "layer_norm_epsilon": EPSILON,
    "norm_eps": EPSILON,
    "expand": SHARE,
    "expand_k": SHARE,
    "expand_v": SHARE,
    "conv_kernel": SIZE,
    "use_bias": TRUTH,
    "use_conv_bias": TRUTH,
    "time_step_rank": (f'"auto" or {SIZE[0]}', lambda value: value == "auto" or _is_size(value)),
    "tie_word_embeddings": TRUTH,
    "use_short_conv": TRUTH,
    "use_gate": TRUTH,
    "allow_neg_eigval": TRUTH,
    "conv_size": SIZE,
    "hidden_ratio": SIZE_OR_NULL,
    "intermediate_size": SIZE_OR_NULL,
    "num_heads": SIZE,
    "num_v_heads": SIZE_OR_NULL,
    "head_dim": SIZE,
    "mapped_key_dim": SIZE,
    "n_groups": SIZE,
    "chunk_size": SIZE,
    "time_step_limit": ("two numbers, 0 <= low <= high", _are_steps),
}
"""What the entries that shape a model must be, in words, and whether a value is so."""
