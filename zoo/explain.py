"""One-sentence explanations of arguments that do not match a function's annotations."""

import inspect
import re
import types
from collections.abc import Callable, Mapping
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import equinox as eqx
import jax
import numpy as np
from jaxtyping import AbstractArray, PRNGKeyArray, TypeCheckError

Sizes = dict[str, int]
"""Sizes that names of dimensions stand for."""

_LONGEST = 60
"""Characters of a value that are shown."""


def explained(
    function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], error: TypeError
) -> str | None:
    """What is wrong with a call that raised `error`; None if the call itself is not the cause."""
    signature = inspect.signature(function)
    try:
        given = signature.bind(*args, **kwargs).arguments
    except TypeError as unbound:
        return _unbound(function, signature, args, kwargs, unbound)
    if not isinstance(error, TypeCheckError):
        return None
    where = f"{function.__module__}.{function.__qualname__}."
    text = str(error)
    if text.startswith(f"Type-check error whilst checking the return value of {where}"):
        actual, expected = _lines(text)
        return f"{function.__qualname__} returned {actual}, expected {expected}"
    if not text.startswith(f"Type-check error whilst checking the parameters of {where}"):
        return None
    hints = _hints(function)
    sizes: Sizes = {}
    for name, value in given.items():
        if name in hints and not _fits(value, hints[name], sizes, given):
            return _misfit(name, value, hints[name], sizes, given)
    actual, expected = _lines(text)
    return f"{function.__qualname__} got {actual}, expected {expected}"


def _unbound(
    function: Callable[..., Any],
    signature: inspect.Signature,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    error: TypeError,
) -> str:
    """The explanation for a call with a missing argument or one too many."""
    try:
        given = signature.bind_partial(*args, **kwargs).arguments
    except TypeError:
        return f"{function.__qualname__}{_without_self(signature)} got other arguments: {error}"
    missing = next(
        name
        for name, parameter in signature.parameters.items()
        if name not in given and parameter.default is parameter.empty
    )
    hint = _hints(function).get(missing)
    if hint is eqx.nn.State:
        return (
            f"`{missing}` is missing: pass the eqx.nn.State that was made with the model, as in "
            f"model(x, {missing})"
        )
    if hint == PRNGKeyArray:
        return f"`{missing}` is missing: pass a random key, as in {missing}=jax.random.key(0)"
    return f"`{missing}` is missing in {function.__qualname__}{_without_self(signature)}"


def _without_self(signature: inspect.Signature) -> str:
    names = [name for name in signature.parameters if name not in ("self", "cls")]
    return f"({', '.join(names)})"


def _lines(text: str) -> tuple[str, str]:
    """The value and the annotation in an error of jaxtyping's."""
    found = re.search(r"Actual value: (.*?)\nExpected type: (.*?)\.?\n", text + "\n", re.DOTALL)
    if found is None:
        return "something else", "what its annotations say"
    actual, expected = (" ".join(part.split()) for part in found.groups())
    return _short(actual), re.sub(r"(\w+\.)+(?=\w)", "", expected)


def _hints(function: Callable[..., Any]) -> Mapping[str, Any]:
    try:
        return get_type_hints(function, include_extras=True)
    except (NameError, TypeError):  # a name that is not there at run time
        return {k: v for k, v in function.__annotations__.items() if not isinstance(v, str)}


def _alternatives(hint: Any) -> list[Any]:
    if get_origin(hint) in (Union, types.UnionType):
        return [each for part in get_args(hint) for each in _alternatives(part)]
    return [hint]


def _is_array_hint(hint: Any) -> bool:
    return isinstance(hint, type) and issubclass(hint, AbstractArray)


def _fits(value: Any, hint: Any, sizes: Sizes, given: Mapping[str, Any]) -> bool:
    """Whether `value` is what `hint` says, where dimensions have these sizes; more are learned."""
    for alternative in _alternatives(hint):
        if _is_array_hint(alternative):
            if _has_dtype(value, alternative):
                learned = _matched(np.shape(value), _dims(alternative, given), sizes)
                if learned is not None:
                    sizes.update(learned)
                    return True
        elif _is_bearable(value, alternative):
            return True
    return False


def _is_bearable(value: Any, hint: Any) -> bool:
    numbers = {int: (int, np.integer), float: (float, int, np.floating, np.integer)}
    if hint in (int, float):
        return isinstance(value, numbers[hint])
    try:
        from beartype.door import is_bearable

        return is_bearable(value, hint)
    except Exception:  # a hint that beartype does not know: not what this call failed for
        return True


