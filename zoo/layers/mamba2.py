"""The selective layer of Mamba-2 (Dao & Gu, ICML 2024, arXiv 2405.21060)."""

import math
from dataclasses import dataclass, replace
from typing import ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from ..recurrence.selective import Signals
from ..recurrence.ssd import ssd_scan, ssd_step
from ..typing import Count, InputArray, checked
from .affine import Linear
from .causal_conv import CausalConv
from .checks import check_divides, check_floor, check_kinds, check_positive, check_steps
from .gated_norm import GatedRMSNorm
from .initializers import inverse_softplus, log_uniform
from .mamba_family import AbstractMambaSSM, SpectrumMap, StateMap, lasting
from .state_maps import by_group, map_columns, map_rows


@dataclass(frozen=True)
class Mamba2Config:
    """Selective layer of Mamba-2, one decay for each head (Dao & Gu 2024)."""

    states_per_channel: ClassVar[bool] = True

    d_state: int = 64
    """Real states N of each channel at the start."""
    expand: int = 2
    """Channels of the recurrence, as a multiple of d_model."""
    headdim: int = 16
    """Channels of a head; must divide expand * d_model."""
    n_groups: int = 1
    """Groups of heads, each with its own B and C; must divide the number of heads."""
    d_conv: int = 4
    """Samples under the convolution."""
    chunk_size: int = 64
    """Samples that are computed at once [samples]; does not change the results."""
    dt_min: float = 1e-3
    """Smallest step size at the start [samples]."""
    dt_max: float = 1e-1
    """Largest step size at the start [samples]."""
    dt_init_floor: float = 1e-4
    """Lower bound of all step sizes at the start, also below dt_min [samples]."""
    dt_limit: tuple[float, float] = (0.0, math.inf)
    """Step sizes are always clipped to this range [samples]."""
    bias: bool = False
    """Biases of the projections in and out."""
    conv_bias: bool = True
    """Bias of the convolution."""

    def __post_init__(self):
        check_kinds(self)
        for name in ("d_state", "expand", "headdim", "n_groups", "d_conv", "chunk_size"):
            check_positive(name, getattr(self, name))
        check_steps("dt", self.dt_min, self.dt_max)
        check_floor("dt_init_floor", self.dt_init_floor)

    @checked
    def build(self, d_model: int, *, key: PRNGKeyArray) -> "Mamba2":
        return Mamba2.init(d_model, key=key, **vars(self))


class Mamba2State(NamedTuple):
    """What a layer carries from one sample to the next."""

    window: Float[Array, "taps convolved"]
    """The last K inputs of the convolution, the newest one last."""
    ssm: Float[Array, "heads headdim d_state"]
    """The states of each head and channel."""


class Selection2(NamedTuple):
    """The arguments of the recurrence for each sample; they depend on the data."""

    x: Float[Array, "*lead heads headdim"]
    dt: Float[Array, "*lead heads"]
    B: Float[Array, "*lead groups d_state"]
    C: Float[Array, "*lead groups d_state"]


