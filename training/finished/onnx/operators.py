"""The primitives of JAX by the operators of ONNX.

Each is a function of the graph, the shapes of its results, its operands and its parameters.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from .graph import Graph, Name, Pair, Real, Value, is_complex, pair


def _plain(kind: str, *more: np.ndarray) -> Callable[..., Value]:
    """One operator for real numbers."""

    def add(graph: Graph, shapes: Any, values: Any, params: Any) -> Value:
        return graph.op(kind, shapes[0], *values, *more)

    return add


def _part_by_part(one: Callable[..., Real]) -> Callable[..., Value]:
    """What treats real and imaginary parts alike, each by itself."""

    def add(graph: Graph, shapes: Any, values: Any, params: Any) -> Value:
        if not is_complex(values):
            return one(graph, shapes, values, params)
        pairs = [pair(value) for value in values]
        real = one(graph, shapes, [each.real for each in pairs], params)
        if all(each.imag is None for each in pairs):
            return Pair(real, None)
        zeros = (np.zeros(each.real.shape, np.float32) for each in pairs)
        parts = [
            z if pair.imag is None else pair.imag for z, pair in zip(zeros, pairs, strict=True)
        ]
        return Pair(real, one(graph, shapes, parts, params))

    return add


def _bilinear(one: Callable[..., Real]) -> Callable[..., Value]:
    """Products: of complex numbers they are four."""

    def add(graph: Graph, shapes: Any, values: Any, params: Any) -> Value:
        if not is_complex(values):
            return one(graph, shapes, values, params)
        a, b = (pair(value) for value in values)

        def times(x: Real | None, y: Real | None) -> Real | None:
            return None if x is None or y is None else one(graph, shapes, [x, y], params)

        def joined(kind: str, x: Real | None, y: Real | None) -> Real | None:
            if y is None:
                return x
            if x is None:
                return y if kind == "Add" else graph.op("Neg", shapes[0], y)
            return graph.op(kind, shapes[0], x, y)

        real = joined("Sub", times(a.real, b.real), times(a.imag, b.imag))
        assert real is not None
        return Pair(real, joined("Add", times(a.real, b.imag), times(a.imag, b.real)))

    return add


def _dot(graph: Graph, shapes: Any, values: Any, params: Any) -> Real:
    (left, right), (left_batch, right_batch) = params["dimension_numbers"]
    letters = iter("abcdefghijklmnopqrstuvwxyz")
    a = [next(letters) for _ in values[0].shape]
    b: list[str] = [""] * len(values[1].shape)
    for i, j in zip((*left, *left_batch), (*right, *right_batch), strict=True):
        b[j] = a[i]
    b = [letter or next(letters) for letter in b]
    free = [x for i, x in enumerate(a) if i not in (*left, *left_batch)]
    free += [x for j, x in enumerate(b) if j not in (*right, *right_batch)]
    out = [a[i] for i in left_batch] + free
    equation = f"{''.join(a)},{''.join(b)}->{''.join(out)}"
    return graph.op("Einsum", shapes[0], *values, equation=equation)


def _reshaped(graph: Graph, shapes: Any, values: Any, params: Any) -> Real:
    return graph.op("Reshape", shapes[0], values[0], np.array(shapes[0], np.int64))


def _broadcast(graph: Graph, shapes: Any, values: Any, params: Any) -> Real:
    sizes = [1] * len(shapes[0])
    for axis, size in zip(params["broadcast_dimensions"], values[0].shape, strict=True):
        sizes[axis] = size
    x = graph.op("Reshape", sizes, values[0], np.array(sizes, np.int64))
    return (
        x
        if tuple(sizes) == shapes[0]
        else graph.op("Expand", shapes[0], x, np.array(shapes[0], np.int64))
    )


def _transposed(graph: Graph, shapes: Any, values: Any, params: Any) -> Real:
    return graph.op("Transpose", shapes[0], values[0], perm=list(params["permutation"]))


def _joined(graph: Graph, shapes: Any, values: Any, params: Any) -> Real:
    return graph.op("Concat", shapes[0], *values, axis=params["dimension"])


def _between(graph: Graph, x: Real, begin: Any, end: Any, strides: Any = None) -> Name:
    """x[begin:end:strides] along all axes."""
    steps = [1] * len(begin) if strides is None else strides
    shape = [int(-(-(e - b) // s)) for b, e, s in zip(begin, end, steps, strict=True)]
    bounds = [np.array(each, np.int64) for each in (begin, end, range(len(begin)), steps)]
    return graph.op("Slice", shape, x, *bounds)


def _slice(graph: Graph, shapes: Any, values: Any, params: Any) -> Real:
    return _between(
        graph, values[0], params["start_indices"], params["limit_indices"], params["strides"]
    )


def _dynamic_slice(graph: Graph, shapes: Any, values: Any, params: Any) -> Real:
    x, *starts = values
    if not all(isinstance(start, np.ndarray) for start in starts):
        raise ValueError("a dynamic_slice must have constant starts for ONNX, got computed ones")
    rows = zip(starts, x.shape, params["slice_sizes"], strict=True)
    begin = [int(np.clip(start, 0, size - width)) for start, size, width in rows]
    return _between(graph, x, begin, np.add(begin, params["slice_sizes"]).tolist())


def _split(graph: Graph, shapes: Any, values: Any, params: Any) -> list[Value]:
    x, axis, found = values[0], params["axis"], []
    first = 0
    for size in params["sizes"]:
        begin, end = [0] * len(x.shape), list(x.shape)
        begin[axis], end[axis] = first, first + int(size)
        found.append(_between(graph, x, begin, end))
        first += int(size)
    return found


def _reduced(kind: str) -> Callable[..., Value]:
    def add(graph: Graph, shapes: Any, values: Any, params: Any) -> Real:
        axes = np.array(params["axes"], np.int64)
        return graph.op(kind, shapes[0], values[0], axes, keepdims=0)

    return _part_by_part(add) if kind == "ReduceSum" else add


def _cast(graph: Graph, shapes: Any, values: Any, params: Any) -> Value:
    dtype = np.dtype(params["new_dtype"])
    if np.issubdtype(dtype, np.complexfloating):
        return pair(values[0])
    kind = graph.helper.np_dtype_to_tensor_dtype(dtype)
    return graph.op("Cast", shapes[0], values[0], to=kind)


def _power(graph: Graph, shapes: Any, values: Any, params: Any) -> Real:
    return graph.op("Pow", shapes[0], values[0], np.array(params["y"], np.float32))


def _square(graph: Graph, shapes: Any, values: Any, params: Any) -> Real:
    return graph.op("Mul", shapes[0], values[0], values[0])


def _rsqrt(graph: Graph, shapes: Any, values: Any, params: Any) -> Real:
    return graph.op("Reciprocal", shapes[0], graph.op("Sqrt", shapes[0], values[0]))


def _log1p(graph: Graph, shapes: Any, values: Any, params: Any) -> Real:
    return graph.op(
        "Log", shapes[0], graph.op("Add", shapes[0], values[0], np.array(1, np.float32))
    )


def _expm1(graph: Graph, shapes: Any, values: Any, params: Any) -> Real:
    return graph.op(
        "Sub", shapes[0], graph.op("Exp", shapes[0], values[0]), np.array(1, np.float32)
    )


def _select(graph: Graph, shapes: Any, values: Any, params: Any) -> Value:
    which, *cases = values
    if len(cases) != 2:
        raise ValueError(f"a select_n must have two cases for ONNX, got {len(cases)}")

    def one(graph: Graph, shapes: Any, cases: Any, params: Any) -> Real:
        return graph.op("Where", shapes[0], which, cases[1], cases[0])

    return _part_by_part(one)(graph, shapes, cases, params)


def _unequal(graph: Graph, shapes: Any, values: Any, params: Any) -> Real:
    return graph.op("Not", shapes[0], graph.op("Equal", shapes[0], *values))


def _clamp(graph: Graph, shapes: Any, values: Any, params: Any) -> Real:
    low, x, high = values
    return graph.op("Min", shapes[0], graph.op("Max", shapes[0], x, low), high)


def _part(which: int) -> Callable[..., Value]:
    def add(graph: Graph, shapes: Any, values: Any, params: Any) -> Value:
        part = pair(values[0])[which]
        return np.zeros(shapes[0], np.float32) if part is None else part

    return add


def _complex(graph: Graph, shapes: Any, values: Any, params: Any) -> Value:
    return Pair(*values)


def _same(graph: Graph, shapes: Any, values: Any, params: Any) -> Value:
    return values[0]


def _of_two(kind: str) -> Callable[..., Real]:
    return lambda graph, shapes, values, params: graph.op(kind, shapes[0], *values)


_PLAIN = {
    "div": "Div", "max": "Max", "min": "Min", "pow": "Pow", "gt": "Greater", "lt": "Less",
    "ge": "GreaterOrEqual", "le": "LessOrEqual", "eq": "Equal", "and": "And", "or": "Or",
    "not": "Not", "exp": "Exp", "log": "Log", "tanh": "Tanh", "logistic": "Sigmoid",
    "sqrt": "Sqrt", "abs": "Abs", "sign": "Sign", "erf": "Erf", "sin": "Sin", "cos": "Cos",
    "floor": "Floor",
}  # fmt: skip

OPERATORS: dict[str, Callable[..., Any]] = {
    **{name: _plain(kind) for name, kind in _PLAIN.items()},
    **{name: _part_by_part(_of_two(kind)) for name, kind in (("add", "Add"), ("sub", "Sub"))},
    **{name: _part_by_part(_reshaped) for name in ("reshape", "squeeze", "expand_dims")},
    "add_any": _part_by_part(_of_two("Add")),
    "neg": _part_by_part(_of_two("Neg")),
    "mul": _bilinear(_of_two("Mul")),
    "dot_general": _bilinear(_dot),
    "broadcast_in_dim": _part_by_part(_broadcast),
    "transpose": _part_by_part(_transposed),
    "concatenate": _part_by_part(_joined),
    "slice": _part_by_part(_slice),
    "dynamic_slice": _dynamic_slice,
    "split": _split,
    "reduce_sum": _reduced("ReduceSum"),
    "reduce_max": _reduced("ReduceMax"),
    "convert_element_type": _cast,
    "integer_pow": _power,
    "rsqrt": _rsqrt,
    "log1p": _log1p,
    "expm1": _expm1,
    "select_n": _select,
    "ne": _unequal,
    "clamp": _clamp,
    "square": _square,
    "real": _part(0),
    "imag": _part(1),
    "complex": _complex,
    "stop_gradient": _same,
    "copy": _same,
    "copy_p": _same,
}
"""By the primitives of JAX."""
