"""Runs in half precision: they shrink, resume, and report as others do."""

import io
import shutil
from dataclasses import replace

import equinox as eqx
import jax
import numpy as np
import pytest
from rich.console import Console

import training
from training.commands.train import execute
from training.model.network import layer_sizes
from training.settings.command import Command, parse_command
from training.settings.errors import UsageError

pytestmark = pytest.mark.usefixtures("no_reports")


def run(config, folder, resume=False):
    execute(Command(config, folder, resume), Console(file=io.StringIO(), width=200))
    return training.load_run(folder)


@pytest.mark.parametrize(
    "model", ["lru", *(pytest.param(name, marks=pytest.mark.slow) for name in ("s5", "mamba"))]
)
def test_a_run_shrinks_and_resumes(model, small, tmp_path):
    config = replace(small(model), precision="bf16")
    whole = run(config, tmp_path / "run")
    assert layer_sizes(whole.model) == [4, 4]
    leaves = jax.tree.leaves(eqx.filter(whole.model, eqx.is_inexact_array))
    assert {str(x.dtype) for x in leaves} == {"float32"}
    assert "precision: bf16" in (tmp_path / "run" / "config.yaml").read_text()

    (tmp_path / "run" / "summary.json").unlink()
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "24")
    again = run(config, tmp_path / "run", resume=True)
    after = jax.tree.leaves(eqx.filter(again.model, eqx.is_inexact_array))
    for a, b in zip(after, leaves, strict=True):
        np.testing.assert_array_equal(a, b)


def test_the_option_is_read_and_refused():
    assert parse_command(["--precision", "bf16"]).config.precision == "bf16"
    assert parse_command(["--precision", "bf16-systems"]).config.precision == "bf16-systems"
    assert parse_command([]).config.precision == "float32"
    with pytest.raises(UsageError, match="must be one of float32, bf16, bf16-systems, got"):
        parse_command(["--precision", "half"])
