"""A pendulum that is disturbed at random, and blurred pictures of it at irregular times.

As in Becker et al., ICML 2019 (Recurrent Kalman Networks), and Schirmer et al., ICML 2022 (CRU): a
rod of 1 m and 1 kg turns about one end, with friction 0.1 / s, and starts at rest at any angle. Its
velocity is disturbed so that a hundredth of a second adds a deviation of 0.1 rad/s. Pictures are
drawn of `samples` of the 100 instants of one second. In each sequence a share of the picture, which
goes up and down at random, is replaced by white noise.

In the papers the disturbances are kicks at the 100 instants; here they are a Wiener process, and
the motion follows a stochastic differential equation. In the papers the rod is drawn large and
scaled down; here it is drawn with soft edges.
"""

from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Float32, UInt8

SIDE = 24
INSTANTS, STEP = 100, 0.01  # of the trajectory, and seconds between them
_GRAVITY, _FRICTION = 9.81, 0.1
_DISTURBANCE = 0.1 / STEP**0.5  # rad/s per root of a second
_SUBSTEPS = 4
_CHUNK = 250  # pendulums that are simulated at once: whatever the count, one program
_ROD, _WIDTH = 55 / 128 * SIDE, 8 / 128 * SIDE  # pixels
_CLEAN = 5  # instants that stay without noise, to begin with
_ROUGHNESS = 0.2  # largest change of the share of noise from one instant to the next


class Sequences(NamedTuple):
    """Pictures of pendulums, and their angles."""

    images: UInt8[np.ndarray, "n L 24 24"]
    targets: Float32[np.ndarray, "n L 2"]
    """Sine and cosine of the angle; 0 is hanging down, pi/2 to the right."""
    intervals: Float32[np.ndarray, "n L"]
    """Time before each picture in units of the usual one, INSTANTS / L hundredths of a second."""


def simulate(
    count: int, seed: int, stream: int
) -> tuple[Float32[np.ndarray, "n 100"], Float32[np.ndarray, "n 100"]]:
    """Angles from hanging down, in radians, and velocities, in radians per second, of `count`
    pendulums at all instants."""
    import jax

    key = jax.random.fold_in(jax.random.key(seed), stream)
    program = _simulation(_DISTURBANCE)
    chunks = [
        np.asarray(program(jax.random.split(jax.random.fold_in(key, chunk), _CHUNK)))
        for chunk in range(-(-count // _CHUNK))
    ]
    states = np.concatenate(chunks)[:count]
    return states[..., 0], states[..., 1]


@cache
def _simulation(disturbance: float) -> Callable:
    """The compiled simulation of `_CHUNK` pendulums, from a key for each."""
    import diffrax
    import jax
    import jax.numpy as jnp

    def drift(t, state, args):
        angle, velocity = state
        # a rod about its end has the moment of inertia m l^2 / 3
        pull = -3 * _GRAVITY * jnp.sin(angle)
        return jnp.stack([velocity, pull - _FRICTION * velocity])

    def diffusion(t, state, args):
        return jnp.array([0.0, disturbance], jnp.float32)

    def one(key):
        start_key, path_key = jax.random.split(key)
        angle = jax.random.uniform(start_key, (), jnp.float32, -jnp.pi, jnp.pi)
        path = diffrax.UnsafeBrownianPath(jax.ShapeDtypeStruct((), jnp.float32), path_key)
        return diffrax.diffeqsolve(
            diffrax.MultiTerm(diffrax.ODETerm(drift), diffrax.ControlTerm(diffusion, path)),
            diffrax.Heun(),
            t0=0.0,
            t1=(INSTANTS - 1) * STEP,
            dt0=STEP / _SUBSTEPS,
            y0=jnp.stack([angle, jnp.zeros_like(angle)]),
            saveat=diffrax.SaveAt(ts=jnp.arange(INSTANTS, dtype=jnp.float32) * STEP),
            adjoint=diffrax.DirectAdjoint(),
            max_steps=INSTANTS * _SUBSTEPS + 10,
        ).ys

    return jax.jit(jax.vmap(one))


def observe(
    angles: Float32[np.ndarray, "n 100"], samples: int, rng: np.random.Generator
) -> Sequences:
    """Noisy pictures at `samples` instants of each trajectory, chosen at random."""
    count = len(angles)
    order = rng.random((count, INSTANTS)).argsort(axis=1)
    instants = np.sort(order[:, :samples], axis=1)
    seen = np.take_along_axis(angles, instants, axis=1)
    clear = np.take_along_axis(visibility(count, rng), instants, axis=1)[..., None, None]
    images = np.empty((count, samples, SIDE, SIDE), np.uint8)
    for start in range(0, count, 100):  # a hundred sequences' floats fit into a cache
        rows = slice(start, start + 100)
        noise = rng.random(images[rows].shape, np.float32)
        images[rows] = 255 * (clear[rows] * draw(seen[rows]) + (1 - clear[rows]) * noise)
    usual = INSTANTS / samples
    intervals = np.diff(instants, axis=1, prepend=instants[:, :1] - usual) / usual
    targets = np.stack([np.sin(seen), np.cos(seen)], axis=-1)
    return Sequences(images, targets, intervals.astype(np.float32))


def draw(angles: Float[np.ndarray, "*n"]) -> Float32[np.ndarray, "*n 24 24"]:
    """The rod at these angles, 1 on black, with edges one pixel soft."""
    angles = angles.astype(np.float32)[..., None, None]
    centres = (np.arange(SIDE, dtype=np.float32) + 0.5) - SIDE / 2
    right, down = centres, centres[:, None]
    along = np.clip(right * np.sin(angles) + down * np.cos(angles), 0, np.float32(_ROD))
    away = np.hypot(right - along * np.sin(angles), down - along * np.cos(angles))
    return np.clip(np.float32(_WIDTH / 2 + 0.5) - away, 0, 1)


def visibility(count: int, rng: np.random.Generator) -> Float32[np.ndarray, "n 100"]:
    """The share of each picture without noise: a random walk, scaled and clipped to [0, 1].

    Each sequence is all noise below a threshold from [0, 1/4] and clear above one from [3/4, 1].
    """
    walk = np.empty((count, INSTANTS))
    walk[:, 0] = rng.random(count)
    for step in range(1, INSTANTS):
        change = rng.uniform(-_ROUGHNESS, _ROUGHNESS, count)
        walk[:, step] = np.clip(walk[:, step - 1] + change, 0, 1)
    low, high = rng.uniform(0, 0.25, (count, 1)), rng.uniform(0.75, 1, (count, 1))
    clear = np.clip((walk - low) / (high - low), 0, 1)
    clear[:, :_CLEAN] = 1
    return clear.astype(np.float32)
