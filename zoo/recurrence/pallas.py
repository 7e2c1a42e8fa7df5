"""The diagonal recurrence as one GPU kernel: each thread goes through the samples with its state in
registers. A loop of XLA starts several kernels for each sample, and starting them takes longer than
their work. One kernel reads the inputs once and writes the states once, the least possible memory
traffic.
"""

import functools
from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax.custom_batching import custom_vmap
from jax.experimental.custom_partitioning import custom_partitioning
from jax.sharding import NamedSharding, PartitionSpec
from jaxtyping import Array, Float

from ..typing import InputArray, checked
from .plain import kernels_allowed

BLOCK = 32
"""States per program: one for each thread of a warp, so that reads are whole cache lines."""

AHEAD = 16
"""Samples that are prefetched, to hide the latency of memory."""

Kept = Literal["after", "before"]
"""The stored state for sample k: x = a_k x + b_k after it, or the state before it."""

Order = Kept | Literal["adjoint"]
"""Or, of the adjoint recurrence, g = b_k + x, from which x = a_k g goes on."""


@functools.cache
def _triton() -> Any:
    """Pallas for Triton, or None in a JAX without it (JAX 0.11 announces its removal). It is loaded
    when the first recurrence is traced, not when the package is imported.
    """
    try:
        from jax.experimental.pallas import triton
    except ImportError:
        return None
    return triton


@checked
def with_kernel(
    otherwise: Callable[..., Any],
    *arrays: Array,
    cuda: Callable[..., Any] | None = None,
    cpu: Callable[..., Any] | None = None,
) -> Any:
    """`cuda(*arrays)` in programs for an NVIDIA GPU, `cpu(*arrays)` in programs for a CPU, if these
    kernels exist, otherwise `otherwise(*arrays)`.

    The kernels of GPUs are written for Pallas on Triton; a JAX without it uses `otherwise` there.
    Kernels cannot be differentiated; derivatives are those of `otherwise`.
    """
    if not kernels_allowed():
        return otherwise(*arrays)
    kernels = {"cuda": cuda if cuda is None or _triton() else None, "cpu": cpu}
    differentiable = {}
    for platform, kernel in kernels.items():
        if kernel is not None:
            differentiable[platform] = jax.custom_jvp(kernel)
            differentiable[platform].defjvp(lambda x, dx: jax.jvp(otherwise, x, dx))
    return jax.lax.platform_dependent(*arrays, default=otherwise, **differentiable)


@checked
def recurrence_on_gpu(
    a: Float[InputArray, "#batch #length parts d_state"],
    b: Float[InputArray, "batch length parts d_state"],
    x: Float[InputArray, "batch parts d_state"],
    order: Order,
    reverse: bool,
    interpret: bool = False,
) -> tuple[Float[Array, "batch length parts d_state"], Float[Array, "batch parts d_state"]]:
    """The states of all samples as `order` says, and the state after the last sample.

    Complex numbers are P = 2 real ones, real and imaginary part. `reverse` goes from the last
    sample to the first. `interpret` runs on any platform, slowly: for tests. Each of several
    devices takes its own sequences, or its own states.
    """
    one = partial(_on_one_device, order=order, reverse=reverse, interpret=interpret)
    if jax.device_count() == 1:
        return one(a, b, x)
    several = custom_vmap(lambda a, b, x: _on_each_device(a, b, x, order, reverse, interpret))

    @several.def_vmap
    def of_several_models(size, mapped, *arrays):  # which JAX cannot partition
        axes = [0 if is_mapped else None for is_mapped in mapped]
        return jax.vmap(one, in_axes=axes)(*arrays), (True, True)

    return several(a, b, x)


