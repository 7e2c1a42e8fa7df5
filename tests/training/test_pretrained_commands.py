"""Large pretrained models: little in memory, nothing lost when interrupted, text in and out."""

import io
import json

import equinox as eqx
import jax
import numpy as np
import pytest
from rich.console import Console

from compress.model.record import record
from compress.model.record_blocks import record_blocks
from training.commands.calibration import AT_ONCE, Recordings
from training.commands.generate import continued
from training.commands.shrink import (
    bits_per_token,
    judge_language_model,
    read_tokens,
    shrink_language_model,
)
from training.reporting.bars import progress_bars
from zoo import Mamba, Mamba2, language_model
from zoo.pretrained import load, save
from zoo.pretrained.text import ByteText, copy_text_files, text_of

MAKERS = {
    "mamba": lambda key: Mamba.init(8, 4, key=key),
    "mamba2": lambda key: Mamba2.init(8, 4, key=key, headdim=4),
}


def model_of(kind, seed=0):
    return language_model(
        MAKERS[kind],
        vocabulary=256,
        d_model=8,
        blocks=2,
        dropout=0.1,
        key=jax.random.key(seed),
    )[0]


TEXT = np.random.default_rng(0).integers(0, 256, 800).astype(np.int32)
BATCH = TEXT[: 5 * 12].reshape(5, 12)


def no_progress(done, total, what):
    pass


@pytest.mark.parametrize("kind", MAKERS)
def test_block_by_block_is_recorded_what_the_whole_model_shows(kind):
    model = model_of(kind)
    inputs, gradients = record((model, eqx.nn.State(model)), BATCH, gradients=True)
    found = record_blocks(model, BATCH, jax.random.split(jax.random.key(0), len(BATCH)))
    for k, layer in enumerate(found):
        path = f"[0].blocks[{k}].ssm"
        np.testing.assert_allclose(layer.inputs, inputs[path], atol=1e-6)
        np.testing.assert_allclose(layer.gradients, gradients[path], rtol=1e-4, atol=1e-6)


def test_recordings_go_on_where_they_were_interrupted(tmp_path):
    model, seen = model_of("mamba"), []

    def interrupted(done, total, what):
        seen.append(done)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Recordings(tmp_path / "a", model, BATCH).complete(interrupted)
    again = Recordings(tmp_path / "a", model, BATCH)
    assert again.done == AT_ONCE
    again.complete(lambda done, *_: seen.append(done))
    assert seen == [2, 4, 5]
    whole = Recordings(tmp_path / "b", model, BATCH)
    whole.complete(no_progress)
    for part in ("inputs", "gradients"):
        for path, kept in whole.arrays(part).items():
            assert kept.shape == (5, 12, 8)
            np.testing.assert_array_equal(np.asarray(again.arrays(part)[path]), np.asarray(kept))
    assert Recordings(tmp_path / "b", model_of("mamba", 1), BATCH).done == 0
    assert Recordings(tmp_path / "b", model, BATCH + 1).done == 0


def test_a_text_of_any_size_is_weighed_on_what_is_looked_at(monkeypatch, tmp_path):
    """And the folder of an interrupted run leads to the same plan."""
    model, seen = model_of("mamba"), []

    class Counted(Recordings):
        def __init__(self, folder, model, batch):
            seen.append(len(batch))
            super().__init__(folder, model, batch)

    monkeypatch.setattr("training.commands.shrink.Recordings", Counted)
    monkeypatch.setattr("training.commands.shrink.SAMPLES", 60)
    given = {"rank": 2, "length": 12, "judged": 2, "generated": 4}
    monkeypatch.setattr("training.commands.shrink.SEQUENCES", 3)
    told = []
    first = shrink_language_model(
        model, TEXT, sequences=100_000, work=tmp_path, progress=lambda *x: told.append(x), **given
    )
    assert seen == [10]
    assert {what for _, _, what in told} == {
        "recording sequences",
        "weighing layers",
        "cutting layers",
        "judging the model",
        "judging the smaller model",
    }
    cuts = [(done, total) for done, total, what in told if what == "cutting layers"]
    assert cuts == [(k + 1, len(model.blocks)) for k in range(len(model.blocks))]
    told.clear()
    second = shrink_language_model(
        model, TEXT, sequences=100_000, work=tmp_path, progress=lambda *x: told.append(x), **given
    )
    assert "recording sequences" not in {what for _, _, what in told}
    assert eqx.tree_equal(first.model, second.model)


