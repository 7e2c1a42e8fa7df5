"""Functions of one sequence that process the whole batch at once under `jax.vmap`."""

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.core import ShapedArray
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir
from jax.sharding import AxisType

from ..derivative import knows_devices


def whole_batch(function: Callable[..., Sequence[Any]], shared: int) -> Callable:
    """`function(*shared_arrays, *batch_arrays, **static)`, such that `jax.vmap` widens the batch.

    The first `shared` arguments are parameters; the others, and all results, have a leading batch
    axis. Under `jax.vmap`, arguments that differ from one member to the next are not given a new
    axis: they join the batch axis, and `function` is traced when all have joined, as it is compiled
    or differentiated. So it can choose its algorithm by the true size of the batch, and its
    derivative rule sums over the batch by itself. A vmap over parameters is applied as usual.
    """
    primitive = Primitive(function.__name__)
    primitive.multiple_results = True
    knows_devices(primitive)
    parameters = inspect.signature(function).parameters.values()
    names = [p.name for p in parameters if p.kind is p.KEYWORD_ONLY]
    compiled = jax.jit(function, static_argnames=names)

    def batch_rule(arguments, axes, **static):
        if any(axis is not None for axis in axes[:shared]):
            mapped = jax.vmap(lambda *a: function(*a, **static), in_axes=tuple(axes))
            results = mapped(*arguments)
            return results, [0] * len(results)
        size = next(a.shape[i] for a, i in zip(arguments, axes, strict=True) if i is not None)
        joined, each = [], 1
        for x, axis in zip(arguments[shared:], axes[shared:], strict=True):
            if axis is None:
                x, axis = jnp.broadcast_to(x, (size, *x.shape)), 0
            x = jnp.moveaxis(x, axis, 0)
            each = x.shape[1]
            joined.append(x.reshape(size * each, *x.shape[2:]))
        results = primitive.bind(*arguments[:shared], *joined, **static)
        parts = [x.reshape(size, each, *x.shape[1:]) for x in results]
        return parts, [0] * len(results)

    def jvp_rule(primals, tangents, **static):
        tangents = [ad.instantiate_zeros(t) for t in tangents]
        return jax.jvp(lambda *a: function(*a, **static), tuple(primals), tuple(tangents))

    def shapes(*avals, **static):
        _check_axes(avals)
        results = jax.eval_shape(lambda *a: function(*a, **static), *avals)
        return [ShapedArray(x.shape, x.dtype) for x in results]

    primitive.def_impl(compiled)
    primitive.def_abstract_eval(shapes)
    batching.primitive_batchers[primitive] = batch_rule
    ad.primitive_jvps[primitive] = jvp_rule
    mlir.register_lowering(primitive, mlir.lower_fun(function, multiple_results=True))
    return primitive.bind


def _check_axes(avals: Sequence[Any]) -> None:
    """A ValueError for arrays that are sharded over mesh axes of type Explicit."""
    for aval in avals:
        mesh, used = aval.sharding.mesh, jax.tree.leaves(tuple(aval.sharding.spec))
        types = dict(zip(mesh.axis_names, mesh.axis_types, strict=True))
        if explicit := [axis for axis in used if types.get(axis) == AxisType.Explicit]:
            raise ValueError(
                f"an array [{', '.join(map(str, aval.shape))}] must be sharded over mesh axes of "
                "type Auto, as in jax.make_mesh(..., axis_types=(AxisType.Auto,)), got the "
                f"explicit axis {explicit[0]!r}"
            )
