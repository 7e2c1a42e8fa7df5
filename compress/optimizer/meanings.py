"""What an array of an optimizer's state may mean, and the declaration of a class of states."""

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
    "loss": "the loss at the parameters: not known after a cut, which is told by infinity",
    "reset": "what is made anew in each step: zero after a cut",
    "scalar": "counts, rates, keys and other numbers that are not the parameters': left alone",
    "nested": "states of other transformations",
}
"""What a field may mean, and in which words."""

SCALES = {"square", "square_sum", "maximum", "curvature", "step", "step_square"}
SCALES |= {"norm_square", "axis_square", "row_square", "update"}
"""Meanings that only a transformation has that divides gradients by their scale."""


@dataclass(frozen=True)
class Declaration:
    """What the fields of a class of states mean."""

    fields: Mapping[str, str]
    rescales: bool = False
    """Whether what leaves the transformation is free of the gradients' scale."""
    lags: bool = False
    """Whether it may divide by squares in which the step's own gradient is not yet."""
    relative: bool = False
    """Whether it then scales by the size of the parameters, as Adafactor does."""
    refused: str = ""
    """Why mode "transport" does not carry it, what follows on the name of the class."""
    restarts: bool = False
    """Whether mode "reset" sets the whole state to zero, its counts with it."""
    alone: bool = True
    """Whether it is what it says also where it stands alone or beside a whole optimizer's state."""
    shared: bool = False
    """Whether transformations with other meanings have the same class of states."""
