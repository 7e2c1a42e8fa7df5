"""The Gated DeltaNet layers of Qwen3-Next, as Hugging Face's transformers stores them."""

from collections.abc import Mapping

from jaxtyping import Array

from ..layers.affine import Linear
from ..layers.causal_conv import CausalConv
from ..layers.gated_deltanet import GatedDeltaNet
from ..layers.query_key_value import QueryKeyValue
from ..typing import checked


@checked
def qwen3_next_layer(
    tensors: Mapping[str, Array], *, key_heads: int, eps: float = 1e-6
) -> GatedDeltaNet:
    """The layer of the tensors of a `Qwen3NextGatedDeltaNet`, called as there.

    `key_heads` and `eps` are `linear_num_key_heads` and `rms_norm_eps` of its configuration. Its
    projections hold q, k, v and the gate, b and a of one key head after those of another.
    """
    heads, values = len(tensors["A_log"]), len(tensors["norm.weight"])
    each, inputs = heads // key_heads * values, tensors["in_proj_qkvz.weight"].shape[1]
    rows = tensors["in_proj_qkvz.weight"].reshape(key_heads, -1, inputs)
    K = rows.shape[1] // 2 - each
    begins = {"q": (0, K), "k": (K, 2 * K), "v": (2 * K, 2 * K + each), "z": (2 * K + each, None)}
    q, k, v, z = (rows[:, slice(*ends)].reshape(-1, inputs) for ends in begins.values())
    ba = tensors["in_proj_ba.weight"].reshape(key_heads, 2, -1, inputs)
    return GatedDeltaNet(
        a_proj=Linear(ba[:, 1].reshape(-1, inputs)),
        b_proj=Linear(ba[:, 0].reshape(-1, inputs)),
        A_log=tensors["A_log"],
        dt_bias=tensors["dt_bias"],
        g_proj=Linear(z),
        o_norm=tensors["norm.weight"],
        o_proj=Linear(tensors["out_proj.weight"]),
        qkv=QueryKeyValue(
            q_proj=Linear(q),
            k_proj=Linear(k),
            v_proj=Linear(v),
            conv1d=CausalConv(tensors["conv1d.weight"][:, 0], tensors.get("conv1d.bias")),
            maps=None,
            key_heads=key_heads,
            heads=heads,
            feature="unit",
            scale=K**-0.5,
        ),
        negative=False,
        eps=eps,
    )
