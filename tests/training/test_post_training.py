"""A language model with fewer states after training."""

import jax
import numpy as np
import pytest

from training.commands.shrink import bits_per_token, read_tokens, shrink_language_model
from zoo import Mamba
from zoo.network.language_model import language_model


@pytest.fixture(scope="module")
def model():
    return language_model(
        lambda key: Mamba.init(8, 8, key=key),
        vocabulary=256,
        d_model=8,
        blocks=2,
        key=jax.random.key(0),
    )[0]


@pytest.fixture(scope="module")
def tokens():
    return np.random.default_rng(0).integers(0, 256, 800).astype(np.int32)


def test_a_model_shrinks_to_one_size_and_says_what_it_was_and_is(model, tokens):
    shrunk = shrink_language_model(
        model, tokens, tau=0.3, sequences=4, length=24, judged=2, generated=4
    )
    sizes = {row.rank_after for row in shrunk.plan.layers}
    assert len(sizes) == 1
    assert sizes < {1, 2, 3, 4, 5, 6, 7}
    assert {block.ssm.d_state for block in shrunk.model.blocks} == sizes
    assert shrunk.after.parameters < shrunk.before.parameters
    assert shrunk.before.bits == pytest.approx(8, abs=0.1)  # nothing was learned
    assert shrunk.after.tokens_per_second > 0


def test_a_guard_takes_back_what_costs_too_much(model, tokens, monkeypatch):
    """The loss is made up: nothing lost with five states, one bit with fewer."""
    monkeypatch.setattr(
        "training.commands.shrink.bits_per_token",
        lambda model, _: 8.0 + (model.blocks[0].ssm.d_state < 5),
    )
    given = {"rank": 2, "sequences": 4, "length": 24, "judged": 2, "generated": 4}
    guarded = shrink_language_model(model, tokens, guard=0.1, **given)
    assert {row.rank_after for row in guarded.plan.layers} == {5}
    loose = shrink_language_model(model, tokens, guard=1.0, **given)
    assert {row.rank_after for row in loose.plan.layers} == {2}
    with pytest.raises(
        ValueError, match=r"must have 260 tokens or more for pieces of \d+, got 245"
    ):
        shrink_language_model(model, tokens[:245], guard=0.1, **given)
    with pytest.raises(ValueError, match=r"`guard` must be above 0, got 0.0"):
        shrink_language_model(model, tokens, guard=0.0, **given)


def test_bits_are_means_over_all_pieces(model, tokens):
    pieces = tokens[:600].reshape(24, 25)
    halves = [bits_per_token(model, half) for half in np.split(pieces, 2)]
    assert bits_per_token(model, pieces) == pytest.approx(np.mean(halves), rel=1e-5)


def test_tokens_of_a_text_are_its_bytes(tmp_path):
    (tmp_path / "text").write_bytes(b"abc")
    assert read_tokens(256, text=tmp_path / "text").tolist() == [97, 98, 99]
    np.save(tmp_path / "numbers.npy", np.array([5, 7]))
    assert read_tokens(10, tokens=tmp_path / "numbers.npy").tolist() == [5, 7]
    with pytest.raises(
        ValueError, match=r"vocabulary of 256.* got 50280: give `tokens`, a .npy file"
    ):
        read_tokens(50280, text=tmp_path / "text")
    with pytest.raises(ValueError, match="must be from 0 to 6, got 5 to 7"):
        read_tokens(7, tokens=tmp_path / "numbers.npy")
    with pytest.raises(ValueError, match="exactly one of `text` and `tokens`"):
        read_tokens(256)
    (tmp_path / "empty.npy").write_bytes(b"")
    np.savez(tmp_path / "two.npz", np.array([5]), np.array([7]))
    for name in ("empty.npy", "two.npz"):
        with pytest.raises(ValueError, match=r"must be a \.npy file"):
            read_tokens(10, tokens=tmp_path / name)


def test_arguments_out_of_range_are_named(model, tokens):
    with pytest.raises(ValueError, match="exactly one of `tau` and `rank`"):
        shrink_language_model(model, tokens)
    with pytest.raises(ValueError, match=r"must have 260 tokens or more .*got 100"):
        shrink_language_model(model, tokens[:100], rank=2, length=24)
