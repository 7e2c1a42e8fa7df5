"""What all state-space layers of the zoo have in common."""

import abc
import inspect
from dataclasses import fields
from functools import lru_cache
from typing import Any, ClassVar, TypeGuard

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from ..lti import DiagonalLTI
from ..typing import ArgumentError, Count, InputArray, checked


class AbstractSSM(eqx.Module):
    """A state-space layer: a causal map from a sequence to a sequence, carried by a hidden state.

    Every layer runs in ways that give the same numbers: `layer(u)` for a whole sequence, `run` for
    a piece of one, and `step` for one sample at a time. Layers are immutable and work on one
    sequence; use `jax.vmap` for a batch. The layers of the zoo accept a `key`, which
    `eqx.nn.Sequential` passes to all its parts, and ignore it. A layer is either linear and
    time-invariant (`AbstractLinearSSM`) or selective (`AbstractSelectiveSSM`).
    """

    dynamics: ClassVar[tuple[str, ...]]
    """The fields that set eigenvalues and input: they learn at a rate of their own."""
    matrices: ClassVar[tuple[str, ...]] = ()
    """The fields that are matrices into the states and out of them, by rows: those that
    `zoo.quantize` rounds, besides linear maps."""
    is_mixer: ClassVar[bool] = False
    """Whether it gates and mixes channels by itself. A residual block then holds nothing else."""
    takes_intervals: ClassVar[bool] = False
    """Whether its call takes `dt`, the intervals before each sample, and its step the one before
    that sample."""
    is_causal: ClassVar[bool] = True
    """Whether outputs depend on the past alone. If not, the layer cannot stream, and its call takes
    `length`, the number of samples of a padded sequence."""

    def __new__(cls, *args: Any, **kwargs: Any):
        if args or kwargs:  # copies and pickles are made without
            check_fields(cls, args, kwargs)
        return eqx.Module.__new__(cls)

    @property
    @abc.abstractmethod
    def d_model(self) -> int:
        """Number of channels H of the input and of the output."""

    @property
    @abc.abstractmethod
    def d_state(self) -> int:
        """Number of stored (complex) states N: what compression shrinks."""

    @abc.abstractmethod
    def __call__(self, u: Float[InputArray, "length d_model"]) -> Float[Array, "length d_model"]:
        """The output sequence, from a zero state."""

    @abc.abstractmethod
    def init_state(self) -> Any:
        """The carry that `step` starts from: a zero state."""

    @abc.abstractmethod
    def step(
        self, carry: Any, u_t: Float[InputArray, " d_model"]
    ) -> tuple[Any, Float[Array, " d_model"]]:
        """One sample: the next carry and the output. Row by row equal to `layer(u)`."""

    @abc.abstractmethod
    def run(
        self, carry: Any, u: Float[InputArray, "length d_model"], length: Count | None = None
    ) -> tuple[Any, Float[Array, "length d_model"]]:
        """A piece of a sequence: the next carry and the outputs, as `step` would give them.

        Of a padded piece, `length` is the number of samples, 1 or more: the carry is the state
        after them, and outputs beyond them are undefined.
        """

    @abc.abstractmethod
    def resized(self, n: int) -> "AbstractSSM":
        """A layer of this kind and size with `n` states. Only its shapes are meaningful."""

    @abc.abstractmethod
    def first_states(self, n: int) -> "AbstractSSM":
        """The layer with its first `n` states. Entries are copied, nothing is computed."""


class AbstractLinearSSM(AbstractSSM):
    """A layer that is a linear time-invariant system.

    `to_lti` returns the system. `from_lti` builds a layer of the same kind from a system with any
    number of states.
    """

    is_modal: ClassVar[bool] = False
    """Whether every field has its states along one axis, and `to_lti` and `from_lti` treat each
    state by itself. `compress` then pads layers with copies of a state, so that one compiled
    program serves many sizes. For other layers it compiles one program for each size."""
    error_factor: ClassVar[int] = 1
    """The gain of the layer's error is at most this factor times the gain of its system's error."""

    @property
    def keeps_forever(self) -> bool:
        """Whether no state decays at all, so that white noise has no Gramian."""
        return False

    @abc.abstractmethod
    def to_lti(self) -> DiagonalLTI:
        """The linear system that this layer is."""

    @abc.abstractmethod
    def from_lti(self, lti: DiagonalLTI) -> "AbstractLinearSSM":
        """A layer of this kind, with this one's settings and dtype, that computes `lti`.

        Inverse of `to_lti` up to rounding. Differentiable in `lti`.
        """

    @checked
    def resized(self, n: int) -> "AbstractLinearSSM":
        H = self.d_model
        outputs = H if self.is_causal else 2 * H
        return self.from_lti(
            DiagonalLTI(
                log_lam=jnp.zeros(n, complex),
                B=jnp.zeros((n, H), complex),
                C=jnp.zeros((outputs, n), complex),
                D=jnp.zeros(H if self.is_causal else (outputs, H)),
            )
        )

    @checked
    def first_states(self, n: int) -> "AbstractLinearSSM":
        return _first_entries(self, n)


