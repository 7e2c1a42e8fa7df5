"""The simplified state-space layer S5 (Smith, Warrington, Linderman, arXiv 2208.04933)."""

import math
from dataclasses import dataclass
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex, Float, PRNGKeyArray

from ..lti import DiagonalLTI
from ..recurrence.linear import linear_recurrence, lti_apply, lti_step
from ..typing import Count, InputArray, checked
from .base import MIN_DECAY, AbstractTimedSSM, check_fits
from .checks import check_divides, check_kinds, check_positive, check_steps
from .discretize import RULES, Discretization
from .half import as_complex, narrowed, widened, with_feedthrough
from .initializers import hippo_legs_normal, log_uniform


@dataclass(frozen=True)
class S5Config:
    """Simplified state-space layer (Smith et al. 2023)."""

    states_per_channel: ClassVar[bool] = False

    d_state: int = 64
    """Complex states N of each layer at the start: one of each conjugate pair."""
    hippo_blocks: int = 1
    """HiPPO-LegS-N matrices on the diagonal; must divide d_state."""
    step_min: float = 1e-3
    """Smallest step size at the start [samples]."""
    step_max: float = 1e-1
    """Largest step size at the start [samples]."""
    discretization: Discretization = "zoh"
    """How continuous time becomes samples."""

    def __post_init__(self):
        check_kinds(self)
        check_positive("d_state", self.d_state)
        check_divides("hippo_blocks", self.hippo_blocks, "d_state", self.d_state)
        check_steps("step", self.step_min, self.step_max)

    @checked
    def build(self, d_model: int, *, key: PRNGKeyArray) -> "S5":
        return S5.init(
            d_model,
            self.d_state,
            key=key,
            hippo_blocks=self.hippo_blocks,
            step_min=self.step_min,
            step_max=self.step_max,
            discretization=self.discretization,
        )


