"""S4D: a diagonal state-space model of each channel (Gu, Gupta, Goel, Ré, arXiv 2206.11893)."""

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex, Float, PRNGKeyArray

from ..lti import DiagonalLTI
from ..recurrence.bank import bank_apply, bank_step
from ..typing import Count, InputArray, checked
from .base import MIN_DECAY, AbstractBankSSM, check_bank_fits
from .checks import check_kinds, check_positive, check_steps
from .discretize import RULES, Discretization
from .half import as_complex, narrowed, widened, with_feedthrough
from .initializers import complex_normal, hippo_legs_normal, log_uniform

Start = Literal["lin", "inv", "legs"]


@dataclass(frozen=True)
class S4DConfig:
    """Diagonal state-space models, one for each channel (Gu et al. 2022)."""

    states_per_channel: ClassVar[bool] = True

    d_state: int = 32
    """Complex states N of each channel at the start: one of each conjugate pair."""
    start: Start = "lin"
    """Eigenvalues at the start: S4D-Lin, S4D-Inv or S4D-LegS."""
    step_min: float = 1e-3
    """Smallest step size at the start [samples]."""
    step_max: float = 1e-1
    """Largest step size at the start [samples]."""
    discretization: Discretization = "zoh"
    """How continuous time becomes samples."""

    def __post_init__(self):
        check_kinds(self)
        check_positive("d_state", self.d_state)
        check_steps("step", self.step_min, self.step_max)
        check_start(self.start)

    @checked
    def build(self, d_model: int, *, key: PRNGKeyArray) -> "S4D":
        return S4D.init(
            d_model,
            self.d_state,
            key=key,
            start=self.start,
            step_min=self.step_min,
            step_max=self.step_max,
            discretization=self.discretization,
        )


