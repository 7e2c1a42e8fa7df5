"""A pretrained language model with fewer states: weighed, cut, and held against what it was."""

import math
import time
from dataclasses import dataclass
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int

from compress import Alike, Data, Jointly, Plan, Rank, Tolerance, compress, plan
from compress.model.record import record
from zoo.network.language_model import LanguageModel
from zoo.pretrained.generate import generate

BYTES = 256
"""The vocabulary of models that read bytes."""

HELD_OUT = 0.1
"""Share of the text, at its end, on which the model is judged."""

AT_ONCE = 8
"""Sequences that are judged at the same time."""


@dataclass(frozen=True)
class Standing:
    """How good and how fast a model is."""

    bits: float
    """Bits per token on held-out text: per byte where tokens are bytes."""
    tokens_per_second: float
    """Tokens generated one after the other, one sequence."""
    parameters: int


@dataclass(frozen=True)
class Shrunk:
    """A smaller model, how it was cut, and what became of its standing."""

    model: LanguageModel
    plan: Plan
    before: Standing
    after: Standing


def read_tokens(
    vocabulary: int, text: Path | None = None, tokens: Path | None = None
) -> Int[np.ndarray, " n"]:
    """The tokens in a text file, whose bytes they are, or in a .npy file of token numbers.

    ValueError unless just one is given, where `text` is given for a vocabulary that is not the 256
    bytes, and for numbers outside of the vocabulary.
    """
    if (text is None) == (tokens is None):
        raise ValueError("just one of `text` and `tokens` must be given")
    if text is not None:
        if vocabulary != BYTES:
            raise ValueError(
                f"text={text}: the checkpoint has a vocabulary of {vocabulary}, and bytes are read "
                f"as tokens where it is {BYTES}; allowed here: tokens=FILE.npy, the text's token "
                "numbers by the checkpoint's own tokenizer"
            )
        return np.frombuffer(text.read_bytes(), np.uint8).astype(np.int32)
    assert tokens is not None
    try:
        numbers = np.load(tokens, allow_pickle=False)
    except (EOFError, ValueError):
        numbers = None
    if not isinstance(numbers, np.ndarray):
        raise ValueError(f"tokens={tokens} is no .npy file")
    if numbers.ndim != 1 or not np.issubdtype(numbers.dtype, np.integer):
        raise ValueError(
            f"tokens={tokens} holds {numbers.dtype} of shape {numbers.shape}, allowed: whole "
            "numbers, one dimension"
        )
    if numbers.size and not (numbers.min() >= 0 and numbers.max() < vocabulary):
        raise ValueError(
            f"tokens={tokens} has numbers from {numbers.min()} to {numbers.max()}, allowed: 0 to "
            f"{vocabulary - 1}"
        )
    return numbers.astype(np.int32)


def shrink_language_model(
    model: LanguageModel,
    tokens: Int[np.ndarray, " n"],
    *,
    tau: float | None = None,
    rank: int | None = None,
    guard: float | None = None,
    sequences: int = 32,
    length: int = 256,
    judged: int = 64,
    generated: int = 128,
    seed: int = 0,
) -> Shrunk:
    """`model` with layers of one smaller size, weighed by `sequences` pieces of the text.

    `tau` is the tolerance of the layer that needs the most states, `rank` the size itself; just one
    is given. The pieces, of `length` tokens, come from anywhere before the last tenth of `tokens`;
    `judged` pieces of that tenth say how good the model is. With `guard`, the largest rise of the
    loss [nats per token] right after the cut, layers keep as many states more as it takes on up to
    `judged` pieces of the tenth before, which the states are then not weighed on. ValueError for a
    text too short and for a guard that is not positive.
    """
    if (tau is None) == (rank is None):
        raise ValueError("just one of `tau` and `rank` must be given")
    if guard is not None and not guard > 0:
        raise ValueError(f"`guard` must be above 0, got {guard}")
    split = int(len(tokens) * (1 - HELD_OUT))
    weighed = split if guard is None else int(len(tokens) * (1 - 2 * HELD_OUT))
    judged_on = [len(tokens) - split, *([] if guard is None else [split - weighed])]
    if min(judged_on) < length + 1:
        raise ValueError(
            f"the text has {len(tokens)} tokens, allowed: {math.ceil((length + 2) / HELD_OUT)} or "
            f"more for pieces of {length}"
        )
    held_out = _pieces(tokens[split:], length + 1)[:judged]
    rng = np.random.default_rng(seed)
    starts = rng.integers(0, weighed - length, sequences)
    batch = tokens[starts[:, None] + np.arange(length)]
    policy = Alike(Rank(rank) if rank is not None else Tolerance(tau or 0.0)).gated(1)
    if guard is not None:
        policy = _guarded(policy, model, _pieces(tokens[weighed:split], length + 1)[:judged], guard)
    inputs, gradients = (
        {name.removeprefix("[0]."): x for name, x in seen.items()}
        for seen in record((model, eqx.nn.State(model)), batch, gradients=True)
    )
    # selections, not maps: the folder stays of the layout that other tools read
    method = Data(inputs=inputs, gradients=gradients, maps=False)
    planned = plan(model, policy=policy, method=method)
    small, _ = compress(model, plan=planned)
    before, after = (_standing(m, held_out, generated) for m in (model, small))
    return Shrunk(small, planned, before, after)


