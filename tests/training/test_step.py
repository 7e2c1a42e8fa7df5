"""What runs on the device."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from compress import Ranks, compress
from data import Batch
from training.model.forward import run_batch
from training.model.objective import OBJECTIVES, Totals
from training.model.optimizer import make_optimizer, parameter_labels
from training.run.step import DROPOUT_KEYS, TrainState, make_eval_step, make_train_steps
from training.settings.config import OptimizerConfig
from zoo import S5Config, classifier
from zoo.recurrence.choice import CANDIDATES, recurrence_form

B, L, K = 8, 20, 4
CLASSES = OBJECTIVES["classification"]


@pytest.fixture(scope="module")
def setting():
    config = S5Config(d_state=6)
    model, norm_state = classifier(
        lambda key: config.build(4, key=key),
        input_kind="real",
        input_size=1,
        classes=3,
        d_model=4,
        blocks=1,
        dropout=0.2,
        key=jax.random.key(0),
    )
    optimizer = make_optimizer(OptimizerConfig(learning_rate=1e-2, ssm_factor=0.1), 100)
    params, static = eqx.partition(model, eqx.is_array)
    opt_state = optimizer.init(eqx.filter(params, eqx.is_inexact_array))
    state = TrainState(params, norm_state, opt_state, jnp.zeros((), jnp.int32))
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(K, B, L, 1)).astype(np.float32)
    labels = rng.integers(0, 3, (K, B)).astype(np.int32)
    return static, optimizer, state, Batch(inputs, labels)


def copied(state):
    return jax.tree.map(jnp.array, state)


def test_steps_in_one_dispatch_equal_steps_one_by_one(setting):
    static, optimizer, state, batches = setting
    steps, key = make_train_steps(static, optimizer, CLASSES), jax.random.key(1)
    together, metrics = steps(copied(state), Totals.zero(), batches, np.int32(3), key)
    one, sums = copied(state), Totals.zero()
    for k in range(3):
        rolled = jax.tree.map(lambda x, k=k: np.roll(x, -k, axis=0), batches)
        one, sums = steps(one, sums, rolled, np.int32(1), key)
    for a, b in zip(
        jax.tree.leaves((together, metrics)), jax.tree.leaves((one, sums)), strict=True
    ):
        np.testing.assert_array_equal(a, b)
    assert int(together.step) == 3
    assert float(metrics.number) == 3 * B


@pytest.mark.parametrize(
    "choice", {c.form: c for c in CANDIDATES["gpu"]}.values(), ids=lambda c: c.form
)
def test_the_step_lowers_for_a_gpu(setting, choice, lowers_for_cuda):
    static, optimizer, state, batches = setting
    steps = make_train_steps(static, optimizer, CLASSES)
    with recurrence_form(*choice):
        module = lowers_for_cuda(
            steps, state, Totals.zero(), batches, np.int32(1), jax.random.key(1)
        )
    assert ("xla.gpu.triton" in module) == (choice.form == "matmul")


def test_one_program_serves_all_counts_and_a_shrink_costs_one_more(setting):
    static, optimizer, state, batches = setting
    steps, key = make_train_steps(static, optimizer, CLASSES), jax.random.key(1)
    state = copied(state)
    for count in (1, 4, 2):
        state, _ = steps(state, Totals.zero(), batches, np.int32(count), key)
    assert steps._cache_size() == 1
    model = eqx.combine(state.params, static)
    model, opt_state = compress(model, state.opt_state, policy=Ranks(3))
    state = state._replace(params=eqx.filter(model, eqx.is_array), opt_state=opt_state)
    for count in (3, 1):
        state, metrics = steps(state, Totals.zero(), batches, np.int32(count), key)
    assert steps._cache_size() == 2
    assert np.isfinite(metrics.means()).all()


def test_the_step_is_a_plain_optax_step(setting):
    """Loss, gradients and update written out, without dropout, against the program."""
    static, optimizer, state, batches = setting
    static = eqx.nn.inference_mode(static)
    new, metrics = make_train_steps(static, optimizer, CLASSES)(
        copied(state), Totals.zero(), batches, np.int32(1), jax.random.key(0)
    )

    def loss(params):
        model = eqx.combine(params, static)
        logits, _ = jax.vmap(lambda x: model(x, state.norm_state), axis_name="batch")(
            batches.inputs[0]
        )
        log_p = jax.nn.log_softmax(logits)
        return -jnp.mean(log_p[jnp.arange(B), batches.labels[0]])

    params = eqx.filter(state.params, eqx.is_inexact_array)
    value, grads = eqx.filter_jit(eqx.filter_value_and_grad(loss))(params)
    updates, _ = jax.jit(optimizer.update)(grads, state.opt_state, params)
    expected = optax.apply_updates(params, updates)
    np.testing.assert_allclose(metrics.means()[0], value, rtol=1e-5)
    ours = eqx.filter(new.params, eqx.is_inexact_array)
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


def test_evaluation_counts_what_the_mask_says(setting):
    static, _, state, batches = setting
    evaluate = make_eval_step(static, CLASSES)
    args, batch = (state.params, state.norm_state), jax.tree.map(lambda x: x[0], batches)
    whole = evaluate(*args, Totals.zero(), batch, np.ones(B, bool))
    first = evaluate(*args, Totals.zero(), batch, np.arange(B) < 5)
    both = evaluate(*args, first, batch, np.arange(B) >= 5)
    assert float(first.number) == 5
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), both, whole)


def test_dynamics_learn_at_their_own_rate_and_do_not_decay(setting):
    _, optimizer, state, *_ = setting
    params = eqx.filter(state.params, eqx.is_inexact_array)
    labels = parameter_labels(params)
    ssm = labels.blocks[0].ssm
    assert {ssm.Lambda_re_log, ssm.Lambda_im, ssm.log_step, ssm.B_re, ssm.B_im} == {"dynamics"}
    assert {ssm.C_re, ssm.C_im, ssm.D, labels.encoder.linear.weight} == {"rest"}
    zero = jax.tree.map(jnp.zeros_like, params)
    opt_state, update = state.opt_state, jax.jit(optimizer.update)
    for _ in range(12):  # into the warm-up
        updates, opt_state = update(zero, opt_state, params)
    assert float(jnp.abs(updates.blocks[0].ssm.B_re).max()) == 0
    assert float(jnp.abs(updates.encoder.linear.weight).max()) > 0


def test_one_dropout_mask_may_serve_the_whole_batch(setting):
    """The same sequence in every place of a batch then comes out the same everywhere."""
    static, _, state, batches = setting
    model = eqx.combine(state.params, static)
    same = jax.tree.map(lambda x: np.repeat(x[0, :1], B, axis=0), batches)
    outputs = {
        name: run_batch(model, state.norm_state, same, keys(jax.random.key(3), B))[0]
        for name, keys in DROPOUT_KEYS.items()
    }
    assert np.ptp(outputs["batch"], axis=0).max() < 1e-6
    assert np.ptp(outputs["sequence"], axis=0).max() > 1e-3
