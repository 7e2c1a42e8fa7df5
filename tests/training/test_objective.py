"""What models are trained for: the numbers of each kind, and how they are shown."""

import io
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from rich.console import Console
from sklearn.metrics import confusion_matrix, f1_score

from data import Batch, Split, Task
from training.model.objective import OBJECTIVES, Totals
from training.reporting.display import LiveDisplay, PlainDisplay
from training.reporting.report import write_report

B, L = 3, 5
LENGTHS = np.array([5, 2, 3], np.int32)


def logits(getkey, *shape):
    return jax.random.normal(getkey(), shape)


def test_a_classification_counts_sequences(getkey):
    outputs, labels = logits(getkey, B, 4), np.array([0, 3, 1], np.int32)
    batch = Batch(np.zeros((B, L, 1), np.float32), labels, LENGTHS)
    totals = OBJECTIVES["classification"].totals(outputs, batch, jnp.array([1.0, 1.0, 0.0]))
    log_p = jax.nn.log_softmax(outputs)
    np.testing.assert_allclose(totals.loss, -log_p[0, 0] - log_p[1, 3], rtol=1e-6)
    assert float(totals.number) == 2
    right = (np.argmax(outputs, axis=-1) == labels)[:2].sum()
    assert float(totals.right) == right


def test_a_regression_counts_the_steps_that_are_no_padding(getkey):
    values, labels = logits(getkey, B, L, 2), np.asarray(logits(getkey, B, L, 2))
    batch = Batch(np.zeros((B, L, 1), np.float32), labels, LENGTHS)
    report = OBJECTIVES["regression"].report(
        OBJECTIVES["regression"].totals(values, batch, jnp.ones(B))
    )
    errors = [np.asarray((values - labels)[k, :n]) ** 2 for k, n in enumerate(LENGTHS)]
    want = np.concatenate(errors).mean()
    np.testing.assert_allclose([report["mse"], report["loss"]], want, rtol=1e-6)


def test_a_language_model_is_judged_in_bits(getkey):
    outputs = jnp.zeros((B, L, 8))
    labels = np.asarray(jax.random.randint(getkey(), (B, L), 0, 8))
    batch = Batch(labels, labels)
    objective = OBJECTIVES["language"]
    report = objective.report(objective.totals(outputs, batch, jnp.ones(B)))
    np.testing.assert_allclose(report["bits_per_character"], 3, rtol=1e-6)
    np.testing.assert_allclose(report["loss"], 3 * np.log(2), rtol=1e-6)
    np.testing.assert_allclose(report["accuracy"], np.mean(labels == 0), rtol=1e-6)


def test_recall_is_judged_where_something_is_asked(getkey):
    outputs = logits(getkey, B, L, 8)
    labels = np.full((B, L), -1, np.int32)
    asked = ([0, 0, 1], [1, 4, 0])
    labels[asked] = [3, 7, 0]
    objective = OBJECTIVES["recall"]
    totals = objective.totals(outputs, Batch(labels, labels), jnp.array([1.0, 1.0, 0.0]))
    log_p = jax.nn.log_softmax(outputs)[asked]
    np.testing.assert_allclose(totals.loss, -log_p[[0, 1, 2], [3, 7, 0]].sum(), rtol=1e-6)
    assert float(totals.number) == 3
    right = np.argmax(np.asarray(outputs), axis=-1)[asked] == [3, 7, 0]
    np.testing.assert_allclose(objective.report(totals)["accuracy"], right.mean())


def test_totals_of_parts_are_those_of_the_whole(getkey):
    objective = OBJECTIVES["language"]
    outputs = logits(getkey, B, L, 8)
    labels = np.asarray(jax.random.randint(getkey(), (B, L), 0, 8))
    batch = Batch(labels, labels, LENGTHS)
    whole = objective.totals(outputs, batch, jnp.ones(B))
    masks = jnp.array([1.0, 0.0, 0.0]), jnp.array([0.0, 1.0, 1.0])
    parts = [objective.totals(outputs, batch, mask) for mask in masks]
    for got, want in zip(jax.tree.map(jnp.add, *parts), whole, strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-6)
    assert float(whole.number) == LENGTHS.sum()
    assert Totals.zero().number == 0


def events(kind):
    """A short run of this kind, whose measures fall from 2 to 0.5."""
    keys = [measure.key for measure in OBJECTIVES[kind].measures]
    layers = [{"path": "blocks[0].ssm", "d_state": 4}]
    yield {
        "event": "start",
        "step": 0,
        "task": "t",
        "kind": kind,
        "model": "s5",
        "seed": 0,
        "total_steps": 20,
        "parameters": 5,
        "length": 7,
        "outputs": 2,
        "baselines": {"silence": 0.75},
        "layers": layers,
    }
    for step, value in ((10, 2.0), (20, 0.5)):
        measured = {"loss": value, **dict.fromkeys(keys, value)}
        rates = {"learning_rate": 1e-3, "learning_rate_ssm": 1e-3, "steps_per_second": 5.0}
        yield {"event": "train", "step": step, **measured, **rates, "d_state": [4], "seconds": step}
        for split in ("validation", "test"):
            times = {"seconds": step, "duration": 1.0}
            yield {"event": "eval", "step": step, "split": split, **measured, **times}
    yield {"event": "end", "step": 20}


NAMES = {"regression": "MSE 0.5", "language": "bits per character 0.5"}


