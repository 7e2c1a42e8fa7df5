"""Modal truncation: one linear layer's modes, their scores, and the cuts that drop some of them.

Modal truncation keeps modes as they are and mixes none, unlike balanced truncation. Of a mode with
eigenvalue lam, row b of B and column c of C, whose impulse response is c lam^k b^T,

    H-infinity norm    |c| |b| / (1 - |lam|),
    energy             |c|^2 |b|^2 / (1 - |lam|^2).
"""

import numpy as np
from jaxtyping import Float

from zoo import AbstractSSM, DiagonalLTI

from ..model.layers import check_parameters
from ..plans import AbstractSpectrum, LayerPlan
from .cut import LinearCut
from .hankel import check_system
from .lift import Projection
from .system import double_lti, from_double_lti


def mode_gains(system: DiagonalLTI) -> Float[np.ndarray, " n"]:
    """The H-infinity norm of each mode of a stable system, a gain from input to output."""
    return _sizes(system) / -np.expm1(np.real(np.asarray(system.log_lam)))


def mode_energies(system: DiagonalLTI) -> Float[np.ndarray, " n"]:
    """The sum over all time, and all inputs and outputs, of the squares of each mode's response."""
    return _sizes(system) ** 2 / -np.expm1(2 * np.real(np.asarray(system.log_lam)))


def layer_adapted(scores: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """Each score over the sum of those that are not smaller, in the order of `scores`.

    The largest becomes 1, so a layer's last state is dropped last. Zero if all scores are zero.
    """
    order = np.argsort(-scores, kind="stable")
    sums = np.cumsum(scores[order])
    adapted = np.zeros_like(scores)
    adapted[order] = np.divide(scores[order], sums, out=np.zeros_like(sums), where=sums > 0)
    return adapted


class ModalSpectrum(AbstractSpectrum):
    """The modes of a layer with their scores, which `score` computes from its system."""

    def __init__(self, name: str, layer: AbstractSSM, score, words: str):
        self.layer, self.gramians = layer, words
        self.system = double_lti(layer)
        check_system(self.system, name)
        scores = score(self.system)
        self._order = np.argsort(-scores, kind="stable")
        self._gains = mode_gains(self.system)
        self.sigma: Float[np.ndarray, " n"] = scores[self._order]

    @property
    def is_known(self) -> bool:
        """Always."""
        return True

    def raised(self, rank: int, allowed: float) -> int:
        """`rank`: a state holds one score, and no more goes than is seen."""
        return rank

    def planned(self, path: str, rank: int) -> LayerPlan:
        n = self.layer.d_state
        if rank >= n:
            return LayerPlan(path, self.sigma, n, n, 0.0, 0.0, self.gramians)
        kept, dropped = np.sort(self._order[:rank]), self._order[rank:]
        lti = self.system
        log_lam = np.asarray(lti.log_lam)[kept]
        reduced = DiagonalLTI(log_lam, np.asarray(lti.B)[kept], np.asarray(lti.C)[:, kept], lti.D)
        after = from_double_lti(self.layer, reduced)
        check_parameters((), after)
        identity = np.eye(n, dtype=np.complex128)
        cut = LinearCut(
            self.layer, after, lti, Projection(log_lam, identity[:, kept], identity[kept])
        )
        bound = float(np.sum(self._gains[dropped]))  # gains add up at most
        return LayerPlan(path, self.sigma, n, rank, bound, 0.0, self.gramians, cut)


def _sizes(system: DiagonalLTI) -> Float[np.ndarray, " n"]:
    """|c| |b| of each mode."""
    B, C = np.asarray(system.B), np.asarray(system.C)
    return np.linalg.norm(B, axis=1) * np.linalg.norm(C, axis=0)
