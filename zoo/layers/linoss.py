"""Oscillators: LinOSS (arXiv 2410.03943) and D-LinOSS, with damping (arXiv 2505.12171)."""

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Complex, Float, PRNGKeyArray

from ..lti import DiagonalLTI
from ..masks import check_length
from ..recurrence.oscillate import Kicks, oscillate, oscillate_once
from ..typing import Count, InputArray, checked
from .base import AbstractLinearSSM, check_fits
from .checks import check_kinds, check_positive
from .half import narrowed, widened, with_feedthrough
from .oscillators import Oscillators, from_modes, stable, to_modes


@dataclass(frozen=True)
class LinOSSConfig:
    """Oscillators without damping (Rusch, Rus 2025)."""

    states_per_channel: ClassVar[bool] = False

    d_state: int = 64
    """Real oscillators N of each layer at the start: two for each complex one of the papers."""
    scheme: Literal["im", "imex"] = "im"
    """The discretisation: "im" dissipates energy, "imex" conserves it."""

    def __post_init__(self):
        check_kinds(self)
        check_positive("d_state", self.d_state)
        if self.scheme not in ("im", "imex"):
            raise ValueError(f"`scheme` must be im or imex, got {self.scheme!r}")

    @property
    def needs_data(self) -> bool:
        """Whether layers with these settings can be reduced with data alone (they have no Gramians
        of white noise)."""
        return self.scheme == "imex"

    @checked
    def build(self, d_model: int, *, key: PRNGKeyArray) -> "LinOSS":
        return LinOSS.init(d_model, self.d_state, key=key, scheme=self.scheme)


@dataclass(frozen=True)
class DLinOSSConfig:
    """Oscillators with damping that is learned (Boyer et al. 2025)."""

    states_per_channel: ClassVar[bool] = False

    d_state: int = 64
    """Real oscillators N of each layer at the start: two for each complex one of the papers."""
    r_min: float = 0.9
    """Smallest modulus of an eigenvalue at the start; the largest is 1."""
    max_phase: float = math.pi
    """Largest angle of an eigenvalue at the start [rad/sample], at most pi."""

    def __post_init__(self):
        check_kinds(self)
        check_positive("d_state", self.d_state)
        check_ring(self.r_min, self.max_phase)

    @checked
    def build(self, d_model: int, *, key: PRNGKeyArray) -> "LinOSS":
        return LinOSS.init_damped(
            d_model, self.d_state, key=key, r_min=self.r_min, max_phase=self.max_phase
        )


