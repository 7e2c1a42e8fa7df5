"""Fixtures that every test may use."""

import contextlib
import gc
import os
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

# Compilation takes most of the time of these tests, and optimizing more than half of that. Set
# before JAX is imported, and handed on to the processes that tests start.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
if version("jaxlib").startswith("0.10."):  # XLA ends a process that gives it a flag of others
    os.environ.setdefault(
        "XLA_FLAGS",
        "--xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1",
    )

import jax
import jax.export
import pytest

ROOT = Path(__file__).parents[1]
SHARED = ROOT.parent / "shared"
SLOW = Path(__file__).with_name("slow.txt")

# Programs compiled once serve every worker, and the processes that tests start.
COMPILED = os.environ.setdefault(
    "JAX_COMPILATION_CACHE_DIR", str(ROOT / ".pytest_cache" / "compiled")
)
jax.config.update("jax_compilation_cache_dir", COMPILED)
# So does data prepared once, which has no business in the user's folder.
os.environ.setdefault("COMPRESSM_ZOO_CACHE", str(ROOT / ".pytest_cache" / "prepared"))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.3)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests that `slow.txt` names are slow: a quicker variant, or a test of the parts, is not."""
    slow = set(SLOW.read_text().splitlines())
    for item in items:
        if item.nodeid in slow:
            item.add_marker(pytest.mark.slow)


def pytest_collection_finish() -> None:
    """Keep the collector away from modules, which stay, and from traces, which soon go."""
    gc.freeze()
    gc.set_threshold(200_000, 50, 100)


@pytest.fixture(autouse=True, scope="module")
def _few_programs():
    """Compiled programs are forgotten before they are too many, as for one worker alone.

    Each takes some pieces of memory, of which Linux lets a process have 65 530: the next one would
    end it without a word.
    """
    yield
    pieces = Path("/proc/self/maps")
    if pieces.exists() and pieces.read_bytes().count(b"\n") > 30_000:
        jax.clear_caches()
        gc.collect()


@pytest.fixture
def getkey() -> Callable[[], jax.Array]:
    """A function that gives a new random key each time, the same ones in every run."""
    keys = iter(jax.random.split(jax.random.key(2023), 64))
    return lambda: next(keys)


@pytest.fixture
def x64():
    """Double precision inside the test."""
    with jax.enable_x64(True):
        yield


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of third-party data and known answers beside the repository."""
    if not SHARED.is_dir():
        pytest.skip("../shared is not there")
    return SHARED


@pytest.fixture
def lowers_for_cuda() -> Callable[..., str]:
    """A function that lowers a jitted function for an NVIDIA GPU; its module, as text."""
    kernels = jax.export.DisabledSafetyCheck.custom_call("__gpu$xla.gpu.triton")

    def lower(function: Any, *args: Any) -> str:
        with _some_gpu():
            exported = jax.export.export(function, platforms=["cuda"], disabled_checks=[kernels])
            return exported(*args).mlir_module()

    return lower


def _some_gpu() -> contextlib.AbstractContextManager[Any]:
    """What makes JAX from 0.11 on compile a kernel where there is no GPU to ask for its kind."""
    if not hasattr(jax.sharding, "AbstractDevice"):
        return contextlib.nullcontext()
    device = jax.sharding.AbstractDevice("NVIDIA H100 80GB HBM3", num_cores=None, platform="gpu")
    # Auto, as no axis at all would be: the types of arrays in an Explicit mesh name it
    axis = jax.sharding.AxisType.Auto
    mesh = jax.sharding.AbstractMesh((1,), ("gpu",), axis_types=(axis,), abstract_device=device)
    return jax.sharding.use_abstract_mesh(mesh)
