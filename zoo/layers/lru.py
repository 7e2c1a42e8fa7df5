"""The linear recurrent unit (Orvieto et al., ICML 2023, arXiv 2303.06349)."""

import math
from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Complex, Float, PRNGKeyArray

from ..lti import DiagonalLTI
from ..recurrence.linear import linear_recurrence, lti_apply, lti_step
from ..typing import Count, InputArray, checked
from .base import MIN_DECAY, AbstractTimedSSM, check_fits
from .checks import check_kinds, check_positive
from .half import as_complex, widened, with_feedthrough
from .initializers import complex_normal, ring


@dataclass(frozen=True)
class LRUConfig:
    """Linear recurrent unit (Orvieto et al. 2023)."""

    states_per_channel: ClassVar[bool] = False

    d_state: int = 64
    """Complex states N of each layer at the start."""
    r_min: float = 0.9
    """Smallest modulus of an eigenvalue at the start."""
    r_max: float = 0.999
    """Largest modulus of an eigenvalue at the start; below 1."""
    max_phase: float = 2 * math.pi
    """Largest angle of an eigenvalue at the start [rad/sample]."""

    def __post_init__(self):
        check_kinds(self)
        check_positive("d_state", self.d_state)

    @checked
    def build(self, d_model: int, *, key: PRNGKeyArray) -> "LRU":
        return LRU.init(
            d_model,
            self.d_state,
            key=key,
            r_min=self.r_min,
            r_max=self.r_max,
            max_phase=self.max_phase,
        )


