"""S5 that reads both ways with one set of states, as the bidirectional layer of the public S5."""

from dataclasses import fields
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from ..lti import DiagonalLTI
from ..typing import Count, InputArray, checked
from .base import AbstractBothWaysSSM
from .both_ways import cannot_stream, read_both_ways
from .discretize import Discretization
from .s5 import S5

_refuse = cannot_stream("S5BothWays", "`one_way`, its forward half")


class S5BothWays(AbstractBothWaysSSM):
    """One Lambda, B and step sizes read a sequence forwards and backwards, each with its own C.

        x_k = lam x_{k-1} + gain * (B u_k),   z_k = lam z_{k+1} + gain * (B u_k)
        y_k = 2 Re(C_1 x_k + C_2 z_k) + D u_k

    This is the bidirectional layer of the public S5 code. Both states hold the current input, which
    so counts twice; without `current_twice` what it has put into z_k is left out.
    `zoo.Bidirectional` has two layers instead, which share nothing.

    `to_lti` is the forward system with the outputs of both halves, 2 H of them, which `compress`
    reduces: the states of both directions are the same ones.
    """

    is_modal: ClassVar[bool] = True
    dynamics: ClassVar[tuple[str, ...]] = S5.dynamics
    matrices: ClassVar[tuple[str, ...]] = ("B_re", "B_im", "C_re", "C_im")
    takes_intervals: ClassVar[bool] = True

    Lambda_re_log: Float[Array, " d_state"]
    Lambda_im: Float[Array, " d_state"]
    B_re: Float[Array, "d_state d_model"]
    B_im: Float[Array, "d_state d_model"]
    C_re: Float[Array, "outputs d_state"]
    """The rows of both C, those of the forward half first."""
    C_im: Float[Array, "outputs d_state"]
    D: Float[Array, " d_model"]
    log_step: Float[Array, " d_state"]
    discretization: Discretization = eqx.field(static=True)
    conjugate_pairs: bool = eqx.field(static=True)
    clip_eigenvalues: bool = eqx.field(static=True)
    step_rescale: float = eqx.field(static=True)
    current_twice: bool = eqx.field(static=True, default=True)

    @classmethod
    @checked
    def from_halves(cls, forward: S5, backward: S5, *, current_twice: bool = True) -> "S5BothWays":
        """The layer with the C of both; all else is that of `forward`."""
        both = {name: getattr(forward, name) for name in FIELDS}
        for name in ("C_re", "C_im"):
            both[name] = jnp.concatenate([getattr(forward, name), getattr(backward, name)])
        return cls(**both, current_twice=current_twice)

    @property
    def d_model(self) -> int:
        return self.D.shape[0]

    @property
    def d_state(self) -> int:
        return self.Lambda_im.shape[0]

    @property
    def one_way(self) -> S5:
        """The forward half, a layer of its own."""
        return self._half(slice(None, self.d_model), self.D)

    @property
    def _other_way(self) -> S5:
        return self._half(slice(self.d_model, None), jnp.zeros_like(self.D))

    def _half(self, rows: slice, D: Float[Array, " d_model"]) -> S5:
        own: dict[str, Any] = {"C_re": self.C_re[rows], "C_im": self.C_im[rows], "D": D}
        return S5(**{name: getattr(self, name) for name in FIELDS} | own)

    @checked
    def __call__(
        self,
        u: Float[InputArray, "length {self.d_model}"],
        dt: Float[InputArray, " length"] | None = None,
        *,
        length: Count | None = None,
        key: PRNGKeyArray | None = None,
    ) -> Float[Array, "length {self.d_model}"]:
        """The output sequence; `dt` and `length` are as for `zoo.Bidirectional`."""
        return read_both_ways(self.one_way, self._backwards, u, dt, length)

    def _backwards(self, u, dt=None):
        half = self._other_way
        if self.current_twice:
            return half(u, dt=dt)
        if dt is None:
            lti = half.to_lti()
            return half(u) - u @ jnp.real(lti.C @ lti.B).T
        _, now = jax.vmap(half.sampled)(u, dt)
        return half(u, dt=dt) - jnp.real(now @ half.to_lti().C.T)

    init_state = _refuse
    step = _refuse
    run = _refuse

    @checked
    def to_lti(self) -> DiagonalLTI:
        forward, backward = self.one_way.to_lti(), self._other_way.to_lti()
        D = jnp.concatenate([jnp.diag(forward.D), jnp.diag(backward.D)])
        if not self.current_twice:
            D = D.at[self.d_model :].add(-jnp.real(backward.C @ backward.B))
        C = jnp.concatenate([jnp.asarray(forward.C), jnp.asarray(backward.C)])
        return DiagonalLTI(forward.log_lam, forward.B, C, D)

    @checked
    def from_lti(self, lti: DiagonalLTI) -> "S5BothWays":
        """As `S5.from_lti`, with the outputs of both halves; of D the diagonal of the first."""
        H = self.d_model
        if lti.B.shape[1] != H or lti.C.shape[0] != 2 * H:
            raise ValueError(
                f"`lti` must have {H} inputs and {2 * H} outputs for this S5BothWays, got "
                f"{lti.B.shape[1]} and {lti.C.shape[0]}"
            )
        D = jnp.diag(jnp.asarray(lti.D)[:H])
        first, second = (
            half.from_lti(DiagonalLTI(lti.log_lam, lti.B, C, own))
            for half, C, own in (
                (self.one_way, lti.C[:H], D),
                (self._other_way, lti.C[H:], jnp.zeros_like(D)),
            )
        )
        return S5BothWays.from_halves(first, second, current_twice=self.current_twice)


FIELDS = tuple(field.name for field in fields(S5))
"""The arrays and the settings of S5."""
