"""Reduction of a pretrained language model: weighed, cut, and compared with the original."""

import math
import tempfile
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float, Int

from compress import Alike, Data, Jointly, Plan, Rank, Tolerance, compress, plan
from compress.selective.moments import SAMPLES, SEQUENCES
from data.checks import TOO_MANY, reading
from data.task import Progress
from zoo import LanguageModel, ScannedModel, generate, scanned
from zoo.pretrained.text import BYTES, Text

from ..run.memory import give_back_freed_memory
from .calibration import Recordings, Watched

HELD_OUT = 0.1
"""Share of the text, at its end, on which the model is evaluated."""

AT_ONCE = 8
"""Most sequences that are evaluated at the same time."""

LOGITS_AT_ONCE = 2**24
"""Approximate number of logits in memory at the same time."""


@dataclass(frozen=True)
class Standing:
    """How good and how fast a model is."""

    bits: float
    """Bits per token on held-out text: per byte where tokens are bytes."""
    tokens_per_second: float
    """Tokens per second in generation, one sequence."""
    parameters: int


@dataclass(frozen=True)
class Shrunk:
    """A smaller model, its cut, and its quality before and after."""

    model: LanguageModel
    plan: Plan
    before: Standing
    after: Standing


def read_tokens(
    vocabulary: int,
    text: Path | None = None,
    tokens: Path | None = None,
    *,
    reader: Text | None = None,
) -> Int[np.ndarray, " n"]:
    """The tokens in a text file, by `reader`, or in a .npy file of token numbers.

    Without a reader tokens are the bytes of the file. ValueError unless exactly one is given, if a
    vocabulary other than the 256 bytes has no reader, and for numbers outside the vocabulary.
    """
    if (text is None) == (tokens is None):
        raise ValueError("exactly one of `text` and `tokens` must be given")
    if text is not None and reader is not None:
        return _within(
            reader.encode(text.read_text(errors="replace")), vocabulary, f"tokens of {text}"
        )
    if text is not None:
        if vocabulary != BYTES:
            raise ValueError(
                f"`text` must go to a checkpoint with a vocabulary of {BYTES}, whose tokens are "
                f"bytes, got {vocabulary}: give `tokens`, a .npy file of the text's token numbers "
                "by the checkpoint's own tokenizer"
            )
        return np.frombuffer(text.read_bytes(), np.uint8).astype(np.int32)
    assert tokens is not None
    with reading(tokens, "a .npy file of token numbers"):
        numbers = np.load(tokens, allow_pickle=False)
    if not isinstance(numbers, np.ndarray):
        raise ValueError(f"`tokens` must be a .npy file, got {tokens}")
    if numbers.ndim != 1 or not np.issubdtype(numbers.dtype, np.integer):
        raise ValueError(
            f"`tokens` must hold whole numbers in one dimension, got {numbers.dtype} of shape "
            f"{numbers.shape} in {tokens}"
        )
    return _within(numbers, vocabulary, f"tokens in {tokens}")


def _within(numbers: Int[np.ndarray, " n"], vocabulary: int, what: str) -> Int[np.ndarray, " n"]:
    """`numbers`, which must be tokens of the vocabulary."""
    if numbers.size and not (numbers.min() >= 0 and numbers.max() < vocabulary):
        raise ValueError(
            f"{what} must be from 0 to {vocabulary - 1}, got {numbers.min()} to {numbers.max()}"
        )
    return numbers.astype(np.int32)


def _check_counts(**counts: int | None) -> None:
    """ValueError for a count below 1 or absurdly large."""
    for name, count in counts.items():
        if count is not None and not 1 <= count < TOO_MANY:
            raise ValueError(f"`{name}` must be 1 or more, below {TOO_MANY}, got {count}")


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
    work: Path | None = None,
    progress: Progress = lambda done, total, what: None,
) -> Shrunk:
    """`model` with layers of one smaller size, weighed by `sequences` pieces of the text.

    `tau` is the tolerance of the layer that needs the most states, `rank` the size itself; exactly
    one is given. The pieces, of `length` tokens, are drawn from the text before the last tenth of
    `tokens`; `judged` pieces of that tenth evaluate the model. With `guard`, the largest rise of
    the loss [nats per token] right after the cut, layers keep as many more states as needed on up
    to `judged` pieces of the tenth before, which are then excluded from the weighing. The
    recordings of the layers are kept in the folder `work` (or a temporary one) until the cut is
    made: another call for the same pieces continues from them. From many pieces, evenly spread ones
    with some thousand tokens (`moments.SAMPLES`) are used. ValueError for a text too short and for
    a guard that is not positive.
    """
    if (tau is None) == (rank is None):
        raise ValueError("exactly one of `tau` and `rank` must be given")
    _check_counts(sequences=sequences, length=length, generated=generated, judged=judged)
    if seed < 0:
        raise ValueError(f"`seed` must be 0 or more, got {seed}")
    if guard is not None and not guard > 0:
        raise ValueError(f"`guard` must be above 0, got {guard}")
    split = int(len(tokens) * (1 - HELD_OUT))
    weighed = split if guard is None else int(len(tokens) * (1 - 2 * HELD_OUT))
    judged_on = [len(tokens) - split, *([] if guard is None else [split - weighed])]
    if min(judged_on) < length + 1:
        raise ValueError(
            f"the text must have {math.ceil((length + 2) / HELD_OUT)} tokens or more for pieces of "
            f"{length}, got {len(tokens)}"
        )
    held_out = _pieces(tokens[split:], length + 1)[:judged]
    batch = _calibration(tokens[:weighed], sequences, length, seed)
    policy = Alike(Rank(rank) if rank is not None else Tolerance(tau or 0.0)).gated(1)
    if guard is not None:
        policy = _guarded(policy, model, _pieces(tokens[weighed:split], length + 1)[:judged], guard)
    with tempfile.TemporaryDirectory() if work is None else nullcontext(work) as folder:
        recordings = Recordings(Path(folder), model, batch)
        recordings.complete(progress)
        inputs, gradients = recordings.arrays("inputs"), recordings.arrays("gradients")
        # selections, not maps: the folder stays of the layout that other tools read
        data = Data(inputs=inputs, gradients=gradients, maps=False)
        planned = plan(model, policy=policy, method=Watched(data, progress, len(inputs)))
        small, _ = compress(model, plan=planned)
    give_back_freed_memory()
    before = _standing(model, held_out, generated, progress, "judging the model")
    give_back_freed_memory()
    after = _standing(small, held_out, generated, progress, "judging the smaller model")
    return Shrunk(small, planned, before, after)


