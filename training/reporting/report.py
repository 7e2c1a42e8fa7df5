"""The report of a run: one HTML page that needs nothing else.

It is made from the files in the run's directory: `metrics.jsonl` (the events of
`training.reporting.events`) and, where they are there, `summary.json`, `config.yaml` and
`environment.json`. A run that was interrupted lacks some of them; its report says what is missing
and shows the rest.

`summary.json` may hold: task, kind, model, seed, total_steps, parameters_before, parameters_after,
test {loss, and the measures of the kind by their keys}, validation {the same}, baselines {name:
value of the first measure}, sample (text that a language model wrote), layers [{path, before,
after}], seconds {total, train, compile, evaluate, shrink, spectra, host, data, checkpoint},
host_share (of the wall time in which the device neither trained nor evaluated), data_share (of the
time of the training steps in which the device waited for their batches),
phases [{from_step, to_step, d_state [one for each layer], width [the same of its programs],
steps_per_second}]. The keys of `environment.json` are free: each becomes a line of the summary.
"""

from pathlib import Path

from .events import write_atomically
from .figures import all_plates
from .history import History, read_json
from .looks import left_whole, looks_section
from .page import STYLE, details, dump, escape, format_short, table
from .summary import summary_section
from .words import format_seconds


def write_report(run_dir: Path) -> Path:
    """Writes `report.html` into the run directory and returns its path.

    Raises `FileNotFoundError` if there is no `metrics.jsonl`, and `ValueError`, naming the file, if
    one of the files cannot be read as what it should be. A report that is already there is replaced
    in one move.
    """
    history = History.from_directory(run_dir)
    config = _text(run_dir / "config.yaml")
    environment = read_json(run_dir / "environment.json")
    title = history.title
    body = [
        f"<h1>{escape(title)}</h1>",
        f'<p class="lead">{escape(_lead(history))}</p>',
        _state_of_run(history),
        _cards(history),
        summary_section(history, environment),
    ]
    for plate in all_plates(history):
        body.append(
            f"<section><h2>{escape(plate.heading)}</h2><figure>{plate.svg}"
            f"<figcaption>{escape(plate.caption)}</figcaption></figure></section>"
        )
    body.append(looks_section(history))
    body.append(_shrink_table(history))
    body.append(_sample(history))
    body.append(
        "<section><h2>Configuration and environment</h2>"
        + details("config.yaml", config)
        + details("environment.json", dump(environment))
        + "</section>"
    )
    page = (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head>\n<body><main>\n"
        + "\n".join(part for part in body if part)
        + "\n</main></body></html>\n"
    )
    path = run_dir / "report.html"
    write_atomically(path, page)
    return path


def _text(path: Path) -> str | None:
    return path.read_text(encoding="utf-8", errors="replace") if path.exists() else None


def _lead(history: History) -> str:
    parts = []
    if history.cuts:
        before, after = sum(history.sizes_before), sum(history.sizes_after)
        times = "once" if len(history.cuts) == 1 else f"{len(history.cuts)} times"
        trained = history.cuts[0]["step"] == history.total_steps
        when = "after its training" if trained else f"{times} while it trained"
        parts.append(
            f"The model was cut {when}, "
            f"from {before} states to {after} ({100 * after / max(1, before):.0f} %)."
        )
    elif whole := left_whole(history):
        parts.append(whole)
    elif history.shrinks:
        parts.append("Shrinking was tried while the model trained, and nothing was cut.")
    else:
        parts.append("The model was trained without shrinking.")
    return " ".join(parts)


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


def _cards(history: History) -> str:
    test, validation = history.test, history.validation
    measure = history.objective.measure
    cards: list[tuple[str, str, str]] = []  # value, label, kind
    if test is not None:
        cards.append((measure.show(test.get(measure.key)), f"test {measure.label}", ""))
    elif validation is not None:
        label = f"validation {measure.label} (no test {measure.label} yet)"
        cards.append((measure.show(validation.get(measure.key)), label, ""))
    for name, value in history.baselines.items():
        cards.append((measure.show(value), f"without a model: {name}", " plain"))
    before, after = sum(history.sizes_before), sum(history.sizes_after)
    if history.sizes_before:
        cards.append((f"{before} → {after}" if after != before else str(before), "states", ""))
    speeds = [phase["steps_per_second"] for phase in history.phases if phase["steps_per_second"]]
    if len(speeds) > 1 and speeds[0] and speeds[-1]:
        cards.append((f"{speeds[-1] / speeds[0]:.2f} x", "speed at the end, start = 1", ""))
    if history.seconds.get("total") is not None:
        cards.append((format_seconds(history.seconds["total"]), "wall time", ""))
    inner = "".join(
        f'<div class="card{kind}"><b>{escape(value)}</b><span>{escape(label)}</span></div>'
        for value, label, kind in cards
    )
    return f'<div class="cards">{inner}</div>' if cards else ""


def _shrink_table(history: History) -> str:
    head = (
        "step",
        "layer",
        "before → after",
        "weighed by",
        "bound 2·Σσ",
        "measured error",
        "first σ dropped",
        "loss before → after",
        "plan",
        "compress",
        "compile",
    )
    numeric = [2, *range(4, len(head))]
    rows = []
    for event in history.shrinks:
        compile_seconds = history.compile_seconds(event)
        losses = f"{format_short(event['loss_before'])} → {format_short(event['loss_after'])}"
        times = [event["plan_seconds"], event["compress_seconds"], compile_seconds]
        shared = [losses, *("–" if t is None else format_seconds(t) for t in times)]
        cut = [row for row in event["layers"] if row["after"] != row["before"]]
        if not cut:
            shared[0] = "–"
            rows.append((event["step"], "nothing was cut", *["–"] * 5, *shared))
        for i, row in enumerate(cut):
            rows.append(
                (
                    event["step"] if i == 0 else "",
                    row["path"],
                    f"{row['before']} → {row['after']}",
                    row.get("gramians", "white noise, complex"),
                    format_short(row["bound"], "none known"),
                    format_short(row["error"], "not measured")
                    + (" (beyond the bound)" if row.get("holds") is False else ""),
                    format_short(row["sigma_next"], "–"),
                    *(shared if i == 0 else [""] * len(shared)),
                )
            )
        spared = len(event["layers"]) - len(cut)
        if cut and spared:
            rest = "1 other layer: not cut" if spared == 1 else f"{spared} other layers: not cut"
            rows.append(("", rest, *[""] * (len(head) - 2)))
    if not rows:
        return ""
    return (
        '<section><h2>Shrinks</h2><div class="scroll">'
        + table(head, rows, numeric)
        + "</div><figcaption>Each layer's truncation: the H-infinity error that the theory allows "
        "(twice the sum of the dropped Hankel singular values), the one that was measured, and the "
        "largest value dropped, below which no error can lie. Losses are of the moments just "
        "before and just after. Times are wall times; compilation is that of the smaller program."
        "</figcaption></section>"
    )


def _sample(history: History) -> str:
    """What a language model wrote at the end."""
    sample = history.summary.get("sample")
    if not sample:
        return ""
    return (
        f"<section><h2>A sample</h2><pre>{escape(sample)}</pre><figcaption>The beginning of the "
        "test text, and what the model wrote after it, each token drawn from its predictions."
        "</figcaption>"
        "</section>"
    )
