"""The laws that every layer keeps, as functions that you can run on a layer of your own.

Each takes a layer and a sequence of inputs, and raises a `BrokenLaw` with one sentence if the law
does not hold. `check_layer` runs all laws that apply to the layer.
"""

from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from .layers.base import AbstractBankSSM, AbstractLinearSSM, AbstractSSM, is_bank, is_linear
from .lti import DiagonalLTI
from .typing import InputArray, checked

TOLERANCE = 2e-4
"""Largest difference of two ways to compute the same result, as a share of the largest value."""

Inputs = Float[InputArray, "length {layer.d_model}"]
"""A sequence for the layer, of 4 samples or more."""


class BrokenLaw(AssertionError):
    """A layer breaks one of the laws."""


@checked
def check_layer(layer: AbstractSSM, u: Inputs) -> None:
    """Check all laws that apply to `layer`, the quick ones first."""
    check_sizes(layer)
    check_step(layer, u)
    check_pieces(layer, u)
    check_padding(layer, u)
    check_gradients(layer, u)
    if layer.takes_intervals:
        check_intervals(layer, u)
    if is_linear(layer) or is_bank(layer):
        check_inverse(layer, u)
        check_truncation(layer, u)


@checked
def check_step(layer: AbstractSSM, u: Inputs) -> None:
    """`step`, sample by sample, gives the outputs of the call and the final state of `run`."""

    @eqx.filter_jit
    def stream(layer: AbstractSSM, u: Any) -> Any:
        return jax.lax.scan(lambda carry, u_t: layer.step(carry, u_t), layer.init_state(), u)

    carry, y = stream(layer, u)
    _same(layer, y, _called(layer, u), "the outputs of `step`", "those of the call")
    after, _ = _run(layer, layer.init_state(), u)
    _same(layer, carry, after, "the state after `step`", "that after `run`")


@checked
def check_pieces(layer: AbstractSSM, u: Inputs) -> None:
    """`run` on two pieces gives the outputs of the call."""
    middle = len(u) // 2
    carry, first = _run(layer, layer.init_state(), u[:middle])
    carry, second = _run(layer, carry, u[middle:])
    y = jnp.concatenate([first, second])
    _same(layer, y, _called(layer, u), "the outputs of `run` in two pieces", "those of the call")
    after, _ = _run(layer, layer.init_state(), u)
    _same(layer, carry, after, "the state after two pieces", "that after one")