class S5(AbstractTimedSSM):
    """A diagonal continuous-time system with learned step sizes, N stored of 2N conjugate states.

        x' = Lambda x + B u,  Lambda = -exp(Lambda_re_log) + i Lambda_im       (eq. 1, 5)
        x_k = lam x_{k-1} + gain * (B u_k), step exp(log_step) of each state    (eq. 6)
        y_k = 2 Re(C x_k) + D u_k                                              (conjugate symmetry)

    The public code stores Re(Lambda) itself, which training can push past zero; its logarithm
    cannot leave the stable half-plane.
    """

    is_modal: ClassVar[bool] = True
    dynamics: ClassVar[tuple[str, ...]] = ("Lambda_re_log", "Lambda_im", "log_step", "B_re", "B_im")

    Lambda_re_log: Float[Array, " d_state"]
    Lambda_im: Float[Array, " d_state"]
    B_re: Float[Array, "d_state d_model"]
    B_im: Float[Array, "d_state d_model"]
    C_re: Float[Array, "d_model d_state"]
    C_im: Float[Array, "d_model d_state"]
    D: Float[Array, " d_model"]
    log_step: Float[Array, " d_state"]
    discretization: Discretization = eqx.field(static=True)

    def __check_init__(self):
        if self.discretization not in RULES:
            raise ValueError(
                f"`discretization` must be one of {', '.join(sorted(RULES))}, got "
                f"{self.discretization!r}"
            )

    @classmethod
    @checked
    def init(
        cls,
        d_model: int,
        d_state: int,
        *,
        key: PRNGKeyArray,
        hippo_blocks: int = S5Config.hippo_blocks,
        step_min: float = S5Config.step_min,
        step_max: float = S5Config.step_max,
        discretization: Discretization = S5Config.discretization,
    ) -> "S5":
        """`hippo_blocks` HiPPO-LegS-N matrices on the diagonal (section 4.3); B, C in their basis.

        Steps are log-uniform in [step_min, step_max], in units of the time between samples.
        """
        check_positive("d_model", d_model)
        check_positive("d_state", d_state)
        check_divides("hippo_blocks", hippo_blocks, "d_state", d_state)
        check_steps("step", step_min, step_max)
        B_key, C_key, D_key, step_key = jax.random.split(key, 4)
        size = 2 * d_state
        Lambda, V = hippo_legs_normal(size // hippo_blocks)
        eye = np.eye(hippo_blocks)
        dtype = jnp.result_type(complex)
        basis = jnp.asarray(np.kron(eye, V), dtype)
        B = basis.conj().T @ jax.random.normal(B_key, (size, d_model)) / math.sqrt(d_model)
        C = jax.random.normal(C_key, (d_model, size)) @ basis / math.sqrt(size)
        return cls.from_continuous(
            jnp.asarray(np.tile(Lambda, hippo_blocks), dtype),
            B,
            C,
            jax.random.normal(D_key, (d_model,)),
            log_uniform(step_key, (d_state,), step_min, step_max),
            discretization=discretization,
        )

    @classmethod
    @checked
    def from_continuous(
        cls,
        Lambda: Complex[InputArray, " d_state"],
        B: Complex[InputArray, "d_state d_model"],
        C: Complex[InputArray, "d_model d_state"],
        D: Float[InputArray, " d_model"],
        log_step: Float[InputArray, " d_state"],
        *,
        discretization: Discretization = S5Config.discretization,
    ) -> "S5":
        """A layer from the matrices of the paper, Re(Lambda) < 0, one of each conjugate pair."""
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
        return self.Lambda_im.shape[0]

    @property
    def Lambda(self) -> Complex[Array, " d_state"]:
        """Continuous-time eigenvalues, one of each conjugate pair [rad per unit of time]."""
        return as_complex(-jnp.exp(widened(self.Lambda_re_log)), self.Lambda_im)

    @checked
    def __call__(
        self,
        u: Float[InputArray, "length {self.d_model}"],
        dt: Float[InputArray, " length"] | None = None,
        *,
        key: PRNGKeyArray | None = None,
    ) -> Float[Array, "length {self.d_model}"]:
        """The output sequence from a zero state.

        `dt` are the intervals before each sample, in samples (all one if not given): state n
        advances by dt_k * exp(log_step_n) under the input u_k, which is held over the interval.
        """
        lti = self.to_lti()
        if dt is None:
            y, _ = lti_apply(lti.log_lam, lti.B, lti.C, u)
        else:
            a, b = jax.vmap(self._sampled)(u, dt)
            y = jnp.real(linear_recurrence(a, b) @ lti.C.T)
        return with_feedthrough(y, self.D, u)

    @checked
    def init_state(self) -> Complex[Array, " d_state"]:
        dtype = jnp.result_type(self.Lambda_im, self.log_step, self.B_im, jnp.complex64)
        return jnp.zeros(self.d_state, dtype)

    @checked
    def step(
        self,
        carry: Complex[InputArray, "{self.d_state}"],
        u_t: Float[InputArray, "{self.d_model}"],
        dt: Float[InputArray, ""] | None = None,
    ) -> tuple[Complex[Array, "{self.d_state}"], Float[Array, "{self.d_model}"]]:
        lti = self.to_lti()
        if dt is None:
            carry, y_t = lti_step(lti.log_lam, lti.B, lti.C, carry, u_t)
        else:
            a, b = self._sampled(u_t, dt)
            carry = a * carry + b
            y_t = jnp.real(lti.C @ carry)
        return carry, with_feedthrough(y_t, self.D, u_t)

    def _sampled(
        self, u_t: Float[Array, " d_model"], dt: Float[Array, ""]
    ) -> tuple[Complex[Array, " d_state"], Complex[Array, " d_state"]]:
        """Decay and input of the states over an interval of `dt` samples."""
        rule = RULES[self.discretization]
        log_lam, gain = rule.forward(self.Lambda, dt * jnp.exp(widened(self.log_step)))
        return jnp.exp(log_lam), gain * (as_complex(self.B_re, self.B_im) @ u_t)

    @checked
    def run(
        self,
        carry: Complex[InputArray, "{self.d_state}"],
        u: Float[InputArray, "length {self.d_model}"],
        length: Count | None = None,
    ) -> tuple[Complex[Array, "{self.d_state}"], Float[Array, "length {self.d_model}"]]:
        lti = self.to_lti()
        y, carry = lti_apply(lti.log_lam, lti.B, lti.C, u, carry, length=length)
        return carry, with_feedthrough(y, self.D, u)

    @checked
    def to_lti(self) -> DiagonalLTI:
        log_lam, gain = RULES[self.discretization].forward(
            self.Lambda, jnp.exp(widened(self.log_step))
        )
        return DiagonalLTI(
            log_lam=log_lam,
            B=gain[:, None] * as_complex(self.B_re, self.B_im),
            C=2 * as_complex(self.C_re, self.C_im),
            D=self.D,
        )

    @checked
    def from_lti(self, lti: DiagonalLTI) -> "S5":
        """Each state takes the step size of this layer's state whose eigenvalue lies nearest.

        An eigenvalue of less than the dtype's rounding of 1 is stored as that: the bilinear rule
        has no continuous eigenvalue for zero.
        """
        check_fits(lti, self)
        own = self.to_lti().log_lam
        fastest = -float(np.log(jnp.finfo(own.dtype).eps))
        decay = jnp.clip(-jnp.real(lti.log_lam), MIN_DECAY, fastest)
        log_lam = jax.lax.complex(-decay, jnp.imag(lti.log_lam)).astype(own.dtype)
        nearest = jnp.argmin(jnp.abs(log_lam[:, None] - own), axis=1)
        log_step = self.log_step[nearest]
        step = jnp.exp(widened(log_step))
        Lambda, gain = RULES[self.discretization].inverse(log_lam, step)
        layer = self.from_continuous(
            Lambda,
            (lti.B / gain[:, None]).astype(own.dtype),
            jnp.asarray(lti.C / 2).astype(own.dtype),
            jnp.asarray(lti.D).astype(self.D.dtype),
            log_step,
            discretization=self.discretization,
        )
        return narrowed(layer, self)
