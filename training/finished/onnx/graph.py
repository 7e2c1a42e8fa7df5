"""Arrays of a graph of ONNX, and its nodes, added one by one."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np


class Name(NamedTuple):
    """An array of the graph."""

    name: str
    shape: tuple[int, ...]


Real = Name | np.ndarray
"""An array of the graph, or one that is known already."""


class Pair(NamedTuple):
    """A complex array of the graph; no imaginary part is zero."""

    real: Real
    imag: Real | None


Value = Name | np.ndarray | Pair


class Graph:
    """Nodes and constants, added one by one."""

    def __init__(self, helper: Any):
        self.helper = helper
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def op(self, kind: str, shape: Sequence[int], *inputs: Real, **attributes: Any) -> Name:
        """A node with one result."""
        name = f"v{len(self.nodes)}"
        texts = [self.text(each) for each in inputs]
        self.nodes.append(self.helper.make_node(kind, texts, [name], **attributes))
        return Name(name, tuple(shape))

    def text(self, value: Value) -> str:
        """The name of an array of the graph, which a known one becomes."""
        if isinstance(value, Pair):
            raise ValueError("a result of the step must be real, got complex numbers")
        if isinstance(value, Name):
            return value.name
        array, name = np.asarray(value), f"c{len(self.constants)}"
        kind = self.helper.np_dtype_to_tensor_dtype(array.dtype)
        tensor = self.helper.make_tensor(name, kind, array.shape, array.tobytes(), raw=True)
        self.constants.append(tensor)
        return name


def pair(value: Value) -> Pair:
    """A value as real and imaginary part."""
    if isinstance(value, Pair):
        return value
    if isinstance(value, Name):
        return Pair(value, None)
    return Pair(np.real(value), np.imag(value) if np.iscomplexobj(value) else None)


def is_complex(values: Sequence[Value]) -> bool:
    return any(isinstance(v, Pair) or np.iscomplexobj(v) for v in values if not isinstance(v, Name))
