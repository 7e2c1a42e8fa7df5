"""Hankel singular values followed from one moment of training to another.

A Hankel singular value is a number; what carries it is a pair of functions of time, the Hankel
operator's singular vectors. Two systems' values belong together where these overlap, whatever their
order. How far a value can have moved is bounded by the change of the operator (Weyl; CompreSSM,
lemma 3.1).
"""

from dataclasses import dataclass

import numpy as np
from beartype import beartype
from jaxtyping import Float, Int, jaxtyped
from scipy.optimize import linear_sum_assignment

from zoo import DiagonalLTI

from .balance import gramian_factors
from .hankel import Form, check_system, hankel_matrix, hankel_singular_values
from .modal import double_arrays
from .threads import one_blas_thread

FLOOR = 1e-6
"""Least share of the largest value that is followed: smaller ones' vectors are mostly rounding."""


@dataclass(frozen=True)
class Match:
    """The Hankel singular values of two systems, matched."""

    before: Float[np.ndarray, " k"]
    """Values of the first system, descending, as many as are followed."""
    after: Float[np.ndarray, " k"]
    """Of each, the value of the second system that it has become."""
    overlap: Float[np.ndarray, " k"]
    """|inner product| of their right singular vectors, 0 to 1."""
    rank: Int[np.ndarray, " k"]
    """Place of each `after` among all values of the second system, from 0."""

    def crossings(self, least: float = 0.5) -> int:
        """Pairs of values that have changed their order, of those whose overlap is `least` or more.

        Less overlap means that a vector has turned into a mixture, and its place means nothing.
        """
        rank = self.rank[self.overlap >= least]
        return int(np.sum(np.triu(rank[:, None] > rank[None, :], 1)))


@jaxtyped(typechecker=beartype)
def weyl_bound(before: DiagonalLTI, after: DiagonalLTI, *, form: Form = "real") -> float:
    """The largest |sigma_i(before) - sigma_i(after)| that the change of the system allows, any i.

    That is the norm of the difference of the two Hankel operators: the first Hankel singular value
    of the system `before` - `after` (Weyl's inequality; lemma 3.1 of CompreSSM). The systems may
    differ in their number of states. ValueError if one of them is not stable, or inputs or outputs
    do not agree.
    """
    _check_pair(before, after)
    arrays = zip(double_arrays(before), double_arrays(after), strict=True)
    (lam_a, lam_b), (B_a, B_b), (C_a, C_b) = arrays
    difference = DiagonalLTI(
        log_lam=np.concatenate([lam_a, lam_b]),
        B=np.concatenate([B_a, B_b]),
        C=np.concatenate([C_a, -C_b], axis=1),
        D=before.D,
    )
    return float(hankel_singular_values(difference, form=form)[0])


@jaxtyped(typechecker=beartype)
def match(before: DiagonalLTI, after: DiagonalLTI, *, form: Form = "real") -> Match:
    """Which Hankel singular value of `after` each one of `before` has become.

    The pairs are those of most overlap in all (linear sum assignment). Values below `FLOOR` times
    the first are left out. ValueError as for `weyl_bound`.
    """
    _check_pair(before, after)
    with one_blas_thread():
        sigma_a, rows_a = _vectors(before, form)
        sigma_b, rows_b = _vectors(after, form)
        overlap = np.abs(_inner_products(before, rows_a, after, rows_b, form))
    of_before, of_after = linear_sum_assignment(overlap, maximize=True)
    return Match(
        before=sigma_a[of_before],
        after=sigma_b[of_after],
        overlap=overlap[of_before, of_after],
        rank=of_after,
    )


def _check_pair(before: DiagonalLTI, after: DiagonalLTI) -> None:
    check_system(before, "before")
    check_system(after, "after")
    shapes = [(lti.B.shape[1], lti.C.shape[0]) for lti in (before, after)]
    if shapes[0] != shapes[1]:
        raise ValueError(f"before has (inputs, outputs) {shapes[0]}, after has {shapes[1]}")


def _vectors(lti: DiagonalLTI, form: Form):
    """The values above the floor, and rows w_i such that v_i = w_i [B, lam B, lam^2 B, ...].

    v_i is the unit right singular vector of the Hankel operator, 2 Re of it for form="real".
    """
    Lp, Lq = gramian_factors(lti, form)
    U, sigma, _ = np.linalg.svd(hankel_matrix(form, Lp, Lq), full_matrices=False)
    kept = sigma > FLOOR * sigma[0]
    return sigma[kept], (U[:, kept].conj().T @ Lq.conj().T) / sigma[kept, None]


def _inner_products(a: DiagonalLTI, rows_a, b: DiagonalLTI, rows_b, form: Form):
    """<v_i, v_j'>, by the sum over k of lam_a^k B_a B_b^H lam_b^k in closed form."""
    (lam_a, B_a, _), (lam_b, B_b, _) = double_arrays(a), double_arrays(b)
    P = (B_a @ B_b.conj().T) / -np.expm1(lam_a[:, None] + lam_b.conj())
    products = rows_a @ P @ rows_b.conj().T
    if form == "complex":
        return products
    N = (B_a @ B_b.T) / -np.expm1(lam_a[:, None] + lam_b)
    return 2 * np.real(products + rows_a @ N @ rows_b.T)