def _calibration(
    tokens: Int[np.ndarray, " n"], sequences: int, length: int, seed: int
) -> Int[np.ndarray, "k length"]:
    """The pieces that states are weighed on, of so many drawn from anywhere in `tokens`."""
    starts = np.random.default_rng(seed).integers(0, len(tokens) - length, sequences)
    most = max(SEQUENCES, math.ceil(2 * SAMPLES / length))
    if sequences > most:
        starts = starts[np.linspace(0, sequences - 1, most).round().astype(int)]
    return tokens[starts[:, None] + np.arange(length)]


def judge_language_model(
    model: LanguageModel,
    tokens: Int[np.ndarray, " n"],
    *,
    length: int = 256,
    judged: int | None = None,
    progress: Progress = lambda done, total, what: None,
) -> float:
    """Bits per token of the whole text, or of its first `judged` pieces of `length` tokens.

    The perplexity is two to the power of it. ValueError for a text of less than one piece.
    """
    _check_counts(length=length, judged=judged)
    pieces = _pieces(tokens, length + 1)[:judged]
    if not len(pieces):
        raise ValueError(
            f"the text must have {length + 1} tokens or more, a piece and the token that follows "
            f"it, got {len(tokens)}"
        )
    what = "judging the model"
    return _measured_bits(model, pieces, lambda done, total: progress(done, total, what))


def _guarded(
    policy: Alike, model: LanguageModel, tokens: Int[np.ndarray, "k L"], most: float
) -> Jointly:
    """The ranks of `policy`, or the least above them that raise the loss by no more than `most`.

    By bisection, assuming that more states are never worse.
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


def _standing(
    model: LanguageModel,
    held_out: Int[np.ndarray, "k L"],
    generated: int,
    progress: Progress,
    what: str,
) -> Standing:
    return Standing(
        bits=_measured_bits(model, held_out, lambda done, total: progress(done, total, what)),
        tokens_per_second=generation_speed(model, held_out[:1, :-1], generated),
        parameters=sum(x.size for x in jax.tree.leaves(eqx.filter(model, eqx.is_array))),
    )


def bits_per_token(model: LanguageModel, tokens: Int[np.ndarray, "k L"]) -> float:
    """Mean bits of each token after the first of its sequence, given those before it."""
    return _measured_bits(model, tokens, lambda done, total: None)


def _measured_bits(
    model: LanguageModel, tokens: Int[np.ndarray, "k L"], progress: Callable[[int, int], None]
) -> float:
    """`bits_per_token`; `progress(done, total)` counts sequences."""
    count, length = tokens.shape
    size = min(AT_ONCE, max(1, LOGITS_AT_ONCE // (length * model.vocabulary)), count)
    deep, nats = scanned(model), 0.0
    for first in range(0, count, size):
        rows = np.arange(first, first + size)
        part = tokens[np.minimum(rows, count - 1)]  # of one shape
        nats += float(_nats(deep, jnp.asarray(part), jnp.asarray(rows < count)))
        progress(min(first + size, count), count)
    return nats / (math.log(2) * tokens[:, 1:].size)


def generation_speed(
    model: LanguageModel, prompt: Int[np.ndarray, "b L"], tokens: int, repeats: int = 3
) -> float:
    """Tokens a second, of each sequence, in the fastest of `repeats` greedy continuations."""
    deep = scanned(model)

    def seconds() -> float:
        start = time.perf_counter()
        jax.block_until_ready(generate(deep, prompt, tokens, temperature=0)[0])
        return time.perf_counter() - start

    seconds()  # compiles
    return tokens / min(seconds() for _ in range(repeats))


@eqx.filter_jit
def _nats(
    model: ScannedModel, tokens: Int[Array, "b L"], counts: Bool[Array, " b"]
) -> Float[Array, ""]:
    def of_one(tokens: Array) -> Array:
        _, h = model.run(model.init_state(), tokens[:-1])
        logits = model.logits(h).astype(jnp.float32)
        return jnp.sum(optax.softmax_cross_entropy_with_integer_labels(logits, tokens[1:]))

    return jnp.sum(jax.vmap(of_one)(tokens) * counts)


def _pieces(tokens: Int[np.ndarray, " n"], length: int) -> Int[np.ndarray, "k length"]:
    count = len(tokens) // length
    return tokens[: count * length].reshape(count, length)
