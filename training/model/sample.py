"""A sample of text from a language model."""

from typing import Any

import equinox as eqx
import jax
import numpy as np

from data.task import Task
from zoo.pretrained.generate import generate

TOKENS = 400
TEMPERATURE = 0.8
TOP_P = 0.95


def written_sample(model: Any, task: Task, seed: int) -> str | None:
    """The beginning of the test split, and the continuation by `model`.

    None for tasks that are not language, or whose tokens have no symbols to be shown by.
    """
    if task.kind != "language" or task.symbols is None:
        return None
    prompt = task.splits["test"].take(np.arange(1)).inputs[:, :PROMPT]
    key = jax.random.fold_in(jax.random.key(seed), SAMPLE_STREAM)
    written, _ = generate(
        eqx.nn.inference_mode(model),
        prompt,
        tokens=TOKENS,
        temperature=TEMPERATURE,
        top_p=TOP_P,
        key=key,
    )
    tokens = np.concatenate([prompt[0], np.asarray(written[0])])
    return "".join(task.symbols[token] for token in tokens)


PROMPT = 40
"""Tokens of the test split that the sample continues."""

SAMPLE_STREAM = 4
"""Keeps the sample's draws apart from other uses of the run's seed."""
