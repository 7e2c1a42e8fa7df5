"""What training needs of selective layers: sizes before a resume, plans by data, empty bounds."""

import io
from dataclasses import replace

import equinox as eqx
import jax
import numpy as np
import pytest
from rich.console import Console

from compress import Ranks, Tolerance, compress
from compress.analysis.tracking import values
from data import load_task
from data.task import Split
from training import load_run
from training.commands.cut import cut_run
from training.commands.train import execute
from training.commands.trained import restored_run
from training.run.checkpoint import resized
from training.settings.command import parse_command
from training.settings.config import CompressionConfig
from training.settings.presets import preset
from training.shrinking.reduction import Reduction, calibration_split, watched_split
from training.shrinking.systems import read_systems, save_systems
from training.studies.stability import moves_of
from zoo import Mamba, Mamba2, classifier

LAYERS = {
    "mamba": lambda key: Mamba.init(8, 8, key=key),
    "mamba2": lambda key: Mamba2.init(8, 8, key=key, headdim=4, chunk_size=8),
}


@pytest.fixture(scope="module", params=LAYERS)
def model(request):
    return classifier(
        LAYERS[request.param],
        input_kind="real",
        input_size=1,
        classes=3,
        d_model=8,
        blocks=2,
        norm="layer",
        key=jax.random.key(0),
    )


def configured(**compression):
    config = preset("mamba", "digits", "small")
    return replace(config, compression=CompressionConfig(**compression))


@pytest.fixture
def split():
    rng = np.random.default_rng(0)
    inputs = rng.standard_normal((6, 16, 1), np.float32)
    return Split(inputs, rng.integers(0, 3, 6).astype(np.int32))


def test_selective_layers_are_planned_by_data_and_resumed_at_their_size(model, split):
    reduction = Reduction(configured(mode="fixed", rank=3), split)
    planned = reduction.plan(*model, policy=Ranks(3))
    small, _ = compress(model[0], plan=planned)
    shapes = resized(eqx.filter(model[0], eqx.is_array), [3, 3])
    assert jax.tree.structure(shapes) == jax.tree.structure(eqx.filter(small, eqx.is_array))
    assert [x.shape for x in jax.tree.leaves(shapes)] == [
        x.shape for x in jax.tree.leaves(eqx.filter(small, eqx.is_array))
    ]
    after = [block.ssm for block in small.blocks]
    (first, _) = reduction.certificates(planned, after)
    assert first == {"bound": None, "sigma_next": None, "error": None, "holds": None}


def test_what_selective_layers_do_is_kept_and_followed_through_a_shrink(model, split, tmp_path):
    reduction = Reduction(configured(), split)
    planned = reduction.plan(*model, policy=Ranks(3))
    small, _ = compress(model[0], plan=planned)
    for step, now in enumerate((model[0], small)):
        save_systems(tmp_path, step, now, model[1], reduction)
    (_, whole), (_, cut) = read_systems(tmp_path / "systems")
    assert [system.H.shape[1] for k in range(2) for system in (whole[k], cut[k])] == [8, 3, 8, 3]
    if isinstance(small.blocks[0].ssm, Mamba):  # else they are weighed state by state
        np.testing.assert_allclose(values(whole[1]), planned.layers[1].sigma, rtol=1e-5)
    (move,) = moves_of(tmp_path, layer=1)
    assert move.largest <= move.bound * (1 + 1e-9)
    assert len(move.found.rank) <= 3


def test_other_methods_say_that_selective_layers_need_data(model, split):
    reduction = Reduction(configured(method="real"), split)
    with pytest.raises(ValueError, match=r"`method` must be Data.* for blocks\[0\].ssm"):
        reduction.plan(*model, Tolerance(0.1))