class Mamba2(AbstractMambaSSM):
    """The Mamba-2 block, section 7 of the paper: h heads of p channels, N real states for each.

        z, xBC, dt = split(in_proj(u))
        x, B, C = split(silu(conv1d(xBC)))
        dt = clip(softplus(dt + dt_bias), dt_limit),  A = -exp(A_log)
        H_k = exp(dt_k A) H_{k-1} + dt_k x_k B_k^T,  y_k = H_k C_k + D x_k
        out_proj(norm(y, z))

    Fields are called as in Hugging Face's weights. B and C are shared by the heads of a group. The
    steps are clipped to `dt_limit` in `step` as in the parallel call; Hugging Face's decoding from
    a cache does not. A cut by `Data(maps=True)` keeps the projections of B and C, and maps B and C
    to fewer states.
    """

    dynamics: ClassVar[tuple[str, ...]] = ("A_log", "dt_bias")
    folds: ClassVar[bool] = False  # B and C pass through the convolution and its silu
    is_tied: ClassVar[bool] = True

    in_proj: Linear
    conv1d: CausalConv
    dt_bias: Float[Array, " heads"]
    A_log: Float[Array, " heads"]
    D: Float[Array, " heads"]
    norm: GatedRMSNorm
    out_proj: Linear
    dt_limit: tuple[float, float] = eqx.field(static=True)
    """Smallest and largest step size [samples]."""
    chunk_size: int = eqx.field(static=True)
    """The most samples that the parallel call takes at once. It does not change the results."""
    B_map: Float[Array, "groups convolved d_state"] | None = None
    C_map: Float[Array, "groups convolved d_state"] | None = None
    """Maps of B and C after the convolution and its SiLU, B <- B B_map; None in Mamba-2."""

    def __check_init__(self):
        low, high = self.dt_limit
        if not 0 <= low <= high:
            raise ValueError(f"`dt_limit` must be 0 <= low <= high, got {self.dt_limit}")
        check_positive("chunk_size", self.chunk_size)
        if self.heads % self.n_groups or self.d_inner % self.heads:
            sizes = f"{self.heads} heads and {self.d_inner} channels"
            raise ValueError(f"`n_groups` must divide heads, and heads channels, got {sizes}")

    @classmethod
    @checked
    def init(
        cls,
        d_model: int,
        d_state: int,
        *,
        key: PRNGKeyArray,
        expand: int = Mamba2Config.expand,
        headdim: int = Mamba2Config.headdim,
        n_groups: int = Mamba2Config.n_groups,
        d_conv: int = Mamba2Config.d_conv,
        chunk_size: int = Mamba2Config.chunk_size,
        dt_min: float = Mamba2Config.dt_min,
        dt_max: float = Mamba2Config.dt_max,
        dt_init_floor: float = Mamba2Config.dt_init_floor,
        dt_limit: tuple[float, float] = Mamba2Config.dt_limit,
        bias: bool = Mamba2Config.bias,
        conv_bias: bool = Mamba2Config.conv_bias,
    ) -> "Mamba2":
        """d_inner = expand * d_model channels in heads of `headdim`; A uniform in [-16, -1].

        The steps softplus(dt_bias) are log-uniform in [dt_min, dt_max] samples, and at least
        `dt_init_floor`. `bias` is that of in_proj and out_proj.
        """
        counts = {"d_model": d_model, "d_state": d_state, "expand": expand, "d_conv": d_conv}
        for name, count in counts.items():
            check_positive(name, count)
        check_steps("dt", dt_min, dt_max)
        check_floor("dt_init_floor", dt_init_floor)
        d_inner = expand * d_model
        check_divides("headdim", headdim, "expand * d_model", d_inner)
        heads = d_inner // headdim
        check_divides("n_groups", n_groups, "the number of heads", heads)
        in_key, conv_key, step_key, A_key, out_key = jax.random.split(key, 5)
        channels = d_inner + 2 * n_groups * d_state
        step = jnp.exp(log_uniform(step_key, (heads,), dt_min, dt_max))
        return cls(
            in_proj=Linear.init(d_model, d_inner + channels + heads, use_bias=bias, key=in_key),
            conv1d=CausalConv.init(channels, d_conv, bias=conv_bias, key=conv_key),
            dt_bias=inverse_softplus(jnp.maximum(step, dt_init_floor)),
            A_log=jnp.log(jax.random.uniform(A_key, (heads,), minval=1.0, maxval=16.0)),
            D=jnp.ones(heads),
            norm=GatedRMSNorm(jnp.ones(d_inner), n_groups, 1e-5),
            out_proj=Linear.init(d_inner, d_model, use_bias=bias, key=out_key),
            dt_limit=(dt_limit[0], dt_limit[1]),
            chunk_size=chunk_size,
        )

    @property
    def d_model(self) -> int:
        return self.out_proj.weight.shape[0]

    @property
    def d_inner(self) -> int:
        """Channels of the recurrence, of all heads."""
        return self.norm.weight.shape[0]

    @property
    def heads(self) -> int:
        """Number of heads h, each with a decay of its own."""
        return self.A_log.shape[0]

    @property
    def headdim(self) -> int:
        """Channels p of a head."""
        return self.d_inner // self.heads

    @property
    def chunk(self) -> int:
        """Samples in a chunk of the scan: as many as states, from 16 to `chunk_size`."""
        # work within chunks grows with their length, work between them with the number of states
        return min(self.chunk_size, max(16, self.d_state))

    @property
    def n_groups(self) -> int:
        """Number of groups of heads, each with its own B and C."""
        return self.norm.groups

    @property
    def d_state(self) -> int:
        return self.convolved_states if self.B_map is None else self.B_map.shape[2]

    @property
    def convolved_states(self) -> int:
        """Entries of B (and of C) of a group in the convolution's output."""
        return (self.conv1d.weight.shape[0] - self.d_inner) // (2 * self.n_groups)

    @property
    def has_maps(self) -> bool:
        return self.B_map is not None

    @checked
    def with_maps(self) -> "Mamba2":
        if self.has_maps:
            return self
        same = jnp.tile(jnp.eye(self.convolved_states, dtype=self.D.dtype), (self.n_groups, 1, 1))
        return eqx.tree_at(
            lambda m: (m.B_map, m.C_map), self, (same, same), is_leaf=lambda x: x is None
        )

    @property
    def A(self) -> Float[Array, " heads"]:
        """Continuous-time eigenvalue of each head, per unit of dt."""
        return -jnp.exp(self.A_log)

    @property
    def eigenvalues(self) -> Float[Array, "channels d_state"]:
        A = jnp.repeat(self.A, self.headdim)
        return jnp.broadcast_to(A[:, None], (self.d_inner, self.d_state))

    @property
    def groups(self) -> int:
        return self.n_groups

    @checked
    def init_state(self) -> Mamba2State:
        shape, dtype = (
            (self.heads, self.headdim, self.d_state),
            jnp.result_type(self.D, jnp.float32),
        )
        return Mamba2State(self.conv1d.init_state(), jnp.zeros(shape, dtype))

    @checked
    def run(
        self,
        carry: Mamba2State,
        u: Float[InputArray, "length {self.d_model}"],
        length: Count | None = None,
        dt: Float[InputArray, " length"] | None = None,
    ) -> tuple[Mamba2State, Float[Array, "length {self.d_model}"]]:
        z, xBC, before = self.project(u)
        window, xBC = self.conv1d.run(carry.window, xBC, length)
        x, step, B, C = self.select(jax.nn.silu(xBC), before)
        y, ssm = ssd_scan(x, lasting(step, dt, length), self.A, B, C, carry.ssm, chunk=self.chunk)
        return Mamba2State(window, ssm), self._out(y, x, z)

    @checked
    def step(
        self,
        carry: Mamba2State,
        u_t: Float[InputArray, "{self.d_model}"],
        dt: Float[InputArray, ""] | None = None,
    ) -> tuple[Mamba2State, Float[Array, "{self.d_model}"]]:
        z, xBC, before = self.project(u_t)
        window, xBC = self.conv1d.step(carry.window, xBC)
        x, step, B, C = self.select(jax.nn.silu(xBC), before)
        y, ssm = ssd_step(x, step if dt is None else dt * step, self.A, B, C, carry.ssm)
        return Mamba2State(window, ssm), self._out(y, x, z)

    @checked
    def project(
        self, u: Float[InputArray, "*lead {self.d_model}"]
    ) -> tuple[
        Float[Array, "*lead channels"], Float[Array, "*lead convolved"], Float[Array, "*lead heads"]
    ]:
        """The gate, the inputs of the convolution, and the steps before their softplus."""
        projected = self.in_proj(u)
        gate, rest = self.d_inner, self.in_proj.weight.shape[0] - self.heads
        z, xBC, dt = jnp.split(projected, (gate, rest), axis=-1)
        return z, xBC, dt

    @checked
    def select(
        self, xBC: Float[InputArray, "*lead convolved"], dt: Float[InputArray, "*lead heads"]
    ) -> Selection2:
        """The arguments of the recurrence for `xBC`, the output of convolution and SiLU."""
        d, G = self.d_inner, self.n_groups
        x, B, C = jnp.split(xBC, (d, d + G * self.convolved_states), axis=-1)
        return Selection2(
            x.reshape(*x.shape[:-1], self.heads, self.headdim),
            jnp.clip(jax.nn.softplus(dt + self.dt_bias), *self.dt_limit),
            by_group(B, G, self.B_map),
            by_group(C, G, self.C_map),
        )

    @checked
    def signals(self, u: Float[InputArray, "length {self.d_model}"]) -> Signals:
        (x, dt, B, C), _ = self._selected(u)
        return Signals(x.reshape(len(u), self.d_inner), jnp.repeat(dt, self.headdim, axis=-1), B, C)

    @checked
    def emit(
        self, u: Float[InputArray, "length {self.d_model}"], y: Float[InputArray, "length channels"]
    ) -> Float[Array, "length {self.d_model}"]:
        selected, z = self._selected(u)
        return self._out(y.reshape(selected.x.shape), selected.x, z)

    @checked
    def map_states(self, B: StateMap, C: StateMap, log_A: SpectrumMap) -> "Mamba2":
        if self.B_map is not None and self.C_map is not None:
            of_B, of_C = map_columns(self.B_map, B), map_columns(self.C_map, C)
            return replace(self, B_map=of_B, C_map=of_C)

        def mapped(rows: Float[Array, "_ *rest"], before: int) -> Float[Array, "_ *rest"]:
            return map_rows(rows, before + self.d_inner, self.n_groups, self.d_state, B, C)

        in_proj = jax.tree.map(lambda rows: mapped(rows, self.d_inner), self.in_proj)
        conv1d = jax.tree.map(lambda rows: mapped(rows, 0), self.conv1d)
        return replace(self, in_proj=in_proj, conv1d=conv1d)

    def _selected(
        self, u: Float[Array, "length {self.d_model}"]
    ) -> tuple[Selection2, Float[Array, "length channels"]]:
        """The arguments of the recurrence on `u`, from the first sample on, and the gate."""
        z, xBC, dt = self.project(u)
        xBC = jax.nn.silu(self.conv1d.run(self.conv1d.init_state(), xBC)[1])
        return self.select(xBC, dt), z

    def _out(
        self,
        y: Float[Array, "*lead heads headdim"],
        x: Float[Array, "*lead heads headdim"],
        z: Float[Array, "*lead channels"],
    ) -> Float[Array, "*lead d_model"]:
        y = (y + self.D[:, None] * x).reshape(z.shape)
        return self.out_proj(self.norm(y, z))
