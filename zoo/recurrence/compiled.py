"""Recurrences on all cores of a CPU, by kernels in C++ that are compiled with the package (`cpp/`).

A loop of XLA stays on one core, and passes over its arrays several times. The kernels read and
write each once, or keep states in cache, and each core has its own sequences, or its own states.
If the package was installed without a C++ compiler, or for another JAX, XLA is used instead. On
several devices each takes its own sequences (`several.py`).
"""

import functools
import importlib
from typing import Any

import jax
from jaxtyping import Array, Float, Inexact, Int8, Int32

from ..typing import checked
from .pallas import Kept
from .plain import kernels_allowed
from .several import on_each_device

RECURRENCES = ("float32", "float64", "complex64", "complex128")
"""Dtypes for which recurrences have a kernel."""

SYSTEMS = ("float32", "float64")
"""Dtypes for which whole systems, linear or selective, have a kernel."""


@functools.cache
@checked
def compiled() -> bool:
    """Whether there are kernels that fit this JAX. JAX must have initialised its devices before:
    until then it accepts kernels unchecked, and would fail at the first device if one was built for
    another version.
    """
    try:
        for name, handler in _module().handlers().items():
            jax.ffi.register_ffi_target(f"zoo_{name}", handler, platform="cpu")
    except (ImportError, jax.errors.JaxRuntimeError):
        return False
    return True


@checked
def native(dtype: Any, kinds: tuple[str, ...] = RECURRENCES) -> bool:
    """Whether there is a kernel for this dtype. Older ones lack double precision."""
    kind = str(dtype)
    there = kernels_allowed() and kind in kinds and compiled()
    return there and (kind != "float64" or kinds is not SYSTEMS or built("lti_outputs_f64"))


@checked
def streams(name: str, dtype: Any) -> bool:
    """Whether the kernel `name`, for single precision on one device, is there for this dtype."""
    single = str(dtype) == "float32" and jax.device_count() == 1
    return single and native(dtype) and built(name)


@checked
def built(name: str) -> bool:
    """Whether the kernel `name` was compiled; builds of older sources lack some."""
    return compiled() and name in _module().handlers()


@checked
def has_tiles() -> bool:
    """Whether this CPU has tiles (AMX), and there are kernels for them."""
    return native("float32") and built("lti_outputs_tiles")


@checked
def states_on_cpu(
    a: Inexact[Array, "#batch #length *rest"],
    b: Inexact[Array, "batch length *rest"],
    x: Inexact[Array, "batch *rest"],
    order: Kept = "after",
    *,
    reverse: bool = False,
    split: bool = False,
) -> tuple[Inexact[Array, "batch length *rest"], Inexact[Array, "batch *rest"]]:
    """All states "after" samples of x <- a x + b, or those "before" them, and the last state.

    `reverse` goes from the last sample to the first. `split`: complex numbers are their real parts
    and their imaginary parts, s = 2 n.
    """
    options = {"before": order == "before", "reverse": reverse, "split": split}

    def one(a, b, x):
        return _kernel("recurrence_states", [_like(b), _like(x)])(a, b, x, **options)

    arrays = _rows(a, 2), _rows(b, 2), _rows(x, 1)
    states, last = on_each_device(one, *arrays, shared=int(len(a) == 1), results=2)
    return states.reshape(b.shape), last.reshape(x.shape)


@checked
def adjoint_on_cpu(
    a: Inexact[Array, "#batch #length *rest"],
    states: Inexact[Array, "batch length *rest"],
    x: Inexact[Array, "batch *rest"],
    dstates: Inexact[Array, "batch length *rest"],
    dlast: Inexact[Array, "batch *rest"],
    order: Kept = "after",
    *,
    reverse: bool = False,
    split: bool = False,
) -> tuple[
    Inexact[Array, "batch #length *rest"],
    Inexact[Array, "batch length *rest"],
    Inexact[Array, "batch *rest"],
]:
    """Cotangents of a, of b and of x, from those of what `states_on_cpu` gave for them.

    If `a` is the same for all samples, its cotangent is the sum over them. JAX's cotangents of
    complex numbers transpose without conjugation; those of `split` ones are gradients by real and
    imaginary parts.
    """
    options = {"before": order == "before", "reverse": reverse, "split": split}

    def one(a, states, x, dstates, dlast):
        da = jax.ShapeDtypeStruct((len(dstates), *a.shape[1:]), a.dtype)
        call = _kernel("recurrence_adjoint", [da, _like(dstates), _like(dlast)])
        return call(a, states, x, dstates, dlast, **options)

    arrays = _rows(a, 2), _rows(states, 2), _rows(x, 1), _rows(dstates, 2), _rows(dlast, 1)
    da, db, dx = on_each_device(one, *arrays, shared=int(len(a) == 1), results=3)
    return da.reshape(len(da), *a.shape[1:]), db.reshape(dstates.shape), dx.reshape(x.shape)


