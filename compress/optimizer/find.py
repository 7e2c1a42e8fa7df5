"""Find the trees like a layer's parameters inside an optimizer's state, and their meanings.

**Where.** Wherever a state holds a tree like the parameters, it holds nodes of the layers' own
classes, with numbers as their leaves; so masked, chained, injected and per-group states are treated
alike. A node belongs to the layer with which it shares the longest end of its key path; of several
such, with which it shares most keys, and then the longest start.

**What.** The field of the declared state around it gives its meaning
(`compress.optimizer.registry`). A node that stands in no such state, only in tuples, lists and
dicts, is a copy of the parameters by its place: an average of the model beside its optimizer's
state, `(opt_state, average)`.

**Order.** A tuple of states is a chain: the input of a transformation is the output of those before
it.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import equinox as eqx
import jax
import numpy as np
import optax
from jaxtyping import PyTree

from zoo import AbstractSSM

from ..cut import Leaves
from ..model.layers import KeyPath, path_name
from ..numerics.precision import is_inexact
from .meanings import Declaration
from .owners import owners_of, parts_of
from .registry import declaration, field_names


@dataclass(frozen=True)
class Tree:
    """A tree like a layer's parameters, inside the optimizer's state."""

    keys: KeyPath
    owner: KeyPath
    """The layer's key path in the model."""
    field: str
    """The field of the state that holds it, "" if none does."""
    meaning: str
    """One of `registry.MEANINGS`."""
    state: KeyPath
    """The key path of what has that field."""
    declared: Declaration
    """The declaration of that state; empty without a state."""
    chain: tuple[tuple[KeyPath, int], ...]
    """The tuples of states that it is in, and the state's place in each."""
    parts: list[Any]
    """For each of the layer's leaves, an array or its replacement (such as a MaskedNode)."""

    def arrays(self, leaves: Sequence[Any]) -> Leaves:
        """The parts that have the shape of the parameter at the same place."""
        places = self.places(leaves)
        return {
            k: np.asarray(part).astype(np.float64)
            for k, part in enumerate(self.parts)
            if k in places
        }

    def places(self, leaves: Sequence[Any]) -> set[int]:
        """The keys of `arrays`."""
        pairs = enumerate(zip(self.parts, leaves, strict=True))
        return {k for k, (part, x) in pairs if is_inexact(part) and part.shape == np.shape(x)}

    def comes_after(self, other: "Tree") -> bool:
        """Whether the output of `other`'s transformation is the input of this one's in a chain."""
        places = dict(other.chain)
        return any(keys in places and places[keys] < place for keys, place in self.chain)


NO_STATE = Declaration({})


@dataclass(frozen=True)
class _Place:
    """A node of the state on the way to the layers."""

    keys: KeyPath = ()
    state: KeyPath = ()
    field: str = ""
    meaning: str = ""
    declared: Declaration = NO_STATE
    name: str = ""
    """The name of the class of the state."""
    chain: tuple[tuple[KeyPath, int], ...] = ()
    outside: tuple[tuple[KeyPath, Any], ...] = ()
    """Nodes above it that are neither declared nor tuples, lists or dicts."""


def find(
    opt_state: PyTree, layers: Mapping[KeyPath, AbstractSSM], cuts: Any, mode: str
) -> list[Tree]:
    """The trees of all layers in `cuts`, in the order of the state's leaves.

    ValueError if the state belongs to another model, if no layer is found in it, and in mode
    "transport" if the meaning of what it holds is not declared.
    """
    if jax.tree_util.all_leaves([opt_state]):
        raise ValueError(
            f"opt_state must be the state of an optimizer, or None, got {type(opt_state).__name__}"
        )
    walk = _Walk(mode)
    nodes = list(walk.through(opt_state, _Place()))
    if not nodes and not walk.masked and _holds_arrays(opt_state):
        raise ValueError(
            "opt_state must hold the parameters of the model's layers, got a state with none of "
            "them (where they are not trained, `compress` the model without it)"
        )
    found = []
    for place, node in nodes:
        fitting, shared = owners_of(place.keys, node, layers)
        name = path_name(place.keys) or "opt_state"
        if not fitting:
            raise ValueError(
                f"opt_state must be of this model, which has no {type(node).__name__} layer, got "
                f"one in {name}"
            )
        if len(fitting) > 1 and any(owner in cuts for owner in fitting):
            names = " and ".join(map(path_name, fitting))
            raise ValueError(
                f"opt_state: {name} fits {names} equally well (beside one model, others may stand "
                "as in `compress(model, (opt_state, other))`)"
            )
        if len(fitting) == 1 and fitting[0] in cuts:
            if place.declared.refused and mode == "transport":
                raise ValueError(
                    f"`moments` must be 'reset' for {name}, since {place.name} "
                    f"{place.declared.refused}, got 'transport'"
                )
            parts = parts_of(name, node, layers[fitting[0]])
            found.append(_tree(place, fitting[0], shared, parts, mode))
    return found


def _tree(place: _Place, owner: KeyPath, shared: int, parts: list[Any], mode: str) -> Tree:
    meaning = place.meaning
    if not meaning:
        inside = len(place.keys) - shared
        strange = [(keys, node) for keys, node in place.outside if len(keys) < inside]
        if strange and mode == "transport":
            keys, node = strange[-1]
            raise ValueError(_undeclared(node, place.keys[len(keys)]))
        meaning = "gradient" if strange else "parameter"
    return Tree(
        keys=place.keys,
        owner=owner,
        field=place.field,
        meaning=meaning,
        state=place.state,
        declared=place.declared,
        chain=place.chain,
        parts=parts,
    )


