"""Generation from a language model, token by token, with the layers' states as the carry."""

import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

from ..network.language_model import LanguageModel
from ..network.scanned import ScannedModel, scanned
from ..typing import AnyArray, checked

MOST_TOKENS = 2**28
"""Most tokens of one call, of all prompts together."""


@checked
def generate(
    model: LanguageModel | ScannedModel,
    prompt: Int[AnyArray, "batch length"],
    tokens: int,
    *,
    temperature: float | int = 1.0,
    top_p: float | int = 1.0,
    key: PRNGKeyArray | None = None,
    lengths: Int[AnyArray, " batch"] | None = None,
    carry: Any = None,
) -> tuple[Int[Array, "batch tokens"], Any]:
    """`tokens` tokens that follow each prompt, and the carry for more.

    The memory does not grow with `tokens`, save for the tokens themselves. A `temperature` of 0
    takes the likeliest token each time; otherwise `key` is needed. The logits are divided by
    `temperature`, and a token is drawn from the likeliest ones that together have the probability
    `top_p` (Holtzman et al. 2020), or from all with a `top_p` of 1 or more. Logits of half
    precision are made float32 first. Each row draws from a key of its own, which does not depend on
    how many rows there are.

    `lengths` are the lengths of the prompts if they are padded at the end. `carry` is the state
    before the prompts, zero if not given. To continue, pass the last token as the prompt, and the
    returned carry.

    Equal blocks run in one scan. For many calls pass `zoo.scanned(model)`, which stacks them only
    once. Compiled programs serve buckets of sizes: prompts and numbers of tokens up to 1, 16, 32,
    64 and so on share a program.
    """
    prompt = np.asarray(prompt)  # in NumPy: work for one length then compiles no program
    batch, L = prompt.shape
    _check(model, prompt, tokens, temperature, top_p, key, lengths)
    deep = model if isinstance(model, ScannedModel) else scanned(model)
    carry = _stacked(deep, carry, batch)
    lengths = jnp.asarray(np.full(batch, L) if lengths is None else lengths)
    padded = jax.device_put(np.pad(prompt, ((0, 0), (0, bucket(L) - L))))
    keys = heat = share = None
    if temperature > 0:
        assert key is not None
        keys = jax.vmap(lambda i: jax.random.fold_in(key, i))(jnp.arange(batch))
        heat = jnp.asarray(max(temperature, float(jnp.finfo(jnp.float32).tiny)))
        share = jnp.asarray(top_p) if top_p < 1 else None
    written, carry = _generate(
        deep, padded, lengths, carry, keys, heat, share, bucket(tokens), jnp.asarray(tokens)
    )
    made = np.ascontiguousarray(np.asarray(written)[:, :tokens])
    return jax.device_put(made), _states(deep, carry)


@eqx.filter_jit
def _stacked(deep: ScannedModel, carry: Any, batch: int) -> Any:
    """The carry of a batch, behind the blocks, as the scans have it; None is zero.

    With the batch in front of the blocks it would be moved for each token.
    """
    if carry is not None:
        return jax.vmap(deep.stacked_carry, out_axes=1)(carry)
    return jax.tree.map(lambda x: jnp.repeat(x[:, None], batch, axis=1), deep.init_state())


@eqx.filter_jit
def _states(deep: ScannedModel, carry: Any) -> Any:
    return jax.vmap(deep.states, in_axes=1)(carry)


@checked
def bucket(size: int) -> int:
    """The size of the program for `size`: 1, 16, 32, 64 and so on."""
    return 1 if size == 1 else max(16, 1 << (size - 1).bit_length())


@eqx.filter_jit
def _generate(model, prompt, lengths, carry, keys, temperature, share, room: int, tokens=None):
    """Each token is drawn with the key folded with its position. If `keys` is None the likeliest is
    taken; if `share` is None all tokens are candidates. There is room for more than `tokens`
    tokens; all of it is filled if `tokens` is None.
    """
    model = eqx.nn.inference_mode(model)
    at = int(isinstance(model, ScannedModel))  # the carry's axis of the batch
    carry, h = jax.vmap(model.run, in_axes=(at, 0, 0), out_axes=(at, 0))(carry, prompt, lengths)
    last = jnp.take_along_axis(h, (lengths - 1)[:, None, None], axis=1)[:, 0]

    def choose(logits, place):
        if keys is None:
            return jnp.argmax(logits, axis=-1)
        logits = tempered(logits, temperature)
        if share is not None:
            logits = jax.vmap(lambda row: nucleus(row, share))(logits)
        here = jax.vmap(lambda key: jax.random.fold_in(key, place))(keys)
        return jax.vmap(jax.random.categorical)(here, logits)

    def step(place, state):
        carry, token, written = state
        carry, logits = jax.vmap(model.step, in_axes=(at, 0), out_axes=(at, 0))(carry, token)
        token = choose(logits, place).astype(written.dtype)
        return carry, token, written.at[:, place].set(token)

    first = choose(model.logits(last), 0)
    written = jnp.zeros((len(prompt), room), first.dtype).at[:, 0].set(first)
    state = (carry, first, written)
    carry, _, written = jax.lax.fori_loop(1, room if tokens is None else tokens, step, state)
    return written, carry


@checked
def tempered(
    logits: Float[AnyArray, "*lead vocabulary"], temperature: Float[AnyArray, ""] | float
) -> Float[Array, "*lead vocabulary"]:
    """`logits` over `temperature`, the largest moved to zero, in float32 at least.

    Half precision has too few digits to tell small probabilities apart and to add them up.
    """
    logits = logits.astype(jnp.result_type(logits, jnp.float32))
    return jnp.asarray((logits - jnp.max(logits, axis=-1, keepdims=True)) / temperature)


@checked
def nucleus(
    logits: Float[AnyArray, " vocabulary"], share: Float[AnyArray, ""] | float
) -> Float[Array, " vocabulary"]:
    """`logits`, with minus infinity except for the fewest likeliest tokens that hold `share` of the
    probability."""
    descending = jnp.sort(logits)[::-1]
    probability = jax.nn.softmax(descending)
    before = jnp.cumsum(probability) - probability
    least = jnp.min(jnp.where(before < share, descending, jnp.inf))
    return jnp.where(logits >= least, logits, -jnp.inf)


def _check(model, prompt, tokens, temperature, top_p, key, lengths) -> None:
    L = prompt.shape[1]
    if isinstance(tokens, bool) or tokens < 1:
        raise ValueError(f"`tokens` must be 1 or more, got {tokens}")
    if tokens * len(prompt) > MOST_TOKENS:
        most = MOST_TOKENS // len(prompt)
        raise ValueError(f"`tokens` must be at most {most} of each prompt, got {tokens}")
    if L < 1:
        raise ValueError("`prompt` must have 1 token or more in each row, got none")
    if not 0 <= temperature < math.inf:
        raise ValueError(f"`temperature` must be finite and 0 or more, got {temperature}")
    if not 0 < top_p < math.inf:
        raise ValueError(f"`top_p` must be finite and more than 0, got {top_p}")
    if temperature > 0 and key is None:
        raise ValueError(f"`key` must be given with temperature={temperature}, got None")
    low, high = int(prompt.min()), int(prompt.max())
    if low < 0 or high >= model.vocabulary:
        raise ValueError(
            f"`prompt` must hold tokens from 0 to {model.vocabulary - 1}, got {low} to {high}"
        )
    if lengths is not None:
        short, long = int(np.min(lengths)), int(np.max(lengths))
        if short < 1 or long > L:
            raise ValueError(f"`lengths` must be from 1 to {L}, got {short} to {long}")
