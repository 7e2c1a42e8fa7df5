"""What the layers of linear attention have in common."""

import abc
from collections.abc import Callable
from dataclasses import replace
from typing import ClassVar, Literal, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..masks import within
from ..recurrence.attention import AttentionSignals, attention_scan, attention_step
from ..typing import Count, InputArray, checked
from .affine import Linear
from .base import AbstractSelectiveSSM
from .query_key_value import QueryKeyValue

Mapping = Callable[
    [Float[InputArray, "key_heads d_state *rest"]], Float[InputArray, "key_heads rank *rest"]
]
"""A linear map of the rows that make keys (or queries): from `d_state` of each head to `rank`."""

Basis = Literal["any", "orthonormal", "selection"]


class AttentionState(NamedTuple):
    """What a layer carries from one sample to the next."""

    window: Float[Array, "taps convolved"] | None
    """The last inputs of the convolution, the newest one last; None where there is none."""
    S: Float[Array, "heads d_state values"]
    """The state of each head: stored keys times values."""


class AbstractLinearAttention(AbstractSelectiveSSM):
    """A layer of linear attention: each head has a state S of K keys times V values.

        S_t = diag(a_t) S_{t-1} + k_t v_t^T                       or, by the delta rule,
        S_t = a_t (I - b_t k_t k_t^T) S_{t-1} + b_t k_t v_t^T,    o_t = S_t^T q_t

    `d_state` is the number K of keys of a head, which compression shrinks: with S near U g and g =
    W^T S, W^T U = I, keys become W^T k and queries U^T q. Heads of values that share a key head
    share W and U. Over an interval of dt samples the state decays by a_t^dt. If a convolution or
    SiLU follows the projections, W and U become maps after it (`with_maps`), or they select
    channels.
    """

    is_mixer: ClassVar[bool] = True
    takes_intervals: ClassVar[bool] = True

    basis: ClassVar[Basis]
    """The W and U that keep the form of the recurrence. "any": W^T U = I, if a head has one decay.
    "orthonormal": W = U, for the delta rule. A selection, if each key has a decay of its own."""

    g_proj: eqx.AbstractVar[Linear | None]
    o_norm: eqx.AbstractVar[Float[Array, " values"]]
    o_proj: eqx.AbstractVar[Linear]
    qkv: eqx.AbstractVar[QueryKeyValue]
    eps: eqx.AbstractVar[float]

    @abc.abstractmethod
    def log_decay(
        self, u: Float[InputArray, "*lead d_model"]
    ) -> Float[Array, "*lead heads #d_state"]:
        """Logarithm of the factor by which each sample multiplies the state, for each key or one
        for a head."""

    @abc.abstractmethod
    def beta(self, u: Float[InputArray, "*lead d_model"]) -> Float[Array, "*lead heads"] | None:
        """How much each sample writes by the delta rule; None for states that only add up."""

    @abc.abstractmethod
    def map_keys(self, q: Mapping, k: Mapping, decay: Mapping) -> "AbstractLinearAttention":
        """The layer with other keys: `q` and `k` are applied to all that makes queries and keys.

        These are the rows of their projections and of the convolution, or of the maps after them if
        the layer has maps. `decay` is applied to the rows that make a decay of each key. Without
        `mixes_keys`, only selections of rows give a layer with a smaller state.
        """

    @property
    def d_model(self) -> int:
        return self.o_proj.weight.shape[0]

    @property
    def d_state(self) -> int:
        return self.qkv.d_state

    @property
    def heads(self) -> int:
        """Number of heads, each with a state."""
        return self.qkv.heads

    @property
    def key_heads(self) -> int:
        """Number of heads of queries and keys; neighbouring heads of values share one."""
        return self.qkv.key_heads

    @property
    def values(self) -> int:
        """Values V of a head."""
        return self.o_norm.shape[0]

    @property
    def mixes_keys(self) -> bool:
        """Whether queries and keys are linear in the rows that make them, up to a norm behind, so
        that any basis that the form allows can be written into them."""
        return self.basis != "selection" and self.qkv.mixes

    @checked
    def with_maps(self) -> "AbstractLinearAttention":
        """The layer with maps after its queries and keys, which are the identity at first.

        ValueError where each key has a decay of its own: only a selection keeps its form.
        """
        if self.basis == "selection":
            raise ValueError(
                f"a {type(self).__name__} must have keys that decay alike to have maps, got a "
                "decay for each key"
            )
        return replace(self, qkv=self.qkv.with_maps())

    @checked
    def init_state(self) -> AttentionState:
        shape = (self.heads, self.d_state, self.values)
        dtype = jnp.result_type(self.o_norm, jnp.float32)
        return AttentionState(self.qkv.init_state(), jnp.zeros(shape, dtype))

    @checked
    def run(
        self,
        carry: AttentionState,
        u: Float[InputArray, "length {self.d_model}"],
        length: Count | None = None,
        dt: Float[InputArray, " length"] | None = None,
    ) -> tuple[AttentionState, Float[Array, "length {self.d_model}"]]:
        window, (q, k, v) = self.qkv.run(carry.window, u, length)
        log_decay, beta = self._log_decay_over(dt, u), self.beta(u)
        if length is not None:
            # a sample that neither decays nor writes leaves the state as it is
            own = within(length, u.shape[0])
            log_decay, k = (jnp.where(own[:, None, None], a, 0) for a in (log_decay, k))
        o, S = attention_scan(q, k, v, log_decay, beta, carry.S)
        return AttentionState(window, S), self.emit(o, self.gate(u))

    @checked
    def step(
        self,
        carry: AttentionState,
        u_t: Float[InputArray, "{self.d_model}"],
        dt: Float[InputArray, ""] | None = None,
    ) -> tuple[AttentionState, Float[Array, "{self.d_model}"]]:
        window, (q, k, v) = self.qkv.step(carry.window, u_t)
        o, S = attention_step(q, k, v, self._log_decay_over(dt, u_t), self.beta(u_t), carry.S)
        return AttentionState(window, S), self.emit(o, self.gate(u_t))

    def _log_decay_over(
        self, dt: Float[InputArray, "*lead"] | None, u: Float[Array, "*lead {self.d_model}"]
    ) -> Float[Array, "*lead heads #d_state"]:
        """`log_decay` over the intervals before the samples, of one sample each if not given."""
        log_decay = self.log_decay(u)
        if dt is None:
            return log_decay
        if not self.takes_intervals:
            raise ValueError(f"`dt` must be None, since a {type(self).__name__} has no decay")
        return jnp.asarray(dt)[..., None, None] * log_decay

    @checked
    def signals(self, u: Float[InputArray, "length {self.d_model}"]) -> AttentionSignals:
        """What drives the states on `u`, from the first sample on, and the gate behind them."""
        q, k, v = self.qkv.run(self.qkv.init_state(), u)[1]
        return AttentionSignals(q, k, v, self.log_decay(u), self.beta(u), self.gate(u))

    @checked
    def gate(
        self, u: Float[InputArray, "*lead {self.d_model}"]
    ) -> Float[Array, "*lead heads values"] | None:
        """The factor of the heads' outputs; None for no gate."""
        if self.g_proj is None:
            return None
        return jax.nn.silu(self.g_proj(u)).reshape(*u.shape[:-1], self.heads, self.values)

    @checked
    def emit(
        self,
        o: Float[InputArray, "*lead heads values"],
        gate: Float[InputArray, "*lead heads values"] | None,
    ) -> Float[Array, "*lead {self.d_model}"]:
        """The layer's output from the heads' outputs `o`, through norm, gate and projection."""
        wide = jnp.asarray(o, jnp.result_type(o, jnp.float32))
        mean = jnp.mean(wide**2, axis=-1, keepdims=True)
        y = self.o_norm * (wide * jax.lax.rsqrt(mean + self.eps)).astype(o.dtype)
        y = y if gate is None else y * gate
        return self.o_proj(y.reshape(*y.shape[:-2], self.heads * self.values))

    @checked
    def resized(self, n: int) -> "AbstractLinearAttention":
        return self.map_keys(*[lambda x: jnp.zeros((len(x), n, *x.shape[2:]), x.dtype)] * 3)

    @checked
    def first_states(self, n: int) -> "AbstractLinearAttention":
        return self.map_keys(*[lambda x: x[:, :n]] * 3)