def _on_one_device(a, b, x, order: Order, reverse: bool, interpret: bool):
    from jax.experimental import pallas as pl

    batch, L, P, n = b.shape
    kernel: Callable[..., None] = partial(_kernel, order=order, reverse=reverse, n=n)
    per_sequence = pl.BlockSpec((None, L, P, BLOCK), lambda i, j: (i, 0, 0, j))
    at_the_ends = pl.BlockSpec((None, P, BLOCK), lambda i, j: (i, 0, j))
    shared = a.shape[0] == 1
    coefficients = pl.BlockSpec(
        (None, a.shape[1], P, BLOCK), lambda i, j: (0 if shared else i, 0, 0, j)
    )
    states, last = pl.pallas_call(
        kernel,
        grid=(batch, pl.cdiv(n, BLOCK)),
        in_specs=[coefficients, per_sequence, at_the_ends],
        out_specs=[per_sequence, at_the_ends],
        out_shape=[jax.ShapeDtypeStruct(b.shape, b.dtype), jax.ShapeDtypeStruct(x.shape, x.dtype)],
        compiler_params=_triton().CompilerParams(num_warps=1, num_stages=1),
        interpret=interpret,
        name=f"recurrence_{order}",
    )(a, b, x)
    return states, last


_on_each_device = custom_partitioning(_on_one_device, static_argnums=(3, 4, 5))


def _rule(order, reverse, interpret, mesh, arguments, results):
    """Which axes are the same, for XLA; all but b and n are whole on every device."""
    batch, L = arguments[0].shape[:2]
    of_a = f"{'one' if batch == 1 else 'b'} {'once' if L == 1 else 'L'} P n"
    axes = dict.fromkeys((*of_a.split(), "L"))  # in the order in which they are named
    whole = tuple(axis for axis in axes if axis not in ("b", "n"))
    return f"{of_a}, b L P n, b P n -> b L P n, b P n", {"need_replication_factors": whole}


def _part(order, reverse, interpret, mesh, arguments, results):
    """The computation of one device, and its shards of all arrays, sharded along b and n as `b`."""
    a, b, _ = arguments
    by_b, _, _, by_n = (*b.sharding.spec, *[None] * 4)[:4]
    one = a.shape[0] == 1
    specs = [
        (None if one else by_b, None, None, by_n),
        (by_b, None, None, by_n),
        (by_b, None, by_n),
    ]
    placed = tuple(NamedSharding(mesh, PartitionSpec(*spec)) for spec in specs)

    def part(a, b, x):
        return _on_one_device(a, b, x, order, reverse, interpret)

    return mesh, part, placed[1:], placed


_on_each_device.def_partition(partition=_part, sharding_rule=_rule)


def _kernel(a_ref, b_ref, x_ref, states_ref, last_ref, *, order: Order, reverse: bool, n: int):
    from jax.experimental import pallas as pl

    L, P, _ = b_ref.shape
    index = jnp.result_type(int)  # that of loops
    inside = pl.program_id(1) * BLOCK + jnp.arange(BLOCK) < n

    def parts(ref: Any, *where: Any) -> list[Any]:
        places = [(*where, part) for part in range(P)]
        return [ref.at[tuple(jnp.asarray(k, index) for k in place)] for place in places]

    def read(ref: Any, *where: Any) -> tuple[Any, ...]:
        return tuple(_triton().load(part, mask=inside, other=0.0) for part in parts(ref, *where))

    def write(ref: Any, value: Any, *where: Any) -> None:
        for part, each in zip(parts(ref, *where), value, strict=True):
            _triton().store(part, each, mask=inside)

    constant = read(a_ref, 0) if a_ref.shape[0] == 1 else None

    def samples(first: Any, count: int, x: Any) -> Any:
        """The state after `count` samples, of which `first` have gone before."""
        places = [L - 1 - (first + k) if reverse else first + k for k in range(count)]
        ready = [(constant or read(a_ref, k), read(b_ref, k)) for k in places]
        for k, (a, b) in zip(places, ready, strict=True):
            if order == "before":
                write(states_ref, x, k)
            x = _plus(x, b) if order == "adjoint" else _plus(_times(a, x), b)
            if order != "before":
                write(states_ref, x, k)
            if order == "adjoint":
                x = _times(a, x)
        return x

    x = read(x_ref)
    x = jax.lax.fori_loop(0, L // AHEAD, lambda i, x: samples(i * AHEAD, AHEAD, x), x)
    write(last_ref, samples(L - L % AHEAD, L % AHEAD, x))


def _plus(x, y):
    return tuple(a + b for a, b in zip(x, y, strict=True))


def _times(a, x):
    if len(a) == 1:
        return (a[0] * x[0],)
    return a[0] * x[0] - a[1] * x[1], a[0] * x[1] + a[1] * x[0]