class LRU(AbstractTimedSSM):
    """Linear recurrent unit, section 3 of the paper, with a state of N complex numbers.

        lam = exp(-exp(nu_log) + i exp(theta_log))           (eq. 7; |lam| < 1 by construction)
        x_k = lam * x_{k-1} + exp(gamma_log) * (B u_k)        (eq. 8)
        y_k = Re(C x_k) + D * u_k

    An angle of zero has no `theta_log`, and one close to it hardly any gradient: `from_lti` stores
    angles below `MIN_ANGLE` one turn further, at 2 pi + angle, which is the same eigenvalue.

    Over an interval of dt samples the state advances by lam^dt, turning by the smaller of the two
    angles that mean lam; the input counts as it does otherwise.
    """

    is_modal: ClassVar[bool] = True
    dynamics: ClassVar[tuple[str, ...]] = ("nu_log", "theta_log", "gamma_log", "B_re", "B_im")
    matrices: ClassVar[tuple[str, ...]] = ("B_re", "B_im", "C_re", "C_im")

    nu_log: Float[Array, " d_state"]
    theta_log: Float[Array, " d_state"]
    gamma_log: Float[Array, " d_state"]
    B_re: Float[Array, "d_state d_model"]
    B_im: Float[Array, "d_state d_model"]
    C_re: Float[Array, "d_model d_state"]
    C_im: Float[Array, "d_model d_state"]
    D: Float[Array, " d_model"]

    @classmethod
    @checked
    def init(
        cls,
        d_model: int,
        d_state: int,
        *,
        key: PRNGKeyArray,
        r_min: float = LRUConfig.r_min,
        r_max: float = LRUConfig.r_max,
        max_phase: float = LRUConfig.max_phase,
    ) -> "LRU":
        """Eigenvalues uniform on the ring r_min <= |lam| <= r_max, angles in [0, max_phase) rad.

        gamma = sqrt(1 - |lam|^2) makes the state's variance one under white noise.
        """
        check_positive("d_model", d_model)
        check_positive("d_state", d_state)
        lam_key, B_key, C_key, D_key = jax.random.split(key, 4)
        nu_log, theta_log = ring(lam_key, d_state, r_min, r_max, max_phase)
        B = complex_normal(B_key, (d_state, d_model)) / math.sqrt(2 * d_model)
        C = complex_normal(C_key, (d_model, d_state)) / math.sqrt(d_state)
        return cls(
            nu_log=nu_log,
            theta_log=theta_log,
            gamma_log=normalizer_log(nu_log),
            B_re=jnp.real(B),
            B_im=jnp.imag(B),
            C_re=jnp.real(C),
            C_im=jnp.imag(C),
            D=jax.random.normal(D_key, (d_model,)),
        )

    @property
    def d_model(self) -> int:
        return self.D.shape[0]

    @property
    def d_state(self) -> int:
        return self.nu_log.shape[0]

    @checked
    def __call__(
        self,
        u: Float[InputArray, "length {self.d_model}"],
        dt: Float[InputArray, " length"] | None = None,
        *,
        key: PRNGKeyArray | None = None,
    ) -> Float[Array, "length {self.d_model}"]:
        """The output sequence from a zero state; `dt` are the intervals before each sample."""
        lti = self.to_lti()
        if dt is None:
            y, _ = lti_apply(lti.log_lam, lti.B, lti.C, u)
        else:
            lam = jnp.exp(jnp.asarray(dt)[:, None] * smaller_turn(jnp.asarray(lti.log_lam)))
            y = jnp.real(linear_recurrence(lam, u @ lti.B.T) @ lti.C.T)
        return with_feedthrough(y, self.D, u)

    @checked
    def init_state(self) -> Complex[Array, " d_state"]:
        return jnp.zeros(self.d_state, jnp.result_type(self.nu_log, jnp.complex64))

    @checked
    def step(
        self,
        carry: Complex[InputArray, "{self.d_state}"],
        u_t: Float[InputArray, "{self.d_model}"],
        dt: Float[InputArray, ""] | None = None,
    ) -> tuple[Complex[Array, "{self.d_state}"], Float[Array, "{self.d_model}"]]:
        lti = self.to_lti()
        log_lam = lti.log_lam if dt is None else dt * smaller_turn(jnp.asarray(lti.log_lam))
        carry, y_t = lti_step(log_lam, lti.B, lti.C, carry, u_t)
        return carry, with_feedthrough(y_t, self.D, u_t)

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
        nu_log, theta_log, gamma_log = map(widened, (self.nu_log, self.theta_log, self.gamma_log))
        return DiagonalLTI(
            log_lam=jax.lax.complex(-jnp.exp(nu_log), jnp.exp(theta_log)),
            B=jnp.exp(gamma_log)[:, None] * as_complex(self.B_re, self.B_im),
            C=as_complex(self.C_re, self.C_im),
            D=self.D,
        )

    @checked
    def from_lti(self, lti: DiagonalLTI) -> "LRU":
        check_fits(lti, self)
        decay = jnp.maximum(-jnp.real(lti.log_lam), MIN_DECAY)
        angle = jnp.mod(jnp.imag(lti.log_lam), 2 * jnp.pi)
        angle = jnp.where(angle < MIN_ANGLE, angle + 2 * jnp.pi, angle)
        nu_log = jnp.log(decay)
        gamma_log = normalizer_log(nu_log)
        B = lti.B / jnp.exp(gamma_log)[:, None]
        parameters = {
            "nu_log": nu_log,
            "theta_log": jnp.log(angle),
            "gamma_log": gamma_log,
            "B_re": jnp.real(B),
            "B_im": jnp.imag(B),
            "C_re": jnp.real(lti.C),
            "C_im": jnp.imag(lti.C),
            "D": jnp.asarray(lti.D),
        }
        return type(self)(**{name: x.astype(self.nu_log.dtype) for name, x in parameters.items()})


@checked
def normalizer_log(nu_log: Float[InputArray, " d_state"]) -> Float[Array, " d_state"]:
    """log sqrt(1 - |lam|^2) with |lam| = exp(-exp(nu_log)), exact next to the unit circle."""
    return 0.5 * jnp.log(-jnp.expm1(-2 * jnp.exp(nu_log)))


@checked
def smaller_turn(log_lam: Complex[InputArray, " d_state"]) -> Complex[Array, " d_state"]:
    """The logarithm of the same eigenvalue whose angle is in [-pi, pi)."""
    angle = jnp.mod(jnp.imag(log_lam) + jnp.pi, 2 * jnp.pi) - jnp.pi
    return jax.lax.complex(jnp.real(log_lam), angle)


MIN_ANGLE = 1e-3
"""Angles [rad/sample] below this are stored one turn further (see `LRU`)."""
