"""A program of arrays as an ONNX graph: complex numbers are pairs of real ones.

Parts that depend on weights alone are computed here, and become constants of the graph. The rest of
a streaming step are sums, products, and functions of single numbers, for each of which
`operators.OPERATORS` says the operator of ONNX.
"""

import importlib
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core

from ...settings.errors import UsageError
from .graph import Graph, Name, Value
from .operators import OPERATORS

OPSET = 18


def onnx_model(function: Callable[..., Any], arguments: Sequence[Any], results: Sequence[Any]):
    """`function` of arrays as a model of ONNX, in bytes.

    `arguments` and `results` have a name, a dtype and a shape of numbers. `UsageError` if the
    package onnx is missing, ValueError for operations without an operator.
    """
    try:
        onnx: Any = importlib.import_module("onnx")
    except ImportError as error:
        raise UsageError(f"{error}: pip install 'compressm-zoo[onnx]'") from None
    shapes = [jax.ShapeDtypeStruct(each.shape, each.dtype) for each in arguments]
    closed = jax.make_jaxpr(function)(*shapes)
    graph = Graph(onnx.helper)
    inputs = [Name(each.name, tuple(each.shape)) for each in arguments]
    outputs = _run(graph, closed.jaxpr, closed.consts, inputs)
    for value, each in zip(outputs, results, strict=True):
        graph.nodes.append(onnx.helper.make_node("Identity", [graph.text(value)], [each.name]))
    described = [
        [
            onnx.helper.make_tensor_value_info(name, _element(onnx, each.dtype), each.shape)
            for name, each in ((each.name, each) for each in of)
        ]
        for of in (arguments, results)
    ]
    made = onnx.helper.make_graph(graph.nodes, "step", *described, initializer=graph.constants)
    opset = [onnx.helper.make_opsetid("", OPSET)]
    model = onnx.helper.make_model(made, opset_imports=opset, ir_version=9)
    onnx.checker.check_model(model)
    return model.SerializeToString()


def _element(onnx: Any, dtype: Any) -> int:
    return onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))


def _run(graph: Graph, jaxpr: Any, consts: Sequence[Any], inputs: Sequence[Value]) -> list[Value]:
    """The results of a program of JAX."""
    known: dict[Any, Value] = {}

    def read(atom: Any) -> Value:
        return np.asarray(atom.val) if isinstance(atom, core.Literal) else known[atom]

    known.update(zip(jaxpr.constvars, map(np.asarray, consts), strict=True))
    known.update(zip(jaxpr.invars, inputs, strict=True))
    for equation in jaxpr.eqns:
        results = _equation(graph, equation, [read(atom) for atom in equation.invars])
        known.update(zip(equation.outvars, results, strict=True))
    return [read(atom) for atom in jaxpr.outvars]


def _equation(graph: Graph, equation: Any, values: list[Value]) -> list[Value]:
    if equation.primitive.name in _CALLS:
        inner = next(equation.params[k] for k in _INNER if k in equation.params)
        closed = inner if isinstance(inner, core.ClosedJaxpr) else core.ClosedJaxpr(inner, ())
        return _run(graph, closed.jaxpr, closed.consts, values)
    if hasattr(equation.primitive.impl, "lower"):  # a jitted function stands for it
        function = partial(equation.primitive.impl, **equation.params)
        closed = jax.make_jaxpr(function)(*(atom.aval for atom in equation.invars))
        return _run(graph, closed.jaxpr, closed.consts, values)
    if all(isinstance(value, np.ndarray) for value in values):
        found = equation.primitive.bind(*map(jnp.asarray, values), **equation.params)
        several = equation.primitive.multiple_results
        return [np.asarray(x) for x in (found if several else [found])]
    name, shapes = equation.primitive.name, [tuple(v.aval.shape) for v in equation.outvars]
    if name not in OPERATORS:
        raise ValueError(f"{name} has no operator of ONNX here: this model is not exported")
    found = OPERATORS[name](graph, shapes, values, equation.params)
    return found if isinstance(found, list) else [found]


_CALLS = (
    "jit",
    "pjit",
    "closed_call",
    "core_call",
    "custom_jvp_call",
    "custom_vjp_call",
    "custom_vjp_call_jaxpr",
    "checkpoint",
    "remat2",
)
"""Primitives that do nothing but run a program of their own."""

_INNER = ("jaxpr", "call_jaxpr", "fun_jaxpr")
"""Parameters that hold a program of their own."""
