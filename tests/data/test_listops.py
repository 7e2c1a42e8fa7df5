"""ListOps: the generator against the published procedure, the reader against the authors' file."""

import gzip
import random
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import chi2_contingency, ks_2samp

from data import ListOpsConfig, load_task
from data.builtin.listops.expressions import ExpressionJob
from data.builtin.listops.tokens import CLOSE, END, MIN, VOCABULARY, evaluate, read_tsv, tokenize

SMALL = ListOpsConfig(
    train=60, validation=10, test=20, min_length=10, max_length=60, max_depth=5, workers=1
)


def published_tree(rng: random.Random, depth: int, max_depth: int, max_args: int) -> list[str]:
    """The published procedure, one node at a time."""
    if depth == max_depth or rng.random() > 0.25:
        return [str(rng.choice(range(10)))]
    arguments = [
        word
        for _ in range(rng.randint(2, max_args))
        for word in published_tree(rng, depth + 1, max_depth, max_args)
    ]
    return [rng.choice(["[MIN", "[MAX", "[MED", "[SM"]), *arguments, "]"]


def published(count: int, low: int, high: int, max_depth: int, max_args: int) -> list[np.ndarray]:
    rng, trees = random.Random(0), []
    while len(trees) < count:
        tree = published_tree(rng, 1, max_depth, max_args)
        if low < len(tree) < high:
            trees.append(tokenize(" ".join(tree)))
    return trees


def depths(tokens: np.ndarray) -> int:
    """Operators that are open at once, at most."""
    opens = (tokens >= MIN) & (tokens < CLOSE)
    return int((np.cumsum(opens) - np.cumsum(tokens == CLOSE)).max())


def arities(tokens: np.ndarray) -> list[int]:
    found, stack = [], [0]
    for token in tokens.tolist():
        if MIN <= token < CLOSE:
            stack[-1] += 1
            stack.append(0)
        elif token == CLOSE:
            found.append(stack.pop())
        else:
            stack[-1] += 1
    return found


@pytest.mark.parametrize(
    ("low", "high", "max_depth", "max_args", "count"),
    [(30, 120, 6, 5, 1500), (500, 2000, 10, 10, 150)],
)
def test_expressions_are_distributed_as_published(low, high, max_depth, max_args, count):
    theirs = published(count, low, high, max_depth, max_args)
    ours = ExpressionJob(0, low, high, max_depth, max_args).draw(0, 3 * count).split()
    lengths, depth = ([list(map(f, each)) for each in (theirs, ours)] for f in (len, depths))
    assert ks_2samp(*lengths).pvalue > 0.01
    counts = {
        "tokens": [Counter(np.concatenate(each).tolist()) for each in (theirs, ours)],
        "arguments": [Counter(np.concatenate(list(map(arities, each)))) for each in (theirs, ours)],
        "values": [Counter(map(evaluate, each)) for each in (theirs, ours)],
        "first tokens": [Counter(tokens[0] for tokens in each) for each in (theirs, ours)],
        "depth": [Counter(each) for each in depth],
    }
    for name, (a, b) in counts.items():
        keys = [key for key in a.keys() | b.keys() if a[key] + b[key] > 20]
        p = chi2_contingency([[c[key] for key in keys] for c in (a, b)]).pvalue
        assert p > 1e-3, f"{name} have other frequencies: p = {p}"


def test_shares_are_those_of_the_procedure():
    drawn = ExpressionJob(1, 500, 2000, 10, 10).draw(0, 400)
    assert ((drawn.lengths > 500) & (drawn.lengths < 2000)).all()
    counts = np.bincount(drawn.tokens, minlength=len(VOCABULARY))
    operators = counts[MIN:CLOSE]
    np.testing.assert_allclose(operators / operators.sum(), 0.25, atol=0.01)
    np.testing.assert_allclose(counts[2:MIN] / counts[2:MIN].sum(), 0.1, atol=0.003)
    assert counts[CLOSE] == operators.sum()
    number = np.concatenate(list(map(arities, drawn.split())))
    assert set(number) == set(range(2, 11))
    assert max(map(depths, drawn.split())) <= 9
    share = np.bincount(drawn.labels, minlength=10) / len(drawn.labels)
    assert share.argsort()[-2:].tolist() in ([9, 0], [0, 9])  # minima and maxima of many digits
    assert share.min() > 0.03


def test_the_real_sizes_make_the_real_vocabulary():
    config = ListOpsConfig()
    assert config.length == 2048
    assert len(VOCABULARY) == 17


@pytest.mark.parametrize(
    ("source", "value"),
    [
        ("[MIN 3 2 7 ]", 2),
        ("[MAX 3 2 7 ]", 7),
        ("[MED 1 2 7 ]", 2),
        ("[MED 1 2 7 8 ]", 4),
        ("[MED 3 4 ]", 3),
        ("[SM 8 7 6 ]", 1),
        ("[SM [MAX 1 [MIN 9 8 ] ] [MED 5 5 0 ] 9 ]", 2),
        ("( ( ( [SM 6 ) 5 ) ] )", 1),
        ("4", 4),
    ],
)
def test_values(source, value):
    assert evaluate(tokenize(source)) == value


@pytest.mark.parametrize("source", ["[MIN 3 2", "3 4", "]", "[MIN ]", "", "[MIN 1 2 ] ]"])
def test_what_is_no_expression_has_no_value(source):
    with pytest.raises(ValueError, match="an expression must"):
        evaluate(tokenize(source))


