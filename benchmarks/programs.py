"""Whole training steps of our classifier, and of the same network on an associative scan."""

from dataclasses import dataclass
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from harness import temporary_mib
from public import AssociativeLRU, public

from data.task import Batch
from training.model.objective import OBJECTIVES, Totals
from training.model.optimizer import make_optimizer
from training.run.step import TrainState, make_train_steps
from training.settings.config import OptimizerConfig
from zoo import LRU, classifier
from zoo.layers.half import Precision

LAYERS: dict[str, type[LRU]] = {"ours": LRU, "layer": AssociativeLRU, "public": AssociativeLRU}
"""Our network; only its layer replaced; the whole as public packages write it."""


@dataclass(frozen=True)
class Setting:
    """A network and its data."""

    blocks: int
    d_model: int
    L: int
    batch: int
    channels: int = 1
    classes: int = 10
    dropout: float = 0.1
    norm: str = "batch"


class Program:
    """Compiled training steps, `steps` to a dispatch, and what the model is trained to by now.

    Inside `jax.enable_x64` all is in double precision, from the same parameters.
    """

    def __init__(
        self,
        setting: Setting,
        d_state: int,
        layer: str,
        steps: int = 1,
        precision: Precision = "float32",
    ):
        model, norm_state = _network(setting, d_state, layer)
        real = jnp.zeros(()).dtype
        model, norm_state = jax.tree.map(
            lambda x: x.astype(jnp.result_type(x, real)) if eqx.is_inexact_array(x) else x,
            (model, norm_state),
        )
        params, static = eqx.partition(model, eqx.is_array)
        optimizer = make_optimizer(OptimizerConfig(schedule="constant"), steps=1000)
        opt_state = optimizer.init(eqx.filter(params, eqx.is_inexact_array))
        state = TrainState(params, norm_state, opt_state, jnp.zeros((), jnp.int32))
        rng = np.random.default_rng(0)
        shape = (steps, setting.batch, setting.L, setting.channels)
        self.data = (
            Batch(
                rng.normal(size=shape).astype(np.float32).astype(real),
                rng.integers(setting.classes, size=shape[:2]).astype(np.int32),
            ),
            jnp.asarray(steps, jnp.int32),
            jax.random.key(1),
        )
        self.carry = state, Totals.zero()
        train = make_train_steps(
            static, optimizer, OBJECTIVES["classification"], precision=precision
        )
        self.compiled = train.lower(*self.carry, *self.data).compile()
        self.temporary_mib = temporary_mib(self.compiled)

    def __call__(self) -> Any:
        self.carry = self.compiled(*self.carry, *self.data)
        return self.carry

    def loss_and_gradient(self) -> tuple[Any, Any]:
        """Of the first step, the one done so far: Adam's first moment is then 0.1 times it."""
        state, totals = self.carry
        moments = [
            np.asarray(leaf)
            for path, leaf in jax.tree_util.tree_leaves_with_path(state.opt_state)
            if any(getattr(part, "name", None) == "mu" for part in path)
        ]
        return np.asarray(totals.loss), moments


def _network(setting: Setting, d_state: int, layer: str) -> tuple[Any, Any]:
    """The network and its BatchNorm state, in single precision."""
    with jax.enable_x64(False):
        model, norm_state = classifier(
            lambda key: LAYERS[layer].init(setting.d_model, d_state, key=key),
            input_kind="real",
            input_size=setting.channels,
            classes=setting.classes,
            d_model=setting.d_model,
            blocks=setting.blocks,
            norm=setting.norm,  # pyright: ignore[reportArgumentType]
            dropout=setting.dropout,
            key=jax.random.key(0),
        )
        return public(model) if layer == "public" else (model, norm_state)