@pytest.mark.parametrize(
    ("length", "lengths", "states", "count"),
    [
        (1344, None, 64, 16),  # 4096 samples
        (784, None, 256, 32),  # 16 384
        (64, None, 64, 50),  # all there are
        (1344, 128, 64, 32),
    ],
)
def test_layers_are_watched_by_as_many_samples_as_moments_take(length, lengths, states, count):
    inputs = np.arange(50, dtype=np.float32)[:, None, None] * np.ones((1, length, 1), np.float32)
    own = None if lengths is None else np.full(50, lengths, np.int32)
    some = watched_split(Split(inputs, np.zeros(50, np.int32), lengths=own), states)
    rows = some.inputs[:, 0, 0]
    assert len(rows) == len(set(rows)) == count
    assert rows[-1] >= 50 - -(-50 // count)  # spread over all of them


def test_a_cut_after_training_fits_selective_layers_as_one_in_training_does(tmp_path, no_reports):
    trained, out = tmp_path / "trained", tmp_path / "cut"
    options = "--model mamba --task digits --compression.mode none --steps 2 --layer.d-state 6"
    options += " --network.d-model 4 --network.blocks 1 --loop.steps-per-dispatch 1"
    command = parse_command([*options.split(), "--out", str(trained)])
    execute(command, Console(file=io.StringIO()))
    compression = CompressionConfig(mode="fixed", rank=3, calibration=8)
    task = load_task(command.config.task, command.config.data)
    cut_run(trained, task, out, compression)

    run = restored_run(trained, task)
    config = replace(run.config, compression=compression)
    reduction = Reduction(config, calibration_split(config, task.splits["train"]))
    fitted, plain = (
        compress(
            run.model,
            plan=reduction.plan(run.model, run.state.norm_state, Ranks(3), refit=refit),
        )[0]
        for refit in (None, False)
    )
    found = restored_run(out, task).model
    C = [np.asarray(model.blocks[0].ssm.x_proj.weight) for model in (found, fitted, plain)]
    np.testing.assert_allclose(C[0], C[1], rtol=1e-4, atol=1e-6)
    assert np.abs(C[0] - C[2]).max() > 1e-4


MAPS = {
    "mamba2": (lambda layer: layer.B_map, "--layer.headdim 4"),
    "gated_deltanet": (lambda layer: layer.qkv.maps.k, "--layer.heads 1"),
}


@pytest.mark.parametrize("name", ["mamba2", pytest.param("gated_deltanet", marks=pytest.mark.slow)])
def test_a_run_whose_layers_get_maps_is_saved_and_restored(name, tmp_path, no_reports):
    (of_layer, more), out = MAPS[name], tmp_path / "run"
    options = f"--model {name} --task mqar --steps 6 --layer.d-state 6 {more}"
    options += " --network.d-model 8 --network.blocks 1 --loop.steps-per-dispatch 1 --batch-size 4"
    options += " --data.pairs 2 --data.length 12 --data.vocabulary 8 --data.train 20"
    options += " --data.validation 8 --data.test 8 --compression.maps True"
    options += " --compression.mode fixed --compression.rank 3 --compression.shrinks 2"
    options += " --compression.start 0.2 --compression.window 0.5 --compression.calibration 8"
    command = parse_command([*options.split(), "--out", str(out)])
    execute(command, Console(file=io.StringIO()))
    task = load_task("mqar", command.config.data)
    run = restored_run(out, task)
    layer = run.model.blocks[0].ssm
    found = of_layer(layer)
    assert found.shape == (1, 6, 3)
    assert layer.d_state == 3
    adam = run.state.opt_state.inner_states["rest"].inner_state[0]
    assert of_layer(adam.nu.blocks[0].ssm).shape == (1, 6, 3)
    finished = load_run(out)
    np.testing.assert_array_equal(of_layer(finished.model.blocks[0].ssm), found)
    saved = load_run(finished.save(tmp_path / "saved"))
    np.testing.assert_array_equal(of_layer(saved.model.blocks[0].ssm), found)
    again = cut_run(out, task, tmp_path / "cut", CompressionConfig(mode="fixed", rank=2))
    assert again["layers"][0]["after"] == 2