def test_a_model_is_judged_without_a_cut():
    model = model_of("mamba")
    bits = judge_language_model(model, TEXT, length=24)
    assert bits == pytest.approx(bits_per_token(model, TEXT[: 32 * 25].reshape(32, 25)), rel=1e-6)
    with pytest.raises(ValueError, match=r"the text must have 25 tokens or more, .*got 5"):
        judge_language_model(model, TEXT[:5], length=24)


def test_pieces_of_text_join_to_what_was_written():
    """Characters of several bytes are shown when they are whole."""
    model = model_of("mamba")
    pieces = list(continued(model, ByteText(), "na\u00efve", tokens=37, temperature=1.0, seed=3))
    assert len(pieces) >= 1
    again = "".join(continued(model, ByteText(), "na\u00efve", tokens=37, temperature=1.0, seed=3))
    assert "".join(pieces) == again
    for bad, message in (({"prompt": ""}, "one token or more"), ({"tokens": 0}, "1 or more")):
        given = {"prompt": "a", "tokens": 2} | bad
        with pytest.raises(ValueError, match=message):
            list(continued(model, ByteText(), given.pop("prompt"), **given))


def test_text_goes_through_the_tokenizer_of_the_checkpoint(tmp_path):
    pytest.importorskip("tokenizers")
    words = ["[UNK]", "the", "state", "is", "small"]
    tokenizer = {
        "version": "1.0",
        "pre_tokenizer": {"type": "Whitespace"},
        "model": {
            "type": "WordLevel",
            "vocab": {word: k for k, word in enumerate(words)},
            "unk_token": "[UNK]",
        },
    }
    (tmp_path / "tokenizer.json").write_text(json.dumps(tokenizer))
    text = text_of(tmp_path, 300)
    assert text.encode("the state is small").tolist() == [1, 2, 3, 4]
    assert text.decode([1, 2, 3]) == "the state is"
    (tmp_path / "text").write_text("the state is large")
    assert read_tokens(5, text=tmp_path / "text", reader=text).tolist() == [1, 2, 3, 0]
    with pytest.raises(ValueError, match=r"must be from 0 to 2, got 0 to 3"):
        read_tokens(3, text=tmp_path / "text", reader=text)
    (tmp_path / "copy").mkdir()
    copy_text_files(tmp_path, tmp_path / "copy")
    assert text_of(tmp_path / "copy", 300).encode("small").tolist() == [4]
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(ValueError, match=r"tokenizer\.json must be a tokenizer"):
        text_of(tmp_path, 300)
    with pytest.raises(ValueError, match="only one of 256 is read as bytes"):
        text_of(tmp_path / "nothing", 300)


def test_commands_read_a_folder_and_say_what_is_wrong(tmp_path, capsys):
    import runpy
    from pathlib import Path

    def run(script, *options):
        main = runpy.run_path(str(Path(__file__).parents[2] / "scripts" / script))["main"]
        return main([str(option) for option in options]), capsys.readouterr()

    save(tmp_path / "model", model_of("mamba"))
    (tmp_path / "text").write_bytes(bytes(TEXT.astype(np.uint8)))
    folder = ("--checkpoint", tmp_path / "model")
    code, said = run("generate.py", *folder, "--prompt", "ab", "--tokens", 3)
    assert (code, said.out[:2]) == (0, "ab")
    code, said = run("perplexity.py", *folder, "--text", tmp_path / "text", "--length", 24)
    assert code == 0
    assert "perplexity" in said.out
    code, said = run("generate.py", *folder, "--prompt", "ab", "--temperature", "-1")
    assert (code, "`temperature` must be" in said.err) == (2, True)
    out = (
        "--rank",
        2,
        "--length",
        12,
        "--sequences",
        4,
        "--generate",
        3,
        "--out",
        tmp_path / "out",
    )
    code, said = run("shrink.py", *folder, "--text", tmp_path / "text", *out)
    assert code == 0, said.err
    assert {block.ssm.d_state for block in load(tmp_path / "out").blocks} == {2}
    assert not (tmp_path / "out.partial").exists()


def test_long_work_says_now_and_then_how_far_it_is_and_what_is_left():
    times, out = iter(range(0, 1000, 6)), io.StringIO()
    console = Console(file=out, width=100)
    with progress_bars(console, lambda: next(times)) as progress:
        for done in range(1, 11):
            progress(done, 10, "weighing")
    lines = out.getvalue().splitlines()
    assert lines[0] == "weighing: 1 of 10"
    assert lines[-1] == "weighing: 10 of 10"
    assert len(lines) == 6
    assert all(line.endswith("left") for line in lines[1:-1])
