"""Layers by name: those of the zoo, and those that others add."""

import inspect
from dataclasses import dataclass, fields, make_dataclass
from typing import ClassVar

import jax
import pytest

import zoo
import zoo.registry
from zoo import LAYERS, LRU, layer_config, register_layer


@pytest.fixture
def names(monkeypatch):
    """Names that are added in a test are gone after it."""
    kept = dict(LAYERS)
    yield
    for name in set(LAYERS) - set(kept):
        del zoo.registry._layers[name]


@dataclass(frozen=True)
class WideLRUConfig:
    states_per_channel: ClassVar[bool] = False
    d_state: int = 4
    r_min: float = 0.99

    def build(self, d_model, *, key):
        return LRU.init(d_model, self.d_state, key=key, r_min=self.r_min)


def test_a_layer_from_outside_is_called_by_its_name(names, getkey):
    register_layer("wide_lru", WideLRUConfig)
    assert LAYERS["wide_lru"] is layer_config("wide_lru") is WideLRUConfig
    assert layer_config("wide_lru")(d_state=3).build(2, key=getkey()).d_state == 3
    with pytest.raises(ValueError, match="`name` must be a new one, got 'wide_lru'"):
        register_layer("wide_lru", WideLRUConfig)


@pytest.mark.parametrize("name", LAYERS)
def test_layers_of_the_zoo_are_as_those_from_outside_must_be(name):
    assert zoo.registry._problem(LAYERS[name]) is None


def test_the_view_cannot_be_written_to():
    with pytest.raises(TypeError):
        LAYERS["mine"] = WideLRUConfig  # pyright: ignore[reportIndexIssue]


@pytest.mark.parametrize(
    ("name", "given", "message"),
    [
        ("Wide", WideLRUConfig, "`name` must be a lower-case identifier, got 'Wide'"),
        ("two words", WideLRUConfig, "`name` must be a lower-case identifier"),
        ("lambda", WideLRUConfig, "`name` must be a lower-case identifier"),
        ("s5", WideLRUConfig, "`name` must be a new one, got 's5', a S5Config"),
        ("mine", LRU, "`config_class` must be a frozen dataclass"),
        ("mine", WideLRUConfig(), "`config_class` must be a frozen dataclass"),
        ("mine", make_dataclass("Thawed", [("d_state", int, 3)]), "must be a frozen dataclass"),
        ("mine", make_dataclass("None_", [], frozen=True), "must have a field `d_state`"),
        (
            "mine",
            make_dataclass("Open", [("d_state", int), ("r", float)], frozen=True),
            "must have a default for its field `r`",
        ),
        (
            "mine",
            make_dataclass("Idle", [("d_state", int, 3)], frozen=True),
            "must have a method `build",
        ),
        (
            "mine",
            make_dataclass(
                "Mute", [("d_state", int, 3)], frozen=True, namespace={"build": lambda self: None}
            ),
            "must have a ClassVar `states_per_channel`",
        ),
    ],
)
def test_what_is_no_layer_is_refused(name, given, message):
    with pytest.raises(ValueError, match=message):
        register_layer(name, given)
    assert "mine" not in LAYERS


@pytest.mark.parametrize(
    "name", ["lru", "s5", "mamba", "mamba2", "gla", "retnet", "deltanet", "gated_deltanet"]
)
def test_defaults_are_written_once(name):
    """What `init` takes by default is what the configuration says."""
    config = LAYERS[name]
    init = inspect.signature(config().build(16, key=jax.random.key(0)).init).parameters
    other = {"d_state", "both_ways", "current_twice"}  # the last two say which class it is
    settings = {field.name: field.default for field in fields(config) if field.name not in other}
    assert {key: init[key].default for key in settings} == settings
    assert set(init) == {"d_model", "d_state", "key", *settings}
