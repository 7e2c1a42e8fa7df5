"""The decorator that compares arguments and results of functions with their annotations."""

from beartype import beartype
from jaxtyping import jaxtyped

checked = jaxtyped(typechecker=beartype)
"""Shapes and types are checked when a function is called, as in `zoo.typing` for layers."""
