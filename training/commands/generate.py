"""Text from a pretrained language model."""

from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np

from zoo import LanguageModel, generate, scanned
from zoo.pretrained.text import Text

AT_ONCE = 16
"""Tokens that are generated between two pieces of text."""

UNSURE = "\N{REPLACEMENT CHARACTER}"
"""The sign for bytes that are not, or not yet, a character."""


def continued(
    model: LanguageModel,
    text: Text,
    prompt: str,
    *,
    tokens: int = 100,
    temperature: float = 0.8,
    top_p: float = 0.95,
    seed: int = 0,
) -> Iterator[str]:
    """The continuation of `prompt` by `model`, piece by piece, `tokens` tokens in all. The text of
    a finished piece does not change any more. ValueError for a prompt without tokens and for
    arguments that `zoo.generate` refuses.
    """
    if tokens < 1:
        raise ValueError(f"`tokens` must be 1 or more, got {tokens}")
    if not 0 <= seed < 2**32:
        raise ValueError(f"`seed` must be in [0, 2**32), got {str(seed)[:40]}")
    start = text.encode(prompt)
    if not len(start):
        raise ValueError("the prompt must have one token or more, got none")
    deep, key = scanned(model), jax.random.key(seed)
    carry, given = None, jnp.asarray(start)[None]
    written: list[int] = []
    shown = ""
    while len(written) < tokens:
        count = min(AT_ONCE, tokens - len(written))
        found, carry = generate(
            deep,
            given,
            count,
            temperature=temperature,
            top_p=top_p,
            key=jax.random.fold_in(key, len(written)),
            carry=carry,
        )
        written += np.asarray(found[0]).tolist()
        given = found[:, -1:]
        whole = text.decode(written)
        end = len(whole) if len(written) == tokens else len(whole.rstrip(UNSURE))
        if whole.startswith(shown) and end > len(shown):
            yield whole[len(shown) : end]
            shown = whole[:end]
