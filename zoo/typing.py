"""The names of dimensions in annotations, and the decorator that checks shapes.

`@checked` compares a function's arguments and results with its annotations, during tracing and in
calls outside `jit`. Compiled programs contain no checks. A mismatch raises one sentence, in an
error that is both a TypeError and a ValueError.
"""

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar, cast

import jax
import numpy as np
from jaxtyping import Int, jaxtyped

from .explain import explained

DIMENSIONS: Mapping[str, str] = {
    "batch": "sequences, or members of a batch of whatever kind",
    "length": "samples of a sequence, or of a piece of one",
    "d_model": "channels of the residual stream, of a layer's input and of its output",
    "d_state": "stored states of a system or layer, or of each channel of a selective layer",
    "inputs": "what goes in: inputs m of a system, entries of a vector that is mapped",
    "outputs": "what comes out: outputs p of a system, entries of what a vector is mapped to",
    "channels": "channels inside a layer, of its recurrence or convolution; real ones of the data",
    "convolved": "channels of a layer that pass through its convolution",
    "groups": "groups of neighbouring channels or heads, each with its own B and C",
    "oscillators": "oscillators of a layer",
    "heads": "heads of a layer, each with its own decay",
    "headdim": "channels of a head",
    "key_heads": "heads of queries and keys, each shared by neighbouring heads of values",
    "keys": "keys of a head of linear attention, before a map to the stored ones, if there is one",
    "values": "values of a head of linear attention",
    "window": "samples in the window of attention",
    "past": "samples before the present one that are carried along",
    "taps": "samples in the window of a convolution",
    "kept": "channels of B or C, for each group, that a map takes to the states",
    "rank": "states after a cut, or the rank of a map",
    "spectra": "rows of eigenvalues: one for each channel, or one for all",
    "order": "states of a real system, twice as many as complex ones at most",
    "frequencies": "frequencies of a response",
    "chunks": "chunks of equal length that a sequence is cut into",
    "chunk": "samples of a chunk",
    "parts": "real and imaginary part of a number, or the real one alone",
    "matrices": "matrices of one shape, stacked",
    "rows": "rows of a matrix",
    "vocabulary": "tokens in all",
    "tokens": "generated tokens",
    "classes": "classes in all",
    "pixels": "pixels of a picture",
    "lead": "any number of leading axes",
    "rest": "any number of trailing axes",
    "shape": "all axes of an array, any number of them",
}
"""Every name of a size in the zoo's annotations, and its meaning."""

Array = jax.Array
"""A JAX array, traced or not: functions return these, and layers hold them."""

AnyArray = jax.Array | np.ndarray
"""A JAX or NumPy array: systems hold either."""

if TYPE_CHECKING:
    InputArray = jax.Array
else:
    InputArray = AnyArray
"""The arrays that functions and layers accept: JAX arrays, at run time also NumPy arrays."""

Count = Int[InputArray, ""] | int | np.integer
"""A number of samples, which may be traced."""

Size = Any
"""A size of an array: a whole number, or a JAX symbol in programs for any size."""

Function = TypeVar("Function")


@functools.cache
def checker() -> Callable[..., Any]:
    """The type checker. It accepts NumPy's numbers as numbers, and integers as real numbers. It is
    loaded at the first call of a checked function, to keep imports fast.
    """
    from beartype import BeartypeConf, FrozenDict, beartype

    numbers = {int: int | np.integer, float: float | int | np.floating | np.integer}
    return functools.partial(beartype, conf=BeartypeConf(hint_overrides=FrozenDict(numbers)))


class ArgumentError(TypeError, ValueError):
    """An argument, or a result, is not of the type or shape that its annotation says."""


def checked(function: Function) -> Function:
    """`function` (or method) whose arguments and results are checked against its annotations.

    Names of sizes are those of `DIMENSIONS`; "{self.d_model}" is the size that the layer has.
    Raises an `ArgumentError` that names the argument, what it is, and what is expected. Works for
    functions, methods, class methods and static methods; signature and docstring stay.
    """
    if isinstance(function, classmethod | staticmethod):
        return cast(Function, type(function)(checked(function.__func__)))
    plain = _without_hook(cast(Callable[..., Any], function))
    checking: Callable[..., Any] | None = None

    @functools.wraps(plain)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        __tracebackhide__ = True
        nonlocal checking
        if checking is None:  # not on import, where it would take a millisecond for each function
            checking = jaxtyped(plain, typechecker=checker())
        try:
            return checking(*args, **kwargs)
        except ArgumentError:
            raise
        except TypeError as error:
            sentence = explained(plain, args, kwargs, error)
            if sentence is None:
                raise
            raise ArgumentError(sentence) from None

    return cast(Function, wrapper)


def _without_hook(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function under the wrapper of jaxtyping's import hook, which tests use, so that nothing
    is checked twice."""
    code = getattr(function, "__code__", None)
    by_hook = code is not None and code.co_filename == inspect.getfile(jaxtyped)
    return function.__wrapped__ if by_hook else function  # pyright: ignore[reportFunctionMemberAccess]
