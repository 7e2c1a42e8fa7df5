"""Every transformation of optax goes on after a cut as a fresh one does, or is refused."""

import importlib
import pkgutil
import sys

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from optax import contrib

from compress import Ranks, compress
from compress.optimizer import register_state
from compress.optimizer.meanings import MEANINGS
from compress.optimizer.optax_states import OPTAX
from compress.optimizer.registry import _registered
from zoo import LRU

H, N, RANK, STEPS, LENGTH, RATE = 2, 8, 5, 20, 40, 1e-3


def vectors(params):
    return jax.tree.map(lambda x: x.ndim == 1, params)


def kinds(params):
    return jax.tree.map(lambda x: "vector" if x.ndim == 1 else "matrix", params)


SCALE = optax.scale(-RATE)
ALIASES = {
    "adabelief": optax.adabelief(RATE),
    "adadelta": optax.adadelta(RATE),
    "adafactor": optax.adafactor(RATE),
    "adafactor_factored": optax.adafactor(RATE, min_dim_size_to_factor=2, momentum=0.9),
    "adagrad": optax.adagrad(RATE),
    "adam": optax.adam(RATE),
    "adamw": optax.adamw(RATE),
    "adan": optax.adan(RATE),
    "amsgrad": optax.amsgrad(RATE),
    "fromage": optax.fromage(RATE),
    "lamb": optax.lamb(RATE),
    "lars": optax.lars(RATE),
    "lion": optax.lion(RATE),
    "nadam": optax.nadam(RATE),
    "nadamw": optax.nadamw(RATE),
    "noisy_sgd": optax.noisy_sgd(RATE, key=0),
    "novograd": optax.novograd(RATE),
    "optimistic_adam": optax.optimistic_adam_v2(RATE),
    "optimistic_gradient": optax.optimistic_gradient_descent(RATE),
    "polyak": optax.polyak_sgd(),
    "radam": optax.radam(RATE),
    "rmsprop": optax.rmsprop(RATE),
    "rmsprop_momentum": optax.rmsprop(RATE, momentum=0.9),
    "rmsprop_centered": optax.rmsprop(RATE, centered=True, momentum=0.9),
    "rprop": optax.rprop(RATE),
    "sgd": optax.sgd(RATE),
    "momentum": optax.sgd(RATE, momentum=0.9, nesterov=True),
    "sign_sgd": optax.sign_sgd(RATE),
    "signum": optax.signum(RATE),
    "sm3": optax.sm3(RATE),
    "yogi": optax.yogi(RATE),
    "distance_over_gradients": optax.chain(
        optax.scale_by_distance_over_gradients(), optax.scale(-1.0)
    ),
}
CONTRIB = {
    "acprop": contrib.acprop(RATE),
    "ademamix": contrib.ademamix(RATE),
    "simplified_ademamix": contrib.simplified_ademamix(RATE),
    "dadapt": contrib.dadapt_adamw(),
    "muon": contrib.muon(RATE),
    "prodigy": contrib.prodigy(),
    "sam": contrib.sam(optax.sgd(RATE, 0.9), optax.sgd(1e-2), sync_period=3),
    "schedule_free_adamw": contrib.schedule_free_adamw(RATE),
    "schedule_free_sgd": contrib.schedule_free_sgd(RATE),
    "schedule_free_rmsprop": contrib.schedule_free(optax.rmsprop(RATE), RATE),
    "split": contrib.split_real_and_imaginary(optax.adam(RATE)),
    "plateau": optax.chain(optax.adam(RATE), contrib.reduce_on_plateau()),
}
WRAPPED = {
    "ema": optax.chain(optax.ema(0.9), SCALE),
    "ema_of_updates": optax.chain(optax.scale_by_adam(), SCALE, optax.ema(0.9)),
    "multi_steps": optax.MultiSteps(optax.adam(RATE), 3),
    "apply_every": optax.chain(optax.apply_every(3), SCALE),
    "finite": optax.apply_if_finite(optax.adam(RATE), 3),
    "conditionally": optax.conditionally_transform(optax.adam(RATE), lambda step: step < 30),
    "injected": optax.inject_hyperparams(optax.rmsprop)(RATE, momentum=0.9),
    "masked": optax.chain(optax.masked(optax.scale_by_rms(), vectors), optax.trace(0.9), SCALE),
    "groups": optax.multi_transform(
        {"vector": optax.adam(RATE), "matrix": optax.rmsprop(RATE, momentum=0.9)}, kinds
    ),
    "clipped": optax.chain(optax.clip_by_global_norm(1.0), optax.adam(RATE)),
    "clipped_by_unit": optax.chain(optax.adaptive_grad_clip(0.1), optax.sgd(RATE, 0.9)),
    "centralized": optax.chain(optax.centralize(), optax.adam(RATE)),
    "normalized": optax.chain(optax.normalize_by_update_norm(), optax.trace(0.9), SCALE),
    "no_nans": optax.chain(optax.zero_nans(), optax.adam(RATE)),
    "backtracking": optax.chain(
        optax.sgd(RATE, 0.9), optax.scale_by_backtracking_linesearch(5, store_grad=True)
    ),
}
REFUSED = {
    "adamax": (optax.adamax(RATE), "looks like that of `optax.adamax`"),
    "adamaxw": (optax.adamaxw(RATE), "looks like that of `optax.adamax`"),
    "lbfgs": (optax.lbfgs(RATE, linesearch=None), "ScaleByLBFGSState keeps past steps"),
    "adopt": (contrib.adopt(RATE), "as those of `optax.contrib.adopt` are"),
    "madgrad": (contrib.madgrad(RATE), "MadgradState counts all steps from the start"),
    "cocob": (contrib.cocob(), "COCOBState keeps rewards"),
    "dog": (contrib.dog(), "DoGState keeps distances and norms"),
    "dowg": (contrib.dowg(), "DoWGState keeps distances and norms"),
    "mechanize": (contrib.mechanize(optax.adam(RATE)), "MechanicState keeps distances and norms"),
    "momo": (contrib.momo(RATE), "MomoState keeps products"),
    "momo_adam": (contrib.momo_adam(RATE), "MomoAdamState keeps products"),
    "galore": (contrib.galore(RATE, rank=1), "must not hold a GaLoreState"),
    "flatten": (optax.flatten(optax.adam(RATE)), "got one flat array"),
    "ema_of_all": (optax.chain(optax.adam(RATE), optax.ema(0.9)), "EmaState stands"),
}
TABLE = ALIASES | CONTRIB | WRAPPED
WITH_VALUES = [
    *(TABLE[name] for name in ("polyak", "plateau", "backtracking")),
    *(REFUSED[name][0] for name in ("momo", "momo_adam")),
]
"""Those whose `update` takes the loss too."""


