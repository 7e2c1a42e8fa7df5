"""The simplified state-space layer S5 (Smith, Warrington, Linderman, arXiv 2208.04933)."""

import math
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Complex, Float, PRNGKeyArray

from ..lti import DiagonalLTI
from ..recurrence.linear import linear_recurrence, lti_apply, lti_step
from ..typing import Count, InputArray, checked
from .base import MIN_DECAY, AbstractTimedSSM, check_fits
from .checks import check_divides, check_positive, check_steps, is_finite
from .discretize import RULES, Discretization
from .half import as_complex, narrowed, widened, with_feedthrough
from .initializers import hippo_legs_normal, log_uniform


class S5(AbstractTimedSSM):
    """A diagonal continuous-time system with learned step sizes, N stored of 2N conjugate states.

        x' = Lambda x + B u,  Lambda = -exp(Lambda_re_log) + i Lambda_im       (eq. 1, 5)
        x_k = lam x_{k-1} + gain * (B u_k), step exp(log_step) of each state    (eq. 6)
        y_k = 2 Re(C x_k) + D u_k                                              (conjugate symmetry)

    The public code stores Re(Lambda) itself, which training can push past zero; its logarithm
    cannot leave the stable half-plane. Its other options are settings of the class: without
    `conjugate_pairs` both states of a pair are stored, and y_k = Re(C x_k) + D u_k;
    `clip_eigenvalues` takes real parts above -1e-4 for that; all steps are multiplied by
    `step_rescale`.
    """

    is_modal: ClassVar[bool] = True
    dynamics: ClassVar[tuple[str, ...]] = ("Lambda_re_log", "Lambda_im", "log_step", "B_re", "B_im")
    matrices: ClassVar[tuple[str, ...]] = ("B_re", "B_im", "C_re", "C_im")

    Lambda_re_log: Float[Array, " d_state"]
    Lambda_im: Float[Array, " d_state"]
    B_re: Float[Array, "d_state d_model"]
    B_im: Float[Array, "d_state d_model"]
    C_re: Float[Array, "d_model d_state"]
    C_im: Float[Array, "d_model d_state"]
    D: Float[Array, " d_model"]
    log_step: Float[Array, " d_state"]
    discretization: Discretization = eqx.field(static=True)
    conjugate_pairs: bool = eqx.field(static=True, default=True)
    clip_eigenvalues: bool = eqx.field(static=True, default=False)
    step_rescale: float = eqx.field(static=True, default=1.0)

    def __check_init__(self):
        if self.discretization not in RULES:
            raise ValueError(
                f"`discretization` must be one of {', '.join(sorted(RULES))}, got "
                f"{self.discretization!r}"
            )
        check_rescale(self.step_rescale)

    @classmethod
    @checked
    def init(
        cls,
        d_model: int,
        d_state: int,
        *,
        key: PRNGKeyArray,
        hippo_blocks: int = 1,
        step_min: float = 1e-3,
        step_max: float = 1e-1,
        discretization: Discretization = "zoh",
        conjugate_pairs: bool = True,
        clip_eigenvalues: bool = False,
        step_rescale: float = 1.0,
    ) -> "S5":
        """`hippo_blocks` HiPPO-LegS-N matrices on the diagonal (section 4.3); B, C in their basis.

        Steps are log-uniform in [step_min, step_max], in units of the time between samples.
        """
        check_positive("d_model", d_model)
        check_positive("d_state", d_state)
        check_divides("hippo_blocks", hippo_blocks, "d_state", d_state)
        check_steps("step", step_min, step_max)
        B_key, C_key, D_key, step_key = jax.random.split(key, 4)
        size = 2 * d_state if conjugate_pairs else d_state
        Lambda, V = hippo_legs_normal(size // hippo_blocks, both=not conjugate_pairs)
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
            conjugate_pairs=conjugate_pairs,
            clip_eigenvalues=clip_eigenvalues,
            step_rescale=step_rescale,
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
        discretization: Discretization = "zoh",
        conjugate_pairs: bool = True,
        clip_eigenvalues: bool = False,
        step_rescale: float = 1.0,
    ) -> "S5":
        """A layer from the matrices of the paper, one of each conjugate pair, or both.

        ValueError unless Re(Lambda) < 0; with `clip_eigenvalues` those that are not are clipped.
        """
        decay = -jnp.real(Lambda)
        if clip_eigenvalues:
            decay = jnp.maximum(decay, LEAST_DECAY)
        elif not isinstance(decay, Tracer) and not bool(jnp.all(decay > 0)):
            raise ValueError(
                "`Lambda` must have real parts below 0 without `clip_eigenvalues`, got up to "
                f"{float(jnp.max(-decay)):g}"
            )
        return cls(
            Lambda_re_log=jnp.log(decay),
            Lambda_im=jnp.imag(Lambda),
            B_re=jnp.real(B),
            B_im=jnp.imag(B),
            C_re=jnp.real(C),
            C_im=jnp.imag(C),
            D=D,
            log_step=log_step,
            discretization=discretization,
            conjugate_pairs=conjugate_pairs,
            clip_eigenvalues=clip_eigenvalues,
            step_rescale=step_rescale,
        )

    @property
    def d_model(self) -> int:
        return self.D.shape[0]

    @property
    def d_state(self) -> int:
        return self.Lambda_im.shape[0]

    @property
    def Lambda(self) -> Complex[Array, " d_state"]:
        """Continuous-time eigenvalues [rad per unit of time]."""
        decay = jnp.exp(widened(self.Lambda_re_log))
        if self.clip_eigenvalues:
            decay = jnp.maximum(decay, LEAST_DECAY)
        return as_complex(-decay, self.Lambda_im)

    @property
    def steps(self) -> Float[Array, " d_state"]:
        """The step size of each state [units of time per sample]."""
        return self.step_rescale * jnp.exp(widened(self.log_step))

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
        advances by dt_k * steps_n under the input u_k, which is held over the interval.
        """
        lti = self.to_lti()
        if dt is None:
            y, _ = lti_apply(lti.log_lam, lti.B, lti.C, u)
        else:
            a, b = jax.vmap(self.sampled)(u, dt)
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
            a, b = self.sampled(u_t, dt)
            carry = a * carry + b
            y_t = jnp.real(lti.C @ carry)
        return carry, with_feedthrough(y_t, self.D, u_t)

    @checked
    def sampled(
        self, u_t: Float[InputArray, " d_model"], dt: Float[InputArray, ""]
    ) -> tuple[Complex[Array, " d_state"], Complex[Array, " d_state"]]:
        """Decay and input of the states over an interval of `dt` samples."""
        rule = RULES[self.discretization]
        log_lam, gain = rule.forward(self.Lambda, dt * self.steps)
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
        log_lam, gain = RULES[self.discretization].forward(self.Lambda, self.steps)
        return DiagonalLTI(
            log_lam=log_lam,
            B=gain[:, None] * as_complex(self.B_re, self.B_im),
            C=self._of_pair * as_complex(self.C_re, self.C_im),
            D=self.D,
        )

    @property
    def _of_pair(self) -> int:
        """How many states of the system a stored one stands for."""
        return 2 if self.conjugate_pairs else 1

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
        step = self.steps[nearest]
        Lambda, gain = RULES[self.discretization].inverse(log_lam, step)
        layer = self.from_continuous(
            Lambda,
            (lti.B / gain[:, None]).astype(own.dtype),
            jnp.asarray(lti.C / self._of_pair).astype(own.dtype),
            jnp.asarray(lti.D).astype(self.D.dtype),
            log_step,
            discretization=self.discretization,
            conjugate_pairs=self.conjugate_pairs,
            clip_eigenvalues=self.clip_eigenvalues,
            step_rescale=self.step_rescale,
        )
        return narrowed(layer, self)


@checked
def check_rescale(value: Any) -> None:
    """ValueError unless `value` is a factor for step sizes: finite, and above 0."""
    if not is_finite(value) or value <= 0:
        raise ValueError(f"`step_rescale` must be above 0, got {value}")


LEAST_DECAY = 1e-4
"""Least -Re(Lambda) of clipped eigenvalues [per unit of time], that of the public code."""