def _guarded(
    policy: Alike, model: LanguageModel, tokens: Int[np.ndarray, "k L"], most: float
) -> Jointly:
    """The ranks of `policy`, or the least above them that raise the loss by no more than `most`.

    By bisection, as if more states never were worse.
    """

    def ranks(sigmas, cut):
        whole = bits_per_token(model, tokens)

        def at_least(rank):
            return [max(rank, n) for n in wanted]

        def fits(rank):
            rise = bits_per_token(cut(at_least(rank)), tokens) - whole
            return rise * math.log(2) <= most

        wanted = policy.choose(sigmas, cut)
        low, high = min(wanted), min(len(sigma) for sigma in sigmas)
        if fits(low):
            return wanted
        while high - low > 1:  # too few at `low`, enough at `high`
            middle = (low + high) // 2
            low, high = (low, middle) if fits(middle) else (middle, high)
        return at_least(high)

    return Jointly(ranks).gated(1)


def _standing(model: LanguageModel, held_out: Int[np.ndarray, "k L"], generated: int) -> Standing:
    return Standing(
        bits=bits_per_token(model, held_out),
        tokens_per_second=generation_speed(model, held_out[:1, :-1], generated),
        parameters=sum(x.size for x in jax.tree.leaves(eqx.filter(model, eqx.is_array))),
    )


def bits_per_token(model: LanguageModel, tokens: Int[np.ndarray, "k L"]) -> float:
    """Mean bits of each token after the first of its sequence, given those before it."""
    parts = np.split(tokens, range(AT_ONCE, len(tokens), AT_ONCE))
    return sum(float(_nats(model, jnp.asarray(part))) for part in parts) / (
        math.log(2) * tokens[:, 1:].size
    )


def generation_speed(
    model: LanguageModel, prompt: Int[np.ndarray, "b L"], tokens: int, repeats: int = 3
) -> float:
    """Tokens a second, of each sequence, in the fastest of `repeats` greedy continuations."""

    def seconds() -> float:
        start = time.perf_counter()
        jax.block_until_ready(generate(model, prompt, tokens, temperature=0)[0])
        return time.perf_counter() - start

    seconds()  # compiles
    return tokens / min(seconds() for _ in range(repeats))


@eqx.filter_jit
def _nats(model: LanguageModel, tokens: Int[Array, "b L"]) -> Float[Array, ""]:
    def of_one(tokens: Array) -> Array:
        logits, _ = model(tokens[:-1], eqx.nn.State(model))
        losses = optax.softmax_cross_entropy_with_integer_labels(
            logits.astype(jnp.float32), tokens[1:]
        )
        return jnp.sum(losses)

    return jnp.sum(jax.vmap(of_one)(tokens))


def _pieces(tokens: Int[np.ndarray, " n"], length: int) -> Int[np.ndarray, "k length"]:
    count = len(tokens) // length
    return tokens[: count * length].reshape(count, length)
