"""The selective layer of Mamba (Gu & Dao, COLM 2024, arXiv 2312.00752)."""

import math
from dataclasses import dataclass, replace
from typing import ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from ..recurrence.selective import Signals, selective_scan, selective_step
from ..typing import Count, InputArray, checked
from .affine import Linear, product
from .causal_conv import CausalConv
from .checks import check_floor, check_kinds, check_positive, check_steps
from .initializers import inverse_softplus, log_uniform
from .joined import joined
from .mamba_family import AbstractMambaSSM, SpectrumMap, StateMap, lasting


@dataclass(frozen=True)
class MambaConfig:
    """Selective layer of Mamba (Gu & Dao 2024)."""

    states_per_channel: ClassVar[bool] = True

    d_state: int = 16
    """Real states N of each channel at the start."""
    expand: int = 2
    """Channels of the recurrence, as a multiple of d_model."""
    d_conv: int = 4
    """Samples under the convolution."""
    dt_rank: int | None = None
    """Rank of the map to the step sizes; None for ceil(d_model / 16)."""
    dt_min: float = 1e-3
    """Smallest step size at the start [samples]."""
    dt_max: float = 1e-1
    """Largest step size at the start [samples]."""
    dt_init_floor: float = 1e-4
    """Lower bound of all step sizes at the start, also below dt_min [samples]."""
    bias: bool = False
    """Biases of the projections in and out."""
    conv_bias: bool = True
    """Bias of the convolution."""
    tied: bool = False
    """Whether all channels share one spectrum, each with its own speed: A_log = a_n + s_d."""

    def __post_init__(self):
        check_kinds(self)
        for name in ("d_state", "expand", "d_conv"):
            check_positive(name, getattr(self, name))
        if self.dt_rank is not None:
            check_positive("dt_rank", self.dt_rank)
        check_steps("dt", self.dt_min, self.dt_max)
        check_floor("dt_init_floor", self.dt_init_floor)

    @checked
    def build(self, d_model: int, *, key: PRNGKeyArray) -> "Mamba":
        return Mamba.init(d_model, key=key, **vars(self))


class TiedLog(eqx.Module):
    """log(-A) with one spectrum for all channels, each with its own speed: a_n + s_d."""

    a: Float[Array, " d_state"]
    s: Float[Array, " channels"]

    @checked
    def full(self) -> Float[Array, "channels d_state"]:
        """The matrix a_n + s_d."""
        return self.s[:, None] + self.a


class MambaState(NamedTuple):
    """What a layer carries from one sample to the next."""

    window: Float[Array, "taps channels"]
    """The last K inputs of the convolution, the newest one last."""
    ssm: Float[Array, "channels d_state"]
    """The states of each channel."""


class Selection(NamedTuple):
    """The arguments of the recurrence for each sample; they depend on the data."""

    x: Float[Array, "*lead channels"]
    dt: Float[Array, "*lead channels"]
    B: Float[Array, "*lead d_state"]
    C: Float[Array, "*lead d_state"]


