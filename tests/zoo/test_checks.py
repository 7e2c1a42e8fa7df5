"""Settings of the wrong kind are refused by every configuration class, which names them."""

import dataclasses
from types import UnionType
from typing import get_args

import jax
import pytest

from zoo import LAYERS, Mamba, Mamba2
from zoo.layers.checks import KINDS

BAD = {
    int: [1.5, float("nan"), "3", None, True, [4], 10.0],
    float: [float("nan"), float("inf"), "x", None, True, 10**400, 1j],
    bool: [1, "yes", None, 0.0],
    tuple[float, float]: [1.0, (1.0,), (0.0, float("nan")), ("a", "b"), None],
}
CASES = [
    (config, field.name, kind, value)
    for config in LAYERS.values()
    for field in dataclasses.fields(config)
    for kind in (get_args(field.type) if isinstance(field.type, UnionType) else [field.type])
    for value in BAD.get(kind, [])
    if not (value is None and isinstance(field.type, UnionType))
]


@pytest.mark.parametrize(
    ("config", "name", "kind", "value"), CASES, ids=lambda x: getattr(x, "__name__", str(x)[:20])
)
def test_settings_of_the_wrong_kind_are_named(config, name, kind, value):
    settings = config()
    object.__setattr__(settings, name, value)  # no checker of types comes first
    with pytest.raises(ValueError, match=rf"^`{name}` must be {KINDS[kind][0]}, got ") as error:
        settings.__post_init__()
    assert "\n" not in str(error.value)


def test_settings_of_the_right_kind_pass():
    for config in LAYERS.values():
        assert config(**dataclasses.asdict(config())) == config()


@pytest.mark.parametrize("floor", [-1e-4, float("nan"), float("inf")])
@pytest.mark.parametrize("kind", [Mamba, Mamba2])
def test_a_floor_of_steps_that_is_none_is_refused(kind, floor):
    with pytest.raises(ValueError, match="`dt_init_floor` must be 0 or more and finite, got"):
        kind.init(64, 4, key=jax.random.key(0), dt_init_floor=floor)
