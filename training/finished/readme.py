"""What stands beside an exported model: its files, arguments and results, and how to call it."""

from collections.abc import Sequence
from typing import Any, NamedTuple


class Argument(NamedTuple):
    """An array that a program takes or gives."""

    name: str
    dtype: str
    shape: tuple[str | int, ...]
    """Sizes; a name stands for any."""
    about: str


def readme(
    run: Any, whole: Any, step: Any | None, file: str, step_file: str | None, reason: str
) -> str:
    """The page. `reason` says why there is no step, where there is none."""
    layers = ", ".join(str(layer["after"]) for layer in run.summary.get("layers", ()))
    lines = [
        f"# {run.config.model} for {run.task.name}",
        "",
        f"A {run.task.kind} model" + (f", states of its layers: {layers}." if layers else "."),
        "The files are StableHLO as `jax.export` writes it, for CPUs and NVIDIA GPUs. `b` and `L` "
        "stand for any number",
        "of sequences and samples. Weights and normalisation are inside.",
        "",
        f"## Whole sequences: `{file}`",
        "",
        *_table(whole.arguments, "argument"),
        "",
        *_table(whole.results, "result"),
        "",
        *_example(file, whole.arguments),
        "",
    ]
    if step is None:
        lines += ["## One sample", "", f"This model does not stream: {reason}.", ""]
        return "\n".join(lines)
    carry = [each for each in step.arguments if each.about.startswith("carry")]
    lines += [
        f"## One sample: `{step_file}`",
        "",
        "Arguments are the arrays of the carry, then the sample. Results are the carry for the "
        "next sample, in the same",
        "order, then the outputs.",
        "",
        *_table(step.arguments, "argument"),
        "",
        *_table(step.results[len(carry) :], "result"),
        "",
        *_example(str(step_file), step.arguments),
        "",
    ]
    return "\n".join(lines)


def onnx_readme(run: Any, step: Any, file: str) -> str:
    """The page of a step that is written as ONNX."""
    lines = [
        f"# {run.config.model} for {run.task.name}",
        "",
        f"`{file}` is one sample of one sequence of a {run.task.kind} model, as ONNX. Inputs are",
        "the carry (names end in `.in`) and the sample; outputs are the carry for the next sample,",
        "and `outputs`. Weights and normalisation are inside.",
        "",
        *_table(step.arguments, "input"),
        "",
        *_table(step.results, "output"),
        "",
    ]
    return "\n".join(lines)


def _table(rows: Sequence[Argument], kind: str) -> list[str]:
    lines = [f"| {kind} | type | shape | what |", "|---|---|---|---|"]
    for name, dtype, shape, about in rows:
        lines.append(f"| `{name}` | {dtype} | [{', '.join(map(str, shape))}] | {about} |")
    return lines


def _example(file: str, arguments: Sequence[Argument]) -> list[str]:
    names = ", ".join(each.name.replace(".", "_") for each in arguments)
    return [
        "```py",
        "import jax",
        "",
        f'program = jax.export.deserialize(bytearray(open("{file}", "rb").read()))',
        f"results = program.call({names})",
        "module = program.mlir_module_serialized  # for a compiler of StableHLO",
        "```",
    ]