class Mamba(AbstractMambaSSM):
    """The Mamba block, section 3.4 and algorithm 2 of the paper, N real states for each channel.

        x, z = split(in_proj(u))
        x = silu(conv1d(x))
        dt, B, C = split(x_proj(x)),  dt = softplus(dt_proj(dt)),  A = -exp(A_log)
        h_k = exp(dt_k A) h_{k-1} + dt_k B_k x_k,  y_k = C_k h_k + D x_k
        out_proj(y * silu(z))

    Fields are called as in Hugging Face's weights. `A_log` is one number for each of the d_inner
    channels and N states, or tied (`TiedLog`).
    """

    dynamics: ClassVar[tuple[str, ...]] = ("A_log", "dt_proj")
    folds: ClassVar[bool] = True
    is_tied: ClassVar[bool] = False

    in_proj: Linear
    conv1d: CausalConv
    x_proj: Linear
    dt_proj: Linear
    A_log: Float[Array, "channels d_state"] | TiedLog
    D: Float[Array, " channels"]
    out_proj: Linear

    def __check_init__(self):
        if self.x_proj.bias is not None:
            raise ValueError("`x_proj` must have no bias, as in Hugging Face's weights, got one")

    @classmethod
    @checked
    def init(
        cls,
        d_model: int,
        d_state: int,
        *,
        key: PRNGKeyArray,
        expand: int = MambaConfig.expand,
        d_conv: int = MambaConfig.d_conv,
        dt_rank: int | None = MambaConfig.dt_rank,
        dt_min: float = MambaConfig.dt_min,
        dt_max: float = MambaConfig.dt_max,
        dt_init_floor: float = MambaConfig.dt_init_floor,
        bias: bool = MambaConfig.bias,
        conv_bias: bool = MambaConfig.conv_bias,
        tied: bool = MambaConfig.tied,
    ) -> "Mamba":
        """d_inner = expand * d_model channels; A_dn = -(n + 1), the S4D-real start.

        The steps softplus(dt_proj.bias) are log-uniform in [dt_min, dt_max] samples, and at least
        `dt_init_floor`. `dt_rank` is ceil(d_model / 16) if not given. `bias` is that of in_proj and
        out_proj. With `tied`, A is one spectrum with a speed for each channel.
        """
        counts = {"d_model": d_model, "d_state": d_state, "expand": expand, "d_conv": d_conv}
        for name, count in (counts | ({} if dt_rank is None else {"dt_rank": dt_rank})).items():
            check_positive(name, count)
        check_steps("dt", dt_min, dt_max)
        check_floor("dt_init_floor", dt_init_floor)
        in_key, conv_key, x_key, dt_key, step_key, out_key = jax.random.split(key, 6)
        d_inner = expand * d_model
        rank = math.ceil(d_model / 16) if dt_rank is None else dt_rank
        step = jnp.exp(log_uniform(step_key, (d_inner,), dt_min, dt_max))
        bound = rank**-0.5
        dt_weight = jax.random.uniform(dt_key, (d_inner, rank), minval=-bound, maxval=bound)
        spectrum = jnp.log(jnp.arange(1.0, d_state + 1))
        return cls(
            in_proj=Linear.init(d_model, 2 * d_inner, use_bias=bias, key=in_key),
            conv1d=CausalConv.init(d_inner, d_conv, bias=conv_bias, key=conv_key),
            x_proj=Linear.init(d_inner, rank + 2 * d_state, use_bias=False, key=x_key),
            dt_proj=Linear(dt_weight, inverse_softplus(jnp.maximum(step, dt_init_floor))),
            A_log=(
                TiedLog(spectrum, jnp.zeros(d_inner)) if tied else jnp.tile(spectrum, (d_inner, 1))
            ),
            D=jnp.ones(d_inner),
            out_proj=Linear.init(d_inner, d_model, use_bias=bias, key=out_key),
        )

    @property
    def d_model(self) -> int:
        return self.out_proj.weight.shape[0]

    @property
    def d_inner(self) -> int:
        """Channels of the recurrence."""
        return self.D.shape[0]

    @property
    def d_state(self) -> int:
        log = self.A_log.a if isinstance(self.A_log, TiedLog) else self.A_log
        return log.shape[-1]

    @property
    def dt_rank(self) -> int:
        """Rank of the map from channels to their steps."""
        return self.dt_proj.weight.shape[1]

    @property
    def A(self) -> Float[Array, "channels d_state"]:
        """Continuous-time eigenvalues of each channel, per unit of dt."""
        return -jnp.exp(self.A_log.full() if isinstance(self.A_log, TiedLog) else self.A_log)

    @checked
    def init_state(self) -> MambaState:
        return MambaState(
            self.conv1d.init_state(),
            jnp.zeros((self.d_inner, self.d_state), jnp.result_type(self.D, jnp.float32)),
        )

    @checked
    def run(
        self,
        carry: MambaState,
        u: Float[InputArray, "length {self.d_model}"],
        length: Count | None = None,
        dt: Float[InputArray, " length"] | None = None,
    ) -> tuple[MambaState, Float[Array, "length {self.d_model}"]]:
        x, z = jnp.split(self.in_proj(u), 2, axis=-1)
        window, x = self.conv1d.run(carry.window, x, length)
        x, step, B, C = self.select(jax.nn.silu(x))
        step = lasting(step, dt, length)
        y, ssm = selective_scan(x, step, self.A, B, C, carry.ssm)
        return MambaState(window, ssm), self._out(y, x, z)

    @checked
    def step(
        self,
        carry: MambaState,
        u_t: Float[InputArray, "{self.d_model}"],
        dt: Float[InputArray, ""] | None = None,
    ) -> tuple[MambaState, Float[Array, "{self.d_model}"]]:
        x, z = jnp.split(self.in_proj(u_t), 2)
        window, x = self.conv1d.step(carry.window, x)
        x, step, B, C = self.select(jax.nn.silu(x))
        step = step if dt is None else dt * step
        y, ssm = selective_step(x, step, self.A, B, C, carry.ssm)
        return MambaState(window, ssm), self._out(y, x, z)

    @checked
    def select(self, x: Float[InputArray, "*lead channels"]) -> Selection:
        """The arguments of the recurrence for `x`, the output of convolution and SiLU."""
        rank, N = self.dt_rank, self.d_state
        dt, B, C = jnp.split(product(self.x_proj.weight, x), (rank, rank + N), axis=-1)
        dt = jax.nn.softplus(self.dt_proj(dt))
        return Selection(x, dt, B, C)

    @property
    def eigenvalues(self) -> Float[Array, "channels d_state"]:
        return self.A

    @property
    def has_maps(self) -> bool:
        return False

    @checked
    def with_maps(self) -> "Mamba":
        return self

    @property
    def groups(self) -> int:
        return 1

    @checked
    def signals(self, u: Float[InputArray, "length {self.d_model}"]) -> Signals:
        x, dt, B, C = self.select(self._convolved(u)[0])
        return Signals(x, dt, B[:, None], C[:, None])

    @checked
    def emit(
        self, u: Float[InputArray, "length {self.d_model}"], y: Float[InputArray, "length channels"]
    ) -> Float[Array, "length {self.d_model}"]:
        return self._out(y, *self._convolved(u))

    @checked
    def map_states(self, B: StateMap, C: StateMap, log_A: SpectrumMap) -> "Mamba":
        rank, N = self.dt_rank, self.d_state
        rows = self.x_proj.weight
        parts = [rows[:rank], B(rows[None, rank : rank + N])[0], C(rows[None, rank + N :])[0]]
        x_proj = Linear(joined(parts))
        if isinstance(self.A_log, TiedLog):
            spectrum = TiedLog(jnp.asarray(log_A(self.A_log.a[None])[0]), self.A_log.s)
        else:
            spectrum = jnp.asarray(log_A(self.A_log))
        return replace(self, x_proj=x_proj, A_log=spectrum)

    def _convolved(
        self, u: Float[Array, "length {self.d_model}"]
    ) -> tuple[Float[Array, "length channels"], Float[Array, "length channels"]]:
        """x after the convolution and its silu, and z, from the first sample on."""
        x, z = jnp.split(self.in_proj(u), 2, axis=-1)
        return jax.nn.silu(self.conv1d.run(self.conv1d.init_state(), x)[1]), z

    def _out(
        self,
        y: Float[Array, "*lead channels"],
        x: Float[Array, "*lead channels"],
        z: Float[Array, "*lead channels"],
    ) -> Float[Array, "*lead d_model"]:
        gated = (y + self.D * x) * jax.nn.silu(z)
        return self.out_proj(gated)
