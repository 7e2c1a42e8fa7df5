import jax
import pytest

from zoo.recurrence.compiled import native


@pytest.fixture(params=[True, False], ids=["kernel", "loops"])
def kernel(request, monkeypatch):
    """Whether there are compiled kernels for CPUs, or loops of XLA in their place."""
    if request.param and not native("float32"):
        pytest.skip("installed without a C++ compiler")
    monkeypatch.setattr("zoo.recurrence.compiled.compiled", lambda: request.param)
    jax.clear_caches()
    yield request.param
    jax.clear_caches()
