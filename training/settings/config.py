"""All settings of a run, in one immutable value."""

from dataclasses import dataclass, field, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Generic, Literal, TypeVar

import tyro

from data import check_task
from zoo import LayerConfig, layer_config
from zoo.layers.half import Precision

from .errors import check_numbers, require
from .methods import METHODS, POLICIES
from .network import NetworkConfig
from .numbers import Factor, Share

if TYPE_CHECKING:
    Mode = Method = str
else:  # the names, as choices that the command line knows
    Mode = Literal[("none", *POLICIES, "fixed", "budget", "pragmatic", "auto")]
    Method = Literal[tuple(METHODS)]

Layer = TypeVar("Layer", bound=LayerConfig)
"""The configuration of a kind of layer: a class in `zoo.LAYERS`."""
Data = TypeVar("Data", bound=Any)
"""The configuration of a task: a class in `data.TASKS`."""


MOST_SHRINKS = 100_000
"""Shrinks that a run can have."""


@dataclass(frozen=True)
class OptimizerConfig:
    """AdamW, with a separate learning rate for eigenvalues, step sizes and B."""

    learning_rate: float = 1e-3
    """Peak learning rate."""
    ssm_factor: float = 1.0
    """Learning rate of the layers' dynamics, as a multiple of `learning_rate`."""
    weight_decay: float = 0.05
    """Decoupled weight decay; the layers' dynamics have none."""
    schedule: Literal["cosine", "constant"] = "cosine"
    """Warm-up and then cosine decay, or the peak in every step."""
    warmup: float = 0.1
    """Share of the steps in which the cosine schedule rises to its peak."""
    floor: float = 1e-7
    """Learning rate at both ends of the cosine schedule."""

    def __post_init__(self):
        check_numbers(self, "optimizer.")
        require(self.learning_rate > 0, "optimizer.learning_rate", self.learning_rate, "above 0")
        require(self.ssm_factor > 0, "optimizer.ssm_factor", self.ssm_factor, "above 0")
        require(self.weight_decay >= 0, "optimizer.weight_decay", self.weight_decay, "0 or more")
        require(0 <= self.warmup < 1, "optimizer.warmup", self.warmup, "in [0, 1)")
        require(
            0 <= self.floor <= self.learning_rate,
            "optimizer.floor",
            self.floor,
            "in [0, learning_rate]",
        )