@eqx.filter_jit
def value_and_gradient(layer, u):
    def loss(layer):
        return jnp.mean((jax.vmap(layer)(u) - jnp.cumsum(u, axis=1) / 10) ** 2)

    return eqx.filter_value_and_grad(loss)(layer)


BATCHES = np.random.default_rng(0).standard_normal((STEPS + 1, 4, LENGTH, H)).astype(np.float32)


def update(optimizer, layer, state, step):
    value, gradient = value_and_gradient(layer, BATCHES[step])
    if optimizer not in WITH_VALUES:
        return optimizer.update(gradient, state, layer)
    extra = {"value": value, "grad": gradient, "value_fn": lambda _: value}
    return optimizer.update(gradient, state, layer, **extra)


def trained(optimizer, layer):
    state = optimizer.init(layer)
    for step in range(STEPS):
        updates, state = update(optimizer, layer, state, step)
        layer = eqx.apply_updates(layer, updates)
    return layer, state


def norm(tree):
    return np.sqrt(sum(np.sum(np.asarray(x, np.float64) ** 2) for x in jax.tree.leaves(tree)))


def shapes(tree):
    return jax.tree.map(lambda x: (jnp.shape(x), jnp.result_type(x)), tree)


def new_layer():
    return LRU.init(H, N, key=jax.random.key(0), r_min=0.3, r_max=0.95)


def check_update(optimizer, layer, state, moments="transport"):
    """Within a factor of two of the update of a fresh state that was trained as long."""
    small, carried = compress(layer, state, policy=Ranks(RANK), moments=moments)
    assert shapes(carried) == shapes(optimizer.init(small))
    found, _ = update(optimizer, small, carried, STEPS)
    fresh, _ = update(optimizer, *trained(optimizer, small), STEPS)
    assert 0.5 < norm(found) / norm(fresh) < 2


@pytest.mark.parametrize("name", TABLE)
def test_the_update_after_a_cut_has_the_size_of_a_fresh_one(name):
    check_update(TABLE[name], *trained(TABLE[name], new_layer()))


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_carried_is_refused_in_a_sentence(name):
    optimizer, message = REFUSED[name]
    layer, state = trained(optimizer, new_layer())
    with pytest.raises(ValueError, match=message):
        compress(layer, state, policy=Ranks(RANK))