class LinOSS(AbstractLinearSSM):
    """N forced oscillators x'' = -A x - G x' + B u, each with a step dt = sigmoid(step_logit).

        z_k = (z_{k-1} - dt A x_{k-1} + dt B u_k) / S,   S = 1 + dt G       (velocity)
        x_k = x_{k-1} + dt z_k + P u_k                                      (position)
        y_k = C x_k + V z_k + D u_k

    With G = 0 this is LinOSS-IMEX, whose eigenvalues are on the unit circle, and with G > 0
    D-LinOSS. LinOSS-IM is the same with G + dt A instead of G, where `implicit` says so. A is
    held between the bounds within which eigenvalues are complex pairs, and G at 0 or above, by the
    rectifiers of the papers. These pass no gradient where G is 0, so an undamped oscillator stays
    undamped during training.

    The published layers have P = V = 0 and complex B and C: each of their oscillators is two here,
    with the same A, G and step (`from_published`). P (`push`) and V (`velocity`) start at zero and
    make the class closed under truncation: with them any stable conjugate pair, its rows
    of B and its columns of C, is an oscillator at any step (`zoo.layers.oscillators`).

    Layers from `from_lti` have no `implicit` states: an undamped layer becomes a D-LinOSS, whose
    damping is trained from then on. Without any damping there are no Gramians of white noise. Such
    a layer is cut by data, or with a finite horizon.
    """

    is_modal: ClassVar[bool] = True
    dynamics: ClassVar[tuple[str, ...]] = ("A", "G", "step_logit", "B", "push")
    matrices: ClassVar[tuple[str, ...]] = ("B", "push", "C", "velocity")

    A: Float[Array, " d_state"]
    G: Float[Array, " d_state"]
    step_logit: Float[Array, " d_state"]
    B: Float[Array, "d_state d_model"]
    push: Float[Array, "d_state d_model"]
    C: Float[Array, "d_model d_state"]
    velocity: Float[Array, "d_model d_state"]
    D: Float[Array, " d_model"]
    implicit: Bool[Array, " d_state"]

    @classmethod
    @checked
    def init(
        cls, d_model: int, d_state: int, *, key: PRNGKeyArray, scheme: Literal["im", "imex"] = "im"
    ) -> "LinOSS":
        """Undamped, A uniform in [0, 1), and steps around 1/2 (section 3)."""
        check_positive("d_state", d_state)
        A_key, rest_key = jax.random.split(key)
        A = jax.random.uniform(A_key, (d_state,))
        parts = _start(d_model, d_state, rest_key)
        return cls(A=A, G=jnp.zeros(d_state), **parts, implicit=jnp.full(d_state, scheme == "im"))

    @classmethod
    @checked
    def init_damped(
        cls,
        d_model: int,
        d_state: int,
        *,
        key: PRNGKeyArray,
        r_min: float = DLinOSSConfig.r_min,
        max_phase: float = DLinOSSConfig.max_phase,
    ) -> "LinOSS":
        """Eigenvalues uniform on the ring r_min <= |lam| < 1, angles in [0, max_phase) rad."""
        check_ring(r_min, max_phase)
        radius_key, angle_key, rest_key = jax.random.split(key, 3)
        parts = _start(d_model, d_state, rest_key)
        squared = jax.random.uniform(radius_key, (d_state,), minval=r_min**2, maxval=1.0)
        angle = max_phase * jax.random.uniform(angle_key, (d_state,))
        dt = jax.nn.sigmoid(parts["step_logit"])
        distance = (1 - jnp.sqrt(squared)) ** 2 + 4 * jnp.sqrt(squared) * jnp.sin(angle / 2) ** 2
        return cls(
            A=distance / (squared * dt**2),
            G=(1 - squared) / (squared * dt),
            **parts,
            implicit=jnp.zeros(d_state, bool),
        )

    @classmethod
    @checked
    def from_published(
        cls,
        A: Float[InputArray, " oscillators"],
        steps: Float[InputArray, " oscillators"],
        B: Complex[InputArray, "oscillators d_model"],
        C: Complex[InputArray, "d_model oscillators"],
        D: Float[InputArray, " d_model"],
        G: Float[InputArray, " oscillators"] | None = None,
        *,
        scheme: Literal["im", "imex"],
    ) -> "LinOSS":
        """The layer of the published parameters: two real oscillators for each complex one.

        `steps` are those before the sigmoid. Without `G` it is LinOSS, with it D-LinOSS, whose
        scheme is "imex".
        """
        if G is not None and scheme != "imex":
            raise ValueError(f"`scheme` must be imex with damping, got {scheme!r}")
        twice = [jnp.tile(x, 2) for x in (A, jnp.zeros_like(A) if G is None else G, steps)]
        B = jnp.concatenate([jnp.real(B), jnp.imag(B)])
        C = jnp.concatenate([jnp.real(C), -jnp.imag(C)], axis=1)
        n = len(B)
        implicit = jnp.full(n, scheme == "im")
        A, G, steps = twice
        none = jnp.zeros_like(B), jnp.zeros_like(C)
        return cls(A, G, steps, B, none[0], C, none[1], jnp.asarray(D), implicit)

    @property
    def d_model(self) -> int:
        return self.D.shape[0]

    @property
    def d_state(self) -> int:
        return self.A.shape[0]

    @property
    def keeps_forever(self) -> bool:
        return not bool(jnp.any(self.oscillators.G > 0))

    @property
    def oscillators(self) -> Oscillators:
        """The effective A, G and dt: within their bounds, and G with the term of `implicit`
        oscillators."""
        dt = jax.nn.sigmoid(widened(self.step_logit))
        return stable(widened(self.A), widened(self.G), dt, self.implicit)

    @checked
    def __call__(
        self, u: Float[InputArray, "length {self.d_model}"], *, key: PRNGKeyArray | None = None
    ) -> Float[Array, "length {self.d_model}"]:
        return self.run(self.init_state(), u)[1]

    @checked
    def init_state(self) -> Float[Array, "d_state 2"]:
        return jnp.zeros((self.d_state, 2), widened(self.A).dtype)

    @checked
    def step(
        self,
        carry: Float[InputArray, "{self.d_state} 2"],
        u_t: Float[InputArray, "{self.d_model}"],
    ) -> tuple[Float[Array, "{self.d_state} 2"], Float[Array, "{self.d_model}"]]:
        force, push = self._driven(u_t[None])
        carry = oscillate_once(self._kicks, carry, force[0], push[0])
        return carry, self._read(carry[None], u_t[None])[0]

    @checked
    def run(
        self,
        carry: Float[InputArray, "{self.d_state} 2"],
        u: Float[InputArray, "length {self.d_model}"],
        length: Count | None = None,
    ) -> tuple[Float[Array, "{self.d_state} 2"], Float[Array, "length {self.d_model}"]]:
        if length is not None:
            check_length(length, u.shape[0])
        states = oscillate(self._kicks, *self._driven(u), carry)
        y = self._read(states, u)
        if u.shape[0] == 0:
            return jnp.asarray(carry), y
        return states[-1] if length is None else states[length - 1], y

    @property
    def _kicks(self) -> Kicks:
        A, G, dt = self.oscillators
        S = 1 + dt * G
        return Kicks(1 / S, -dt * A / S, dt)

    def _driven(self, u: Float[InputArray, "length d_model"]) -> tuple[Array, Array]:
        """What the inputs add to the velocities and to the positions."""
        _, G, dt = self.oscillators
        u = widened(u).astype(dt.dtype)
        force = dt / (1 + dt * G) * (u @ widened(self.B).T)
        return force, u @ widened(self.push).T

    def _read(
        self, states: Float[Array, "length d_state 2"], u: Float[InputArray, "length d_model"]
    ) -> Float[Array, "length d_model"]:
        y = states[..., 1] @ widened(self.C).T + states[..., 0] @ widened(self.velocity).T
        return with_feedthrough(y, self.D, u)

    @checked
    def to_lti(self) -> DiagonalLTI:
        """One state for each oscillator, with the eigenvalue of positive angle. If both eigenvalues
        are equal, they are moved apart along the circle by a hundredth of their distance from it,
        or by 1e-5 rad if that is more.
        """
        modes = to_modes(self.oscillators)
        push, velocity = widened(self.push), widened(self.velocity)
        return DiagonalLTI(
            log_lam=modes.log_lam,
            B=modes.of_force[:, None] * widened(self.B) + modes.of_push[:, None] * push,
            C=widened(self.C) + velocity * modes.velocity,
            D=self.D,
        )

    @checked
    def from_lti(self, lti: DiagonalLTI) -> "LinOSS":
        """Each pair becomes an oscillator, with the step of the nearest oscillator of this layer.

        Real eigenvalues are moved off the axis as in `to_lti`, and those of modulus below 1e-3 are
        stored as that.
        """
        check_fits(lti, self)
        dtype = self.init_state().dtype
        found = from_modes(lti, to_modes(self.oscillators).log_lam, self.step_logit)
        oscillators, B, push, C, velocity, step_logit = found
        layer = LinOSS(
            A=oscillators.A.astype(dtype),
            G=oscillators.G.astype(dtype),
            step_logit=step_logit,
            B=B.astype(dtype),
            push=push.astype(dtype),
            C=C.astype(dtype),
            velocity=velocity.astype(dtype),
            D=jnp.asarray(lti.D).astype(self.D.dtype),
            implicit=jnp.zeros(lti.d_state, bool),
        )
        return narrowed(layer, self)


def _start(d_model: int, d_state: int, key: PRNGKeyArray) -> dict[str, Array]:
    """Steps, input and output matrices as in the paper."""
    check_positive("d_model", d_model)
    check_positive("d_state", d_state)
    step_key, B_key, C_key, D_key = jax.random.split(key, 4)
    wide, high = 1 / math.sqrt(d_model), math.sqrt(2 / d_state)
    shape = (d_state, d_model)
    return {
        "step_logit": 0.5 * jax.random.normal(step_key, (d_state,)),
        "B": jax.random.uniform(B_key, shape, minval=-wide, maxval=wide),
        "push": jnp.zeros(shape),
        "C": jax.random.uniform(C_key, shape[::-1], minval=-high, maxval=high),
        "velocity": jnp.zeros(shape[::-1]),
        "D": jax.random.normal(D_key, (d_model,)),
    }


@checked
def check_ring(r_min: float, max_phase: float) -> None:
    """ValueError unless the ring is valid for the initial eigenvalues."""
    if not 0 < r_min < 1:
        raise ValueError(f"`r_min` must be in (0, 1), got {r_min}")
    if not 0 < max_phase <= math.pi:
        raise ValueError(f"`max_phase` must be in (0, pi], got {max_phase}")
