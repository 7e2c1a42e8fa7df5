"""Shapes are checked everywhere, and cost nothing in what is compiled."""

import ast
import inspect
import re
from importlib import resources
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Array, Float

from zoo import BATCH_AXIS, LRU, Mamba, classifier
from zoo.typing import DIMENSIONS, AnyArray, ArgumentError, checked

ZOO = Path(__file__).parents[2] / "zoo"
FILES = sorted(ZOO.rglob("*.py"))


@checked
def outer(
    x: Float[AnyArray, " rows"], y: Float[AnyArray, " pixels"]
) -> Float[Array, "rows pixels"]:
    """x y^T."""
    return jnp.asarray(x)[:, None] * y


@checked
def wrong(x: Float[Array, " rows"], *, scale: float = 1.0) -> Float[Array, " rows"]:
    return jnp.sum(x) * scale


class Pair(eqx.Module):
    weight: Float[Array, " rows"]

    @classmethod
    @checked
    def make(cls, rows: int) -> "Pair":
        return cls(jnp.ones(rows))

    @property
    def rows(self) -> int:
        return len(self.weight)

    @checked
    def __call__(self, x: Float[AnyArray, "length {self.rows}"]) -> Float[Array, " length"]:
        return jnp.asarray(x) @ self.weight


def test_signature_and_docstring_stay():
    assert outer.__doc__ == "x y^T."
    assert list(inspect.signature(outer).parameters) == ["x", "y"]
    assert list(inspect.signature(LRU.init).parameters)[:2] == ["d_model", "d_state"]
    assert LRU.step.__name__ == "step"


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: outer(jnp.ones(2), jnp.ones((3, 2))),
            "y has shape (3, 2), expected [pixels]: use",
        ),
        (lambda: outer(jnp.ones(2), 3.0), "`y` must be real numbers [pixels], got 3.0"),
        (lambda: outer(jnp.ones(2)), "`y` is missing in outer(x, y)"),
        (lambda: outer(jnp.ones(2), jnp.ones(2), 3), "outer(x, y) got other arguments"),
        (lambda: wrong(jnp.ones(2)), "wrong returned f32[], expected Float[Array, 'rows']"),
        (lambda: wrong(jnp.ones(2), scale="two"), "`scale` must be a number, got 'two'"),
        (lambda: Pair.make(2.5), "`rows` must be an integer, got 2.5"),
        (lambda: Pair.make(2)(jnp.ones((4, 3))), "x has shape (4, 3), expected [length, 2]"),
    ],
)
def test_what_does_not_fit_is_said_in_one_sentence(call, message):
    with pytest.raises(ArgumentError, match=re.escape(message)) as caught:
        call()
    assert isinstance(caught.value, TypeError)
    assert isinstance(caught.value, ValueError)
    assert "\n" not in str(caught.value)


def test_errors_of_what_is_called_pass_through():
    @checked
    def calls(x: Float[Array, " rows"]) -> Float[Array, " rows"]:
        return x + len(3)  # pyright: ignore[reportArgumentType]

    with pytest.raises(TypeError, match="object of type 'int' has no len") as caught:
        calls(jnp.ones(2))
    assert not isinstance(caught.value, ArgumentError)


def test_numbers_of_numpy_are_as_good(getkey):
    layer = LRU.init(np.int64(3), np.int32(4), key=getkey(), r_max=np.float32(0.99), max_phase=3)
    assert layer.d_state == 4
    u = np.ones((5, 3), np.float32)
    np.testing.assert_array_equal(layer(u), layer(jnp.asarray(u)))


@pytest.mark.parametrize("make", [LRU.init, Mamba.init])
def test_under_every_transformation(make, getkey):
    """Arrays are traced there, or abstract: their shapes are known, their values are not."""
    layer, u = make(4, 3, key=getkey()), jax.random.normal(getkey(), (2, 5, 4))
    expected = jnp.stack([layer(row) for row in u])

    def close(y):
        np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-5)

    close(jax.vmap(layer)(u))
    close(eqx.filter_jit(jax.vmap(layer))(u))
    stream = lambda row: jax.lax.scan(  # noqa: E731
        lambda carry, u_t: layer.step(carry, u_t), layer.init_state(), row
    )
    close(jax.vmap(stream)(u)[1])
    assert eqx.filter_eval_shape(layer, u[0]).shape == (5, 4)
    eqx.filter_grad(lambda layer: jnp.sum(layer(u[0])))(layer)
    layers = eqx.filter_vmap(lambda key: make(4, 3, key=key))(jax.random.split(getkey(), 2))
    assert eqx.filter_vmap(lambda layer, row: layer(row))(layers, u).shape == (2, 5, 4)
    assert eqx.filter_vmap(lambda layer: layer.resized(2))(layers).d_model is not None
    with pytest.raises(
        ArgumentError, match=r"u has shape \(2, 5, 4\), expected \[length, 4\]: use"
    ):
        eqx.filter_jit(layer)(u)


def test_nothing_of_it_is_in_the_program(getkey, monkeypatch):
    model, state = classifier(
        lambda key: LRU.init(4, 3, key=key),
        input_kind="real",
        input_size=2,
        classes=3,
        d_model=4,
        blocks=1,
        key=getkey(),
    )

    def traced():
        run = jax.vmap(model, in_axes=(0, None), out_axes=(0, None), axis_name=BATCH_AXIS)
        trace = eqx.filter_make_jaxpr(lambda x, state: run(x, state))
        return str(trace(jnp.ones((2, 5, 2)), state)[0])

    with_checks = traced()
    monkeypatch.setattr("jaxtyping._config.config.jaxtyping_disable", True)
    jax.clear_caches()
    assert traced() == with_checks


def annotated_names(text):
    for dims in re.findall(
        r'(?:Float|Int|Complex|Inexact|Bool|UInt32)\[[^"\[\]]*, *"([^"]*)"', text
    ):
        for name in re.sub(r"\{[^}]*\}", "", dims).split():
            yield name.lstrip("*#")


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ZOO)))
def test_every_size_has_a_name_of_the_glossary(file):
    unknown = {
        name
        for name in annotated_names(file.read_text())
        if name not in DIMENSIONS and name not in ("...", "_") and not name.isdigit()
    }
    assert not unknown


def public_functions(tree):
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            if "Protocol" not in map(ast.unparse, node.bases):
                yield from public_functions(node)
        elif isinstance(node, ast.FunctionDef) and (
            not node.name.startswith("_") or node.name == "__call__"
        ):
            yield node


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ZOO)))
def test_every_public_function_is_checked(file):
    if file.name in ("typing.py", "explain.py", "lazy.py"):
        pytest.skip("what checks is not checked")
    if file.name in ("derivative.py", "whole_batch.py"):
        pytest.skip("what makes functions on import does not wait for what checks")
    for function in public_functions(ast.parse(file.read_text())):
        decorators = set(map(ast.unparse, function.decorator_list))
        assert decorators & {"checked", "property", "abc.abstractmethod"}, function.name


@pytest.mark.parametrize("package", ["zoo", "compress", "data", "training"])
def test_packages_say_that_they_are_typed(package):
    assert resources.files(package).joinpath("py.typed").is_file()