@pytest.mark.parametrize("name", ["lbfgs", "cocob", "madgrad", "adamax", "adopt"])
def test_what_is_refused_begins_anew_with_reset(name):
    """The update has the size of the first one of a fresh state, or is none, up to a few times."""
    optimizer, _ = REFUSED[name]
    layer, state = trained(optimizer, new_layer())
    small, carried = compress(layer, state, policy=Ranks(RANK), moments="reset")
    assert shapes(carried) == shapes(optimizer.init(small))
    for step in range(3):
        updates, carried = update(optimizer, small, carried, step)
        small = eqx.apply_updates(small, updates)
    assert all(np.all(np.isfinite(x)) for x in jax.tree.leaves((small, carried)))


@pytest.mark.parametrize("scale", [1e-4, 30.0, 1e4])
@pytest.mark.parametrize("name", ["adam", "adamax"])
def test_adamax_is_refused_and_adam_is_not_whatever_the_scale_of_the_loss(name, scale):
    """Adam's state with gradients over 1 may have no average above its squares, as Adamax's."""
    optimizer = optax.chain(optax.scale(scale), getattr(optax, name)(RATE))
    layer, state = trained(optimizer, new_layer())
    if name == "adam":
        check_update(optimizer, layer, state)
        return
    with pytest.raises(ValueError, match=r'looks like that of `optax.adamax`.*nu="maximum"'):
        compress(layer, state, policy=Ranks(RANK))


def test_adam_is_not_refused_where_every_average_is_below_its_square():
    layer = new_layer()
    optimizer = optax.adam(RATE)
    state = optimizer.init(layer)
    for step in range(3):
        _, gradient = value_and_gradient(layer, BATCHES[step])
        large = jax.tree.map(lambda x: 1e3 * x + jnp.sign(x) * 1e3, gradient)
        _, state = optimizer.update(large, state, layer)
    pairs = zip(jax.tree.leaves(state[0].mu), jax.tree.leaves(state[0].nu), strict=True)
    assert all(np.all(np.abs(mu) <= 1.1 * nu) for mu, nu in pairs)
    compress(layer, state, policy=Ranks(RANK))


@pytest.fixture
def registered():
    """What a test registers is forgotten after it."""
    before = dict(_registered)
    yield
    _registered.clear()
    _registered.update(before)


@pytest.mark.parametrize(
    ("name", "mu", "nu"),
    [("adamax", "gradient", "maximum"), ("adamaxw", "gradient", "maximum")],
)
def test_what_is_declared_is_carried(name, mu, nu, registered):
    optimizer, _ = REFUSED[name]
    register_state(optax.ScaleByAdamState, count="scalar", mu=mu, nu=nu)
    check_update(optimizer, *trained(optimizer, new_layer()))


NO_STATES = {
    "Aggregator",
    "Aux",
    "BacktrackingLineSearchState",
    "BacktrackingLinesearchInfo",
    "GaLoreDimensionNumbers",
    "GradientTransformation",
    "GradientTransformationExtraArgs",
    "MuonDimensionNumbers",
    "SplitRealAndImaginaryArrays",
    "ZoomLinesearchInfo",
    "ZoomLinesearchState",
}
"""NamedTuples of optax that are no states, or none that outlives a step."""


def test_every_field_of_every_state_of_optax_is_declared():
    for package in ("optax", "optax.contrib", "optax.transforms", "optax.schedules"):
        for module in pkgutil.iter_modules(importlib.import_module(package).__path__):
            if not module.name.endswith("_test"):
                importlib.import_module(f"{package}.{module.name}")
    modules = [module for name, module in sys.modules.items() if name.split(".")[0] == "optax"]
    tuples = {
        x.__name__: x
        for module in modules
        for x in vars(module).values()
        if isinstance(x, type) and issubclass(x, tuple) and hasattr(x, "_fields")
    }
    assert len(tuples) > 60
    assert tuples.keys() - NO_STATES <= OPTAX.keys()
    for name, declared in OPTAX.items():
        assert name not in tuples or set(tuples[name]._fields) == declared.fields.keys(), name
        assert set(declared.fields.values()) <= MEANINGS.keys()


def test_losses_of_a_line_search_are_not_known_after_a_cut():
    optimizer = WRAPPED["backtracking"]
    layer, state = trained(optimizer, new_layer())
    assert np.isfinite(state[1].value)
    _, carried = compress(layer, state, policy=Ranks(RANK))
    assert np.isinf(carried[1].value)
    assert not np.any(carried[1].grad.B_re)
