"""Against Hugging Face's own code, where it is installed (the extra `hf`), for random configs."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from compress import Ranks, compress
from zoo.pretrained import generate
from zoo.pretrained.checkpoint import load, read_config, save
from zoo.pretrained.qwen3_next import qwen3_next_layer

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

VOCABULARY = 17
MAMBA = {
    "plain": {},
    "biased, untied, wide state": {
        "state_size": 24,
        "use_bias": True,
        "use_conv_bias": False,
        "tie_word_embeddings": False,
        "time_step_rank": 5,
        "conv_kernel": 3,
        "num_hidden_layers": 3,
    },
    "narrow": {"expand": 1, "state_size": 1, "num_hidden_layers": 1, "layer_norm_epsilon": 1e-3},
}
MAMBA2 = {
    "plain": {"chunk_size": 8},
    "groups, limit": {
        "n_groups": 2,
        "time_step_limit": (0.02, 0.3),
        "chunk_size": 16,
        "state_size": 3,
        "use_bias": True,
        "tie_word_embeddings": True,
    },
    "one group, no convolution bias": {
        "n_groups": 1,
        "use_conv_bias": False,
        "head_dim": 8,
        "num_heads": 4,
        "num_hidden_layers": 1,
    },
}
CASES = [(False, name) for name in MAMBA] + [(True, name) for name in MAMBA2]


def peer(second: bool, name: str):
    """A model of theirs, with parameters far from their start."""
    torch.manual_seed(0)
    common = {
        "vocab_size": VOCABULARY,
        "hidden_size": 16,
        "state_size": 4,
        "num_hidden_layers": 2,
        "bos_token_id": 0,
        "eos_token_id": None,
        "pad_token_id": 0,
    }
    if second:
        settings = common | {"num_heads": 4, "head_dim": 8, "n_groups": 4} | MAMBA2[name]
        model = transformers.Mamba2ForCausalLM(transformers.Mamba2Config(**settings))
    else:
        settings = common | MAMBA[name]
        model = transformers.MambaForCausalLM(transformers.MambaConfig(**settings))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return model.eval()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("second", "name"), CASES)
def test_we_compute_what_they_compute(second, name, tmp_path):
    theirs = peer(second, name)
    theirs.save_pretrained(tmp_path / "theirs")
    ours = load(tmp_path / "theirs")
    tokens = np.random.default_rng(0).integers(0, VOCABULARY, (2, 37))
    with torch.no_grad():
        expected = theirs(torch.as_tensor(tokens)).logits.numpy()
    state = eqx.nn.State(ours)
    logits = jax.vmap(lambda row: ours(row, state)[0])(jnp.asarray(tokens))
    scale = np.abs(expected).max()
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-4 * max(1, scale))

    save(tmp_path / "ours", ours)
    kind = transformers.Mamba2ForCausalLM if second else transformers.MambaForCausalLM
    again, report = kind.from_pretrained(tmp_path / "ours", output_loading_info=True)
    assert not any(report.values()), report
    with torch.no_grad():
        np.testing.assert_array_equal(again(torch.as_tensor(tokens)).logits.numpy(), expected)

    if "limit" not in name:  # which their cached decoding leaves out
        with torch.no_grad():
            greedy = again.generate(
                torch.as_tensor(tokens[:, :9]), max_new_tokens=8, do_sample=False
            )
        drawn, _ = generate(ours, tokens[:, :9], 8, temperature=0)
        np.testing.assert_array_equal(drawn, greedy[:, 9:].numpy())


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("second", [False, True])
def test_they_read_a_model_that_was_compressed(second, tmp_path):
    theirs = peer(second, "plain")
    theirs.save_pretrained(tmp_path / "theirs")
    ours = load(tmp_path / "theirs")
    tokens = np.random.default_rng(0).integers(0, VOCABULARY, (6, 20))
    state = eqx.nn.State(ours)
    small, _ = compress((ours, state), policy=Ranks(2), batch=jnp.asarray(tokens))
    small = small[0]
    assert {block.ssm.d_state for block in small.blocks} == {2}

    save(tmp_path / "small", small, config=read_config(tmp_path / "theirs"))
    kind = transformers.Mamba2ForCausalLM if second else transformers.MambaForCausalLM
    again, report = kind.from_pretrained(tmp_path / "small", output_loading_info=True)
    assert not any(report.values()), report
    assert again.config.state_size == 2
    with torch.no_grad():
        expected = again(torch.as_tensor(tokens)).logits.numpy()
    logits = jax.vmap(lambda row: small(row, state)[0])(jnp.asarray(tokens))
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("heads", "key_heads", "K", "V"), [(2, 2, 8, 8), (4, 2, 6, 10)])
def test_gated_deltanet_is_the_layer_of_qwen3_next(heads, key_heads, K, V):
    from transformers.models.qwen3_next import modeling_qwen3_next as qwen

    torch.manual_seed(0)
    config = transformers.Qwen3NextConfig(
        hidden_size=24,
        linear_num_value_heads=heads,
        linear_num_key_heads=key_heads,
        linear_key_head_dim=K,
        linear_value_head_dim=V,
        linear_conv_kernel_dim=4,
    )
    theirs = qwen.Qwen3NextGatedDeltaNet(config, layer_idx=0).eval()
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
        u = torch.randn(2, 75, 24)
        expected = theirs(u).numpy()
    tensors = {name: jnp.asarray(x.numpy()) for name, x in theirs.state_dict().items()}
    layer = qwen3_next_layer(tensors, key_heads=key_heads, eps=config.rms_norm_eps)
    assert (layer.heads, layer.d_state, layer.values) == (heads, K, V)
    y = jax.vmap(layer)(jnp.asarray(u.numpy()))
    scale = np.abs(expected).max()
    np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-4 * max(1, scale))
    carry, first = layer.run(layer.init_state(), jnp.asarray(u[0, :70].numpy()))
    _, y_t = layer.step(carry, jnp.asarray(u[0, 70].numpy()))
    np.testing.assert_allclose(first, expected[0, :70], rtol=1e-4, atol=1e-4 * max(1, scale))
    np.testing.assert_allclose(y_t, expected[0, 70], rtol=1e-4, atol=1e-4 * max(1, scale))
