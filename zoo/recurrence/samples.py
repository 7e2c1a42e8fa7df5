"""Access to samples of sequences inside loops: read one, write one, chunks with time as the first
axis."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Inexact, Int

from ..typing import Count, checked


@checked
def sample_at(x: Inexact[Array, "..."], k: Count, axis: int = 0) -> Inexact[Array, "..."]:
    """Sample `k`, 0 <= k, along `axis`, without the checks that indexing compiles to."""
    return jax.lax.dynamic_index_in_dim(x, k, axis, keepdims=False, allow_negative_indices=False)


@checked
def with_sample(
    x: Inexact[Array, "..."],
    x_k: Inexact[Array, "..."],
    k: Count,
    axis: int = 0,
) -> Inexact[Array, "..."]:
    """`x` with sample `k`, 0 <= k, along `axis` replaced by `x_k`; in place in a loop."""
    return jax.lax.dynamic_update_index_in_dim(x, x_k, k, axis, allow_negative_indices=False)


@checked
def with_sample_read_back(
    x: Inexact[Array, "..."], x_k: Inexact[Array, "..."], k: Int[Array, ""], axis: int = 0
) -> tuple[Inexact[Array, "..."], Inexact[Array, "..."]]:
    """`x_k`, which was computed from sample `k` of `x`, and `x` with `x_k` in that place. `x_k` is
    read back from `x`, so that its other uses come after the writing. If `x_k` was recomputed for
    each use, XLA could not see that the old sample is read before it is overwritten, and would copy
    all of `x` in every step of a loop.
    """
    x = with_sample(x, x_k, k, axis)
    return sample_at(x, k, axis), x


@checked
def joined(
    pieces: Sequence[Inexact[Array, "batch _ channels"]],
) -> Inexact[Array, "batch length channels"]:
    """Pieces of sequences, one after the other."""
    return pieces[0] if len(pieces) == 1 else jnp.concatenate(pieces, axis=1)


@checked
def time_leading(
    u: Inexact[Array, "batch length channels"], K: int
) -> Inexact[Array, "chunks chunk batch channels"]:
    """`K` chunks of equal length, for loops over the chunks and over the samples of each."""
    b, L, m = u.shape
    return u.reshape(b, K, L // K, m).transpose(1, 2, 0, 3)


@checked
def batch_leading(
    y: Inexact[Array, "chunks chunk batch channels"],
) -> Inexact[Array, "batch length channels"]:
    """The inverse of `time_leading`."""
    K, T, b, p = y.shape
    return y.transpose(2, 0, 1, 3).reshape(b, K * T, p)


@checked
def split_axis(a: Inexact[Array, "..."], axis: int, count: int) -> Inexact[Array, "..."]:
    """The `count` equal parts of an axis, as a leading axis."""
    axis %= a.ndim
    return jnp.moveaxis(a.reshape(*a.shape[:axis], count, -1, *a.shape[axis + 1 :]), axis, 0)


@checked
def join_axes(a: Inexact[Array, "..."], axis: int) -> Inexact[Array, "..."]:
    """The inverse of `split_axis`."""
    axis %= a.ndim - 1
    a = jnp.moveaxis(a, 0, axis)
    return a.reshape(*a.shape[:axis], -1, *a.shape[axis + 2 :])
