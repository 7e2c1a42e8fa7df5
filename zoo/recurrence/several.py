"""Kernels on several devices: XLA cannot take them apart, so it is told how.

A kernel treats each sequence of its batch by itself. Of a batch that is sharded, every device has
its own sequences, and gradients of parameters are added up over the devices. Inside
`jax.shard_map` a kernel sees one device's part alone, and there is nothing to tell.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax.custom_batching import custom_vmap
from jax.experimental.custom_partitioning import custom_partitioning
from jax.sharding import NamedSharding, PartitionSpec
from jaxtyping import Array

from ..typing import checked


@checked
def on_each_device(
    function: Callable[..., Sequence[Any]],
    *arrays: Array,
    shared: int = 0,
    results: int,
    summed: int = 0,
) -> Sequence[Any]:
    """The `results` arrays of `function(*arrays)`, of several devices by each for its sequences.

    All arrays have the batch in front, but the first `shared`, which are parameters, and of the
    results the first `summed`, which are sums over the batch. Models that differ from one to the
    next, under `jax.vmap`, are whole on every device.
    """
    if jax.device_count() == 1:
        return function(*arrays)
    parted = custom_partitioning(lambda *arrays: tuple(function(*arrays)))

    def rule(mesh: Any, arguments: Any, made: Any) -> Any:
        return _rule(
            [len(x.shape) for x in arguments], [len(x.shape) for x in made], shared, summed
        )

    def part(mesh: Any, arguments: Any, made: Any) -> Any:
        axes = arguments[shared].sharding.spec[:1] or (None,)

        def placed(of: Sequence[Any], whole: int) -> tuple[NamedSharding, ...]:
            specs = [PartitionSpec() if i < whole else PartitionSpec(*axes) for i in range(len(of))]
            return tuple(NamedSharding(mesh, spec) for spec in specs)

        def of_one(*arrays: Any) -> tuple[Any, ...]:
            found = tuple(function(*arrays))
            if axes[0] is None:
                return found
            return *(jax.lax.psum(x, axes[0]) for x in found[:summed]), *found[summed:]

        return mesh, of_one, placed(made, summed), placed(arguments, shared)

    parted.def_partition(partition=part, sharding_rule=rule)
    several = custom_vmap(lambda *arrays: parted(*arrays))

    @several.def_vmap
    def of_several_models(size: int, mapped: Any, *arrays: Any) -> Any:
        axes = [0 if is_mapped else None for is_mapped in mapped]
        found = jax.vmap(lambda *arrays: tuple(function(*arrays)), in_axes=axes)(*arrays)
        return found, (True,) * results

    return several(*arrays)


def _rule(arguments: list[int], made: list[int], shared: int, summed: int) -> Any:
    """Which axes are the same, for XLA: the batch; all others are whole on every device."""

    def named(letter: str, ranks: list[int], whole: int) -> list[list[str]]:
        return [
            ["b" if axis == 0 and i >= whole else f"{letter}{i}_{axis}" for axis in range(rank)]
            for i, rank in enumerate(ranks)
        ]

    sides = [named("i", arguments, shared), named("o", made, summed)]
    others = tuple(name for side in sides for each in side for name in each if name != "b")
    text = " -> ".join(", ".join(" ".join(each) for each in side) for side in sides)
    return text, {"need_replication_factors": others}
