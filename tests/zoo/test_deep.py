"""Equal blocks in one scan: the numbers of blocks one after the other."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from compress import compress
from zoo import BATCH_AXIS, LRU, S5, Mamba, classifier, in_precision, language_model
from zoo.network.alike import equal_runs

LAYERS = {
    "lru": lambda key: LRU.init(4, 6, key=key),
    "s5": lambda key: S5.init(4, 6, key=key),
    "mamba": lambda key: Mamba.init(4, 4, key=key),
}


def network(name: str, scan_above: int, blocks: int = 3, **settings):
    return classifier(
        LAYERS[name],
        input_kind="real",
        input_size=2,
        classes=3,
        d_model=4,
        blocks=blocks,
        scan_above=scan_above,
        key=jax.random.key(0),
        **settings,
    )


def batch(lengths: bool = False):
    x = jax.random.normal(jax.random.key(1), (5, 12, 2))
    return x, jnp.array([12, 3, 7, 12, 5]) if lengths else None


def outputs(model, state, lengths=False):
    """Logits of a batch, the next state, and the gradient of a sum of squares."""
    x, length = batch(lengths)
    keys = jax.random.split(jax.random.key(2), len(x))

    def loss(model, state):
        def one(x, length, key):
            return model(x, state, length=length, key=key)

        run = jax.vmap(
            one,
            in_axes=(0, None if length is None else 0, 0),
            out_axes=(0, None),
            axis_name=BATCH_AXIS,
        )
        y, after = run(x, length, keys)
        return jnp.sum(y**2), (y, after)

    return eqx.filter_jit(eqx.filter_grad(loss, has_aux=True))(model, state)


def assert_close(a, b):
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_allclose(x, y, rtol=2e-4, atol=2e-5)


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("lru", {"norm": "batch", "dropout": 0.3}),
        ("s5", {"norm": "batch-ema", "bidirectional": True, "norm_first": False}),
        ("mamba", {"norm": "rms"}),
    ],
)
def test_it_gives_the_numbers_of_blocks_one_by_one(name, settings):
    model, state = network(name, 2, **settings)
    one_by_one, _ = network(name, 3, **settings)
    expected = outputs(one_by_one, state, lengths=True)
    assert_close(outputs(model, state, lengths=True), expected)


def test_half_precision_scans():
    model, state = network("lru", 2, norm="layer")
    one_by_one, _ = network("lru", 3, norm="layer")
    found, expected = (
        outputs(in_precision(each, "bf16"), state)[1][0] for each in (model, one_by_one)
    )
    np.testing.assert_allclose(found, expected, rtol=0.05, atol=0.05)


def test_the_program_does_not_grow_with_depth():
    def lines(blocks: int) -> int:
        model, state = network("lru", 2, blocks, norm="layer")
        arrays, static = eqx.partition(model, eqx.is_array)
        x = batch()[0][0]
        run = jax.make_jaxpr(lambda arrays: eqx.combine(arrays, static)(x, state)[0])(arrays)
        return str(run).count("dot_general")

    assert lines(3) == lines(6) > 0


def test_blocks_of_other_sizes_run_by_themselves():
    model, state = network("lru", 1, 4, norm="batch")
    small = eqx.tree_at(lambda m: m.blocks[2].ssm, model, model.blocks[2].ssm.first_states(3))
    assert [len(run) for run in equal_runs(small.blocks)] == [2, 1, 1]
    one_by_one, _ = network("lru", 4, 4, norm="batch")
    expected = eqx.tree_at(lambda m: m.blocks[2].ssm, one_by_one, small.blocks[2].ssm)
    assert_close(outputs(small, state), outputs(expected, state))


def test_a_deep_model_is_weighed_and_cut_as_any():
    x, _ = batch()
    found, expected = (
        compress(network("mamba", above, norm="rms"), tolerance=0.1, batch=x)[0][0]
        for above in (1, 3)
    )
    for a, b in zip(found.blocks, expected.blocks, strict=True):
        assert a.ssm.d_state == b.ssm.d_state
        assert_close(a.ssm, b.ssm)


def test_a_language_model_scans():
    def made(scan_above: int):
        return language_model(
            LAYERS["mamba"],
            vocabulary=7,
            d_model=4,
            blocks=3,
            scan_above=scan_above,
            key=jax.random.key(0),
        )

    (deep, state), (one_by_one, _) = made(1), made(3)
    tokens = jnp.arange(9) % 7
    np.testing.assert_allclose(
        deep(tokens, state)[0], one_by_one(tokens, state)[0], rtol=1e-4, atol=1e-5
    )


def test_the_number_is_checked():
    with pytest.raises(ValueError, match="`scan_above` must be 1 or more, got 0"):
        network("lru", 0)
