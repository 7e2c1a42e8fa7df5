"""The meanings of arrays in an optimizer's state, and the declaration of a class of states."""

from collections.abc import Mapping
from dataclasses import dataclass

MEANINGS: Mapping[str, str] = {
    "gradient": "linear in the gradients that come in: momentum, sums and averages of gradients",
    "square": "squares of gradients, or averages of them",
    "square_sum": "squares of gradients, added to a start that all entries share",
    "maximum": "the largest |gradient|, or a decaying one",
    "curvature": "the diagonal of the Hessian",
    "parameter": "a copy or an average of the parameters",
    "displaced": "a copy of the parameters that lies some of the optimizer's steps from them",
    "start": "the parameters that the run, or the state, began with",
    "update": "linear in the steps that go out, which are free of the gradients' scale",
    "step": "the size of each entry's step",
    "step_square": "squares of steps, or averages of them",
    "norm_square": "one number for each array: the squared norm of its gradient",
    "axis_square": "for each array one vector for each axis: largest squares of gradients (SM3)",
    "row_square": "means of squares over the longest axis (Adafactor)",
    "column_square": "means of squares over the second longest axis (Adafactor)",
    "loss": "the loss at the parameters: infinity after a cut, since it is not known",
    "reset": "recomputed in each step: zero after a cut",
    "scalar": "counts, rates, keys and other numbers without the parameters' shapes: unchanged",
    "nested": "states of other transformations",
}
"""The meanings of a field and their explanations."""

SCALES = {"square", "square_sum", "maximum", "curvature", "step", "step_square"}
SCALES |= {"norm_square", "axis_square", "row_square", "update"}
"""Meanings that occur only in transformations that divide gradients by their scale."""


@dataclass(frozen=True)
class Declaration:
    """The declared meanings of the fields of a class of states."""

    fields: Mapping[str, str]
    rescales: bool = False
    """Whether the transformation's output is independent of the gradients' scale."""
    lags: bool = False
    """Whether it may divide by squares that do not yet include the step's own gradient."""
    relative: bool = False
    """Whether it then scales by the size of the parameters, as Adafactor does."""
    refused: str = ""
    """Why mode "transport" does not carry it: the end of a sentence that begins with the class's
    name."""
    restarts: bool = False
    """Whether mode "reset" sets the whole state to zero, its counts with it."""
    alone: bool = True
    """Whether its meaning is the same alone or beside a whole optimizer's state."""
    shared: bool = False
    """Whether transformations with other meanings have the same class of states."""
