"""A trained model as portable StableHLO, in programs that run without this project."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.export
import jax.numpy as jnp
import numpy as np

from data.task import Batch
from zoo import fixed_norms
from zoo.recurrence.plain import plainly

from ..model.forward import run_batch
from ..reporting.events import write_atomically
from ..settings.errors import UsageError
from .inputs import in_units
from .onnx import onnx_model
from .readme import Argument, onnx_readme, readme
from .streaming import stream_of
from .trained import TrainedRun

PLATFORMS = ("cpu", "cuda")

SUFFIX = ".stablehlo"

HARMLESS = {"shape_assertion"}
"""Custom calls that check the sizes of a program's arguments; they are removed before
compilation."""


@dataclass(frozen=True)
class Function:
    """A function of arrays, whose sizes may be symbols, with a description of its arguments and
    results."""

    call: Callable[..., Any]
    arguments: tuple[Argument, ...]
    results: tuple[Argument, ...]


@dataclass(frozen=True)
class Export:
    """The files of an export."""

    whole: Path
    """Whole sequences."""
    step: Path | None
    """One sample; None for a model that needs the future."""
    readme: Path


def written_files(run: TrainedRun, file: Path) -> list[Path]:
    """Export `run` in the format of `file`'s suffix. Returns the files that were written.

    `UsageError` for another suffix than .stablehlo and .onnx.
    """
    if file.suffix == ".onnx":
        return [file, export_step(run, file)]
    files = export_run(run, file)
    return [each for each in (files.whole, files.step, files.readme) if each is not None]


def export_run(run: TrainedRun, file: Path) -> Export:
    """Write the model of `run` to `file`, its streaming step beside it, and a README of both.

    Batch and length are free, and the programs run on CPUs and on NVIDIA GPUs. `UsageError` for
    another suffix than .stablehlo, and if the package that writes them is missing.
    """
    if file.suffix != SUFFIX:
        raise UsageError(f"--out must end in {SUFFIX} or .onnx, got {file}")
    whole, reason = whole_function(run), ""
    try:
        step = step_function(run)
    except ValueError as error:
        step, reason = None, " ".join(str(error).split())
    file.parent.mkdir(parents=True, exist_ok=True)
    files = Export(
        file, file.with_suffix(f".step{SUFFIX}") if step else None, file.with_suffix(".md")
    )
    for function, path in ((whole, files.whole), (step, files.step)):
        if function is not None and path is not None:
            write_atomically(path, [_serialized(function)])
    text = readme(run, whole, step, files.whole.name, files.step and files.step.name, reason)
    write_atomically(files.readme, text)
    return files


def export_step(run: TrainedRun, file: Path) -> Path:
    """Write the streaming step of one sequence to `file` as ONNX; the README beside it.

    Complex states are pairs of real arrays. ValueError for tokens, for a model that cannot stream,
    and for operations without an ONNX operator; `UsageError` if the package is missing.
    """
    if run.task.input_kind == "tokens":
        raise ValueError("ONNX is written for models of real inputs, got one of tokens")
    step = step_function(run, batched=False)
    given = [each._replace(name=f"{each.name}.in") for each in step.arguments]
    given = [
        each if each.about.startswith("carry") else step.arguments[k]
        for k, each in enumerate(given)
    ]
    with plainly():
        content = onnx_model(step.call, given, step.results)
    file.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(file, [content])
    page = file.with_suffix(".md")
    write_atomically(page, onnx_readme(run, replace(step, arguments=tuple(given)), file.name))
    return page


def whole_function(run: TrainedRun) -> Function:
    """`run.predict` of any number of sequences of any length, as a function of their arrays."""
    task, like = run.task, run.task.splits["train"]
    model = fixed_norms(run.model, run.state)
    pair = (2,) if task.kind == "pair" else ()
    inputs = _inputs(run, ("b", *pair, "L"), "sequences, before normalisation")
    extra = []
    if task.kind not in ("language", "recall"):
        about = "samples of each sequence; what comes after them is padding"
        extra.append(Argument("lengths", "int32", ("b", *pair), about))
    if like.intervals is not None:
        extra.append(Argument("intervals", "float32", ("b", *pair, "L"), "time before each sample"))

    def call(inputs: Any, *rest: Any) -> Any:
        given = dict(zip((each.name for each in extra), rest, strict=True))
        batch = Batch(_normalised(run, inputs), jnp.zeros(inputs.shape[:1]), **given)  # pyright: ignore
        return in_units(task, run_batch(model, eqx.nn.State(model), batch)[0])

    per_step = ("L",) if task.kind in ("regression", "language", "recall") else ()
    outputs = Argument("outputs", "float32", ("b", *per_step, task.outputs), MEANING[task.kind])
    return Function(call, (inputs, *extra), (outputs,))


def step_function(run: TrainedRun, *, batched: bool = True) -> Function:
    """One sample of any number of sequences, or of one: arrays of the carry, and the sample.

    Complex arrays of the carry are two real ones. ValueError for a model that cannot be streamed.
    """
    lead = ("b",) if batched else ()
    stream = stream_of(run.model, run.state, run.task)
    carry = jax.eval_shape(stream.init_state)
    paths, structure = jax.tree_util.tree_flatten_with_path(carry)
    names = [jax.tree_util.keystr(path, simple=True, separator=".") for path, _ in paths]
    leaves = [leaf for _, leaf in paths]
    parts = [part for pair in zip(names, leaves, strict=True) for part in _carried(*pair, lead)]
    sample = _inputs(run, lead, "one sample of each sequence, before normalisation")
    timed = run.task.splits["train"].intervals is not None
    interval = [Argument("interval", "float32", lead, "time before the sample")] if timed else []

    def one(*arrays: Any) -> Any:
        before, sample, rest = arrays[: len(parts)], arrays[len(parts)], arrays[len(parts) + 1 :]
        carry = jax.tree.unflatten(structure, _joined(before, leaves))
        after, outputs = stream.model.step(carry, _normalised(run, sample), *rest)
        return *_split(jax.tree.leaves(after)), in_units(run.task, outputs)

    outputs = Argument("outputs", "float32", (*lead, run.task.outputs), MEANING[run.task.kind])
    call = jax.vmap(one) if batched else one
    return Function(call, (*parts, sample, *interval), (*parts, outputs))


MEANING = {
    "classification": "logits of the classes",
    "pair": "logits of the classes",
    "multilabel": "logits of the labels",
    "values": "the values, in the units of the data",
    "regression": "values at each sample, in the units of the data",
    "language": "logits of the next token",
    "recall": "logits of the next token",
}
"""What the outputs are, by the kind of the task."""


def _serialized(function: Function) -> bytes:
    """The program as jax.export writes it."""
    names = sorted({s for each in function.arguments for s in each.shape if isinstance(s, str)})
    symbols = dict(zip(names, jax.export.symbolic_shape(", ".join(names)), strict=True))
    shapes = [
        jax.ShapeDtypeStruct(
            [symbols[size] if isinstance(size, str) else size for size in each.shape], each.dtype
        )
        for each in function.arguments
    ]
    with plainly():
        exported = jax.export.export(jax.jit(function.call), platforms=PLATFORMS)(*shapes)
    called = set(re.findall(r"custom_call @([\w.$]+)", exported.mlir_module()))
    if odd := sorted(called - HARMLESS):
        raise ValueError(f"the program must hold StableHLO alone, got a call of {odd[0]}")
    try:
        return bytes(exported.serialize())
    except ImportError as error:
        raise UsageError(f"{error}: pip install 'compressm-zoo[export]'") from None


def _inputs(run: TrainedRun, lead: tuple[str | int, ...], about: str) -> Argument:
    """The array of samples."""
    if run.task.input_kind == "tokens":
        return Argument("inputs", "int32", lead, f"{about}: tokens")
    like = run.task.splits["train"]
    missing = "" if like.mask is None else "; NaN is missing"
    return Argument("inputs", "float32", (*lead, like.inputs.shape[-1]), about + missing)


def _normalised(run: TrainedRun, inputs: Any) -> Any:
    like = run.task.splits["train"]
    if run.task.input_kind == "tokens":
        return inputs
    scaled = (inputs - np.asarray(like.offset, np.float32)) * np.asarray(like.scale, np.float32)
    if like.mask is None:
        return scaled
    known = jnp.isfinite(inputs)
    if like.mask.shape[-1] == 1:
        known = jnp.all(known, axis=-1, keepdims=True)
    return jnp.concatenate([jnp.where(known, scaled, 0), known.astype(jnp.float32)], axis=-1)


def _carried(name: str, leaf: Any, lead: tuple[str, ...]) -> list[Argument]:
    """The real arrays that hold one array of the carry."""
    about, shape = "carry; zero before the first sample", (*lead, *leaf.shape)
    if not jnp.issubdtype(leaf.dtype, jnp.complexfloating):
        return [Argument(name, leaf.dtype.name, shape, about)]
    real = jnp.finfo(leaf.dtype).dtype.name
    return [Argument(f"{name}.{part}", real, shape, about) for part in ("real", "imag")]


def _joined(arrays: Sequence[Any], leaves: Sequence[Any]) -> list[Any]:
    """Arrays of the carry, of which complex ones come in two parts."""
    left = list(arrays)
    return [
        jax.lax.complex(left.pop(0), left.pop(0))
        if jnp.issubdtype(leaf.dtype, jnp.complexfloating)
        else left.pop(0)
        for leaf in leaves
    ]


def _split(leaves: Sequence[Any]) -> list[Any]:
    """Inverse of `_joined`."""
    return [
        part
        for leaf in leaves
        for part in ((jnp.real(leaf), jnp.imag(leaf)) if jnp.iscomplexobj(leaf) else (leaf,))
    ]