class AbstractTimedSSM(AbstractLinearSSM):
    """A linear system in continuous time, which can be sampled at irregular times. Without
    intervals it is the time-invariant system of `to_lti`.
    """

    takes_intervals: ClassVar[bool] = True

    @abc.abstractmethod
    def __call__(
        self, u: Float[InputArray, "length d_model"], dt: Float[InputArray, " length"] | None = None
    ) -> Float[Array, "length d_model"]:
        """The output sequence, from a zero state; `dt` are the intervals before each sample, in
        units of a usual one."""


class AbstractBothWaysSSM(AbstractLinearSSM):
    """A linear layer that reads a sequence forwards and backwards with the same states.

    Its system is the forward one, whose outputs are those of the forward half, then those that the
    backward half makes of the reversed sequence. Both are added, and either may leave out the
    contribution of the current input. The gain of an error is at most three times that of the
    system's error.
    """

    is_causal: ClassVar[bool] = False
    error_factor: ClassVar[int] = 3


class AbstractBankSSM(AbstractSSM):
    """A bank of linear time-invariant systems: one of `d_state` states for each channel.

    `to_lti` and `from_lti` are those of `AbstractLinearSSM`, of a `DiagonalLTI` whose arrays have
    the channels as their first axis, each with one input and one output. Fields that act on states
    have the shape [d_model d_state], and treat each state by itself.
    """

    @abc.abstractmethod
    def to_lti(self) -> DiagonalLTI:
        """The linear systems of this layer, with the channels as the first axis."""

    @abc.abstractmethod
    def from_lti(self, lti: DiagonalLTI) -> "AbstractBankSSM":
        """A layer of this kind, with this one's settings and dtype, that computes `lti`.

        Inverse of `to_lti` up to rounding. Differentiable in `lti`.
        """

    @checked
    def resized(self, n: int) -> "AbstractBankSSM":
        one = DiagonalLTI(
            log_lam=jnp.zeros(n, complex),
            B=jnp.zeros((n, 1), complex),
            C=jnp.zeros((1, n), complex),
            D=jnp.zeros(1),
        )
        H = self.d_model
        return self.from_lti(jax.tree.map(lambda x: jnp.broadcast_to(x, (H, *x.shape)), one))

    @checked
    def first_states(self, n: int) -> "AbstractBankSSM":
        return _first_entries(self, n)


class AbstractSelectiveSSM(AbstractSSM):
    """A layer whose recurrence depends on its input, so that its linear system depends on data.

    Mamba, gated linear attention and the delta rule are of this kind. Each family of such layers
    has an abstract class of its own (such as `AbstractMambaSSM`).
    """

    @abc.abstractmethod
    def run(
        self,
        carry: Any,
        u: Float[InputArray, "length d_model"],
        length: Count | None = None,
        dt: Float[InputArray, " length"] | None = None,
    ) -> tuple[Any, Float[Array, "length d_model"]]:
        """As for every layer; `dt` are the times before each sample, in units of a usual one."""

    @checked
    def __call__(
        self,
        u: Float[InputArray, "length {self.d_model}"],
        length: Count | None = None,
        *,
        dt: Float[InputArray, " length"] | None = None,
        key: PRNGKeyArray | None = None,
    ) -> Float[Array, "length {self.d_model}"]:
        """The output sequence, from a zero state; of a padded one, `length` is its own length.

        `dt` are the intervals before each sample, in units of a usual one.
        """
        return self.run(self.init_state(), u, length, dt)[1]


def _first_entries(layer: Any, n: int) -> Any:
    """The first entries of every array of `layer`, as many as a layer of `n` states has."""
    leaves, structure = jax.tree.flatten(layer)
    shapes = shapes_at(layer, n)
    first = [x[tuple(map(slice, shape))] for x, shape in zip(leaves, shapes, strict=True)]
    return structure.unflatten(first)