@dataclass(frozen=True)
class CompressionConfig:
    """When and how far the layers shrink."""

    mode: Mode = "tolerance"
    """`tolerance` cuts by the share of the HSVs, `fixed` to a given rank, `budget` to a given rank
    on average, with more for the layers that need more, `none` never; `pragmatic` cuts off `share`
    at a time, and takes the last cut back and stops once validation gets worse. `auto` needs only
    `loss` of the options below: it inspects the run several times, cuts as much as the loss allows,
    and takes back cuts that hurt."""
    loss: Share = 0.005
    """How much worse the final model may be, in mode `auto`: points of accuracy, or a share of the
    loss where accuracy does not count. 0.5% is 0.005."""
    smallest: bool = False
    """In mode `auto`, search for the smallest model within `loss`, at any cost of the search."""
    speed: Factor = None
    """In mode `auto`, cut only until a step takes this factor fewer operations, counted by weights,
    for example 2x. None: as few states as the loss allows."""
    method: Method = "data"
    """How states are weighed. `data`: second moments on training sequences. `real`: white noise and
    the real map. `paper`: white noise and the complex system, as published. `optimal`: as `real`,
    then the nearest smaller system in the H2 norm. For comparison, `last` and `impulse` drop modes
    by H-infinity norms and by impulse energies, and `shallow` is `optimal` with the first layers
    cut first in mode `budget`."""
    calibration: int = 64
    """Training sequences for the method `data`, and for the loss before and after a cut. More do
    not cut better (`results/calibration_digits.md`, `results/calibration_smnist.md`)."""
    tolerance: float = 0.02
    """Share of the sum of a layer's HSVs that a shrink may drop."""
    rank: int | None = None
    """States of each layer after the last shrink, in mode `fixed`; on average in `budget`."""
    shrinks: int = 4
    """Shrinks of the run, equally spaced in the window."""
    every: int | None = None
    """Steps between two shrinks in the window, instead of `shrinks`. With the value of
    `loop.evaluate_every`, shrinks come at evaluations."""
    start: float = 0.0
    """Share of the steps before the window begins."""
    window: float = 0.1
    """Share of the steps in which the layers shrink."""
    keep: Literal["largest", "smallest", "random"] = "largest"
    """Which balanced states stay. All choices but the first are for comparison, with method
    `paper`."""
    settled: float | None = None
    """An adaptive schedule, for use with many `shrinks`: a cut is made only if the demand of every
    layer's spectrum has changed by at most this share since the shrink before. The demand is the
    number of states in mode `tolerance`, and the share of the HSVs beyond `rank` in `fixed`, which
    then cuts directly to `rank`, at the latest at the last shrink. None: cut every time."""
    guard: float | None = None
    """Largest rise of the calibration loss that a cut may cause; a cut that causes more is
    rejected, except the last one of an adaptive schedule in mode `fixed`. None: no limit."""
    share: float = 0.1
    """Share of the states that each cut removes, in mode `pragmatic`."""
    slack: float = 0.0
    """Largest accepted loss of the validation measure, in mode `pragmatic`."""
    gate: float = 0.95
    """A layer shrinks only when its new rank is below this share of the old one, in mode
    `tolerance`."""
    multiple: int = 1
    """Ranks are rounded up to a multiple of this in mode `tolerance`: shapes repeat, and compile
    once."""
    rehearsal: int = 1000
    """Largest number of steps for which training continues while its next programs compile: before
    the first shrink, which is rehearsed on a copy of the state, and after each shrink, in the
    programs of the larger state (at most a twentieth of the run). 0: shrinks wait for the
    compiler."""
    moments: Literal["transport", "reset", "slice"] = "transport"
    """What happens to the optimizer's moments of a layer that is cut."""
    maps: bool | None = None
    """With method `data`, for layers whose parameters cannot absorb a change of basis: add maps to
    fewer states (True), or select states (False). None: the better choice for the kind of layer."""

    def __post_init__(self):
        check_numbers(self, "compression.")
        _check_amount(self)
        require(self.calibration >= 1, "compression.calibration", self.calibration, "1 or more")
        require(
            1 <= self.shrinks <= MOST_SHRINKS,
            "compression.shrinks",
            self.shrinks,
            f"1 to {MOST_SHRINKS}",
        )
        require(0 <= self.start < 1, "compression.start", self.start, "in [0, 1)")
        require(
            0 < self.window <= 1 - self.start + 1e-9,
            "compression.window",
            self.window,
            "above 0, at most 1 - compression.start",
        )
        require(
            self.keep == "largest" or self.method == "paper",
            "compression.keep",
            self.keep,
            "largest, or another with compression.method paper",
        )
        require(
            self.maps is None or self.method == "data",
            "compression.maps",
            self.maps,
            "None, or another with compression.method data",
        )
        for name in ("settled", "guard"):
            value = getattr(self, name)
            require(value is None or value >= 0, f"compression.{name}", value, "0 or more, or None")
        require(
            self.settled is None or self.mode in (*POLICIES, "fixed"),
            "compression.settled",
            self.settled,
            "None, or a number with compression.mode tolerance or fixed",
        )
        require(0 < self.share < 1, "compression.share", self.share, "in (0, 1)")
        require(self.slack >= 0, "compression.slack", self.slack, "0 or more")
        require(self.multiple >= 1, "compression.multiple", self.multiple, "1 or more")
        require(self.rehearsal >= 0, "compression.rehearsal", self.rehearsal, "0 or more")
        require(0 < self.gate <= 1, "compression.gate", self.gate, "in (0, 1]")


def _check_amount(config: CompressionConfig) -> None:
    """Checks of the number of states to keep, or of the loss to accept."""
    require(0 <= config.tolerance < 1, "compression.tolerance", config.tolerance, "in [0, 1)")
    require(
        (config.rank is not None) == (config.mode in ("fixed", "budget"))
        and (config.rank is None or config.rank >= 1),
        "compression.rank",
        config.rank,
        "1 or more with compression.mode fixed or budget, None otherwise",
    )
    require(0 < config.loss < 1, "compression.loss", config.loss, "above 0 and below 1")
    require(
        config.speed is None or (config.speed > 1 and not config.smallest),
        "compression.speed",
        config.speed,
        "above 1, or None, as it is with compression.smallest",
    )
    require(
        config.every is None or config.every >= 1,
        "compression.every",
        config.every,
        "1 or more, or None",
    )


@dataclass(frozen=True)
class DistillationConfig:
    """Learning from a larger, trained model (Hinton et al. 2015)."""

    teacher: Path | None = None
    """Run directory of the teacher, a finished run on the same task. None: no teacher."""
    alpha: float = 0.5
    """Weight of the labels. The weight of the teacher is 1 - alpha."""
    temperature: float = 2.0
    """Temperature of the logits of both models in their comparison."""

    def __post_init__(self):
        check_numbers(self, "distillation.")
        require(0 <= self.alpha <= 1, "distillation.alpha", self.alpha, "in [0, 1]")
        require(self.temperature > 0, "distillation.temperature", self.temperature, "above 0")


