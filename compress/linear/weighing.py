"""Gramians of one linear layer, and the steps after its truncation."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from jaxtyping import Complex

from zoo import DiagonalLTI

from ..model.record import LayerData
from .balance import Truncation, gramian_factors
from .data_gramians import data_factor, gradient_factor, horizon_factors
from .h2 import nearest
from .hankel import Form
from .refit import refit
from .selection import StateChoice

Factors = tuple[Complex[np.ndarray, "n k"], Complex[np.ndarray, "n l"]]
"""Factors Lp and Lq of the two Gramians, as `compress.linear.balance.truncate` takes them."""


@dataclass(frozen=True)
class Weighing:
    """Gramians of a linear layer, and the way from its truncation to the layer that is kept."""

    words: str
    """A description of the Gramians for readers."""
    form: Form
    """Whether the real map or the complex system is truncated."""
    factors: Callable[[DiagonalLTI], Factors]
    """From the layer's system to factors of its Gramians."""
    is_white: bool = False
    """Whether these are the Gramians of white noise, for which error bounds hold."""
    select: StateChoice | None = None
    """Which balanced states stay; None for those of the largest values."""
    improve: Callable[[DiagonalLTI, Truncation], Truncation] | None = None
    """From the layer's system and its truncation to a better reduction."""
    refit: Callable[[DiagonalLTI, DiagonalLTI], DiagonalLTI] | None = None
    """From the layer's system and the reduced one to that with C and D fitted."""
    instead: "Weighing | None" = None
    """The fallback if all values are zero or the reduced system would be unstable."""


def white_noise(form: Form, **more: Any) -> Weighing:
    """The Gramians of the theory: white noise at the input, all outputs alike."""
    factors = partial(gramian_factors, form=form)
    return Weighing(f"white noise, {form}", form, factors, is_white=True, **more)


def h2_optimal() -> Weighing:
    """White noise and the real map, then the nearest system in the H2 norm."""
    return Weighing(
        "white noise, real, H2-optimal", "real", gramian_factors, is_white=True, improve=nearest
    )


def horizon(samples: int) -> Weighing:
    """Both Gramians summed over so many samples."""
    factors = partial(horizon_factors, horizon=samples)
    return Weighing(f"{samples} samples", "real", factors, instead=white_noise("real"))


def one_basis(weighing: Weighing) -> Weighing:
    """The same Gramians, for an orthonormal basis on both sides: of P / tr P + Q / tr Q.

    Each state is scaled first, so that both weigh it alike. Of a system whose eigenvalues have one
    modulus, the projection has none that is larger: there it is always stable.
    """

    def factors(system: DiagonalLTI) -> Factors:
        Lp, Lq = weighing.factors(system)
        if not (np.any(Lp) and np.any(Lq)):
            return np.zeros_like(Lp), np.zeros_like(Lq)
        reached, seen = (np.linalg.norm(L, axis=1) for L in (Lp, Lq))
        both = (reached > 0) & (seen > 0)
        scale = np.where(both, np.sqrt(seen / np.where(both, reached, 1)), 1)[:, None]
        parts = [np.concatenate([np.real(L), np.imag(L)]) for L in (scale * Lp, Lq / scale)]
        parts = [Z / max(float(np.linalg.norm(Z)), np.finfo(float).tiny) for Z in parts]
        U, sizes, _ = np.linalg.svd(np.concatenate(parts, axis=1), full_matrices=False)
        root = U * sizes
        L = root[: len(Lp)] + 1j * root[len(Lp) :]
        return L / scale, L * scale

    return replace(weighing, words=f"{weighing.words}, one basis", factors=factors, instead=None)


def on_data(data: LayerData, *, states: bool, fitted: bool, form: Form) -> Weighing:
    """The covariance of the states on `data`, and of the gradients by the states.

    Without `states`, and where `data` has no gradients, the Gramian is that of white noise. `form`
    counts where both are. With `fitted`, C and D are fitted to the layer's outputs.
    """

    def fit(system: DiagonalLTI, reduced: DiagonalLTI) -> DiagonalLTI:
        return refit(system, reduced, data.inputs, data.lengths)

    refitted = fit if fitted else None
    if not states and data.gradients is None:
        return white_noise(form, refit=refitted)

    def factors(system: DiagonalLTI) -> Factors:
        white: Any = None
        if not states or data.gradients is None:
            white = gramian_factors(system, "real")
        if data.gradients is None:
            return data_factor(system, data.inputs, data.lengths), white[1]
        with ThreadPoolExecutor(1) as other:
            observability = other.submit(gradient_factor, system, data.gradients, data.lengths)
            Lp = data_factor(system, data.inputs, data.lengths) if states else white[0]
            return Lp, observability.result()

    words = "data" if data.gradients is None else "data and gradients" if states else "gradients"
    instead = white_noise("real", refit=refitted)
    return Weighing(words, "real", factors, refit=refitted, instead=instead)
