"""Checkpoints: arrays and the sizes of all layers, written atomically beside the run's log."""

import logging
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp

from compress import family_of
from compress.model.layers import layers_of, replace_layers

# orbax logs every save at INFO and WARNING, and a failed one, which `SaveError` names, at ERROR
logging.getLogger("absl").setLevel(logging.CRITICAL)


def _but_for_late_arrays(report: Callable[[Any], Any]) -> Callable[[Any], None]:
    """`report` without the arrays that are on their way when another one has failed: the event loop
    that they would tell of is closed then."""

    def reported(what: Any) -> None:
        if str(what.exc_value) != "Event loop is closed":
            report(what)

    return reported


sys.unraisablehook = _but_for_late_arrays(sys.unraisablehook)


class SaveError(OSError):
    """A checkpoint could not be written; earlier ones are unchanged."""


class Checkpoints:
    """The checkpoints of one run, one folder per step, the latest few kept.

    A checkpoint is written in the background, under a temporary name until it is complete: a
    process killed at any moment leaves the previous one intact.
    """

    def __init__(self, folder: Path, keep: int = 2):
        options = ocp.CheckpointManagerOptions(max_to_keep=keep, enable_async_checkpointing=True)
        self._manager = ocp.CheckpointManager(folder.absolute(), options=options)
        self._folder, self._last = folder, 0

    def latest(self) -> int | None:
        """The step of the latest complete checkpoint, None if there is none."""
        return self._manager.latest_step()

    def steps(self) -> list[int]:
        """The steps of all checkpoints, the latest first."""
        return sorted(self._manager.all_steps(), reverse=True)

    def save(self, step: int, arrays: Any, metadata: dict[str, Any]) -> None:
        """Save a pytree of arrays and a JSON dictionary as step `step`; returns before it is done.

        The arrays are copied first, so the caller may donate them. `SaveError` if it, or the one
        before it, cannot be written.
        """
        self._last = step
        with self._named_errors():
            self._manager.save(
                step,
                args=ocp.args.Composite(
                    arrays=ocp.args.StandardSave(_flat(jax.tree.map(np.array, arrays))),
                    metadata=ocp.args.JsonSave(metadata),
                ),
            )

    @contextmanager
    def _named_errors(self) -> Iterator[None]:
        """Inside this context, errors of the last save become a `SaveError` in one line."""
        try:
            yield
        except Exception as error:  # orbax has errors of many kinds
            said = " ".join(str(error).split())
            reason = re.search(r"\[OS error \d+: \w* ?(.*?)\]|\[Errno \d+\] ([^:']*)", said)
            why = next(filter(None, reason.groups()), said) if reason else said
            left = [saved for saved in self.steps() if saved != self._last]
            last = f"the last complete one is of step {left[0]}" if left else "there is none before"
            raise SaveError(
                f"the checkpoint of step {self._last} could not be written to {self._folder}: "
                f"{why.strip()[:200]}; {last}"
            ) from error

    def metadata(self, step: int) -> dict[str, Any]:
        """The JSON dictionary of step `step`."""
        args = ocp.args.Composite(metadata=ocp.args.JsonRestore())
        return self._manager.restore(step, args=args)["metadata"]

    def arrays(self, step: int, like: Any) -> Any:
        """The pytree of step `step`, in the structure and with the shapes and dtypes of `like`.

        ValueError for an array that was saved with another shape.
        """
        flat = _flat(like)
        template = {name: np.zeros(x.shape, x.dtype) for name, x in flat.items()}
        args = ocp.args.Composite(arrays=ocp.args.StandardRestore(template))
        restored = self._manager.restore(step, args=args)["arrays"]
        return _filled(like, restored)

    def part(self, step: int, like: Any) -> Any:
        """As `arrays`, of a `like` that holds only some of the arrays of step `step`."""
        args = ocp.args.Composite(arrays=ocp.args.StandardRestore())
        return _filled(like, self._manager.restore(step, args=args)["arrays"])

    def forget_from(self, step: int) -> None:
        """Remove the checkpoints of this step and of later ones."""
        self.wait()
        for saved in self.steps():
            if saved >= step:
                self._manager.delete(saved)

    def wait(self) -> None:
        """Wait until the last save is complete; `SaveError` if it cannot be completed."""
        with self._named_errors():
            self._manager.wait_until_finished()

    def close(self) -> None:
        """Wait until the last save is complete, and close the folder."""
        self.wait()
        self._manager.close()


def _flat(tree: Any) -> dict[str, Any]:
    """Leaves by their path, which is how they are called on disk."""
    return {
        jax.tree_util.keystr(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }


def _filled(like: Any, saved: Mapping[str, Any]) -> Any:
    """`like` with the saved arrays, which are called by their path."""
    flat = _flat(like)
    for name, x in flat.items():
        if np.shape(saved[name]) != x.shape:
            shape = np.shape(saved[name])
            raise ValueError(f"{name} must have the shape {x.shape}, was saved with {shape}")
    return jax.tree.unflatten(jax.tree.structure(like), [jnp.asarray(saved[name]) for name in flat])


def has_maps(model: Any) -> list[bool]:
    """For each layer, whether it has maps of its states; the configured layers may have none."""
    return [family_of(layer).has_maps(layer) for _, layer in layers_of(model)]


def resized(model: Any, d_state: list[int], maps: list[bool] | None = None) -> Any:
    """`model`, as shapes only, with the given numbers of states, one for each layer in order.

    `maps` says which layers have some (`has_maps`); None: those that have some in `model`.
    """
    found = len(layers_of(model))
    if found != len(d_state):
        raise ValueError(f"d_state has {len(d_state)} sizes, but the model has {found} layers")
    mapped = [False] * found if maps is None else maps

    def resize(model: Any) -> Any:
        layers = zip(layers_of(model), d_state, mapped, strict=True)
        return replace_layers(
            model,
            {
                keys: (family_of(layer).with_maps(layer) if with_maps else layer).resized(n)
                for (keys, layer), n, with_maps in layers
            },
        )

    return eqx.filter_eval_shape(resize, model)


def shapes_of(model: Any, d_state: list[int], maps: list[bool] | None = None) -> Any:
    """The shapes of the arrays of `model` with these numbers of states, and these `maps`."""
    return eqx.filter(resized(model, d_state, maps), lambda x: isinstance(x, jax.ShapeDtypeStruct))


def shapes_of_moments(optimizer: optax.GradientTransformation, params: Any) -> Any:
    """The shapes of the optimizer's state for parameters of these shapes."""

    def is_trained(x: Any) -> bool:
        return isinstance(x, jax.ShapeDtypeStruct) and jnp.issubdtype(x.dtype, jnp.inexact)

    return eqx.filter_eval_shape(optimizer.init, eqx.filter(params, is_trained))
