"""A layer over several devices along the length of its sequences."""

from collections.abc import Iterator
from math import prod
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Array, Float

from ..layers.base import AbstractSSM
from ..recurrence.pieces import in_pieces
from ..typing import InputArray, checked


class ShardedAlongLength(eqx.Module):
    """`layer` with a piece of the sequence on each device along an axis of a mesh.

    Devices exchange what is carried from piece to piece, once: see `received_bytes`. Numbers and
    gradients are those of the layer on one device, up to rounding.
    """

    layer: AbstractSSM
    mesh: Mesh = eqx.field(static=True)
    axis: str = eqx.field(static=True)

    def __check_init__(self):
        if self.axis not in self.mesh.axis_names:
            names = ", ".join(map(repr, self.mesh.axis_names))
            raise ValueError(f"`axis` must be an axis of the mesh, {names}, got {self.axis!r}")
        if not self.layer.is_causal:
            name = type(self.layer).__name__
            raise ValueError(f"`layer` must be causal to be sharded along the length, got {name}")

    @property
    def devices(self) -> int:
        """Number of pieces."""
        return self.mesh.shape[self.axis]

    @checked
    def __call__(self, u: Float[InputArray, "length d_model"]) -> Float[Array, "length d_model"]:
        """The outputs from a zero state, sharded as `u` is taken: along the length.

        ValueError unless `length` is a multiple of the number of devices, and each has as many
        samples as the layer's convolution sees.
        """
        if len(u) % self.devices:
            raise ValueError(
                f"`u` must have a multiple of {self.devices} samples, one piece for each device, "
                f"got {len(u)}"
            )
        arrays, static = eqx.partition(self.layer, eqx.is_array)

        def piece(arrays: Any, u: Array) -> Array:
            with in_pieces(self.axis):
                return eqx.combine(arrays, static)(u)

        along = PartitionSpec(self.axis)
        parted = jax.shard_map(
            piece,
            mesh=self.mesh,
            in_specs=(PartitionSpec(), along),
            out_specs=along,
            check_vma=False,
        )
        return parted(arrays, u)

    @checked
    def received_bytes(self, length: int) -> int:
        """Bytes that each device receives for one sequence of `length` samples, forward."""
        u = jax.ShapeDtypeStruct((length, self.layer.d_model), jnp.result_type(float))
        traced = eqx.filter_make_jaxpr(lambda layer, u: layer(u))(self, u)[0]
        return sum(_received(each, self.devices) for each in _equations(traced.jaxpr))


@checked
def sharded_along_length(layer: AbstractSSM, mesh: Mesh, axis: str) -> ShardedAlongLength:
    """`layer` as a function of sequences of which each device along `axis` of `mesh` has a piece.

    Each device sends the last state of its piece from a zero state, and the map from the state
    before the piece to the state after it: a decay, or with the delta rule a matrix of keys by
    keys. Layers with a convolution also send the samples in its window. One sequence per call;
    `jax.vmap` for a batch, with `spmd_axis_name` for one that is sharded over another axis of the
    mesh.

    ValueError for an axis that the mesh does not have, and for a layer that is not causal.
    """
    return ShardedAlongLength(layer, mesh, axis)


def _received(equation: Any, devices: int) -> int:
    """Bytes that an equation of a program brings to each device."""
    times = {"all_gather": devices - 1, "ppermute": 1}.get(equation.primitive.name, 0)
    sizes = (prod(x.aval.shape) * x.aval.dtype.itemsize for x in equation.invars) if times else ()
    return times * sum(sizes)


def _equations(program: Any) -> Iterator[Any]:
    """All equations of a program, also those inside others."""
    for equation in program.eqns:
        yield equation
        for inner in jax.tree.leaves(tuple(equation.params.values()), is_leaf=_is_program):
            if _is_program(inner):
                yield from _equations(getattr(inner, "jaxpr", inner))


def _is_program(node: Any) -> bool:
    return hasattr(node, "eqns")
