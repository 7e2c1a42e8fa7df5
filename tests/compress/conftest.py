"""Systems with known answers, and random ones of every kind that state-space layers come in."""

import zlib
from types import SimpleNamespace

import numpy as np
import pytest

from zoo import DiagonalLTI
from zoo.layers.initializers import hippo_legs_normal

N, M = 24, 2  # one shape, so that programs are compiled once


def make_system(kind: str, seed: int = 0, *, n: int = N, m: int = M, dtype=np.complex128):
    """A random stable DiagonalLTI of NumPy arrays, of one of the kinds below."""
    rng = np.random.default_rng([zlib.crc32(kind.encode()), seed])

    def normal(*shape):
        return rng.standard_normal(shape) + 1j * rng.standard_normal(shape)

    decay = np.exp(rng.uniform(np.log(1e-4), np.log(1e-1), n))
    log_lam = -decay + 1j * rng.uniform(-np.pi, np.pi, n)
    B, C = normal(n, m), normal(m, n)
    if kind == "real":  # real system with real eigenvalues, a few of them negative
        log_lam = -np.exp(rng.uniform(np.log(1e-3), np.log(2.0), n)) + 0j
        log_lam[: n // 8] += 1j * np.pi
        B, C = B.real + 0j, C.real + 0j
    elif kind == "duplicates":  # n / 3 eigenvalues, three times each: minimal order n m / 3
        log_lam = np.repeat(log_lam[: n // 3], 3)
    elif kind == "unreachable":
        B[n // 5], C[:, n // 3] = 0, 0
    elif kind == "hippo":  # S5 at its start: one half of the pairs, zero-order hold
        eigenvalues, _ = hippo_legs_normal(2 * n)
        log_lam = np.exp(rng.uniform(np.log(1e-3), np.log(1e-1), n)) * eigenvalues
        B = (np.expm1(log_lam) / eigenvalues)[:, None] * B
    elif kind == "clustered":
        log_lam = np.repeat(log_lam[: n // 4], 4)
        log_lam *= 1 + 1e-4 * rng.standard_normal(n)
    elif kind != "ring":
        raise ValueError(kind)
    real = np.finfo(dtype).dtype
    return DiagonalLTI(
        log_lam.astype(dtype), B.astype(dtype), C.astype(dtype), rng.standard_normal(m).astype(real)
    )


KINDS = ("ring", "real", "duplicates", "unreachable", "hippo", "clustered")


@pytest.fixture(params=KINDS)
def kind(request) -> str:
    return request.param


@pytest.fixture
def system():
    return make_system


def closed_form_gramians(lti: DiagonalLTI):
    """P and Q in float64, entry by entry: the plain way that the structured one is held against."""
    log_lam, B, C = (np.asarray(x, np.complex128) for x in (lti.log_lam, lti.B, lti.C))
    gap = -np.expm1(log_lam[:, None] + log_lam.conj())
    return (B @ B.conj().T) / gap, (C.conj().T @ C) / gap.conj()


def plain_singular_values(lti: DiagonalLTI):
    """HSVs from eigendecompositions of the Gramians, clipped at zero: good to 1e-8 of the first."""
    factors = []
    for gramian in closed_form_gramians(lti):
        values, vectors = np.linalg.eigh(gramian)
        factors.append(vectors * np.sqrt(np.maximum(values, 0)))
    return np.linalg.svd(factors[1].conj().T @ factors[0], compute_uv=False)


@pytest.fixture
def oracle():
    return SimpleNamespace(gramians=closed_form_gramians, singular_values=plain_singular_values)


def response(lti: DiagonalLTI, w):
    """C (I - diag(lam)/z)^-1 B at z = exp(i w) in float64."""
    log_lam, B, C = (np.asarray(x, np.complex128) for x in (lti.log_lam, lti.B, lti.C))
    return (C * (-1 / np.expm1(log_lam - 1j * np.asarray(w)[:, None]))[:, None, :]) @ B


@pytest.fixture(name="response")
def response_fixture():
    return response


TRUTHS = (
    "i_ring256",
    "ii_real64_siso",
    "iii_dup24_nonmin_m2",
    "iv_unc_unobs32",
    "vii_s5_dt1e-2_m16",
)


@pytest.fixture(params=TRUTHS)
def truth(request, shared):
    """A system whose answers were computed with 256 bits or more: `lti` and the file's fields.

    The file's transfer functions are C (zI - A)^-1 B + D; here they are z times that, without D.
    """
    with np.load(shared / "truth" / f"{request.param}.npz") as file:
        fields = {key: file[key] for key in file.files}
    z = np.exp(1j * fields["w_test"])[:, None, None]
    for key in fields:
        if key.startswith(("H_test", "Hr_test")):
            fields[key] = z * (fields[key] - fields["D"])
    D = np.zeros((fields["C"].shape[0], fields["B"].shape[1]))
    lti = DiagonalLTI(np.log(fields["lam"]), fields["B"], fields["C"], D)
    return SimpleNamespace(name=request.param, lti=lti, **fields)