@checked
def selective_outputs(
    A: Float[Array, "d_state channels"],
    x: Float[Array, "batch length channels"],
    dt: Float[Array, "batch length channels"],
    B: Float[Array, "batch length d_state"],
    C: Float[Array, "batch length d_state"],
    h0: Float[Array, "batch d_state channels"],
    *,
    chunk: int,
    width: int,
) -> tuple[
    Float[Array, "batch length channels"],
    Float[Array, "batch d_state channels"],
    Float[Array, "batch chunks d_state channels"],
]:
    """Outputs of `selective_scan`, the last states, and the states before chunks.

    A core treats `width` channels together: 16, 32, 48 or 64.
    """

    def one(A, x, dt, B, C, h0):
        (b, L, d), N = x.shape, len(A)
        results = [_like(x), _like(h0), jax.ShapeDtypeStruct((b, -(-L // chunk), N, d), x.dtype)]
        call = _kernel("selective_outputs", results, "sequential")
        return call(A, x, dt, B, C, h0, chunk=chunk, width=width)

    y, last, before = on_each_device(one, A, x, dt, B, C, h0, shared=1, results=3)
    return y, last, before


@checked
def selective_gradients(
    A: Float[Array, "d_state channels"],
    x: Float[Array, "batch length channels"],
    dt: Float[Array, "batch length channels"],
    B: Float[Array, "batch length d_state"],
    C: Float[Array, "batch length d_state"],
    before: Float[Array, "batch chunks d_state channels"],
    dy: Float[Array, "batch length channels"],
    dlast: Float[Array, "batch d_state channels"],
    *,
    chunk: int,
    width: int,
) -> tuple[Array, Array, Array, Array, Array, Array]:
    """Cotangents of A, x, dt, B, C and h0, from those of the outputs and of the last states."""

    def one(A, x, dt, B, C, before, dy, dlast):
        results = [_like(each) for each in (A, x, dt, B, C, dlast)]
        call = _kernel("selective_gradients", results, "sequential")
        return call(A, x, dt, B, C, before, dy, dlast, chunk=chunk, width=width)

    arrays = A, x, dt, B, C, before, dy, dlast
    dA, dx, ddt, dB, dC, dh0 = on_each_device(one, *arrays, shared=1, results=6, summed=1)
    return dA, dx, ddt, dB, dC, dh0


@checked
def lti_outputs(
    lam: Float[Array, "2 d_state"],
    B: Float[Array, "2 d_state inputs"],
    C: Float[Array, "2 outputs d_state"],
    u: Float[Array, "batch length inputs"],
    x0: Float[Array, "batch 2 d_state"],
    *,
    chunk: int,
    tiles: bool = False,
) -> tuple[
    Float[Array, "batch length outputs"],
    Float[Array, "batch 2 d_state"],
    Float[Array, "batch chunks 2 d_state"],
]:
    """Outputs Re(C x_k) of x_k = lam x_{k-1} + B u_k, the last states, those before chunks.

    Complex numbers are their real and their imaginary parts. `tiles`: products in bfloat16 by tiles
    of the CPU.
    """
    name = "lti_outputs" + "_tiles" * tiles

    def one(lam, B, C, u, x0):
        (b, L, _), n, p = u.shape, lam.shape[1], C.shape[1]
        shapes = (b, L, p), (b, 2, n), (b, -(-L // chunk), 2, n)
        results = [jax.ShapeDtypeStruct(shape, u.dtype) for shape in shapes]
        return _kernel(name, results, "sequential")(lam, B, C, u, x0, chunk=chunk)

    y, last, before = on_each_device(one, lam, B, C, u, x0, shared=3, results=3)
    return y, last, before


@checked
def lti_gradients(
    lam: Float[Array, "2 d_state"],
    B: Float[Array, "2 d_state inputs"],
    C: Float[Array, "2 outputs d_state"],
    u: Float[Array, "batch length inputs"],
    before: Float[Array, "batch chunks 2 d_state"],
    dy: Float[Array, "batch length outputs"],
    dlast: Float[Array, "batch 2 d_state"],
    *,
    chunk: int,
    tiles: bool = False,
) -> tuple[Array, Array, Array, Array, Array]:
    """Cotangents of lam, B, C, u and x0, from those of the outputs and of the last states."""
    name = "lti_gradients" + "_tiles" * tiles

    def one(lam, B, C, u, before, dy, dlast):
        call = _kernel(name, [_like(x) for x in (lam, B, C, u, dlast)], "sequential")
        return call(lam, B, C, u, before, dy, dlast, chunk=chunk)

    arrays = lam, B, C, u, before, dy, dlast
    dlam, dB, dC, du, dx0 = on_each_device(one, *arrays, shared=3, results=5, summed=3)
    return dlam, dB, dC, du, dx0


@checked
def attention_outputs(
    q: Float[Array, "batch length heads d_state"],
    k: Float[Array, "batch length heads d_state"],
    v: Float[Array, "batch length heads values"],
    log_decay: Float[Array, "batch length heads #d_state"],
    beta: Float[Array, "batch _ heads"],
    S0: Float[Array, "batch heads d_state values"],
    *,
    chunk: int,
) -> tuple[
    Float[Array, "batch length heads values"],
    Float[Array, "batch heads d_state values"],
    Float[Array, "batch chunks heads d_state values"],
]:
    """Outputs of `attention_scan`, the last states, and the states before chunks.

    A `beta` of no samples means no delta rule.
    """

    def one(q, k, v, log_decay, beta, S0):
        chunks = jax.ShapeDtypeStruct((len(v), -(-v.shape[1] // chunk), *S0.shape[1:]), v.dtype)
        call = _kernel("attention_outputs", [_like(v), _like(S0), chunks], "sequential")
        return call(q, k, v, log_decay, beta, S0, chunk=chunk)

    o, last, before = on_each_device(one, q, k, v, log_decay, beta, S0, results=3)
    return o, last, before


@checked
def attention_gradients(
    q: Float[Array, "batch length heads d_state"],
    k: Float[Array, "batch length heads d_state"],
    v: Float[Array, "batch length heads values"],
    log_decay: Float[Array, "batch length heads #d_state"],
    beta: Float[Array, "batch _ heads"],
    before: Float[Array, "batch chunks heads d_state values"],
    do: Float[Array, "batch length heads values"],
    dlast: Float[Array, "batch heads d_state values"],
    *,
    chunk: int,
) -> tuple[Array, Array, Array, Array, Array, Array]:
    """Cotangents of q, k, v, log_decay, beta and S0, from those of outputs and last states."""

    def one(q, k, v, log_decay, beta, before, do, dlast):
        results = [_like(each) for each in (q, k, v, log_decay, beta, dlast)]
        call = _kernel("attention_gradients", results, "sequential")
        return call(q, k, v, log_decay, beta, before, do, dlast, chunk=chunk)

    arrays = q, k, v, log_decay, beta, before, do, dlast
    dq, dk, dv, dg, dbeta, dS0 = on_each_device(one, *arrays, results=6)
    return dq, dk, dv, dg, dbeta, dS0


@checked
def few_products(
    index: Int32[Array, ""],
    weight: Float[Array, "matrices outputs inputs"] | Int8[Array, "matrices outputs inputs"],
    scale: Float[Array, "_ ..."],
    x: Float[Array, "rows inputs"],
) -> Float[Array, "rows outputs"]:
    """weight[index] x for each row, times scale[index] if that is not empty, in float32.

    The matrix is of float32, bfloat16 or int8, and is read where it lies.
    """
    y = jax.ShapeDtypeStruct((len(x), weight.shape[1]), x.dtype)
    return _kernel("few_products", [y], "sequential")(index, weight, scale, x)[0]


@checked
def selective_sample(
    x: Float[Array, "batch channels"],
    dt: Float[Array, "batch heads"],
    A: Float[Array, "heads _"],
    B: Float[Array, "batch groups d_state"],
    C: Float[Array, "batch groups d_state"],
    h: Float[Array, "batch channels d_state"],
) -> tuple[Float[Array, "batch channels"], Float[Array, "batch channels d_state"]]:
    """Outputs and next states of one sample of a selective scan, written over `h` if possible.

    Neighbouring channels of a head share dt and A, which is one number for each state or one for
    all; those of a group share B and C.
    """
    kernel = jax.ffi.ffi_call(
        "zoo_selective_step",
        [_like(x), _like(h)],
        vmap_method="sequential",
        input_output_aliases={5: 1},
    )
    y, h = kernel(x, dt, A, B, C, h)
    return y, h


def _module() -> Any:
    return importlib.import_module("zoo.recurrence._compiled")


def _kernel(name: str, results: list[jax.ShapeDtypeStruct], vmap_method: str = "broadcast_all"):
    double = results[0].dtype == "float64" and not name.startswith("recurrence")
    return jax.ffi.ffi_call(f"zoo_{name}{'_f64' * double}", results, vmap_method=vmap_method)


def _rows(x, axes: int):
    return x.reshape(*x.shape[:axes], -1)


def _like(x):
    return jax.ShapeDtypeStruct(x.shape, x.dtype)
