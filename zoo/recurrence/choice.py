"""The choice of the fastest form of the recurrence, by a cost model of few numbers that is fitted
to benchmarks. `benchmarks/layer.py` compares the choice with the best form.
"""

import contextlib
import contextvars
import math
import os
from collections.abc import Iterator
from typing import NamedTuple

import jax

from ..typing import checked
from .forms import FORMS


class Choice(NamedTuple):
    """A form of `zoo.recurrence.forms` and its chunk, in samples."""

    form: str
    chunk: int


class Size(NamedTuple):
    """The sizes that the cost depends on."""

    batch: int
    L: int
    inputs: int
    outputs: int
    n: int


class Machine(NamedTuple):
    """Seconds per unit of each kind of work, for forward and backward pass together."""

    flop: float
    """One multiplication or addition of a matrix product."""
    state: float
    """Passing once over one complex state of one sample."""
    step: float
    """The overhead of one step of a sequential loop."""
    chunk: float
    """One chunk of a scan: products of few rows, sums carried along."""
    channel: float
    """Changing the layout of one channel of one sample."""
    fused: float
    """One multiplication and addition of complex by real numbers, in one kernel."""
    transform: float
    """One sample's part of a Fourier transform, for each doubling of its length."""
    start: float
    """The overhead of starting a matrix form."""


TWO_CORES = Machine(
    flop=3.9e-12,
    state=3.6e-10,
    step=0,
    chunk=4.6e-05,
    channel=2.3e-10,
    fused=1.7e-11,
    transform=2.9e-10,
    start=0.00037,
)
"""Fitted by `benchmarks/layer.py --fit`."""

ONE_CORE = Machine(
    flop=7.4e-12,
    state=4.5e-10,
    step=0,
    chunk=2.5e-05,
    channel=0,
    fused=3.0e-11,
    transform=3.6e-10,
    start=0.00023,
)
"""Fitted on one core."""

GPU = Machine(
    flop=2.7e-15,
    state=1.5e-12,
    step=4.0e-08,
    chunk=0,
    channel=1.2e-11,
    fused=0,
    transform=7.0e-13,
    start=1.2e-04,
)
"""Fitted by `benchmarks/gpu.py` on an H200."""

ALIGNED = {"cpu": 1, "gpu": 8}
"""The number of states is padded to a multiple of this, for a GPU's fast matrix products."""

CANDIDATES = {
    "cpu": [
        Choice("fused", 64),
        Choice("scan", 64),
        Choice("scan", 128),
        Choice("matmul", 1),
        Choice("matmul", 2),
        Choice("matmul", 4),
        Choice("matmul", 16),
        Choice("matmul", 32),
        Choice("fft", 32),
    ],
    "gpu": [
        Choice("matmul", 1),
        Choice("matmul", 2),
        Choice("matmul", 4),
        Choice("matmul", 8),
        Choice("matmul", 16),
        Choice("matmul", 32),
        Choice("fft", 32),
        Choice("associative", 1024),
    ],
}
"""The forms to choose from. On CPUs chunks of 8 samples, whose products with a transposed matrix
are slow, are nowhere much better than chunks of 4 or 16, and often worse.
"""

TILED = Choice("tiles", 64)
"""The form of products in half precision, where a CPU has tiles for them."""

TILED_FROM = 32
"""Inputs and outputs from which on tiles, of 32 numbers, are filled (`benchmarks/tiles.py`)."""

_override: contextvars.ContextVar[Choice | None] = contextvars.ContextVar("form", default=None)


@contextlib.contextmanager
@checked
def recurrence_form(form: str, chunk: int) -> Iterator[None]:
    """Inside this context, `lti_apply` takes this form when it is traced, for all sizes.

    `form` is one of "scan", "fused", "tiles", "matmul", "fft", "associative"; `chunk` in samples.
    """
    if form not in FORMS:
        raise ValueError(f"`form` must be one of {', '.join(sorted(FORMS))}, got {form!r}")
    if chunk < 1:
        raise ValueError(f"`chunk` must be 1 or more samples, got {chunk}")
    token = _override.set(Choice(form, chunk))
    try:
        yield
    finally:
        _override.reset(token)


@checked
def recurrence_override() -> Choice | None:
    """The form that `recurrence_form` has set."""
    return _override.get()