def _undeclared(node: Any, key: Any) -> str:
    name = key.name if isinstance(key, jax.tree_util.GetAttrKey) else str(key)
    state_class = type(node).__name__
    return (
        f"opt_state: what {name!r} of {state_class} means must be declared before, by "
        f'`compress.register_state({state_class}, {name}="gradient")` or with another meaning, '
        'or `moments` be "reset"'
    )


@dataclass
class _Walk:
    """The way through a state to the layers' nodes."""

    mode: str
    masked: bool = False
    """Whether some part of the state is masked out."""

    def through(self, node: Any, place: _Place) -> Iterator[tuple[_Place, AbstractSSM]]:
        if isinstance(node, AbstractSSM):
            yield place, node
            return
        if isinstance(node, eqx.nn.State):
            return
        if jax.tree_util.all_leaves([node]):
            if len(place.keys) == len(place.state) + 1 and is_inexact(node) and np.size(node) > 1:
                self._check_tree(place)
            return
        self.masked |= isinstance(node, optax.MaskedNode)
        declared = None if place.meaning else declaration(node)
        if declared is not None:
            self._check(node, declared, place)
            yield from self._fields(node, declared, place)
            return
        outside, chain = place.outside, place.chain
        if type(node) not in (tuple, list, dict):
            outside = (*outside, (place.keys, node))
        for key, child in _children(node):
            if not place.meaning:
                _check_alone(node, child, self.mode)
            if type(node) is tuple and not place.meaning:
                chain = (*place.chain, (place.keys, key.idx))
            below = _Place(
                keys=(*place.keys, key),
                state=place.state,
                field=place.field,
                meaning=place.meaning,
                declared=place.declared,
                name=place.name,
                chain=chain,
                outside=outside,
            )
            yield from self.through(child, below)

    def _fields(
        self, node: Any, declared: Declaration, place: _Place
    ) -> Iterator[tuple[_Place, AbstractSSM]]:
        for key, child in _children(node):
            name = key.name if isinstance(key, jax.tree_util.GetAttrKey) else ""
            meaning = declared.fields.get(name, "")
            keys = (*place.keys, key)
            if meaning == "nested":
                yield from self.through(child, _Place(keys=keys, chain=place.chain))
            elif meaning == "scalar":
                continue
            elif not meaning and self.mode == "transport":
                if any(isinstance(x, AbstractSSM) for x in _nodes(child)):
                    raise ValueError(_undeclared(node, key))
            else:
                below = _Place(
                    keys=keys,
                    state=place.keys,
                    field=name,
                    meaning=meaning or "gradient",
                    declared=declared,
                    name=type(node).__name__,
                    chain=place.chain,
                )
                yield from self.through(child, below)

    def _check(self, node: Any, declared: Declaration, place: _Place) -> None:
        name = type(node).__name__
        if name == "GaLoreState":
            raise ValueError(
                "opt_state must not hold a GaLoreState, whose projections belong to the arrays "
                "before the cut: begin with a new state, `optimizer.init(model)`"
            )
        if not place.keys and not declared.alone and self.mode == "transport":
            raise ValueError(_ALONE.format(name=name, field=_linear(declared)))

    def _check_tree(self, place: _Place) -> None:
        if place.meaning in ("", "reset", "loss"):
            return
        raise ValueError(
            f"opt_state: {path_name(place.keys)} must be a tree like the model, got one flat "
            "array, as of `optax.flatten`, in which no layer can be found"
        )


_ALONE = (
    "opt_state: {name} stands alone or beside a whole optimizer's state, so it may be an average "
    "of updates or of parameters: give the average itself in its place, as in "
    "`compress(model, (opt_state, average))`, or call `compress.register_state({name}, "
    '{field}="gradient", count="scalar")` before'
)


def _linear(declared: Declaration) -> str:
    return next(name for name, meaning in declared.fields.items() if meaning == "gradient")


def _check_alone(around: Any, node: Any, mode: str) -> None:
    """Refuse states whose meaning depends on their place if they stand beside a whole optimizer's
    state, since the two might not be a chain."""
    declared = declaration(node)
    if declared is None or declared.alone or mode != "transport":
        return
    if type(around) is tuple and len(around) > 1 and all(map(_is_single, around)):
        return
    raise ValueError(_ALONE.format(name=type(node).__name__, field=_linear(declared)))


def _is_single(node: Any) -> bool:
    """Whether it is the state of one transformation, not of a chain or a wrapper."""
    declared = declaration(node)
    if isinstance(node, optax.MaskedState):
        return _is_single(node.inner_state)
    return declared is not None and "nested" not in declared.fields.values()


def _children(node: Any) -> list[tuple[Any, Any]]:
    """The keys and the nodes right below `node`."""
    if isinstance(node, tuple) and field_names(type(node)):
        names = field_names(type(node))
        return [(jax.tree_util.GetAttrKey(name), getattr(node, name)) for name in names]
    below, _ = jax.tree_util.tree_flatten_with_path(node, is_leaf=lambda x: x is not node)
    return [(keys[0], child) for keys, child in below]


def walk_to(node: Any, keys: KeyPath) -> Any:
    """The node of a tree at this key path."""
    for key in keys:
        node = next(child for other, child in _children(node) if other == key)
    return node


def _nodes(tree: PyTree) -> list[Any]:
    return jax.tree.leaves(tree, is_leaf=lambda x: isinstance(x, AbstractSSM | eqx.nn.State))


def _holds_arrays(opt_state: PyTree) -> bool:
    """Whether there are arrays of more than one number, other than keys and counts."""
    return any(
        is_inexact(x) and np.size(x) > 1
        for x in _nodes(opt_state)
        if not isinstance(x, eqx.nn.State)
    )
