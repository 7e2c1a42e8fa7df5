"""Which samples are no padding."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from zoo.masks import rows_within, within


@pytest.mark.parametrize("kind", [int, np.int64, jnp.asarray])
def test_one_sequence(kind):
    np.testing.assert_array_equal(within(kind(2), 4), [True, True, False, False])


def test_a_batch():
    lengths = np.array([1, 2, 3])
    expected = np.tri(3, dtype=bool)
    np.testing.assert_array_equal(jax.jit(jax.vmap(lambda n: within(n, 3)))(lengths), expected)
    np.testing.assert_array_equal(rows_within(lengths, 3, 3), expected)
    assert rows_within(None, 2, 3).all()