@checked
def shapes_at(layer: AbstractSSM, n: int) -> list[tuple[int, ...]]:
    """The shapes of the leaves of `layer` with `n` states.

    `resized` is traced once for each `n`; for modal layers once for all, since an axis that grows
    with one state more is an axis of states.
    """
    leaves, structure = jax.tree.flatten(layer)
    kinds = tuple(jax.ShapeDtypeStruct(x.shape, x.dtype) for x in leaves)
    if not (isinstance(layer, AbstractLinearSSM) and layer.is_modal):
        return _shapes_at(structure, kinds, n)
    larger = _shapes_at(structure, kinds, layer.d_state + 1)
    return [
        tuple(size if size == more else n for size, more in zip(kind.shape, shape, strict=True))
        for kind, shape in zip(kinds, larger, strict=True)
    ]


@lru_cache(maxsize=1024)
def _shapes_at(
    structure: Any, kinds: tuple[jax.ShapeDtypeStruct, ...], n: int
) -> list[tuple[int, ...]]:
    layer = eqx.filter_eval_shape(lambda layer: layer.resized(n), structure.unflatten(kinds))
    return [x.shape for x in jax.tree.leaves(layer)]


@checked
def check_fields(layer: type[AbstractSSM], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Raise an `ArgumentError` where fields are missing, as in LRU(4, 64) for LRU.init(4, 64)."""
    init = getattr(layer, "init", None)
    if init is None:
        return
    try:
        inspect.signature(layer.__init__).bind(None, *args, **kwargs)
    except TypeError:
        values = [repr(x) for x in args if isinstance(x, int | float | str)]
        needed = [p for p in inspect.signature(init).parameters.values() if p.default is p.empty]
        names = [f"{p.name}={p.name}" if p.kind is p.KEYWORD_ONLY else p.name for p in needed]
        shown = ", ".join([*values, *names[len(values) :]])
        raise ArgumentError(
            f"{layer.__name__}(...) takes all {len(fields(layer))} fields of a layer: use "
            f"{layer.__name__}.init({shown}) to make a new one"
        ) from None


@checked
def check_fits(lti: DiagonalLTI, layer: AbstractSSM) -> None:
    """Raise a ValueError unless `lti` has the width and the feed-through of `layer`."""
    H = layer.d_model
    if lti.B.shape[1] != H or lti.C.shape[0] != H:
        raise ValueError(
            f"`lti` must have {H} inputs and outputs (d_model) for this {type(layer).__name__}, "
            f"got {lti.B.shape[1]} and {lti.C.shape[0]}"
        )
    if lti.D.ndim != 1:
        raise ValueError(
            f"`lti.D` must be a vector {(H,)} for a {type(layer).__name__}, got {lti.D.shape}"
        )
    if lti.d_state < 1:
        raise ValueError(f"`lti` must have 1 state or more, got {lti.d_state}")


@checked
def check_bank_fits(lti: DiagonalLTI, layer: AbstractSSM) -> None:
    """Raise a ValueError unless `lti` is a bank for all channels of `layer`."""
    H, n = layer.d_model, lti.log_lam.shape[-1]
    shapes = tuple(x.shape for x in (lti.log_lam, lti.B, lti.C, lti.D))
    wanted = ((H, n), (H, n, 1), (H, 1, n), (H, 1))
    if shapes != wanted or n < 1:
        raise ValueError(
            f"`lti` must have arrays of shapes {', '.join(map(str, wanted))}, and 1 state or more, "
            f"for this {type(layer).__name__}, got {', '.join(map(str, shapes))}"
        )


@checked
def is_bank(layer: AbstractSSM) -> TypeGuard[AbstractBankSSM]:
    """Whether `layer` has one system for each channel."""
    return isinstance(layer, AbstractBankSSM)


@checked
def is_linear(layer: AbstractSSM) -> TypeGuard[AbstractLinearSSM]:
    """Whether `layer` is linear and time-invariant, with `to_lti`."""
    return isinstance(layer, AbstractLinearSSM)


@checked
def as_linear(layer: AbstractSSM) -> AbstractLinearSSM:
    """`layer` itself if it is one linear time-invariant system; otherwise a ValueError."""
    if is_bank(layer):
        raise ValueError(
            f"`layer` must be an AbstractLinearSSM, one linear system, got a "
            f"{type(layer).__name__}, which has one for each channel"
        )
    if not isinstance(layer, AbstractLinearSSM):
        raise ValueError(
            f"`layer` must be an AbstractLinearSSM, a linear system by itself, got a "
            f"{type(layer).__name__}, which follows its input"
        )
    return layer


MIN_DECAY = 1e-7
"""Smallest decay -log|lam| per sample that `from_lti` writes: a time constant of 1e7 samples.

Eigenvalues that rounding has moved onto the unit circle, or outside it, are moved back inside to
this decay.
"""
