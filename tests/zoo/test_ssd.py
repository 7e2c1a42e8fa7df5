"""The scan of Mamba-2 against its definition, sample by sample."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from zoo.recurrence.ssd import ssd_scan, ssd_step


def by_steps(x, dt, A, B, C, h0):
    def step(h, each):
        y, h = ssd_step(each[0], each[1], A, each[2], each[3], h)
        return h, y

    h, y = jax.lax.scan(step, h0, (x, dt, B, C))
    return y, h


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize(("L", "n"), [(1, 3), (19, 3), (19, 40)])
def test_values_and_gradients_are_those_of_the_definition(kernel, groups, L, n):
    rng = np.random.default_rng(0)
    batch, heads, channels = 3, 4, 5
    draw = lambda *shape: jnp.asarray(rng.normal(size=shape), jnp.float32)  # noqa: E731
    dt = jnp.asarray(rng.uniform(0, 1, (batch, L, heads)), jnp.float32)
    x, A, h0 = (
        draw(batch, L, heads, channels),
        -jnp.exp(draw(heads)),
        draw(batch, heads, channels, n),
    )
    given = x, dt, A, draw(batch, L, groups, n), draw(batch, L, groups, n), h0
    weights = draw(batch, L, heads, channels), draw(batch, heads, channels, n)

    def both(function):
        def run(*arguments):
            scan = jax.vmap(function, in_axes=(0, 0, None, 0, 0, 0))
            results, vjp = jax.vjp(scan, *arguments)
            return (*results, *vjp(weights))

        return jax.jit(run)(*given)

    ours = both(lambda *each: ssd_scan(*each, chunk=8))
    for a, b in zip(ours, both(by_steps), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_allclose(a, b, rtol=0, atol=2e-5 * np.abs(b).max())
