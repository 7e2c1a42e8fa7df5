"""The report of a run: one self-contained HTML page.

It is made from the files in the run's directory: `metrics.jsonl` (the events of
`training.reporting.events`) and, where they are there, `summary.json`, `config.yaml` and
`environment.json`. An interrupted run lacks some of them. Its report says what is missing and shows
the rest.

`summary.json` may hold: task, kind, model, seed, total_steps, parameters_before, parameters_after,
test {loss, and the measures of the kind by their keys}, validation {the same}, baselines {name:
value of the first measure}, tables {split: sequences by class and answer}, output_names [what the
classes are called], sample (text that a language model wrote), layers [{path, before,
after}], seconds {total, train, compile, evaluate, shrink, spectra, host, data, checkpoint},
host_share (of the wall time in which the device neither trained nor evaluated), data_share (of the
time of the training steps in which the device waited for their batches),
phases [{from_step, to_step, d_state [one for each layer], width [the same of its programs],
steps_per_second}]. The keys of `environment.json` are free: each becomes a line of the summary.
"""

from pathlib import Path
from typing import Any

from ..settings.errors import as_written
from .classes import classes_section
from .events import write_atomically
from .figures import all_plates
from .history import History, read_json
from .looks import left_whole, looks_section
from .page import cards, commands, details, dump, escape, page, plate_section, section
from .shrink_table import shrink_table
from .summary import facts_section, layers_section
from .verdict import verdict_of


def write_report(run_dir: Path) -> Path:
    """Writes `report.html` into the run directory and returns its path.

    Raises `FileNotFoundError` if there is no `metrics.jsonl`, and `ValueError`, naming the file, if
    one of the files cannot be read as what it should be. A report that is already there is replaced
    in one move.
    """
    history = History.from_directory(run_dir)
    config = _text(run_dir / "config.yaml")
    environment = read_json(run_dir / "environment.json")
    path = run_dir / "report.html"
    with as_written(run_dir / "metrics.jsonl"):
        content = _page(history, config, environment)
    write_atomically(path, content)
    return path


def _page(history: History, config: str | None, environment: Any) -> str:
    """The page."""
    plates = all_plates(history)
    sections = [
        f"<h1>{escape(history.title)}</h1>",
        f'<p class="lead">{escape(_lead(history))}</p>',
        _state_of_run(history),
        _verdict(history),
        *(plate_section(name, plate) for name, plate in plates.items()),
        looks_section(history),
        shrink_table(history),
        layers_section(history),
        classes_section(history),
        _sample(history),
        section("Next", commands(next_commands(history))),
        facts_section(history, environment),
        section(
            "Configuration and environment",
            details("config.yaml", config) + details("environment.json", dump(environment)),
        ),
    ]
    return page(history.title, sections, plates)


def next_commands(history: History) -> list[tuple[str, str]]:
    """Commands for the next steps with the run. RUN stands for its directory."""
    if not history.finished:
        return [("Resume the run", ".venv/bin/python scripts/train.py --resume RUN")]
    entries = []
    if history.sizes_after:
        rank = max(1, max(history.sizes_after) // 2)
        command = f".venv/bin/python scripts/cut.py --run RUN --rank {rank} --out RUN-{rank}"
        entries.append((f"Cut the trained model to {rank} states in each layer", command))
    given = {
        "Predict for the sequences in a file": (
            "predict.py --run RUN --data new.npz --out predictions.csv"
        ),
        "Export it as a program that needs no Python": "export.py --run RUN --out model.stablehlo",
        "Compare it with another run": "compare.py RUN runs/OTHER --out comparison.html",
    }
    return entries + [(what, f".venv/bin/python scripts/{how}") for what, how in given.items()]


def _text(path: Path) -> str | None:
    return path.read_text(encoding="utf-8", errors="replace") if path.exists() else None


def _lead(history: History) -> str:
    if not history.cuts:
        if whole := left_whole(history):
            return whole
        if history.shrinks:
            return "Shrinking was tried while the model trained, and nothing was cut."
        return "The model was trained without shrinking."
    before, after = sum(history.sizes_before), sum(history.sizes_after)
    times = "once" if len(history.cuts) == 1 else f"{len(history.cuts)} times"
    trained = history.cuts[0]["step"] == history.total_steps
    when = "after its training" if trained else f"{times} while it trained"
    share = f"{100 * after / max(1, before):.0f} %"
    return f"The model was cut {when}, from {before} states to {after} ({share})."


def _state_of_run(history: History) -> str:
    if history.finished and history.test is not None:
        return ""
    of = f" of {history.total_steps}" if history.total_steps is not None else ""
    if not history.finished:
        what = f"This run has not finished: it stands at step {history.last_step}{of}."
    else:
        what = "This run has finished."
    label = history.objective.measure.label
    missing = "" if history.test is not None else f" The test {label} has not been measured."
    return f'<p class="note">{escape(what + missing)}</p>'


def _verdict(history: History) -> str:
    found = verdict_of(history)
    content = f"<p>{escape(found.sentence)}</p>" + cards(found.entries)
    return section("Verdict", content, f"verdict {found.kind}")


def _sample(history: History) -> str:
    """The sample of text from a language model."""
    sample = history.summary.get("sample")
    if not sample:
        return ""
    caption = (
        "The beginning of the test text, and what the model wrote after it, each token drawn from "
        "its predictions."
    )
    content = f"<pre>{escape(sample)}</pre><figcaption>{caption}</figcaption>"
    return section("A sample", content)
