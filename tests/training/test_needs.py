"""What is too large for the machine is named before anything of it is made."""

from dataclasses import replace

import pytest

from compress import Data, WhiteNoise
from data import load_task
from training.model.needs import available_bytes, check_parameters
from training.model.network import check_model
from training.settings.command import parse_command
from training.settings.presets import preset


@pytest.fixture(scope="module")
def digits():
    return load_task("digits")


@pytest.mark.parametrize("model", ["lru", "s5", "mamba", "mamba2"])
@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("layer.d-state", 9_999_999_999),
        ("layer.d-state", 1_000_000),
        ("network.d-model", 2_000_000_000),
        ("loop.evaluation-batch", 2_000_000_000),
        ("loop.steps-per-dispatch", 2_000_000_000),
    ],
)
def test_the_setting_that_takes_too_much_memory_is_named(digits, model, option, value):
    line = f"--model {model} --task digits --compression.mode none --{option} {value}"
    config = parse_command(line.split()).config
    with pytest.raises(ValueError, match=rf"`{option.replace('-', '_')}` must be small enough"):
        check_model(config, digits)


def test_a_large_model_is_counted_before_it_is_made(digits):
    line = "--model mamba --task digits --layer.expand 1000000000"
    with pytest.raises(ValueError, match=r"got \d+ parameters, which take \d+\.\d GB in training"):
        check_model(parse_command(line.split()).config, digits)
    check_parameters(available_bytes() // 16)
    with pytest.raises(ValueError, match="must be small enough"):
        check_parameters(available_bytes() // 16 + 1)


def test_a_method_that_is_given_is_judged_in_the_place_of_the_configured_one(digits):
    config = preset("mamba", "digits", "small")
    paper = replace(config, compression=replace(config.compression, method="paper"))
    with pytest.raises(ValueError, match=r"`compression.method` must be data .*got 'paper'"):
        check_model(paper, digits)
    check_model(paper, digits, Data(batch=digits.splits["train"].inputs[:2]))
    with pytest.raises(ValueError, match=r"`method` must be Data.*got WhiteNoise\(form='real'\)"):
        check_model(config, digits, WhiteNoise())
