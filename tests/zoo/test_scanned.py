"""A scan over equal blocks: the numbers of the model, from programs that do not grow with depth."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from zoo import LRU, Mamba, Mamba2, generate, language_model, scanned
from zoo.pretrained.generate import bucket

MAKERS = {
    "mamba": lambda key: Mamba.init(8, 4, key=key),
    "mamba2": lambda key: Mamba2.init(8, 4, key=key, headdim=4),
    "lru": lambda key: LRU.init(8, 4, key=key),
}


def model_of(make, blocks):
    return language_model(make, vocabulary=11, d_model=8, blocks=blocks, key=jax.random.key(0))[0]


TOKENS = jnp.asarray(np.random.default_rng(0).integers(0, 11, 9))


@pytest.mark.parametrize("kind", MAKERS)
def test_a_scan_gives_the_numbers_of_the_blocks(kind):
    model = model_of(MAKERS[kind], 3)
    deep = scanned(model)
    assert [stack.size for stack in deep.stacks] == [3]
    states, h = model.run(model.init_state(), TOKENS)
    carry, found = deep.run(deep.init_state(), TOKENS)
    np.testing.assert_allclose(found, h, atol=1e-5)
    for ours, theirs in zip(
        jax.tree.leaves(deep.states(carry)), jax.tree.leaves(states), strict=True
    ):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)
    _, wanted = model.step(states, TOKENS[0])
    _, logits = deep.step(deep.stacked_carry(states), TOKENS[0])
    np.testing.assert_allclose(logits, wanted, atol=1e-5)


def test_neighbours_of_one_size_make_a_stack():
    sizes = iter([4, 4, 6, 4])
    model = model_of(lambda key: Mamba.init(8, next(sizes), key=key), 4)
    deep = scanned(model)
    assert [stack.size for stack in deep.stacks] == [2, 1, 1]
    np.testing.assert_allclose(
        deep.run(deep.init_state(), TOKENS)[1], model.run(model.init_state(), TOKENS)[1], atol=1e-5
    )
    states = deep.states(deep.init_state())
    assert eqx.tree_equal(deep.stacked_carry(states), deep.init_state())


def test_programs_do_not_grow_with_depth():
    def length(blocks):
        deep = scanned(model_of(MAKERS["mamba"], blocks))
        run = eqx.filter_jit(lambda deep: deep.run(deep.init_state(), TOKENS)[1])
        return len(run.lower(deep).as_text().splitlines())

    assert length(2) == length(6)


def test_prompts_and_numbers_of_tokens_of_a_bucket_share_a_program():
    assert [bucket(n) for n in (1, 2, 16, 17, 64, 65)] == [1, 16, 16, 32, 64, 128]
    model = scanned(model_of(MAKERS["mamba"], 2))
    prompt = np.asarray(TOKENS)[None]
    wanted = np.asarray(generate(model, prompt, 14, temperature=0)[0])
    compiled = []

    def listen(event, duration, **_):
        if event.endswith("backend_compile_duration"):
            compiled.append(event)

    jax.monitoring.register_event_duration_secs_listener(listen)
    for length, tokens in ((9, 3), (5, 9), (2, 16)):
        found, _ = generate(model, prompt[:, :length], tokens, temperature=0)
        assert found.shape == (1, tokens)
        if length == 9:
            np.testing.assert_array_equal(found, wanted[:, :tokens])
    assert not compiled
    generate(model, np.tile(prompt, (1, 3)), 3, temperature=0)
    assert compiled  # so that what is listened to is what is said