@dataclass(frozen=True)
class RegularizationConfig:
    """A term of the loss that makes the layers easy to cut."""

    hankel: float = 0.0
    """Weight of the Hankel nuclear norm: the mean over the layers of sum(sigma)."""
    warmup: float = 0.0
    """Share of the steps in which this weight rises linearly from 0."""

    def __post_init__(self):
        check_numbers(self, "regularization.")
        require(self.hankel >= 0, "regularization.hankel", self.hankel, "0 or more")
        require(0 <= self.warmup <= 1, "regularization.warmup", self.warmup, "in [0, 1]")


@dataclass(frozen=True)
class LoopConfig:
    """Reports, evaluations and checkpoints. None of these settings changes the training result."""

    log_every: int = 50
    """Steps between two lines of the log."""
    evaluate_every: int = 500
    """Steps between two evaluations on the validation split (and HSV spectra)."""
    checkpoint_every: int = 500
    """Steps between two checkpoints; there is also one after every shrink and at the end."""
    keep_checkpoints: int = 2
    """Number of latest checkpoints to keep."""
    keep_best: bool = True
    """Keep the best state by validation after the last cut, besides the latest ones. The summary
    then has the test measures of both."""
    steps_per_dispatch: int = 25
    """Steps that the device runs in one dispatch."""
    evaluation_batch: int = 64
    """Largest batch in evaluations and in the tests of cuts."""
    keep_systems: bool = False
    """Save the layers' systems (for selective layers, states on the calibration sequences) with
    every spectrum to `systems/STEP.npz`."""
    mlflow: str | None = None
    """The address where MLflow keeps runs, such as `file:mlruns`. None: no logging to MLflow."""

    def __post_init__(self):
        check_numbers(self, "loop.")
        for name, value in vars(self).items():
            others = name == "mlflow" or isinstance(value, bool)
            require(others or value >= 1, f"loop.{name}", value, "1 or more")


@dataclass(frozen=True)
class RunConfig(Generic[Layer, Data]):
    """The configuration of a run: a model, a task, and the training."""

    layer: Layer
    data: Data
    model: str = "s5"
    """Kind of state-space layer: a name in `zoo.LAYERS`."""
    task: str = "pathfinder"
    """The task: a name in `data.TASKS`, or your own data: `package.module:function`,
    `FILE.py:function`, a file, a folder or `tfds:NAME`."""
    scale: Literal["small", "paper"] = "small"
    """Preset: minutes on two CPU cores, or the paper's setting."""
    steps: int = 1000
    """Optimizer steps."""
    batch_size: int = 32
    """Sequences in a training batch."""
    seed: int = 0
    """Seed of parameters, batches and dropout (the data has its own: data.seed)."""
    precision: Precision = "float32"
    """Precision of activations and matrix products in training steps; `bf16` is faster on GPUs,
    `bf16-systems`, for the products of LRU and S5 only, on CPUs with tiles. Parameters, moments,
    dynamics, recurrences, norms, the loss, evaluations and cuts are always in float32."""
    data_dir: Path | None = None
    """Folder with the task's official files. Without it the data is generated or built in."""
    cache_dir: Path | None = None
    """Folder for prepared data and compiled programs (default: a folder in the user's cache)."""
    plugins: Annotated[tuple[str, ...], tyro.conf.Suppress] = ()
    """Files and modules that were imported for what they register (`--plugin`)."""
    network: NetworkConfig = field(default_factory=NetworkConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    compression: CompressionConfig = field(default_factory=CompressionConfig)
    distillation: DistillationConfig = field(default_factory=DistillationConfig)
    regularization: RegularizationConfig = field(default_factory=RegularizationConfig)
    loop: LoopConfig = field(default_factory=LoopConfig)

    def __post_init__(self):
        check_numbers(self)
        layer, data = layer_config(self.model), is_dataclass(self.data)
        require(isinstance(self.layer, layer), "layer", self.layer, f"a {layer.__name__}")
        require(data, "data", self.data, "the options of the task")
        check_numbers(self.data, "data.")
        check_task(self.task)
        require(self.steps >= 1, "steps", self.steps, "1 or more")
        require(self.batch_size >= 1, "batch_size", self.batch_size, "1 or more")
        require(0 <= self.seed < 2**32, "seed", self.seed, "in [0, 2**32)")
        if self.compression.rank is not None:
            require(
                self.compression.rank <= self.layer.d_state,
                "compression.rank",
                self.compression.rank,
                f"at most layer.d_state={self.layer.d_state}",
            )
