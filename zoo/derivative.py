"""Functions with a derivative of their own that serves both directions.

`jax.custom_vjp` gives a function its own backward pass, but removes forward mode: `jax.jvp`,
`jax.jacfwd`, `jax.linearize` and Hessians by forward over reverse all fail. `jax.custom_jvp` leaves
the backward pass to the transpose of the forward one, which stores more than necessary. Here the
derivative is one linear map with its own transpose.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

Forward = Callable[..., tuple[Any, Any]]
Tangent = Callable[[Any, tuple[Any, ...]], Any]
Backward = Callable[[Any, Any], tuple[Any, ...]]


def both_ways(forward: Forward, tangent: Tangent, backward: Backward) -> Callable[..., Any]:
    """A function of arrays, differentiable in forward and in reverse mode.

    `forward(*arrays)` returns the results and the residuals for the derivative, each as any tree of
    arrays. `tangent(kept, tangents)` returns the tangents of the results, from one tangent for each
    array; JAX must be able to differentiate it. `backward(kept, cotangents)` is its transpose: it
    returns one cotangent for each array. As everywhere in JAX, cotangents of complex numbers
    transpose without conjugation. All arrays and results are real or complex.
    """

    @jax.custom_jvp
    def function(*arrays: Any) -> Any:
        return forward(*arrays)[0]

    @function.defjvp
    def rule(arrays: tuple[Any, ...], tangents: tuple[Any, ...]) -> tuple[Any, Any]:
        results, kept = forward(*arrays)
        kept, kept_tree = jax.tree.flatten(kept)
        likes, result_tree = jax.tree.flatten(results)

        def apply(kept: Sequence[Any], tangents: Sequence[Any]) -> list[Any]:
            return jax.tree.leaves(tangent(jax.tree.unflatten(kept_tree, kept), tuple(tangents)))

        def transpose(kept: Sequence[Any], cotangents: Sequence[Any]) -> Sequence[Any]:
            cotangents = jax.tree.unflatten(result_tree, cotangents)
            return backward(jax.tree.unflatten(kept_tree, kept), cotangents)

        avals = tuple(jax.typeof(like).to_tangent_aval() for like in likes)
        sizes = {"count": len(kept), "avals": avals}
        slopes = _linear.bind(*kept, *tangents, apply=apply, transpose=transpose, **sizes)
        return results, jax.tree.unflatten(result_tree, slopes)

    return function


def knows_devices(primitive: Primitive) -> None:
    """Have JAX know which devices it lowers `primitive` for, as the kernels in it ask.

    It looks for what asks that in programs as they are traced, and what a primitive of ours does is
    traced only when it is lowered.
    """
    from jax._src import dispatch

    dispatch.prim_requires_devices_during_lowering.add(primitive)


_linear = Primitive("both_ways")
"""A map of arrays that is linear in all but the first `count`, which it keeps."""
_linear.multiple_results = True
knows_devices(_linear)


def _apply(*arrays, count, avals, apply, transpose):
    return apply(list(arrays[:count]), list(arrays[count:]))


def _transpose(cotangents, *arrays, count, avals, apply, transpose):
    cotangents = [ad.instantiate_zeros(each) for each in cotangents]
    found = transpose(list(arrays[:count]), cotangents)
    wanted = [ad.is_undefined_primal(each) for each in arrays[count:]]
    pairs = zip(found, wanted, strict=True)
    return [None] * count + [each if is_wanted else None for each, is_wanted in pairs]


def _derivative(arrays, tangents, *, count, avals, apply, transpose):
    tangents = [ad.instantiate_zeros(each) for each in tangents]

    def function(*arrays):
        return _apply(*arrays, count=count, avals=avals, apply=apply, transpose=transpose)

    return jax.jvp(function, tuple(arrays), tuple(tangents))


def _batch(arrays, axes, *, count, avals, apply, transpose):
    size = next(a.shape[i] for a, i in zip(arrays, axes, strict=True) if i is not None)
    kept_axes = list(axes[:count])
    tangents = [
        jnp.broadcast_to(each, (size, *each.shape)) if axis is None else jnp.moveaxis(each, axis, 0)
        for each, axis in zip(arrays[count:], axes[count:], strict=True)
    ]
    results = _linear.bind(
        *(*arrays[:count], *tangents),
        count=count,
        avals=tuple(aval.update(shape=(size, *aval.shape)) for aval in avals),
        apply=jax.vmap(apply, in_axes=(kept_axes, 0), axis_size=size),
        transpose=jax.vmap(transpose, in_axes=(kept_axes, 0), axis_size=size),
    )
    return results, [0] * len(results)


_linear.def_impl(_apply)
_linear.def_abstract_eval(lambda *_, avals, **__: list(avals))
ad.primitive_transposes[_linear] = _transpose
ad.primitive_jvps[_linear] = _derivative
batching.primitive_batchers[_linear] = _batch
mlir.register_lowering(_linear, mlir.lower_fun(_apply, multiple_results=True))