@checked
def choose_form(
    size: Size, platform: str | None = None, *, fused: bool, tiles: bool = False
) -> Choice:
    """The form of least estimated cost on `platform` (JAX's default one if not given).

    `fused`: whether CPUs have the kernel of that form. `tiles`: whether products may be in half
    precision and CPUs have tiles for them.
    """
    kind = _kind(platform)
    if tiles and kind == "cpu" and min(size.inputs, size.outputs) >= TILED_FROM:
        return TILED
    machine = GPU if kind == "gpu" else on_cores(usable_cores())
    return min(candidates(kind, fused=fused), key=lambda choice: cost(choice, size, machine))


@checked
def candidates(kind: str, *, fused: bool) -> list[Choice]:
    """The forms to choose from on a "cpu" or a "gpu"."""
    return [choice for choice in CANDIDATES[kind] if fused or choice.form != "fused"]


@checked
def on_cores(cores: int) -> Machine:
    """A CPU's costs. One part of each kind of work does not gain from more cores.

    Matrix products are shared out, Fourier transforms are not.
    """
    if cores == 1:
        return ONE_CORE
    costs = []
    for one, two in zip(ONE_CORE, TWO_CORES, strict=True):
        alone = min(max(2 * two - one, 0.0), two)
        costs.append(alone + (two - alone) * 2 / cores)
    return Machine(*costs)


@checked
def stored_states(n: int, platform: str | None = None) -> int:
    """The padded number of states for a system with `n`. Added states are zero."""
    multiple = ALIGNED[_kind(platform)]
    return -(-n // multiple) * multiple


@checked
def cost(choice: Choice, size: Size, machine: Machine) -> float:
    """Estimated seconds, forward and backward."""
    return sum(amount * each for amount, each in zip(work(choice, size), machine, strict=True))


@checked
def work(choice: Choice, size: Size) -> Machine:
    """The amount of each kind of work in a form, forward and backward."""
    b, L, m, p, n = size
    samples, T = b * L, choice.chunk
    into_and_out = 4 * samples * n * (m + p)  # complex by real products, one pass
    amounts = dict.fromkeys(Machine._fields, 0.0) | {"channel": 3 * samples * (m + p)}
    if choice.form == "scan":  # in loops, which pass over states twice as often as kernels
        amounts |= {"flop": 3.5 * into_and_out, "state": 24 * samples * n}
        amounts |= {"step": 3 * L, "chunk": L / T}
    elif choice.form == "fused":
        amounts = dict.fromkeys(Machine._fields, 0.0)
        cores, units = usable_cores(), max(1, n // 16)  # as the kernel shares it out
        at_once = min(cores, b * units)
        parts = min(units, cores // math.gcd(min(b, 4 * cores), cores))
        narrow = [8 if each <= 8 else -(-each // 16) * 16 for each in (m, p)]
        of_state = 3 * m + 2 * p + sum(narrow)
        amounts |= {"fused": samples * -(-n // 16) * 16 * of_state * cores / at_once, "start": 0.5}
        amounts |= {"state": 1.5 * samples * (m + p) * (parts - 1)}  # parts of outputs, added up
    elif choice.form == "matmul":
        response = m * p if T > 1 else 0  # chunks of one sample have none within
        blocks = 2 * T * response * (samples + T)
        weights = 4 * T * n * (response + 4 * (m + p))
        amounts |= {"flop": 3 * (into_and_out + blocks + weights)}
        amounts |= {"state": 12 * samples * n / T, "step": 2 * L / T}
        amounts |= {"start": 1 if L % T == 0 else 2}
    elif choice.form == "fft":
        response = 4 * L * n * m * p
        spectra = 16 * samples * m * p
        transforms = 3 * (samples * (m + p) + 2 * L * m * p) * math.log2(2 * L)
        amounts |= {"flop": 3 * (response + spectra), "transform": transforms, "start": 2}
        amounts |= {"state": 32 * L * n}  # powers of the eigenvalues, and what they are parts of
    else:
        passes = 12 * math.log2(min(T, L) + 1)
        amounts |= {"flop": 3.5 * into_and_out, "state": passes * samples * n}
        amounts |= {"step": passes * L / T, "start": 1}
    return Machine(**amounts)


@checked
def on_cpu() -> bool:
    """Whether programs are currently traced for a CPU."""
    return _kind(None) == "cpu"


def _kind(platform: str | None) -> str:
    return "cpu" if (platform or _platform()) == "cpu" else "gpu"


@checked
def usable_cores() -> int:
    """The cores that this process may use, as XLA counts them."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _platform() -> str:
    device = jax.config.jax_default_device  # pyright: ignore[reportAttributeAccessIssue]
    if device is None:
        return jax.default_backend()
    return device if isinstance(device, str) else device.platform
