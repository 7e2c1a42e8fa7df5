"""The meanings of the fields of optimizers' states, declared for each class of states. Numbers do
not reveal their meaning: a momentum may have no negative entry, an average of gradients may be
close to the parameters. So each class declares its fields with the meanings of
`compress.optimizer.meanings`: those of optax in `compress.optimizer.optax_states`, others by
`register_state`.
"""

import dataclasses
from typing import Any

from .meanings import MEANINGS, SCALES, Declaration
from .optax_states import OPTAX

_registered: dict[type, Declaration] = {}


def register_state(state_class: type, /, **fields: str) -> None:
    """Declare the fields of a class of optimizer states, so that `compress` can carry them.
    `fields` maps a field's name to its meaning, such as "gradient" for momentum or "square" for
    averages of squared gradients (all are in `compress.optimizer.meanings.MEANINGS` and on the page
    docs/how-to/loop.md). Fields that are not named must not hold arrays of a layer. Call it once
    before `compress`. A later declaration replaces an earlier one, also for optax's own classes.
    Those of `optax.ScaleByAdamState` are declared as Adam's; where `optax.adamax` is used, call
    `register_state(optax.ScaleByAdamState, count="scalar", mu="gradient", nu="maximum")`.

    ValueError if the class has no such field, or for an unknown meaning.
    """
    known = field_names(state_class)
    for name, meaning in fields.items():
        if name not in known:
            raise ValueError(
                f"fields must be among {', '.join(known) or 'none'} for "
                f"{state_class.__name__}, got {name!r}"
            )
        if meaning not in MEANINGS:
            raise ValueError(
                f"{name} must be one of {', '.join(MEANINGS)} for {state_class.__name__}, "
                f"got {meaning!r}"
            )
    _registered[state_class] = Declaration(dict(fields), bool(SCALES & set(fields.values())))


def field_names(state_class: type) -> tuple[str, ...]:
    """The fields of a NamedTuple or a dataclass (an `eqx.Module` is one)."""
    if dataclasses.is_dataclass(state_class):
        return tuple(field.name for field in dataclasses.fields(state_class))
    return tuple(getattr(state_class, "_fields", ()))


def declaration(node: Any) -> Declaration | None:
    """The declaration of the class of `node`; None if there is none."""
    state_class = type(node)
    if state_class in _registered:
        return _registered[state_class]
    if state_class.__module__.split(".")[0] == "optax":
        return OPTAX.get(state_class.__name__)
    return None
