"""Hankel singular values followed from one moment of training to another.

Each Hankel singular value belongs to a pair of functions of time, the Hankel operator's singular
vectors. Values of two systems are matched by the overlap of these vectors, not by their order. The
change of a value is bounded by the change of the operator (Weyl; CompreSSM, lemma 3.1). All of this
holds for the operator of a linear system, and for that of a selective layer on data
(`compress.selective.operator`).
"""

from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
import scipy
from jaxtyping import Float, Int

from zoo import DiagonalLTI
from zoo.typing import checked

from ..linear.balance import gramian_factors
from ..linear.hankel import Form, check_system, hankel_matrix, hankel_singular_values
from ..linear.modal import double_arrays
from ..numerics.threads import one_blas_thread
from ..selective.operator import SampledStates

System = DiagonalLTI | SampledStates
"""Systems with a Hankel operator. `form` applies to linear systems only."""

FLOOR = 1e-6
"""Smallest share of the largest value that is followed. The vectors of smaller values are mostly
rounding."""


@dataclass(frozen=True)
class Match:
    """The Hankel singular values of two systems, matched."""

    before: Float[np.ndarray, " k"]
    """Values of the first system, descending, as many as are followed."""
    after: Float[np.ndarray, " k"]
    """For each of them, the matched value of the second system."""
    overlap: Float[np.ndarray, " k"]
    """|inner product| of their right singular vectors, 0 to 1."""
    rank: Int[np.ndarray, " k"]
    """Place of each `after` among all values of the second system, from 0."""

    def crossings(self, least: float = 0.5) -> int:
        """The number of pairs of values that have changed their order, among those with an overlap
        of `least` or more. With less overlap a vector has become a mixture, and its place is
        meaningless.
        """
        rank = self.rank[self.overlap >= least]
        return int(np.sum(np.triu(rank[:, None] > rank[None, :], 1)))


@runtime_checkable
class _Operator(Protocol):
    """A Hankel operator, whose right singular vectors are represented by rows."""

    def values(self) -> Float[np.ndarray, " k"]:
        """The singular values, descending."""
        ...

    def svd(self) -> tuple[Float[np.ndarray, " k"], Any]:
        """The singular values, descending, and the right singular vectors, by rows."""
        ...

    def minus(self, other: Any) -> "_Operator":
        """The difference from an `other` of the same kind."""
        ...

    def inner(self, rows: Any, other: Any, other_rows: Any) -> Any:
        """The inner products of right singular vectors with those of `other`."""
        ...


@checked
def values(system: System, *, form: Form = "real") -> Float[np.ndarray, " k"]:
    """The Hankel singular values, descending. ValueError if a linear system is not stable."""
    return _pair(system, system, form)[0].values()


@checked
def weyl_bound(before: System, after: System, *, form: Form = "real") -> float:
    """The largest |sigma_i(before) - sigma_i(after)|, over all i, that the change of the system
    allows.

    That is the norm of the difference of the two Hankel operators, for linear systems the first
    Hankel singular value of the system `before` - `after` (Weyl's inequality; lemma 3.1 of
    CompreSSM). The systems may differ in their number of states. ValueError if a linear one is not
    stable, if they are not of one kind, or if inputs and outputs, or samples, do not agree.
    """
    a, b = _pair(before, after, form)
    return float(a.minus(b).values()[0])


@checked
def match(before: System, after: System, *, form: Form = "real") -> Match:
    """Match the Hankel singular values of `before` and `after`. The pairs maximise the total
    overlap (linear sum assignment). Values below `FLOOR` times the first are left out. ValueError
    as for `weyl_bound`.
    """
    a, b = _pair(before, after, form)
    with one_blas_thread():
        (sigma_a, rows_a), (sigma_b, rows_b) = (_followed(*x.svd()) for x in (a, b))
        overlap = np.abs(a.inner(rows_a, b, rows_b))
    of_before, of_after = scipy.optimize.linear_sum_assignment(overlap, maximize=True)
    return Match(
        before=sigma_a[of_before],
        after=sigma_b[of_after],
        overlap=overlap[of_before, of_after],
        rank=of_after,
    )


def _pair(before: System, after: System, form: Form) -> tuple[_Operator, _Operator]:
    """The operators of two comparable systems."""
    if isinstance(before, SampledStates) and isinstance(after, SampledStates):
        _check_equal("(groups, samples)", *(x.H.shape[::2] for x in (before, after)))
        return before, after
    if isinstance(before, DiagonalLTI) and isinstance(after, DiagonalLTI):
        check_system(before, "before")
        check_system(after, "after")
        shapes = ((lti.B.shape[1], lti.C.shape[0]) for lti in (before, after))
        _check_equal("(inputs, outputs)", *shapes)
        return _LinearOperator(before, form), _LinearOperator(after, form)
    kinds = [type(system).__name__ for system in (before, after)]
    raise ValueError(f"`before` and `after` must be of one kind, got {kinds[0]} and {kinds[1]}")


def _check_equal(what: str, before: Any, after: Any) -> None:
    if before != after:
        raise ValueError(f"`after` must have {what} = {before}, as `before`, got {after}")


def _followed(sigma, rows):
    """Those above the floor."""
    kept = sigma > FLOOR * sigma[0]
    return sigma[kept], rows[kept]


class _LinearOperator(NamedTuple):
    """That of a linear system. Rows w_i stand for v_i = w_i [B, lam B, lam^2 B, ...].

    For form="real" v_i is 2 Re of that.
    """

    lti: DiagonalLTI
    form: Form

    def values(self):
        return np.asarray(hankel_singular_values(self.lti, form=self.form))

    def svd(self):
        Lp, Lq = gramian_factors(self.lti, self.form)
        U, sigma, _ = np.linalg.svd(hankel_matrix(self.form, Lp, Lq), full_matrices=False)
        held = sigma > 0
        return sigma[held], (U[:, held].conj().T @ Lq.conj().T) / sigma[held, None]

    def minus(self, other):
        arrays = zip(double_arrays(self.lti), double_arrays(other.lti), strict=True)
        (lam_a, lam_b), (B_a, B_b), (C_a, C_b) = arrays
        difference = DiagonalLTI(
            log_lam=np.concatenate([lam_a, lam_b]),
            B=np.concatenate([B_a, B_b]),
            C=np.concatenate([C_a, -C_b], axis=1),
            D=self.lti.D,
        )
        return _LinearOperator(difference, self.form)

    def inner(self, rows, other, other_rows):
        """By the sum over k of lam_a^k B_a B_b^H lam_b^k in closed form."""
        (lam_a, B_a, _), (lam_b, B_b, _) = double_arrays(self.lti), double_arrays(other.lti)
        P = (B_a @ B_b.conj().T) / -np.expm1(lam_a[:, None] + lam_b.conj())
        products = rows @ P @ other_rows.conj().T
        if self.form == "complex":
            return products
        N = (B_a @ B_b.T) / -np.expm1(lam_a[:, None] + lam_b)
        return 2 * np.real(products + rows @ N @ other_rows.T)
