"""Tasks: splits of labelled sequences, and scores of trivial predictors."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from .batch import InputKind, Kind
from .split import Split

CLASSIFIES: tuple[Kind, ...] = ("classification", "pair", "multilabel")
"""The kinds with classes."""


@dataclass(frozen=True)
class Task:
    """Labelled sequences of `length` steps, with the data in memory. `baselines` holds the scores
    of predictors with one cheap feature on the test split, in the measure of the kind: accuracy
    (classification, pair, multilabel, recall), mean squared error (values, regression), bits per
    token (language); a model has learned the task only if it is better than all of them. `notes`
    are facts for reports, such as skipped files.

    By kind, each sample of a split holds: "classification" [L c] or tokens [L], and an int32 label;
    "pair" tokens [2 L], and an int32 label; "multilabel" as "classification", and float32 labels
    [k], 0 or 1; "values" as "classification", and float32 labels [k]; "regression" [L c], and
    float32 labels [L k]; "language" tokens [L], and as labels the token that comes after each
    (`text_split`); "recall" tokens [L], and as labels the token at queried steps, -1 at others.
    """

    name: str
    length: int
    input_kind: InputKind
    input_size: int
    """Channels of real inputs, masks included; size of the vocabulary of tokens."""
    splits: Mapping[str, Split]
    """Under "train", "validation" and "test"."""
    classes: int | None = None
    """Number of classes or labels for the kinds "classification", "pair" and "multilabel"; None for
    others."""
    kind: Kind = "classification"
    frame: tuple[int, int] | None = None
    """Height and width, if the channels of a step are the pixels of a picture, row by row."""
    symbols: tuple[str, ...] | None = None
    """The text of each token; None if inputs are not tokens."""
    baselines: Mapping[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    class_weights: tuple[float, ...] | None = None
    """For the kind "classification": the weight of each class in the loss. None: all 1."""
    output_names: tuple[str, ...] | None = None
    """The name of each class, label or value; None: its number."""
    output_offset: tuple[float, ...] | None = None
    """Offset of each value: in the units of the data it is `offset + scale * output`. None: 0."""
    output_scale: tuple[float, ...] | None = None
    """Scale of each value; None: 1."""
    targets: tuple[int, ...] | None = None
    """Of kind "regression", where it is a forecast: the channels whose next values are asked for,
    ordered by the step that they are for, then as here. None: it is none."""
    input_names: tuple[str, ...] | None = None
    """What each channel of a step is called where it has a name, masks aside; None: by number."""

    @property
    def outputs(self) -> int:
        """Numbers that a model gives, for a sequence or for each step: scores of the classes,
        values, or scores of the tokens."""
        if self.classes is not None:
            return self.classes
        if self.kind in ("language", "recall"):
            return self.input_size
        return self.splits["train"].labels.shape[-1]

    def __post_init__(self):
        if set(self.splits) != {"train", "validation", "test"}:
            raise ValueError(
                f"splits must be train, validation and test, got {', '.join(self.splits)}"
            )
        classifies = self.kind in CLASSIFIES
        if classifies != (self.classes is not None) or (classifies and not self.classes):
            raise ValueError(
                f"classes must be 1 or more for {', '.join(CLASSIFIES)}, None for other kinds, "
                f"got {self.classes} for {self.kind}"
            )
        if self.input_kind == "real" and self.kind in ("pair", "language", "recall"):
            raise ValueError(f"input_kind must be tokens for kind {self.kind}, got real")
        if self.frame is not None and self.frame[0] * self.frame[1] != self.input_size:
            raise ValueError(f"frame {self.frame} must have {self.input_size} pixels (input_size)")
        if self.symbols is not None and len(self.symbols) != self.input_size:
            raise ValueError(
                f"symbols must be one for each of {self.input_size} tokens, got {len(self.symbols)}"
            )
        for name, split in self.splits.items():
            self._check(name, split)
        self._check_outputs()

    def _check_outputs(self) -> None:
        """ValueError if settings of the outputs do not fit their number or kind."""
        if self.class_weights is not None and (
            self.kind != "classification"
            or len(self.class_weights) != self.outputs
            or min(self.class_weights) <= 0
        ):
            raise ValueError(
                f"class_weights must be positive, one for each class of a classification, got "
                f"{self.class_weights} for {self.kind} with {self.outputs} outputs"
            )
        if self.output_names is not None and len(self.output_names) != self.outputs:
            raise ValueError(
                f"output_names must be one for each of {self.outputs} outputs, got "
                f"{len(self.output_names)}"
            )
        for name in ("output_offset", "output_scale"):
            value = getattr(self, name)
            if value is not None and len(value) != self.outputs:
                raise ValueError(
                    f"{name} must be one for each of {self.outputs} outputs, got {len(value)}"
                )
        targets = self.targets
        if targets is not None and (
            self.kind != "regression"
            or not targets
            or self.outputs % len(targets)
            or not all(0 <= each < self.input_size for each in targets)
        ):
            raise ValueError(
                f"targets must be some of {self.input_size} channels, and go with the "
                f"{self.outputs} values of a regression, got {targets} for {self.kind}"
            )

    def _check(self, name: str, split: Split) -> None:
        if len(split) == 0:
            raise ValueError(f"split {name} must not be empty")
        if split.input_kind != self.input_kind:
            raise ValueError(
                f"input_kind of split {name} must be {self.input_kind}, got {split.input_kind}"
            )
        real = self.input_kind == "real"
        pair = (2,) if self.kind == "pair" else ()
        _check_shape(
            f"inputs of split {name}",
            split.inputs,
            (*pair, self.length, split.inputs.shape[-1]) if real else (*pair, self.length),
        )
        if real and split.channels != self.input_size:
            raise ValueError(
                f"inputs of split {name} must have {self.input_size} channels (input_size), got "
                f"{split.channels}"
            )
        per_step = {
            "regression": (self.length, self.outputs),
            "language": (self.length,),
            "recall": (self.length,),
            "values": (self.outputs,),
            "multilabel": (self.outputs,),
        }
        _check_shape(f"labels of split {name}", split.labels, per_step.get(self.kind, ()))
        if split.lengths is not None:
            _check_shape(f"lengths of split {name}", split.lengths, pair)
        if split.intervals is not None:
            _check_shape(f"intervals of split {name}", split.intervals, (*pair, self.length))
        if not real and not _are_tokens(split.inputs, self.input_size):
            low, high = int(split.inputs.min()), int(split.inputs.max())
            raise ValueError(
                f"tokens of split {name} must be in [0, {self.input_size}), got {low} to {high}"
            )
        if split.label_mask is not None and not split.label_mask.any():
            raise ValueError(f"labels of split {name} must be known somewhere, got none")
        if (split.intervals is None) != (self.splits["train"].intervals is None):
            raise ValueError(f"split {name} must have intervals if and only if split train has")
        if self.kind in ("regression", "values"):
            return
        if self.kind == "multilabel" and not np.isin(split.labels, (0, 1)).all():
            raise ValueError(f"labels of split {name} must be 0 or 1 for kind multilabel")
        least = -1 if self.kind == "recall" else 0
        if split.labels.min() < least or split.labels.max() >= self.outputs:
            raise ValueError(f"labels of split {name} must be in [{least}, {self.outputs})")
        if self.kind == "recall" and split.labels.max() < 0:
            raise ValueError(f"labels of split {name} must ask for some token, got -1 everywhere")


def _are_tokens(inputs: np.ndarray, vocabulary: int) -> bool:
    """Whether these are tokens of a vocabulary. Of windows of one text, the text is looked at
    first, which is shorter."""
    whole = inputs.base if isinstance(inputs.base, np.ndarray) else inputs
    return any(not x.size or bool(x.min() >= 0 and x.max() < vocabulary) for x in (whole, inputs))


def _check_shape(what: str, array: np.ndarray, want: tuple[int, ...]) -> None:
    if array.shape[1:] != want:
        raise ValueError(f"{what} must have shape {want}, got {array.shape[1:]}")