class S4D(AbstractBankSSM):
    """A bank of H systems of one input and one output, N stored of 2N conjugate states each.

        x_k = lam x_{k-1} + gain * B u_k,  Lambda = -exp(Lambda_re_log) + i Lambda_im
        y_k = 2 Re(sum over the states of C x_k) + D u_k                  (section 3)

    for each channel, with a step size exp(log_step) of its own. B starts as ones. `to_lti` is a
    `DiagonalLTI` whose arrays have the channels in front, as `jax.vmap` would make it; `compress`
    balances every channel by itself and leaves all of them one number of states.
    """

    dynamics: ClassVar[tuple[str, ...]] = ("Lambda_re_log", "Lambda_im", "log_step", "B_re", "B_im")
    matrices: ClassVar[tuple[str, ...]] = ("B_re", "B_im", "C_re", "C_im")

    Lambda_re_log: Float[Array, "d_model d_state"]
    Lambda_im: Float[Array, "d_model d_state"]
    B_re: Float[Array, "d_model d_state"]
    B_im: Float[Array, "d_model d_state"]
    C_re: Float[Array, "d_model d_state"]
    C_im: Float[Array, "d_model d_state"]
    D: Float[Array, " d_model"]
    log_step: Float[Array, " d_model"]
    discretization: Discretization = eqx.field(static=True)

    def __check_init__(self):
        if self.discretization not in RULES:
            raise ValueError(f"discretization={self.discretization!r}, allowed: {sorted(RULES)}")

    @classmethod
    @checked
    def init(
        cls,
        d_model: int,
        d_state: int,
        *,
        key: PRNGKeyArray,
        start: Start = S4DConfig.start,
        step_min: float = S4DConfig.step_min,
        step_max: float = S4DConfig.step_max,
        discretization: Discretization = S4DConfig.discretization,
    ) -> "S4D":
        """All channels start with the eigenvalues that `start` names (section 4), and B = 1.

        Steps are log-uniform in [step_min, step_max], in units of the time between samples.
        """
        check_positive("d_model", d_model)
        check_positive("d_state", d_state)
        check_steps("step", step_min, step_max)
        check_start(start)
        C_key, D_key, step_key = jax.random.split(key, 3)
        Lambda = jnp.asarray(STARTS[start](d_state), jnp.result_type(complex))
        shape = (d_model, d_state)
        return cls.from_continuous(
            jnp.broadcast_to(Lambda, shape),
            jnp.ones(shape, Lambda.dtype),
            complex_normal(C_key, shape) / math.sqrt(2),
            jax.random.normal(D_key, (d_model,)),
            log_uniform(step_key, (d_model,), step_min, step_max),
            discretization=discretization,
        )

    @classmethod
    @checked
    def from_continuous(
        cls,
        Lambda: Complex[InputArray, "d_model d_state"],
        B: Complex[InputArray, "d_model d_state"],
        C: Complex[InputArray, "d_model d_state"],
        D: Float[InputArray, " d_model"],
        log_step: Float[InputArray, " d_model"],
        *,
        discretization: Discretization = S4DConfig.discretization,
    ) -> "S4D":
        """A layer from the numbers of the paper, Re(Lambda) < 0, one of each conjugate pair."""
        return cls(
            Lambda_re_log=jnp.log(-jnp.real(Lambda)),
            Lambda_im=jnp.imag(Lambda),
            B_re=jnp.real(B),
            B_im=jnp.imag(B),
            C_re=jnp.real(C),
            C_im=jnp.imag(C),
            D=D,
            log_step=log_step,
            discretization=discretization,
        )

    @property
    def d_model(self) -> int:
        return self.D.shape[0]

    @property
    def d_state(self) -> int:
        return self.Lambda_im.shape[-1]

    @property
    def Lambda(self) -> Complex[Array, "d_model d_state"]:
        """Continuous-time eigenvalues, one of each conjugate pair [rad per unit of time]."""
        return as_complex(-jnp.exp(widened(self.Lambda_re_log)), self.Lambda_im)

    @property
    def steps(self) -> Float[Array, "d_model d_state"]:
        """The step size of each state's channel [units of time per sample]."""
        return jnp.broadcast_to(jnp.exp(widened(self.log_step))[:, None], self.Lambda_im.shape)

    @property
    def _bank(self) -> tuple[Array, Array, Array]:
        """log_lam, B and C of the sampled systems, [d_model d_state] each."""
        log_lam, gain = RULES[self.discretization].forward(self.Lambda, self.steps)
        B = gain * as_complex(self.B_re, self.B_im)
        return log_lam, B, 2 * as_complex(self.C_re, self.C_im)

    @checked
    def __call__(
        self, u: Float[InputArray, "length {self.d_model}"], *, key: PRNGKeyArray | None = None
    ) -> Float[Array, "length {self.d_model}"]:
        y, _ = bank_apply(*self._bank, u)
        return with_feedthrough(y, self.D, u)

    @checked
    def init_state(self) -> Complex[Array, "d_model d_state"]:
        dtype = jnp.result_type(self.Lambda_im, self.log_step, self.B_im, jnp.complex64)
        return jnp.zeros(self.Lambda_im.shape, dtype)

    @checked
    def step(
        self,
        carry: Complex[InputArray, "{self.d_model} {self.d_state}"],
        u_t: Float[InputArray, "{self.d_model}"],
    ) -> tuple[Complex[Array, "{self.d_model} {self.d_state}"], Float[Array, "{self.d_model}"]]:
        carry, y_t = bank_step(*self._bank, carry, u_t)
        return carry, with_feedthrough(y_t, self.D, u_t)

    @checked
    def run(
        self,
        carry: Complex[InputArray, "{self.d_model} {self.d_state}"],
        u: Float[InputArray, "length {self.d_model}"],
        length: Count | None = None,
    ) -> tuple[
        Complex[Array, "{self.d_model} {self.d_state}"], Float[Array, "length {self.d_model}"]
    ]:
        y, carry = bank_apply(*self._bank, u, carry, length=length)
        return carry, with_feedthrough(y, self.D, u)

    @checked
    def to_lti(self) -> DiagonalLTI:
        def channel(log_lam, B, C, D):
            return DiagonalLTI(log_lam, B[:, None], C[None], D[None])

        return jax.vmap(channel)(*self._bank, self.D)

    @checked
    def from_lti(self, lti: DiagonalLTI) -> "S4D":
        """Every channel keeps its step size. What has been said of `S5.from_lti` holds here too."""
        check_bank_fits(lti, self)
        dtype = self.init_state().dtype
        fastest = -float(np.log(jnp.finfo(dtype).eps))
        decay = jnp.clip(-jnp.real(lti.log_lam), MIN_DECAY, fastest)
        log_lam = jax.lax.complex(decay * -1.0, jnp.asarray(jnp.imag(lti.log_lam)))
        log_lam = log_lam.astype(dtype)
        steps = jnp.exp(widened(self.log_step))[:, None]
        Lambda, gain = RULES[self.discretization].inverse(
            log_lam, jnp.broadcast_to(steps, log_lam.shape)
        )
        layer = self.from_continuous(
            Lambda,
            (lti.B[..., 0] / gain).astype(dtype),
            jnp.asarray(lti.C[:, 0] / 2).astype(dtype),
            jnp.asarray(lti.D[:, 0]).astype(self.D.dtype),
            self.log_step,
            discretization=self.discretization,
        )
        return narrowed(layer, self)


@checked
def check_start(start: str) -> None:
    """ValueError unless `start` names eigenvalues to start with."""
    if start not in STARTS:
        raise ValueError(f"`start` must be one of {', '.join(STARTS)}, got {start!r}")


def _linear(n: int) -> Complex[np.ndarray, " d_state"]:
    """-1/2 + i pi k: the Fourier basis (eq. 9)."""
    return -0.5 + 1j * np.pi * np.arange(n)


def _inverse(n: int) -> Complex[np.ndarray, " d_state"]:
    """-1/2 + i N/pi (N / (2k + 1) - 1), N = 2n, close to the eigenvalues of S4D-LegS (eq. 8)."""
    N = 2 * n
    return -0.5 + 1j * N / np.pi * (N / (2 * np.arange(n) + 1) - 1)


def _legs(n: int) -> Complex[np.ndarray, " d_state"]:
    """The eigenvalues of HiPPO-LegS-N, without its low-rank term (section 4.1)."""
    return hippo_legs_normal(2 * n)[0]


STARTS = {"lin": _linear, "inv": _inverse, "legs": _legs}
"""Eigenvalues to start with by name: `STARTS[name](d_state)`."""
