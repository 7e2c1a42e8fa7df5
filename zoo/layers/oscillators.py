"""Conversion of oscillators to conjugate pairs of eigenvalues, and back.

An oscillator's step (`zoo.LinOSS`) has the eigenvalues lam, conj(lam) = rho exp(+-i theta) with

    rho^2 = 1 / S,    dt^2 A = |1 - lam|^2 / rho^2,    S = 1 + dt G,

so that at a given step any stable pair is one oscillator, with G > 0. As x_k - x_{k-1} = dt z_k in
a mode, its velocity is g = (1 - 1/lam) / dt times its position. With the mode w such that position
and velocity are Re(w) and Re(g w), the force B u, the push P u and the readouts C and V come to

    w_k = lam w_{k-1} + (f B + h P) u_k,    y_k = Re((C + V g) w_k),
    f = -i dt / (S Im g conj(lam)),         h = i conj(g) / Im g.

f and h, as 1 and g, are independent over the real numbers: any complex row of B and column of C has
one (B, P) and one (C, V).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Complex, Float

from ..lti import DiagonalLTI
from ..typing import checked
from .base import MIN_DECAY


class Oscillators(NamedTuple):
    """Stiffness A [1/time^2], damping G [1/time] and step dt [time] of each oscillator."""

    A: Float[Array, " d_state"]
    G: Float[Array, " d_state"]
    dt: Float[Array, " d_state"]


class Modes(NamedTuple):
    """The eigenvalue of positive angle of each oscillator, and the coefficients f, h and g of its
    mode."""

    log_lam: Complex[Array, " d_state"]
    of_force: Complex[Array, " d_state"]
    of_push: Complex[Array, " d_state"]
    velocity: Complex[Array, " d_state"]


@checked
def stable(
    A: Float[Array, " d_state"],
    G: Float[Array, " d_state"],
    dt: Float[Array, " d_state"],
    implicit: Bool[Array, " d_state"],
) -> Oscillators:
    """A and G within their bounds, by the rectifiers of the papers. G >= 0. Of implicit oscillators
    A >= 0, and G is dt A larger; of others A lies where the eigenvalues are complex, (sqrt(S) -
    1)^2 <= dt^2 A <= (sqrt(S) + 1)^2.
    """
    G = jax.nn.relu(G)
    root = jnp.sqrt(1 + dt * G)
    low = (G / (root + 1)) ** 2
    high = ((root + 1) / dt) ** 2
    between = low + jax.nn.relu(A - low) - jax.nn.relu(A - high)
    positive = jax.nn.relu(A)
    return Oscillators(
        jnp.where(implicit, positive, between), jnp.where(implicit, G + dt * positive, G), dt
    )


@checked
def to_modes(oscillators: Oscillators) -> Modes:
    """The modes of oscillators within their bounds. Equal eigenvalues are moved apart."""
    A, G, dt = oscillators
    root = jnp.sqrt(1 + dt * G)
    less = dt * G / (root + 1)  # root - 1
    least = jnp.sin(_least_angle(less) / 2) ** 2
    half_sine = jnp.clip((dt**2 * A - less**2) / (4 * root), least, 1 - least)
    angle = 2 * jnp.arctan2(jnp.sqrt(half_sine), jnp.sqrt(1 - half_sine))
    decay = jnp.maximum(0.5 * jnp.log1p(dt * G), UNDAMPED)
    return _modes(decay, angle, dt)


def _modes(decay, angle, dt) -> Modes:
    """f, h and g of eigenvalues exp(-decay + i angle)."""
    rho = jnp.exp(-decay)
    g_im = jnp.sin(angle) / (rho * dt)
    g_re = (jnp.expm1(-decay) + 2 * jnp.sin(angle / 2) ** 2) / (rho * dt)
    g = jax.lax.complex(g_re, g_im)
    turned = jax.lax.complex(jnp.cos(angle), jnp.sin(angle))
    return Modes(
        log_lam=jax.lax.complex(-decay, angle),
        of_force=-1j * (dt * rho / g_im) * turned,  # S = 1 / rho^2
        of_push=1j * jnp.conj(g) / g_im,
        velocity=g,
    )


@checked
def from_modes(
    lti: DiagonalLTI, own: Complex[Array, " oscillators"], step_logit: Float[Array, " oscillators"]
) -> tuple[Oscillators, Array, Array, Array, Array, Array]:
    """The oscillators that are `lti`, their B, P, C and V, and their steps before the sigmoid.

    Each takes the step of the oscillator with the nearest eigenvalue in `own`.
    """
    decay = jnp.clip(-jnp.real(lti.log_lam), MIN_DECAY, FASTEST)
    angle = jnp.pi - jnp.mod(jnp.pi - jnp.imag(lti.log_lam), 2 * jnp.pi)
    below = angle < 0  # y = Re(c x) is the same with all of it conjugated
    b = jnp.where(below[:, None], jnp.conj(lti.B), lti.B)
    c = jnp.where(below, jnp.conj(lti.C), lti.C)
    least = _least_angle(jnp.expm1(decay))
    angle = jnp.clip(jnp.abs(angle), least, jnp.pi - least)
    log_lam = jax.lax.complex(-decay, angle)
    nearest = jnp.argmin(jnp.abs(log_lam[:, None] - own), axis=1)
    logit = step_logit[nearest]
    dt = jax.nn.sigmoid(logit.astype(decay.dtype))
    modes = _modes(decay, angle, dt)
    f, h, g = modes.of_force, modes.of_push, modes.velocity
    velocity = jnp.imag(c) / jnp.imag(g)
    C = jnp.real(c) - velocity * jnp.real(g)
    determinant = (jnp.real(f) * jnp.imag(h) - jnp.imag(f) * jnp.real(h))[:, None]
    f, h = f[:, None], h[:, None]
    B = (jnp.real(b) * jnp.imag(h) - jnp.imag(b) * jnp.real(h)) / determinant
    push = (jnp.real(f) * jnp.imag(b) - jnp.imag(f) * jnp.real(b)) / determinant
    distance = jnp.expm1(-decay) ** 2 + 4 * jnp.exp(-decay) * jnp.sin(angle / 2) ** 2
    oscillators = Oscillators(
        A=distance * jnp.exp(2 * decay) / dt**2, G=jnp.expm1(2 * decay) / dt, dt=dt
    )
    return oscillators, B, push, C, velocity, logit


def _least_angle(less):
    """The least angle of an eigenvalue exp(-decay), from 1 / rho - 1."""
    return jnp.clip(1e-2 * less, 1e-5, 1e-2)


UNDAMPED = 5e-8
"""Decay per sample that `to_lti` gives an oscillator without damping."""

FASTEST = 6.9
"""Largest decay per sample that is written: a modulus of 1e-3."""
