"""Gramians of what a layer really does: from data, and over a finite number of samples.

White noise is far from what a trained layer is fed. Its controllability Gramian is then replaced by
the covariance of the states themselves, and that of the real map, of which y = Re(C x) is one half:
with x and its conjugate as states,

    E[x x^H] = L L^H  and  E[x x^T] = L L^T,  the factor of the doubled system being [L; conj(L)].

All factors here are of this kind, and `compress.balance.truncate` cuts with them. There is no error
bound then and no theorem that the result is stable: it has to be checked.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from beartype import beartype
from jaxtyping import Array, Complex, Float, PyTree, jaxtyped

from zoo import AbstractSSM, DiagonalLTI
from zoo.model import Classifier

from .layers import layers_of, path_name, replace_layers

SLICE = 16
"""Sequences that run through the model at the same time."""

CHUNK = 128
"""Samples whose states exist at the same time."""


@jaxtyped(typechecker=beartype)
def data_factor(
    lti: DiagonalLTI, u: Float[Array | np.ndarray, "b L m"]
) -> Complex[np.ndarray, "n k"]:
    """The factor of the states' second moments under the inputs `u`, k <= 2n.

    Each sequence starts from zero; the mean is over all samples of all sequences.
    """
    total = np.zeros((2 * lti.d_state,) * 2)
    with jax.enable_x64(True):
        arrays = [jnp.asarray(np.asarray(x), jnp.complex128) for x in (lti.log_lam, lti.B)]
        for k in range(0, len(u), SLICE):
            part = jnp.asarray(np.asarray(u[k : k + SLICE]), jnp.float64)
            total += np.asarray(_second_moments(*arrays, part))
    return _factor(total / (u.shape[0] * u.shape[1]))


@jaxtyped(typechecker=beartype)
def horizon_factors(
    lti: DiagonalLTI, horizon: int
) -> tuple[Complex[np.ndarray, "n k"], Complex[np.ndarray, "n l"]]:
    """Factors of the real map's Gramians summed over `horizon` samples.

    ValueError for a horizon below 1.
    """
    if horizon < 1:
        raise ValueError(f"horizon={horizon}, allowed: 1 or more samples")
    log_lam, B, C = (np.asarray(x, np.complex128) for x in (lti.log_lam, lti.B, lti.C))
    return (
        _closed_form_factor(log_lam, B, horizon),
        _closed_form_factor(log_lam.conj(), C.conj().T / 2, horizon),
    )


@jaxtyped(typechecker=beartype)
def layer_inputs(
    model: PyTree, batch: Any, forward: Callable[..., Any] | None = None
) -> dict[str, Float[np.ndarray, "..."]]:
    """What every layer of `model` is fed when it runs on `batch`, by the layer's path.

    `batch` has the sequences along its first axis. `forward(model, x)` runs one of them; it must
    call the layers in plain Python (not in a `scan`, a `jit` of its own or a `checkpoint`). Without
    it, `model` is a layer, any function of a sequence, or a pair of a `zoo.model.Classifier` and
    its BatchNorm state, which runs as in inference.
    """
    sizes = {len(x) for x in jax.tree.leaves(batch)}
    if len(sizes) != 1 or 0 in sizes:
        raise ValueError("batch: allowed are arrays with the same number of sequences, 1 or more")
    run = _run if forward is None else forward
    parts = [
        jax.tree.map(lambda x, k=k: jnp.asarray(x[k : k + SLICE]), batch)
        for k in range(0, sizes.pop(), SLICE)
    ]
    pieces = [jax.device_get(_recorded(run, model, part)) for part in parts]
    names = [path_name(keys) for keys, _ in layers_of(model)]
    missing = [name for name in names if name not in pieces[0]]
    if missing:
        raise ValueError(f"batch: the model does not call its layer {missing[0]} on it")
    return {name: np.concatenate([piece[name] for piece in pieces]) for name in names}


class _Recorder(AbstractSSM):
    """A layer that writes down its input."""

    dynamics = ()
    layer: AbstractSSM
    record: Callable[[Array], None] = eqx.field(static=True)

    @property
    def d_model(self) -> int:
        return self.layer.d_model

    @property
    def d_state(self) -> int:
        return self.layer.d_state

    def __call__(self, u, *args, **kwargs):
        self.record(u)
        return self.layer(u, *args, **kwargs)

    def init_state(self):
        return self.layer.init_state()

    def step(self, carry, u_t):
        raise NotImplementedError("only whole sequences are recorded")

    def to_lti(self):
        return self.layer.to_lti()

    def from_lti(self, lti):
        return self.layer.from_lti(lti)


@eqx.filter_jit
def _recorded(run: Callable[..., Any], model: PyTree, batch: Any) -> dict[str, Array]:
    def one(x):
        seen: dict[str, Array] = {}
        recorders = {
            keys: _Recorder(layer, partial(seen.__setitem__, path_name(keys)))
            for keys, layer in layers_of(model)
        }
        run(replace_layers(model, recorders), x)
        return seen

    return jax.vmap(one)(batch)


def _run(model: PyTree, x: Any) -> Any:
    if isinstance(model, tuple) and len(model) == 2 and isinstance(model[1], eqx.nn.State):
        return eqx.nn.inference_mode(model[0])(x, model[1])
    if isinstance(model, Classifier):
        raise ValueError("batch: with a Classifier goes its state, pass model=(classifier, state)")
    if not callable(model):
        raise ValueError(
            f"batch: a {type(model).__name__} cannot be run, pass inputs= instead (`layer_inputs`)"
        )
    return model(x)


@jax.jit
def _second_moments(log_lam, B, u):
    """The sum of z z^T over all samples of u [b L m], z = (Re x, Im x)."""
    lam = jnp.exp(log_lam)
    b, length, m = u.shape
    pad = -length % CHUNK
    u = jnp.pad(u, ((0, 0), (0, pad), (0, 0))).reshape(b, -1, CHUNK, m).transpose(1, 2, 0, 3)
    counts = (jnp.arange(length + pad) < length).astype(u.dtype).reshape(-1, CHUNK)

    def chunk(carry, inputs):
        x, total = carry
        u, counts = inputs

        def step(x, u_k):
            x = lam * x + u_k @ B.T
            return x, x

        x, states = jax.lax.scan(step, x, u)
        z = jnp.concatenate([jnp.real(states), jnp.imag(states)], axis=-1) * counts[:, None, None]
        z = z.reshape(-1, z.shape[-1])
        return (x, total + z.T @ z), None

    start = jnp.zeros((b, lam.size), lam.dtype), jnp.zeros((2 * lam.size,) * 2, u.dtype)
    return jax.lax.scan(chunk, start, (u, counts))[0][1]


def _closed_form_factor(log_lam, B, horizon: int):
    """The factor of E[x x^H] and E[x x^T] for white inputs, from both in closed form."""
    sums = []
    for other, log_other in ((B.conj(), log_lam.conj()), (B, log_lam)):
        rate = log_lam[:, None] + log_other
        sums.append((B @ other.T) * np.expm1(horizon * rate) / np.expm1(rate))
    P, N = sums
    return _factor(np.block([[(P + N).real, (N - P).imag], [(N + P).imag, (P - N).real]]) / 2)


def _factor(moments):
    """[L; conj(L)]'s L from the second moments of (Re x, Im x), largest columns first."""
    values, vectors = np.linalg.eigh((moments + moments.T) / 2)
    n = len(values) // 2
    keep = values > len(values) * np.finfo(float).eps * max(values[-1], 0.0)
    keep[-1] = True  # one column at least, also of silence
    Z = (vectors[:, keep] * np.sqrt(np.maximum(values[keep], 0)))[:, ::-1]
    return Z[:n] + 1j * Z[n:]
