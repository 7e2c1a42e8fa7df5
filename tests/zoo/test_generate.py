"""Generation: the same tokens as from whole sequences, whatever the batch and the padding."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from zoo import Mamba, generate, language_model
from zoo.pretrained.generate import nucleus, tempered


@pytest.fixture(scope="module")
def model():
    def layer(key):
        return Mamba.init(16, 4, key=key)

    model, _ = language_model(
        layer, vocabulary=11, d_model=16, blocks=2, dropout=0.3, key=jax.random.key(3)
    )
    # sharp logits, which no rounding turns round
    return eqx.tree_at(lambda m: m.embedding.weight, model, 20 * model.embedding.weight)


PROMPT = np.random.default_rng(0).integers(0, 11, (3, 9))


def test_greedy_tokens_are_those_of_the_whole_sequence(model):
    """After a pause too."""
    first, carry = generate(model, PROMPT, 5, temperature=0)
    second, _ = generate(model, first[:, -1:], 7, temperature=0, carry=carry)
    whole = jnp.concatenate([PROMPT, first, second], axis=1)
    still = eqx.nn.inference_mode(model)

    @eqx.filter_jit
    def likeliest(model, whole):
        logits = jax.vmap(lambda row: model(row, eqx.nn.State(model))[0])(whole)
        return jnp.argmax(logits, axis=-1)

    np.testing.assert_array_equal(likeliest(still, whole)[:, 8:-1], whole[:, 9:])


def test_rows_and_padding_change_nothing(model):
    how = {"temperature": 0.8, "top_p": 0.9, "key": jax.random.key(0)}
    tokens, _ = generate(model, PROMPT, 12, lengths=np.array([6, 9, 1]), **how)
    alone, _ = generate(model, PROMPT[:1, :6], 12, **how)
    np.testing.assert_array_equal(alone, tokens[:1])


def test_tokens_are_drawn_from_the_distribution(model):
    row = jnp.asarray(PROMPT[0, :3])
    still = eqx.nn.inference_mode(model)
    whole = eqx.filter_jit(lambda model, row: model(row, eqx.nn.State(model))[0])(still, row)
    logits = np.asarray(whole[-1], float)
    drawn, _ = generate(model, np.tile(row, (4000, 1)), 1, temperature=20.0, key=jax.random.key(1))
    expected = np.exp(logits / 20) / np.exp(logits / 20).sum()
    share = np.bincount(np.asarray(drawn)[:, 0], minlength=11) / 4000
    assert np.abs(share - expected).max() < 4 * np.sqrt(0.25 / 4000)


def test_the_nucleus_is_the_fewest_tokens_with_the_share():
    probability = np.array([0.1, 0.4, 0.05, 0.25, 0.2])
    logits = jnp.asarray(np.log(probability), jnp.float32)
    for share, kept in [(0.3, [1]), (0.5, [1, 3]), (0.84, [1, 3, 4]), (1.0, [0, 1, 2, 3, 4])]:
        finite = np.flatnonzero(np.isfinite(nucleus(logits, share)))
        assert finite.tolist() == kept, share


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16, jnp.float32])
@pytest.mark.parametrize("temperature", [1e-40, 1e-4, 1.0])
def test_half_precision_is_drawn_from_as_single_is(dtype, temperature):
    """A share of 1 keeps all of a large vocabulary, and a low temperature the likeliest alone."""
    logits = jax.random.normal(jax.random.key(0), (50_000,)).astype(dtype)
    heated = tempered(logits, max(temperature, 1e-38))
    assert heated.dtype == jnp.float32
    exact = np.asarray(logits, float)
    expected = (exact - exact.max()) / max(temperature, 1e-38)
    np.testing.assert_allclose(heated[heated > -1e30], expected[heated > -1e30], rtol=1e-6)
    kept = np.isfinite(nucleus(tempered(logits, 1.0), 0.9))
    probability = np.exp(exact - exact.max())
    assert np.isclose(probability[kept].sum() / probability.sum(), 0.9, atol=5e-3)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
@pytest.mark.parametrize("temperature", [1e-300, 1e-40, 1e-4])
def test_cold_draws_are_the_likeliest_tokens(model, dtype, temperature):
    half = jax.tree.map(lambda x: x.astype(dtype) if eqx.is_inexact_array(x) else x, model)
    drawn, _ = generate(half, PROMPT, 3, temperature=temperature, key=jax.random.key(0))
    likeliest, _ = generate(half, PROMPT, 3, temperature=0)
    np.testing.assert_array_equal(drawn, likeliest)


def test_a_share_of_one_or_more_is_no_nucleus(model):
    key = jax.random.key(0)
    tokens = [generate(model, PROMPT, 4, top_p=p, key=key)[0] for p in (1, 1.0, 2.5)]
    assert jnp.all(tokens[0] == tokens[1]) & jnp.all(tokens[0] == tokens[2])


def test_memory_does_not_grow_with_the_length(model):
    from zoo.pretrained.generate import _generate

    def bytes_of(tokens):
        carry = jax.tree.map(lambda x: jnp.broadcast_to(x, (3, *x.shape)), model.init_state())
        arguments = (model, jnp.asarray(PROMPT), jnp.full(3, 9), carry, None, None, None, tokens)
        compiled = _generate.lower(*arguments).compile()
        return compiled.compiled.memory_analysis().temp_size_in_bytes

    assert bytes_of(400) - bytes_of(100) <= 2 * 4 * 3 * 300 * 2


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"tokens": 0}, "`tokens` must be 1 or more, got 0"),
        *(
            ({"temperature": bad}, f"`temperature` must be finite and 0 or more, got {bad}$")
            for bad in (-1.0, float("nan"), float("inf"))
        ),
        *(
            ({"top_p": bad}, f"`top_p` must be finite and more than 0, got {bad}$")
            for bad in (0.0, -0.1, float("nan"), float("inf"))
        ),
        ({"temperature": 1.0}, "`key` must be given with temperature=1.0"),
        ({"prompt": PROMPT + 5}, "`prompt` must hold tokens from 0 to 10, got 5 to 15"),
        ({"lengths": np.array([1, 10, 2])}, "`lengths` must be from 1 to 9, got 1 to 10"),
    ],
)
def test_bad_arguments_are_named(model, settings, message):
    arguments = {"prompt": PROMPT, "tokens": 3, "temperature": 0} | settings
    with pytest.raises(ValueError, match=message):
        generate(model, **arguments)