@pytest.mark.parametrize("kind", NAMES)
@pytest.mark.parametrize("display", [PlainDisplay, LiveDisplay])
def test_terminals_name_what_counts(kind, display):
    console = Console(file=io.StringIO(), width=120, force_terminal=display is LiveDisplay)
    with display(console) as shown:
        for event in events(kind):
            shown.write(event)
        if isinstance(shown, LiveDisplay):
            with console.capture() as capture:
                console.print(shown.render())
            panel = capture.get()
            assert "best 0.5" in panel  # lower is better
    text = console.file.getvalue()  # pyright: ignore[reportAttributeAccessIssue]
    assert NAMES[kind] in text
    assert ("accuracy" in text) == (kind == "language")


@pytest.mark.parametrize("kind", NAMES)
def test_reports_name_what_counts(kind, tmp_path):
    (tmp_path / "metrics.jsonl").write_text("\n".join(json.dumps(e) for e in events(kind)) + "\n")
    summary = {
        "kind": kind,
        "sample": "To be <or> not",
        "data_share": 0.0123,
        "seconds": {"total": 9},
    }
    (tmp_path / "summary.json").write_text(json.dumps(summary))
    page = write_report(tmp_path).read_text()
    label = OBJECTIVES[kind].measure.label
    assert f"test {label}" in page
    assert "To be &lt;or&gt; not" in page
    assert "1.23%" in page
    assert "without a model: silence" in page
    assert "75.00 %" not in page


def test_labels_that_are_not_known_do_not_count(getkey):
    values, labels = logits(getkey, B, L, 2), np.asarray(logits(getkey, B, L, 2))
    known = np.asarray(jax.random.bernoulli(getkey(), 0.5, (B, L, 2)))
    batch = Batch(np.zeros((B, L, 1), np.float32), labels, LENGTHS, label_mask=known)
    objective = OBJECTIVES["regression"]
    report = objective.report(objective.totals(values, batch, jnp.ones(B)))
    inside = known & (np.arange(L) < LENGTHS[:, None])[..., None]
    errors = np.asarray(values - labels)[inside]
    np.testing.assert_allclose(report["mse"], np.mean(errors**2), rtol=1e-5)
    np.testing.assert_allclose(report["mae"], np.mean(np.abs(errors)), rtol=1e-5)


def test_values_of_a_sequence_are_judged_one_by_one(getkey):
    values, labels = logits(getkey, B, 4), np.asarray(logits(getkey, B, 4))
    batch = Batch(np.zeros((B, L, 1), np.float32), labels, LENGTHS)
    objective = OBJECTIVES["values"]
    report = objective.report(objective.totals(values, batch, jnp.array([1.0, 1.0, 0.0])))
    want = np.mean(np.asarray(values - labels)[:2] ** 2)
    np.testing.assert_allclose(report["loss"], want, rtol=1e-5)


def task(kind: str, classes: int, labels: np.ndarray, **settings) -> Task:
    split = Split(np.zeros((len(labels), L, 1), np.float32), labels)
    splits = {"train": split, "validation": split, "test": split}
    return Task("t", L, "real", 1, splits, classes=classes, kind=kind, **settings)


def test_macro_f1_is_that_of_scikit_learn(getkey):
    true = np.array([0, 0, 1, 1, 2, 0, 1, 0], np.int32)
    outputs = logits(getkey, 8, 3)
    objective = OBJECTIVES["classification"].of(task("classification", 3, true))
    batch = Batch(np.zeros((8, L, 1), np.float32), true)
    totals = objective.totals(outputs, batch, jnp.ones(8))
    said = np.argmax(outputs, axis=-1)
    np.testing.assert_array_equal(totals.table, confusion_matrix(true, said, labels=[0, 1, 2]))
    np.testing.assert_allclose(
        objective.report(totals)["macro_f1"], f1_score(true, said, average="macro"), rtol=1e-6
    )


def test_several_labels_are_judged_one_by_one(getkey):
    true = np.array([[1, 0, 1], [0, 0, 1], [1, 1, 0], [0, 1, 0]], np.float32)
    outputs = logits(getkey, 4, 3)
    objective = OBJECTIVES["multilabel"].of(task("multilabel", 3, true))
    batch = Batch(np.zeros((4, L, 1), np.float32), true)
    report = objective.report(objective.totals(outputs, batch, jnp.ones(4)))
    said = np.asarray(outputs) > 0
    np.testing.assert_allclose(report["accuracy"], np.mean(said == true), rtol=1e-6)
    np.testing.assert_allclose(
        report["macro_f1"], f1_score(true, said, average="macro", zero_division=0), rtol=1e-6
    )


def test_classes_count_by_their_weights(getkey):
    true, outputs = np.array([0, 1, 1], np.int32), logits(getkey, 3, 2)
    weighted = task("classification", 2, true, class_weights=(3.0, 0.5))
    batch = Batch(np.zeros((3, L, 1), np.float32), true)
    objective = OBJECTIVES["classification"].of(weighted)
    totals = objective.totals(outputs, batch, jnp.ones(3))
    losses = -jax.nn.log_softmax(outputs)[np.arange(3), true]
    np.testing.assert_allclose(totals.loss, (losses * np.array([3, 0.5, 0.5])).sum(), rtol=1e-6)
    plain = OBJECTIVES["classification"].totals(outputs, batch, jnp.ones(3))
    assert float(totals.right) == float(plain.right)  # they weigh in the loss alone
