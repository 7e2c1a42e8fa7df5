"""What all state-space layers of the zoo have in common."""

import abc
from typing import Any, ClassVar

import equinox as eqx
from jaxtyping import Array, Float

from .lti import DiagonalLTI


class AbstractSSM(eqx.Module):
    """A state-space layer: a causal map from a sequence to a sequence, carried by a hidden state.

    Every layer runs in two ways that give the same numbers: `layer(u)` for a whole sequence, and
    `step` for one sample at a time. `to_lti` says which linear system the layer is, `from_lti`
    builds the same kind of layer from another one, of any number of states. Layers are immutable
    and work on one sequence; use `jax.vmap` for a batch.
    """

    dynamics: ClassVar[tuple[str, ...]]
    """The fields that set eigenvalues and input: they learn at a rate of their own."""

    @property
    @abc.abstractmethod
    def d_model(self) -> int:
        """Number of channels H of the input and of the output."""

    @property
    @abc.abstractmethod
    def d_state(self) -> int:
        """Number of stored (complex) states N: what compression shrinks."""

    @abc.abstractmethod
    def __call__(self, u: Float[Array, "L d_model"]) -> Float[Array, "L d_model"]:
        """The output sequence, from a zero state."""

    @abc.abstractmethod
    def init_state(self) -> Any:
        """The carry that `step` starts from: a zero state."""

    @abc.abstractmethod
    def step(
        self, carry: Any, u_t: Float[Array, " d_model"]
    ) -> tuple[Any, Float[Array, " d_model"]]:
        """One sample: the next carry and the output. Row by row equal to `layer(u)`."""

    @abc.abstractmethod
    def to_lti(self) -> DiagonalLTI:
        """The linear system that this layer is."""

    @abc.abstractmethod
    def from_lti(self, lti: DiagonalLTI) -> "AbstractSSM":
        """A layer of this kind, with this one's settings and dtype, that computes `lti`.

        Inverse of `to_lti` up to rounding. Differentiable in `lti`.
        """


def check_fits(lti: DiagonalLTI, layer: AbstractSSM) -> None:
    """Raise a ValueError unless `lti` has the width and the feed-through of `layer`."""
    H = layer.d_model
    if lti.B.shape[1] != H or lti.C.shape[0] != H:
        raise ValueError(
            f"lti has {lti.B.shape[1]} inputs and {lti.C.shape[0]} outputs, "
            f"allowed for this {type(layer).__name__}: {H} of each (its d_model)"
        )
    if lti.D.ndim != 1:
        raise ValueError(
            f"lti.D has shape {lti.D.shape}, allowed for a {type(layer).__name__}: a vector {(H,)}"
        )
    if lti.d_state < 1:
        raise ValueError(f"lti has {lti.d_state} states, allowed: 1 or more")
