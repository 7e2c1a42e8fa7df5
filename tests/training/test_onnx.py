"""The streaming step as ONNX gives the numbers of the stream."""

import numpy as np
import pytest

from training.finished.export import export_step

pytest.importorskip("onnx")
runtime = pytest.importorskip("onnxruntime")

CASES = [
    ("classification", "lru", {"norm": "batch"}),
    ("regression", "s5", {"norm": "layer"}),
    ("forecast", "lru", {"norm": "batch", "recent": 3}),
    ("classification", "mamba", {"norm": "rms"}),
    ("regression", "mamba2", {"norm": "rms"}),
]


@pytest.mark.parametrize(("kind", "model", "network"), CASES)
def test_the_step_gives_the_numbers_of_the_stream(kind, model, network, made, tmp_path):
    run = made(kind, model, **network)
    page = export_step(run, tmp_path / "step.onnx")
    session = runtime.InferenceSession(
        str(tmp_path / "step.onnx"), providers=["CPUExecutionProvider"]
    )
    given = session.get_inputs()
    names = [each.name for each in session.get_outputs()]
    assert all(f"`{each.name}`" in page.read_text() for each in given)
    carried = {each.name: np.zeros(each.shape, np.float32) for each in given[:-1]}
    stream = run.stream()
    carry = stream.init_state()
    for sample in run.task.splits["test"].inputs[0]:
        carry, wanted = stream.step(carry, sample)
        found = dict(zip(names, session.run(None, {**carried, "inputs": sample}), strict=True))
        np.testing.assert_allclose(found.pop("outputs"), wanted, atol=1e-5)
        carried = {f"{name}.in": value for name, value in found.items()}


def test_what_is_no_stream_of_real_numbers_is_refused(made, tmp_path):
    for run, message in (
        (made("language", norm="rms"), "models of real inputs, got one of tokens"),
        (made("classification", bidirectional=True), "Bidirectional"),
    ):
        with pytest.raises(ValueError, match=message):
            export_step(run, tmp_path / "step.onnx")
    assert not list(tmp_path.iterdir())