def _has_dtype(value: Any, hint: Any) -> bool:
    return isinstance(value, hint.dtype[hint.array_type, "..."])


def _dims(hint: Any, given: Mapping[str, Any]) -> list[str]:
    """The dimensions of an annotation, as numbers where other arguments determine them."""
    try:
        return hint.dim_str.format(**given).split()
    except (AttributeError, KeyError, IndexError, ValueError):
        return hint.dim_str.split()


def _matched(shape: tuple[int, ...], dims: list[str], sizes: Sizes) -> Sizes | None:
    """The sizes of the dimensions for this shape; None where they do not match."""
    variadic = [k for k, dim in enumerate(dims) if dim.startswith("*") or dim == "..."]
    if variadic:
        before, after = variadic[0], len(dims) - variadic[0] - 1
        if len(shape) < before + after:
            return None
        dims = dims[:before] + dims[len(dims) - after :]
        shape = shape[:before] + shape[len(shape) - after :]
    if len(shape) != len(dims):
        return None
    found: Sizes = {}
    for size, dim in zip(shape, dims, strict=True):
        known = int(dim) if dim.isdigit() else (sizes | found).get(dim.lstrip("#"))
        if known is not None and size != known and not (dim.startswith("#") and size == 1):
            return None
        if dim.isidentifier() and not dim.startswith("_"):
            found[dim] = size
    return found


def _misfit(name: str, value: Any, hint: Any, sizes: Sizes, given: Mapping[str, Any]) -> str:
    alternatives = _alternatives(hint)
    if alternatives == _alternatives(PRNGKeyArray):
        return f"`{name}` must be a random key such as jax.random.key(0), got {_short(value)}"
    arrays = [each for each in alternatives if _is_array_hint(each)]
    is_array = isinstance(value, jax.Array | np.ndarray | np.generic)
    if not arrays or not is_array:
        wanted = _either([_described(each, sizes, given) for each in alternatives])
        return f"`{name}` must be {wanted}, got {_short(value)}"
    right = [each for each in arrays if _has_dtype(value, each)]
    if not right:
        expected = _either([_described(each, sizes, given) for each in arrays])
        return f"{name} holds {value.dtype} of shape {np.shape(value)}, expected {expected}"
    shapes = _either([_shape(_dims(each, given), sizes) for each in right])
    said = f"{name} has shape {np.shape(value)}, expected {shapes}"
    batched = any(
        _matched(np.shape(value)[1:], _dims(each, given), sizes) is not None for each in right
    )
    return f"{said}: use jax.vmap over a batch" if batched and np.ndim(value) else said


def _either(words: list[str]) -> str:
    return " or ".join(dict.fromkeys(words))


def _shape(dims: list[str], sizes: Sizes) -> str:
    """[length, 4]: names of dimensions, numbers where they are known."""
    shown = ["..." if dim.startswith("*") else dim.lstrip("#") for dim in dims]
    return f"[{', '.join(str(sizes.get(dim, dim)) for dim in shown)}]"


_NUMBERS = {
    "Float": "real numbers",
    "Complex": "complex numbers",
    "Inexact": "real or complex numbers",
    "Int": "integers",
    "Bool": "truth values",
}
_WORDS = {int: "an integer", float: "a number", bool: "True or False", str: "a string"}


def _described(hint: Any, sizes: Sizes, given: Mapping[str, Any]) -> str:
    if _is_array_hint(hint):
        numbers = _NUMBERS.get(hint.dtype.__name__, f"{hint.dtype.__name__} numbers")
        dims = _dims(hint, given)
        return f"an array of one of {numbers}" if not dims else f"{numbers} {_shape(dims, sizes)}"
    if get_origin(hint) is Literal:
        return _either([repr(each) for each in get_args(hint)])
    if hint is type(None):
        return "None"
    if hint in _WORDS:
        return _WORDS[hint]
    if hint is eqx.nn.State:
        return "the eqx.nn.State that was made with the model"
    if get_origin(hint) is not None and "Callable" in str(get_origin(hint)):
        return "a function"
    name = getattr(hint, "__name__", None) or str(hint).replace("typing.", "")
    return f"{'an' if name[0] in 'AEIOU' else 'a'} {name}" if isinstance(hint, type) else name


def _short(value: Any) -> str:
    if isinstance(value, jax.Array | np.ndarray):
        return f"{value.dtype}[{', '.join(map(str, value.shape))}]"
    shown = value if isinstance(value, str) and "[" in value else repr(value)
    shown = " ".join(shown.split())
    return shown if len(shown) <= _LONGEST else f"{shown[: _LONGEST - 3]}..."