@checked
def check_padding(layer: AbstractSSM, u: Inputs) -> None:
    """Samples at and after `length` change neither the earlier outputs nor the state."""
    u = jnp.asarray(u)
    for length in (1, len(u) // 2):
        after, y = _run(layer, layer.init_state(), u[:length])
        padded, outputs = _run(
            layer, layer.init_state(), u.at[length:].set(99.0), jnp.asarray(length)
        )
        _same(layer, outputs[:length], y, "the outputs of a padded piece", "those of the piece")
        _same(layer, padded, after, "the state after a padded piece", "that after the piece")


@checked
def check_sizes(layer: AbstractSSM) -> None:
    """`resized` and `first_states` make layers of the same kind, of the requested sizes."""
    name, structure = type(layer).__name__, jax.tree.structure(layer)
    for n in sorted({1, max(1, layer.d_state // 2), layer.d_state}):
        like, first = layer.resized(n), layer.first_states(n)
        for made, method in ((like, "resized"), (first, "first_states")):
            if type(made) is not type(layer) or jax.tree.structure(made) != structure:
                raise BrokenLaw(f"{name}.{method}({n}) is not a layer of the same structure")
            if (made.d_state, made.d_model) != (n, layer.d_model):
                raise BrokenLaw(
                    f"{name}.{method}({n}) has d_state={made.d_state} and d_model={made.d_model}, "
                    f"expected {n} and {layer.d_model}"
                )
        leaves = map(jax.tree.leaves, (like, first, layer))
        for x, y, whole in zip(*leaves, strict=True):
            if np.shape(x) != np.shape(y):
                raise BrokenLaw(
                    f"{name}.first_states({n}) has an array of shape {np.shape(y)} where "
                    f"resized({n}) has {np.shape(x)}"
                )
            if not np.isin(y, whole).all():
                raise BrokenLaw(f"{name}.first_states({n}) has entries that are not the layer's")


@checked
def check_gradients(layer: AbstractSSM, u: Inputs) -> None:
    """The gradient is finite for every parameter, and not zero for all of them."""
    weights = jnp.cos(jnp.arange(np.size(u))).reshape(np.shape(u))

    @eqx.filter_jit
    @eqx.filter_grad
    def gradients(layer: AbstractSSM) -> Any:
        return jnp.sum(weights * layer(jnp.asarray(u)))

    found = jax.tree_util.tree_leaves_with_path(gradients(layer))
    for path, x in found:
        if not np.isfinite(x).all():
            field = jax.tree_util.keystr(path).removeprefix(".")
            raise BrokenLaw(f"the gradient of {type(layer).__name__} by {field} is not finite")
    if not any(np.any(x) for _, x in found):
        raise BrokenLaw(f"the gradient of {type(layer).__name__} is zero for all parameters")


@checked
def check_intervals(layer: AbstractSSM, u: Inputs) -> None:
    """Intervals of one sample are none, others make a difference, and `step` takes them too."""
    timed: Any = layer
    y, ones = _called(layer, u), jnp.ones(len(u))
    _same(layer, timed(u, dt=ones), y, "the outputs with intervals of one", "those without")
    if np.allclose(timed(u, dt=2 * ones), y):
        raise BrokenLaw(f"{type(layer).__name__} takes intervals, which make no difference")
    dt = 0.5 + jnp.arange(len(u)) % 3

    @eqx.filter_jit
    def stream(layer: Any, u: Any) -> Any:
        def step(carry: Any, given: Any) -> Any:
            return layer.step(carry, given[0], dt=given[1])

        return jax.lax.scan(step, layer.init_state(), (u, dt))[1]

    ours, theirs = stream(layer, jnp.asarray(u)), timed(u, dt=dt)
    _same(layer, ours, theirs, "the outputs of `step` with intervals", "those of the call")


@checked
def check_inverse(layer: AbstractLinearSSM | AbstractBankSSM, u: Inputs) -> None:
    """The system of `to_lti` computes the layer's map, and `from_lti` restores the layer from
    it."""
    lti, y = layer.to_lti(), _called(layer, u)
    _same(layer, _simulated(layer, lti, u), y, "the outputs of its `to_lti`", "those of the call")
    again = layer.from_lti(lti)
    _check_kind(layer, again, "from_lti(to_lti())")
    _same(layer, _called(again, u), y, "the outputs after `from_lti`", "those before")


@checked
def check_truncation(layer: AbstractLinearSSM | AbstractBankSSM, u: Inputs) -> None:
    """`from_lti` of a system with fewer states gives a layer of the same kind and dtype that
    computes it."""
    lti = layer.to_lti()
    for n in sorted({1, max(1, layer.d_state // 2)}):
        first = partial(_first_of_system, n=n)
        fewer = jax.vmap(first)(lti) if is_bank(layer) else first(lti)
        small = layer.from_lti(fewer)
        _check_kind(layer, small, f"from_lti of {n} states")
        if small.d_state != n:
            raise BrokenLaw(
                f"{type(layer).__name__}.from_lti of {n} states has d_state={small.d_state}"
            )
        y = _simulated(layer, fewer, u)
        _same(layer, _called(small, u), y, "a truncated layer", "its system")


def _first_of_system(lti: DiagonalLTI, n: int) -> DiagonalLTI:
    return DiagonalLTI(lti.log_lam[:n], lti.B[:n], lti.C[:, :n], lti.D)


def _simulated(layer: AbstractSSM, lti: DiagonalLTI, u: Any) -> Any:
    """The outputs of the layer's system, or of its systems, one for each channel."""
    if not is_bank(layer):
        return lti.simulate(u)
    return jax.vmap(lambda each, u: each.simulate(u[:, None])[:, 0], (0, 1), 1)(lti, u)


def _check_kind(layer: AbstractSSM, made: AbstractSSM, how: str) -> None:
    """Raise unless both have one class, one structure and the same dtypes."""
    name = type(layer).__name__
    if type(made) is not type(layer) or jax.tree.structure(made) != jax.tree.structure(layer):
        raise BrokenLaw(f"{name}.{how} is not a layer of the same structure")
    for ours, theirs in zip(*map(jax.tree.leaves, (made, layer)), strict=True):
        if ours.dtype != theirs.dtype:
            raise BrokenLaw(f"{name}.{how} has {ours.dtype} where the layer has {theirs.dtype}")


@eqx.filter_jit
def _called(layer: AbstractSSM, u: Any) -> Any:
    return layer(jnp.asarray(u))


@eqx.filter_jit
def _run(layer: AbstractSSM, carry: Any, u: Any, length: Any = None) -> Any:
    return layer.run(carry, jnp.asarray(u), length)


def _same(layer: AbstractSSM, ours: Any, theirs: Any, what: str, other: str) -> None:
    """Raise unless two trees of arrays are the same up to `TOLERANCE`."""
    name = type(layer).__name__
    if jax.tree.structure(ours) != jax.tree.structure(theirs):
        raise BrokenLaw(f"{what} of {name} have another structure than {other}")
    for x, y in zip(*map(jax.tree.leaves, (ours, theirs)), strict=True):
        if (x.shape, x.dtype) != (y.shape, y.dtype):
            raise BrokenLaw(
                f"{what} of {name}: {x.dtype}{list(x.shape)}, {other}: {y.dtype}{list(y.shape)}"
            )
        scale = max(float(np.max(np.abs(y), initial=0)), 1e-6)
        apart = float(np.max(np.abs(np.asarray(x) - np.asarray(y)), initial=0)) / scale
        if not apart <= TOLERANCE:
            raise BrokenLaw(
                f"{what} of {name} and {other} must agree within {TOLERANCE:.0e} of the largest, "
                f"got {apart:.1e}"
            )
