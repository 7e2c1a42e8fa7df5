"""The meanings of arrays in an optimizer's state, and the declaration of a class of states."""

from collections.abc import Mapping
from dataclasses import dataclass

MEANINGS: Mapping[str, str] = {
    "gradient": "linear in the gradients: momentum, sums and averages of gradients",
    "square": "squares of gradients, or averages of them",
    "square_sum": "sums of squares of gradients, with a start that all entries share",
    "maximum": "the largest |gradient| so far, or a decaying one",
    "curvature": "the diagonal of the Hessian",
    "parameter": "a copy or an average of the parameters",
    "displaced": "a copy of the parameters, some steps of the optimizer away from them",
    "start": "the parameters at the start of the run or of the state",
    "update": "linear in the updates, which do not depend on the gradients' scale",
    "step": "the step size of each entry",
    "step_square": "squares of steps, or averages of them",
    "norm_square": "one number for each array: the squared norm of its gradient",
    "axis_square": "for each array one vector for each axis: largest squares of gradients (SM3)",
    "row_square": "means of squares over the longest axis (Adafactor)",
    "column_square": "means of squares over the second longest axis (Adafactor)",
    "loss": "the loss at the parameters: infinite after a cut, since it is not known",
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
