"""What all layers of linear attention are made of, and what their settings are checked for."""

from typing import Any

import jax.numpy as jnp
from jaxtyping import PRNGKeyArray

from ..typing import checked
from .affine import Linear
from .checks import check_divides, check_kinds, check_positive
from .query_key_value import Feature, QueryKeyValue


@checked
def check_sizes(config: Any, *more: str) -> None:
    """ValueError unless the settings that all have, and `more` of them, are sizes."""
    check_kinds(config)
    for name in ("d_state", "heads", "expand", *more):
        check_positive(name, getattr(config, name))
    if config.d_conv is not None:
        check_positive("d_conv", config.d_conv)


@checked
def common_parts(
    d_model: int,
    d_state: int,
    keys: tuple[PRNGKeyArray, PRNGKeyArray, PRNGKeyArray],
    *,
    heads: int,
    key_heads: int | None = None,
    expand: int,
    d_conv: int | None,
    conv_bias: bool,
    feature: Feature | None = None,
    gated: bool = True,
    maps: bool = False,
) -> dict[str, Any]:
    """The fields that all layers have: projections in and out, gate, and norm of the heads.

    `keys` are those of queries, keys and values, of the gate, and of the projection out. `feature`
    is SiLU behind a convolution and nothing without one, if it is not given.
    """
    check_positive("d_model", d_model)
    check_positive("d_state", d_state)
    check_positive("expand", expand)
    if d_conv is not None:
        check_positive("d_conv", d_conv)
    check_divides("heads", heads, "expand * d_model", expand * d_model)
    key_heads = heads if key_heads is None else key_heads
    check_divides("key_heads", key_heads, "heads", heads)
    values = expand * d_model // heads
    qkv_key, gate_key, out_key = keys
    if feature is None:
        feature = "identity" if d_conv is None else "silu"
    gate = Linear.init(d_model, heads * values, use_bias=False, key=gate_key) if gated else None
    return {
        "g_proj": gate,
        "o_norm": jnp.ones(values),
        "o_proj": Linear.init(heads * values, d_model, use_bias=False, key=out_key),
        "qkv": QueryKeyValue.init(
            d_model,
            d_state,
            values,
            heads=heads,
            key_heads=key_heads,
            feature=feature,
            d_conv=d_conv,
            conv_bias=conv_bias,
            maps=maps,
            key=qkv_key,
        ),
        "eps": 1e-5,
    }
