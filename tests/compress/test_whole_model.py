"""What a layer's cut does to the whole model: estimate and bound against measured logits."""

import equinox as eqx
import jax
import numpy as np
import pytest

from compress import Data, H2Optimal, Rank, WhiteNoise, compress, plan, whole_model
from compress.model.layers import layers_of, replace_layers
from zoo import LRUConfig, MambaConfig, S5Config, classifier

CUTS = 100


def network(config, norm, bidirectional, key, **block):
    return classifier(
        lambda key: config.build(6, key=key),
        input_kind="real",
        input_size=2,
        classes=4,
        d_model=6,
        blocks=2,
        norm=norm,
        bidirectional=bidirectional,
        key=key,
        **block,
    )


@eqx.filter_jit
def logits(model, x):
    return jax.vmap(lambda x: eqx.nn.inference_mode(model[0])(x, model[1])[0])(x)


@pytest.mark.parametrize(
    ("config", "norm", "both_ways"),
    [
        (LRUConfig(10), "batch", False),
        pytest.param(S5Config(10), "layer", True, marks=pytest.mark.slow),
        pytest.param(S5Config(10), "rms", False, marks=pytest.mark.slow),
    ],
    ids=["lru", "s5", "rms"],
)
def test_measured_changes_are_under_the_bound_and_near_the_estimate(config, norm, both_ways):
    """Over random models, layers, ranks and methods, one layer cut at a time."""
    near, changes = [], []
    rng = np.random.default_rng(0)
    for trial in range(CUTS // 12):
        key = jax.random.key(trial)
        model = network(config, norm, both_ways, key)
        x = jax.random.normal(jax.random.fold_in(key, 1), (24, 20, 2))
        method = (WhiteNoise(), H2Optimal())[trial % 2]
        planned = plan(model, policy=Rank(int(rng.integers(4, 9))), method=method)
        told = whole_model(planned, model, x)
        before, old = logits(model, x), dict(layers_of(model))
        for (keys, _), row in zip(old.items(), told.layers, strict=True):
            assert row.cut is not None
            assert row.change is not None
            assert row.change_bound is not None
            cut = replace_layers(model, {keys: row.cut.after})
            moved = np.linalg.norm(np.asarray(logits(cut, x) - before), axis=-1)
            assert np.max(moved) <= row.change_bound * (1 + 1e-4)
            assert np.isfinite(row.change_bound)
            rms = float(np.sqrt(np.mean(moved**2)))
            near.append(rms / 2 <= row.change <= 2 * rms)
            changes.append(row.change_bound / np.max(moved))
    assert np.mean(near) >= 0.9
    assert np.min(changes) >= 1


def test_the_table_has_the_columns_once_they_are_asked_for(getkey):
    model = network(LRUConfig(8), "batch", False, getkey())
    x = jax.random.normal(getkey(), (4, 12, 2))
    planned = plan(model, policy=Rank(5))
    told = whole_model(planned, model, x)
    assert "result" not in str(planned)
    assert "result ~" in str(told)
    assert compress(model, plan=told)[0] is not model
    whole = whole_model(plan(model, policy=Rank(8)), model, x)
    assert [(row.change, row.change_bound) for row in whole.layers] == [(0.0, 0.0)] * 2


def test_no_bound_is_claimed_where_none_is_known(getkey):
    layer = LRUConfig(8).build(3, key=getkey())
    u = jax.random.normal(getkey(), (4, 12, 3))
    (row,) = whole_model(plan(layer, policy=Rank(4)), layer, u).layers
    assert row.change is not None
    assert row.change > 0
    assert row.change_bound == np.inf
    mamba = network(MambaConfig(4), "rms", False, getkey())
    x = jax.random.normal(getkey(), (4, 12, 2))
    told = whole_model(plan(mamba, policy=Rank(2), method=Data(batch=x)), mamba, x)
    assert all(row.change_bound in (0.0, np.inf) for row in told.layers)


@pytest.mark.parametrize(
    "block",
    [{"norm_first": False}, {"gate": "half_glu1"}, {"attention_every": 1, "attention_heads": 2}],
    ids=str,
)
def test_no_bound_is_claimed_for_other_blocks(block, getkey):
    model = network(LRUConfig(8), "layer", False, getkey(), **block)
    x = jax.random.normal(getkey(), (2, 9, 2))
    told = whole_model(plan(model, policy=Rank(3)), model, x)
    assert all(row.change_bound == np.inf for row in told.layers)


def test_a_plan_of_another_model_is_named(getkey):
    model = network(LRUConfig(8), "batch", False, getkey())
    layer = LRUConfig(8).build(3, key=getkey())
    with pytest.raises(ValueError, match="`plan` must be of the layers"):
        whole_model(plan(layer), model, jax.random.normal(getkey(), (4, 12, 2)))