def test_no_two_expressions_are_alike_and_none_is_lost(tmp_path):
    heard = []
    task = load_task("listops", SMALL, cache_dir=tmp_path, progress=lambda *a: heard.append(a))
    assert {name: len(split) for name, split in task.splits.items()} == {
        "train": 60,
        "validation": 10,
        "test": 20,
    }
    rows = [row.tobytes() for split in task.splits.values() for row in split.inputs]
    assert len(set(rows)) == 90
    assert heard[-1] == (90, 90, "writing ListOps expressions")
    for split in task.splits.values():
        assert split.lengths is not None
        for row, length, label in zip(split.inputs, split.lengths, split.labels, strict=True):
            assert row[length - 1] == END
            assert not row[length:].any()
            assert evaluate(row[: length - 1]) == label
            assert 10 < length - 1 < 60
    assert (task.length, task.input_size, task.classes) == (64, 17, 10)


def test_duplicates_are_drawn_anew(tmp_path):
    config = ListOpsConfig(
        train=300, validation=20, test=20, min_length=0, max_length=10, max_depth=2, workers=1
    )
    task = load_task("listops", config, cache_dir=tmp_path)
    rows = {row.tobytes() for split in task.splits.values() for row in split.inputs}
    assert len(rows) == 340


def test_lengths_out_of_reach_are_refused():
    with pytest.raises(ValueError, match="min_length must be below 122, the longest with max_dep"):
        ListOpsConfig(max_depth=3)


def test_lengths_that_next_to_no_tree_has_end_the_search(monkeypatch):
    monkeypatch.setattr("data.builtin.listops.expressions._ROUNDS", 2)
    with pytest.raises(ValueError, match="allow too few expressions: 40000 trees gave none"):
        ExpressionJob(0, min_length=1200, max_length=1300, max_depth=4, max_args=10).draw(0, 1)


def test_what_cannot_be_found_is_said(tmp_path):
    few = ListOpsConfig(
        train=10**6, validation=1, test=1, min_length=0, max_length=10, max_depth=2, max_args=2
    )
    with pytest.raises(
        ValueError, match=r"allow too few expressions: 410 different ones were found"
    ):
        load_task("listops", few, cache_dir=tmp_path)


def test_expressions_depend_on_the_seed_and_not_on_the_workers(tmp_path):
    config = dict(vars(SMALL), train=2500)
    tasks = [
        load_task("listops", ListOpsConfig(**config | change), cache_dir=tmp_path / str(i))
        for i, change in enumerate(({"workers": 1}, {"workers": 2}, {"seed": 1}))
    ]
    one, two, other = (task.splits["train"].inputs for task in tasks)
    assert np.array_equal(one, two)
    assert not np.array_equal(one, other)


@pytest.fixture
def release(tmp_path: Path) -> Path:
    folder = tmp_path / "listops-1000"
    folder.mkdir()
    for name, count in (("train", 30), ("val", 5), ("test", 6)):
        lines = [
            f"( ( ( [{op} {i % 7} ) {i % 10} ) ] )\t{value}\n"
            for i in range(count)
            for op, value in [("MAX", max(i % 7, i % 10))]
        ]
        (folder / f"basic_{name}.tsv").write_text("Source\tTarget\n" + "".join(lines))
    return folder


def test_the_official_files_are_read_in_full(release, tmp_path):
    task = load_task("listops", data_dir=release.parent, cache_dir=tmp_path / "cache")
    assert {name: len(split) for name, split in task.splits.items()} == {
        "train": 30,
        "validation": 5,
        "test": 6,
    }
    assert task.length == 2048
    assert "the files hold 30 of the 96000 train samples" in task.notes
    split = task.splits["test"]
    assert split.lengths is not None
    assert sorted(split.labels.tolist()) == [0, 1, 2, 3, 4, 5]
    assert set(split.lengths) == {5}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("( ( ( [MAX 3 ) 5 ) ] )\t4", "must have the value of its expression, 5, got 4"),
        ("( ( ( [MAX 3 ) 5 ) ] )\t11", "must have a value from 0 to 9, got '11'"),
        ("( ( ( [MAX 3 ) 5 ) ] )", "must have 2 columns, got 1"),
        ("( ( ( [MUX 3 ) 5 ) ] )\t5", r"words must be ListOps', got '\[MUX'"),
        ("( ( ( [MAX 3 ) 5 ) )\t5", "no open operator, got 0 and 1"),
    ],
)
def test_a_damaged_line_is_named(release, tmp_path, line, message):
    path = release / "basic_val.tsv"
    path.write_text("\n".join([*path.read_text().splitlines()[:3], line]) + "\n")
    with pytest.raises(ValueError, match=message) as caught:
        load_task("listops", data_dir=release, cache_dir=tmp_path / "cache")
    assert f"{path}, line 4" in str(caught.value)
    assert not list(tmp_path.rglob("dataset_info.json"))


def test_a_file_that_is_cut_in_half_is_named(release, tmp_path):
    path = release / "basic_test.tsv"
    whole = gzip.compress(path.read_bytes() + bytes(np.random.default_rng(0).bytes(3000)))
    path.unlink()
    cut = release / "basic_test.tsv.gz"
    cut.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"must be plain ASCII|cut short") as caught:
        load_task("listops", data_dir=release, cache_dir=tmp_path / "cache")
    assert str(cut) in str(caught.value)


def test_a_missing_file_is_named(release, tmp_path):
    (release / "basic_val.tsv").unlink()
    with pytest.raises(FileNotFoundError, match=r"has no basic_val\.tsv .*lra_release"):
        load_task("listops", data_dir=release, cache_dir=tmp_path)


def test_the_original_authors_values_are_right(raw):
    samples = list(read_tsv(raw("listops") / "test_d20s.tsv.gz"))
    assert len(samples) == 10_000
    labels = np.bincount([label for _, label in samples], minlength=10)
    assert labels.min() > 500
    used = np.bincount(np.concatenate([tokens for tokens, _ in samples]), minlength=17)
    assert (used[2:] > 0).all()
