"""The help of `scripts/train.py`: the most important options on one screen, or all options."""

from functools import reduce
from typing import Any, get_args

from data import TASKS
from zoo import LAYERS

from .config import Mode, RunConfig
from .help import Row, all_rows, option, shown_page, shown_rows
from .methods import METHODS
from .presets import SCALES

EXAMPLES = """\
  scripts/train.py --model s5 --task digits
  scripts/train.py --resume runs/NAME
"""


def page(config: RunConfig[Any, Any]) -> str:
    """The most important options, with the values of `config`."""
    groups = {
        title: [(option(name, _value(config, name)), words) for name, words in names.items()]
        for title, names in _main().items()
    }
    return f"{EXAMPLES}\n{shown_page(groups)}\n{shown_page({'The run directory': FILES})}\n\n{END}"


def page_of_all(config: RunConfig[Any, Any]) -> str:
    """All options, with the values of `config` and the docstrings of its classes."""
    groups = all_rows(config)
    about = {
        "model": f"Kind of state-space layer: {', '.join(LAYERS)}.",
        "task": f"Task: {', '.join(TASKS)}; or your own data, a file or a function.",
        "scale": f"Preset: {', '.join(SCALES)}.",
    }
    first, *rest = groups
    own = [row for row in groups[first] if not row[0].startswith("--plugins")]
    named = [(row[0], about.get(row[0].split()[0].removeprefix("--"), row[1])) for row in own]
    pages = {"run": named, **{title: groups[title] for title in rest}}
    return "\n".join(
        (EXAMPLES, shown_page(pages), shown_page({"command": FILES + TOGETHER}), "", DEFAULTS)
    )


def _main() -> dict[str, dict[str, str]]:
    """The most important options, with a few words on each."""
    return {
        "Model and task": {
            "model": f"layer: {', '.join(LAYERS)}",
            "task": f"{', '.join(TASKS)}, or your own file, folder or function",
            "scale": f"preset: {', '.join(SCALES)}",
            "steps": "optimizer steps",
            "batch_size": "sequences in a batch",
            "seed": "seed of parameters, batches and dropout",
            "precision": "of steps: float32, bf16, bf16-systems",
            "data_dir": "folder with the task's official files",
        },
        "Size at the start": {
            "layer.d_state": "states of each layer",
            "network.d_model": "channels between the layers",
            "network.blocks": "blocks, with one layer each",
            "optimizer.learning_rate": "peak learning rate",
        },
        "Shrinking": {
            "compression.mode": ", ".join(get_args(Mode)),
            "compression.loss": "how much worse the end may be (auto)",
            "compression.tolerance": "share of singular values to drop (tolerance)",
            "compression.rank": "states at the end (fixed, budget)",
            "compression.method": f"how to weigh states: {', '.join(METHODS)}",
            "compression.shrinks": "number of planned cuts (not auto)",
        },
    }


FILES: list[Row] = [
    ("--out DIR", "run directory (default: a new one in runs/)"),
    ("--resume DIR", "continue an interrupted run"),
    ("--config FILE", "YAML with any options, such as a config.yaml"),
    ("--plugin FILE", "file with your own layers or tasks"),
]

TOGETHER: list[Row] = [
    (
        "--coordinator HOST:PORT",
        "For several processes that train together: the address of process 0, the same for all; "
        "auto on a cluster that JAX supports. --out must be on a shared disk.",
    ),
    ("--processes N", "Number of processes."),
    ("--process N", "Number of this process, from 0."),
]

DEFAULTS = """\
The values shown are those of the chosen --model, --task and --scale.
--list shows the settings of every task."""

END = f"{shown_rows([('--help-all', 'all options')])}\n{DEFAULTS}"


def _value(config: Any, name: str) -> Any:
    """The value of an option by its dotted name."""
    return reduce(getattr, name.split("."), config)
