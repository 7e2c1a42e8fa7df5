"""The linear time-invariant system of the layers: `to_lti` gives it, `from_lti` takes it."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex, Float

from .typing import AnyArray, checked


class DiagonalLTI(eqx.Module):
    """A stable diagonal system with real inputs and outputs.

        x_k = diag(exp(log_lam)) x_{k-1} + B u_k
        y_k = Re(C x_k) + D u_k

    The current input enters the current state. `log_lam` holds the logarithms of the discrete
    eigenvalues, decay + i * rotation, per sample: next to the unit circle 1 - lam_i conj(lam_j)
    = -expm1(log_lam_i + conj(log_lam_j)) keeps the digits that are lost in `lam` itself.

    `D` is a vector (feed-through channel by channel, m = p) or a full matrix. The arrays may be
    NumPy's: a system in double precision stays exact even while JAX runs in single.
    """

    log_lam: Complex[AnyArray, " d_state"]
    B: Complex[AnyArray, "d_state inputs"]
    C: Complex[AnyArray, "outputs d_state"]
    D: Float[AnyArray, " outputs"] | Float[AnyArray, "outputs inputs"]

    def __check_init__(self):
        n = self.log_lam.shape[0]
        if self.B.shape[0] != n:
            raise ValueError(f"`B` must have {n} rows, as log_lam has, got {self.B.shape[0]}")
        if self.C.shape[1] != n:
            raise ValueError(f"`C` must have {n} columns, as log_lam has, got {self.C.shape[1]}")
        m, p = self.B.shape[1], self.C.shape[0]
        if self.D.shape not in ([(p,), (p, m)] if m == p else [(p, m)]):
            raise ValueError(
                f"`D` must have the shape {(p, m)}, or {(p,)} if p = m, got {self.D.shape}"
            )

    @property
    def d_state(self) -> int:
        """Number of stored (complex) states n."""
        return self.log_lam.shape[0]

    @checked
    def spectral_radius(self) -> Float[Array, ""]:
        """Largest modulus of an eigenvalue; below 1 for a stable system."""
        return jnp.exp(jnp.max(jnp.real(self.log_lam), initial=-jnp.inf))

    @checked
    def simulate(
        self,
        u: Float[AnyArray, "length {self.B.shape[1]}"],
        x0: Complex[AnyArray, "{self.d_state}"] | None = None,
    ) -> Float[Array, "length outputs"]:
        """Outputs y_1..y_L for inputs u_1..u_L from the state `x0` (zero if not given)."""
        given = [] if x0 is None else [x0]
        dtype = jnp.result_type(self.log_lam, self.B, self.C, u, *given)
        log_lam, B, C = (jnp.asarray(x, dtype) for x in (self.log_lam, self.B, self.C))
        lam = jnp.exp(log_lam)
        start = jnp.zeros_like(lam) if x0 is None else jnp.asarray(x0, dtype)

        def step(x, u_k):
            x = lam * x + B @ u_k
            return x, jnp.real(C @ x)

        _, y = jax.lax.scan(step, start, jnp.asarray(u, jnp.finfo(dtype).dtype))
        return y + self.feedthrough(u)

    @checked
    def feedthrough(
        self, u: Float[AnyArray, "*lead {self.B.shape[1]}"]
    ) -> Float[Array, "*lead outputs"]:
        """The share D u of the output."""
        return jnp.asarray(u) * self.D if self.D.ndim == 1 else jnp.asarray(u) @ self.D.T

    @checked
    def frequency_response(
        self, w: Float[AnyArray, " frequencies"]
    ) -> Complex[Array, "frequencies outputs inputs"]:
        """Transfer function of the real map u -> y at z = exp(i w), `w` in rad/sample.

        y = Re(C x) is the sum of half the complex system and half its conjugate:
        G(z) = (C (I - diag(lam)/z)^-1 B + conj(C) (I - diag(conj(lam))/z)^-1 conj(B)) / 2 + D.
        The complex system alone is `complex_response`.
        """
        D = jnp.diag(self.D) if self.D.ndim == 1 else self.D
        w = jnp.asarray(w)
        return (self.complex_response(w) + jnp.conj(self.complex_response(-w))) / 2 + D

    @checked
    def complex_response(
        self, w: Float[AnyArray, " frequencies"]
    ) -> Complex[Array, "frequencies outputs inputs"]:
        """C (I - diag(lam)/z)^-1 B at z = exp(i w): the complex system (lam, B, C), without D.

        It is z times the textbook's C (zI - diag(lam))^-1 B, since the input enters the current
        state; on the unit circle both have the same singular values.
        """
        gain = -1 / jnp.expm1(self.log_lam - 1j * jnp.asarray(w)[:, None])
        return jnp.einsum("pn,fn,nm->fpm", self.C, gain, self.B)

    @checked
    def to_real(
        self,
    ) -> tuple[
        Float[np.ndarray, "order order"],
        Float[np.ndarray, "order inputs"],
        Float[np.ndarray, "outputs order"],
        Float[np.ndarray, "outputs inputs"],
    ]:
        """Real (A, B, C, D) with x_k = A x_{k-1} + B u_k and y_k = C x_k + D u_k, in float64.

        The states are the real parts, then the imaginary ones; those that are always zero (of real
        modes with a real row of B) are left out. The Hankel singular values of (A, B, C) are those
        of the real map. In the textbook's convention, where the input enters the next state, the
        same map is (A, B, C A, C B + D).
        """
        log_lam, B, C = (
            np.asarray(x).astype(np.complex128) for x in (self.log_lam, self.B, self.C)
        )
        lam = np.exp(log_lam.real) * (np.cos(log_lam.imag) + 1j * np.sin(log_lam.imag))
        real = np.isin(log_lam.imag, (0.0, np.pi, -np.pi))
        lam = np.where(real, lam.real, lam)
        keep = np.concatenate([np.ones(len(lam), bool), ~(real & ~np.any(B.imag, axis=1))])
        A = np.block(
            [
                [np.diag(np.real(lam)), -np.diag(np.imag(lam))],
                [np.diag(np.imag(lam)), np.diag(np.real(lam))],
            ]
        )
        D = np.asarray(self.D).astype(np.float64)
        return (
            A[keep][:, keep],
            np.concatenate([B.real, B.imag])[keep],
            np.concatenate([C.real, -C.imag], axis=1)[:, keep],
            np.diag(D) if D.ndim == 1 else D,
        )

    @classmethod
    @checked
    def from_real(
        cls,
        A: Float[np.ndarray, "order order"],
        B: Float[np.ndarray, "order inputs"],
        C: Float[np.ndarray, "outputs order"],
        D: Float[np.ndarray, "outputs inputs"] | Float[np.ndarray, " outputs"],
    ) -> "DiagonalLTI":
        """The system x_k = A x_{k-1} + B u_k, y_k = C x_k + D u_k in diagonal form, in float64.

        One stored state for each conjugate pair and each real eigenvalue of A; an eigenvalue of
        zero becomes one of modulus 1e-13. ValueError if A cannot be diagonalised.
        """
        lam, X = np.linalg.eig(np.asarray(A, np.float64))
        condition = np.linalg.cond(X) if len(lam) else 1.0
        if condition > MAX_CONDITION:
            raise ValueError(
                f"`A` must have eigenvectors of a condition up to {MAX_CONDITION:.0e} to be "
                f"diagonalised, got {condition:.1e}"
            )
        stored = np.imag(lam) >= 0
        pair = np.imag(lam[stored]) > 0
        lam = lam[stored].astype(np.complex128)
        lam = np.where(np.abs(lam) < MIN_MODULUS, MIN_MODULUS, lam)
        return cls(
            log_lam=np.log(np.abs(lam)) + 1j * np.angle(lam),
            B=np.linalg.solve(X, B)[stored].astype(np.complex128),
            C=(C @ X)[:, stored] * np.where(pair, 2.0, 1.0).astype(np.complex128),
            D=np.asarray(D, np.float64),
        )


MAX_CONDITION = 1e12
"""Condition of the eigenvectors up to which `from_real` trusts them."""

MIN_MODULUS = 1e-13
"""Least modulus of an eigenvalue that `from_real` stores: zero has no logarithm."""
