"""Exported programs give the numbers of the model, and need nothing of ours."""

import subprocess
import sys
from dataclasses import replace

import jax
import jax.export
import numpy as np
import pytest

from compress import Rank
from training.finished.export import export_run
from training.settings.errors import UsageError

pytest.importorskip("flatbuffers")

CASES = [
    ("classification", "lru", {"norm": "batch"}),
    ("classification", "s5", {"norm": "layer", "bidirectional": True}),
    ("regression", "s5", {"norm": "batch"}),
    ("forecast", "lru", {"norm": "batch", "recent": 3}),
    ("timed", "lru", {"norm": "layer"}),
    ("pair", "lru", {"norm": "layer"}),
    ("language", "mamba", {"norm": "rms"}),
    ("language", "mamba2", {"norm": "rms"}),
    ("recall", "deltanet", {"norm": "rms"}),
]

TOLERANCE = 1e-5


def program(file):
    return jax.export.deserialize(bytearray(file.read_bytes()))


def arguments(run):
    split = run.task.splits["test"]
    inputs = split.inputs.astype(np.float32 if run.task.input_kind == "real" else np.int32)
    given = [inputs, split.lengths, split.intervals]
    return [each for each in given if each is not None]


def beginning(step, batch):
    """Zeros for all arguments of the carry, of which there are as many as results but one."""
    arrays = step.in_avals[: len(step.out_avals) - 1]
    return [np.zeros([batch, *x.shape[1:]], x.dtype) for x in arrays]


@pytest.mark.parametrize(("kind", "model", "network"), CASES)
def test_an_exported_program_agrees_with_the_model(kind, model, network, made, tmp_path):
    run = made(kind, model, **network)
    run = replace(run, state=jax.tree.map(lambda x: x + 1, run.state))
    files = export_run(run, tmp_path / "model.stablehlo")
    whole, given = program(files.whole), arguments(run)
    assert whole.platforms == ("cpu", "cuda")
    wanted = run.predict(*given)
    found = np.asarray(whole.call(*given))
    inside = slice(None)
    if kind == "regression":
        inside = np.arange(wanted.shape[1]) < given[1][:, None]
    np.testing.assert_allclose(found[inside], wanted[inside], atol=TOLERANCE)
    if files.step is None:
        assert "does not stream" in files.readme.read_text()
        return
    step, samples = program(files.step), given[0]
    carry = beginning(step, len(samples))
    for t in range(samples.shape[1]):
        interval = [each[:, t] for each in given[2:]]
        *carry, y = step.call(*carry, samples[:, t], *interval)
    last = [k for k, n in enumerate(given[1]) if n == samples.shape[1]] if len(given) > 1 else [0]
    at_the_end = wanted if kind in ("classification", "timed") else wanted[:, -1]
    np.testing.assert_allclose(np.asarray(y)[last], at_the_end[last], atol=TOLERANCE)


FRESH = """
import sys
import numpy as np
import jax
import jax.export

program = jax.export.deserialize(bytearray(open(sys.argv[1], "rb").read()))
with np.load(sys.argv[2]) as given:
    found = program.call(given["inputs"], given["lengths"])
np.save(sys.argv[3], np.asarray(found))
ours = {"zoo", "compress", "data", "training", "equinox"} & set(sys.modules)
assert not ours, ours
"""


def test_a_fresh_process_runs_what_was_exported_before_and_after_a_cut(made, tmp_path):
    whole = made("classification", norm="batch")
    for run in (whole, whole.compressed(whole.plan(Rank(3)))):
        files = export_run(run, tmp_path / "model.stablehlo")
        inputs, lengths = arguments(run)
        more = np.concatenate([inputs, inputs])[:, :7], np.tile(np.minimum(lengths, 7), 2)
        np.savez(tmp_path / "given.npz", inputs=more[0], lengths=more[1])
        places = [files.whole, tmp_path / "given.npz", tmp_path / "found.npy"]
        subprocess.run([sys.executable, "-I", "-c", FRESH, *map(str, places)], check=True)
        found = np.load(tmp_path / "found.npy")
        np.testing.assert_allclose(found, run.predict(*more), atol=TOLERANCE)


def test_what_cannot_be_exported_is_said(made, tmp_path):
    with pytest.raises(UsageError, match=r"--out must end in \.stablehlo"):
        export_run(made("classification"), tmp_path / "model.onnx")
