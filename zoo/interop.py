"""To python-control and back (an optional package: `pip install control`)."""

from typing import Any

import numpy as np

from .lti import DiagonalLTI
from .typing import checked


@checked
def to_control(lti: DiagonalLTI, *, delayed: bool = False) -> Any:
    """`lti` as a discrete `control.StateSpace` of one sample per step.

    In its convention the input enters the next state. The same map is then (A, B, C A, C B + D),
    whose Hankel singular values differ from those of `lti`. With `delayed` it is (A, B, C, D)
    instead: the states' share of the output comes one sample late, the Hankel singular values are
    ours.
    """
    import control  # optional

    A, B, C, D = lti.to_real()
    return control.ss(A, B, C, D, 1) if delayed else control.ss(A, B, C @ A, C @ B + D, 1)


@checked
def from_control(system: Any, *, delayed: bool = False) -> DiagonalLTI:
    """The diagonal system of a discrete `control.StateSpace`, inverse of `to_control`.

    ValueError for a system in continuous time, and for one whose A is singular or cannot be
    diagonalised (with `delayed`, A may be singular).
    """
    if not system.isdtime(strict=True):
        raise ValueError(
            "`system` must be in discrete time, got continuous time; see zoo.discretize"
        )
    A, B, C, D = (np.asarray(x, np.float64) for x in (system.A, system.B, system.C, system.D))
    if not delayed:
        if len(A) and np.linalg.cond(A) > 1e12:
            raise ValueError("`system.A` must be invertible, or `delayed` True, got a singular one")
        C = np.linalg.solve(A.T, C.T).T
        D = D - C @ B
    return DiagonalLTI.from_real(A, B, C, D)
