"""Fit of C and D of a reduced system to the outputs of the full one on data."""

import numpy as np
from jaxtyping import Array, Float, Int

from zoo import DiagonalLTI
from zoo.typing import checked

from .data_gramians import counted, second_moments


@checked
def refit(
    lti: DiagonalLTI,
    reduced: DiagonalLTI,
    u: Float[Array | np.ndarray, "b L m"],
    lengths: Int[Array | np.ndarray, " b"] | None = None,
) -> DiagonalLTI:
    """`reduced` with C and D such that its outputs are closest to those of `lti` on `u`.

    Least squares over all samples, each output by itself: of Re(C z) + D u to Re(C x) + D u. Where
    D is a vector, so is the result's. Directions that the data do not show stay as in `reduced`.
    `lengths` are as in `data_factor`. Double precision, NumPy arrays.
    """
    n, r, m = lti.d_state, reduced.d_state, lti.B.shape[1]
    log_lam = np.concatenate([np.asarray(lti.log_lam), np.asarray(reduced.log_lam)])
    B = np.concatenate([np.asarray(lti.B), np.asarray(reduced.B)])
    moments = second_moments(log_lam, B, u, counted(u, lengths), with_inputs=True)
    # rows and columns: Re x, Re z, Im x, Im z, u
    x_re, z_re, x_im, z_im, on_u = np.split(np.arange(2 * (n + r) + m), np.cumsum([n, r, n, r]))
    full, small = np.concatenate([x_re, x_im]), np.concatenate([z_re, z_im])
    vector = np.ndim(lti.D) == 1
    error = _output(lti) @ moments[np.concatenate([full, on_u])]
    error -= _output(reduced) @ moments[np.concatenate([small, on_u])]  # E[(y - y_r) (x, z, u)^T]
    C_new, D_new = np.array(reduced.C, np.complex128), np.array(reduced.D, np.float64)
    outputs = np.arange(len(C_new))
    groups = [(outputs[[k]], on_u[[k]]) for k in outputs] if vector else [(outputs, on_u)]
    for rows, inputs in groups:
        known = np.concatenate([small, inputs])
        change = least_squares(moments[known][:, known], error[rows][:, known])
        C_new[rows] += change[:, :r] - 1j * change[:, r : 2 * r]
        D_new[rows] += change[:, 2 * r] if vector else change[:, 2 * r :]
    return DiagonalLTI(np.asarray(reduced.log_lam), np.asarray(reduced.B), C_new, D_new)


def _output(lti: DiagonalLTI):
    """y from (Re x, Im x, u)."""
    C, D = np.asarray(lti.C), np.asarray(lti.D, np.float64)
    return np.concatenate([np.real(C), -np.imag(C), np.diag(D) if D.ndim == 1 else D], axis=1)


def least_squares(moments, right):
    """X with X `moments` = `right`; directions with very small `moments` are left out."""
    scale = np.sqrt(np.maximum(np.diag(moments), np.finfo(float).tiny))
    values, vectors = np.linalg.eigh(moments / scale / scale[:, None])
    kept = values > RESOLUTION * values[-1]
    vectors = vectors[:, kept]
    return ((right / scale) @ vectors / values[kept]) @ vectors.T / scale


RESOLUTION = 1e-10
"""Least share of the largest second moment, all of one scale, that is taken for a signal."""
