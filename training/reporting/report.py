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

import html
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .display import format_seconds
from .events import write_atomically
from .figures import all_plates
from .history import History, read_json

_STYLE = """
:root { --ink: #1c2733; --soft: #5b6b7a; --line: #dfe5ea; --paper: #fff; --accent: #0b6e8a; }
* { box-sizing: border-box; }
body { margin: 0; background: #f5f7f9; color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", sans-serif; }
main { max-width: 1080px; margin: 0 auto; padding: 28px 20px 60px; }
h1 { font-size: 25px; margin: 0 0 4px; letter-spacing: -0.01em; }
h2 { font-size: 18px; margin: 0 0 10px; }
p.lead { margin: 0 0 18px; color: var(--soft); }
p.note { background: #fff6e0; border: 1px solid #eed9a3; border-radius: 8px; padding: 10px 14px; }
section { background: var(--paper); border: 1px solid var(--line); border-radius: 10px;
  padding: 18px 20px; margin: 0 0 18px; overflow-x: auto; }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); gap: 12px;
  margin: 0 0 18px; }
.card { background: var(--paper); border: 1px solid var(--line); border-radius: 10px;
  padding: 12px 16px; }
.card b { display: block; font-size: 25px; font-weight: 650; letter-spacing: -0.02em;
  color: var(--accent); white-space: nowrap; }
.card.plain b { color: var(--soft); font-weight: 500; }
.card span { color: var(--soft); font-size: 13px; display: block; }
.columns { display: grid; grid-template-columns: repeat(auto-fit, minmax(330px, 1fr));
  gap: 0 32px; }
table { border-collapse: collapse; width: 100%; font-size: 14px;
  font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: 5px 10px 5px 0; border-bottom: 1px solid var(--line);
  vertical-align: top; }
th { font-weight: 600; color: var(--soft); font-size: 13px; }
td.n, th.n { text-align: right; }
td.n { white-space: nowrap; }
tr:last-child td { border-bottom: none; }
td.bar { width: 34%; padding-right: 0; vertical-align: middle; }
td.bar i { display: block; height: 10px; border-radius: 3px; background: #b9dbe4; }
td.bar i.in { background: var(--accent); }
.scroll { max-height: 460px; overflow: auto; }
figure { margin: 0; }
figure svg { width: 100%; height: auto; display: block; }
figure svg text { font-family: system-ui, -apple-system, "Segoe UI", Roboto, sans-serif
  !important; }
figcaption { color: var(--soft); font-size: 13.5px; margin-top: 8px; max-width: 85ch; }
details { margin: 0 0 8px; }
summary { cursor: pointer; font-weight: 600; }
pre { background: #f5f7f9; border: 1px solid var(--line); border-radius: 8px; padding: 12px;
  overflow: auto; max-height: 460px; font: 12.5px/1.45 ui-monospace, Menlo, Consolas, monospace; }
.none { color: var(--soft); }
"""
_PHASES = {
    "train": "training steps",
    "compile": "compilation",
    "evaluate": "evaluation",
    "shrink": "shrinking",
    "spectra": "Hankel singular values",
    "host": "waiting for batches",
    "data": "data",
    "checkpoint": "checkpoints",
}


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
        f"<h1>{_escape(title)}</h1>",
        f'<p class="lead">{_escape(_lead(history))}</p>',
        _state_of_run(history),
        _cards(history),
        _summary(history, environment),
    ]
    for plate in all_plates(history):
        body.append(
            f"<section><h2>{_escape(plate.heading)}</h2><figure>{plate.svg}"
            f"<figcaption>{_escape(plate.caption)}</figcaption></figure></section>"
        )
    body.append(_shrink_table(history))
    body.append(_sample(history))
    body.append(
        "<section><h2>Configuration and environment</h2>"
        + _details("config.yaml", config)
        + _details("environment.json", _dump(environment))
        + "</section>"
    )
    page = (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{_escape(title)}</title><style>{_STYLE}</style></head>\n<body><main>\n"
        + "\n".join(part for part in body if part)
        + "\n</main></body></html>\n"
    )
    path = run_dir / "report.html"
    write_atomically(path, page)
    return path


def _text(path: Path) -> str | None:
    return path.read_text(encoding="utf-8", errors="replace") if path.exists() else None


def _dump(value: Any) -> str | None:
    return None if value is None else json.dumps(value, indent=2, ensure_ascii=False)


def _escape(value: Any) -> str:
    return html.escape(str(value))


def _count(value: int | None) -> str:
    return "not recorded" if value is None else f"{value:,}".replace(",", "\u202f")


def _small(value: float | int | None, missing: str = "not finite") -> str:
    return missing if value is None else f"{value:.3g}"


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
    return f'<p class="note">{_escape(what + missing)}</p>'


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
        f'<div class="card{kind}"><b>{_escape(value)}</b><span>{_escape(label)}</span></div>'
        for value, label, kind in cards
    )
    return f'<div class="cards">{inner}</div>' if cards else ""


def _row(cells: Sequence[Any], numeric: Sequence[int], tag: str) -> str:
    kinds = [' class="n"' if i in numeric else "" for i in range(len(cells))]
    inner = [
        f"<{tag}{kind}>{_escape(cell)}</{tag}>" for kind, cell in zip(kinds, cells, strict=True)
    ]
    return f"<tr>{''.join(inner)}</tr>"


def _table(
    head: Sequence[str],
    rows: Sequence[Sequence[Any]],
    numeric: Sequence[int] = (),
    bars: Sequence[tuple[float | int, float | int]] = (),
) -> str:
    """A table; the cells of the columns `numeric` stand at the right.

    `bars` adds a last column: for each row, the lengths of an outer and an inner bar, in [0, 1].
    """
    lines = [_row(row, numeric, "td") for row in rows]
    for i, (outer, inner) in enumerate(bars):
        # The inner bar lies over the outer one.
        bar = (
            f'<td class="bar"><i style="width:{100 * outer:.1f}%"></i>'
            f'<i class="in" style="width:{100 * inner:.1f}%;margin-top:-10px"></i></td>'
        )
        lines[i] = lines[i].removesuffix("</tr>") + bar + "</tr>"
    header = _row(head, numeric, "th") if head else ""
    if header and bars:
        header = header.removesuffix("</tr>") + "<th></th></tr>"
    return f"<table>{header}{''.join(lines)}</table>"


def _summary(history: History, environment: Any) -> str:
    parameters = _count(history.get("parameters_before") or history.start.get("parameters"))
    if history.summary.get("parameters_after") is not None:
        parameters += f" → {_count(history.summary['parameters_after'])}"
    facts: list[tuple[str, Any]] = [
        ("task", history.get("task") or "not recorded"),
        ("model", history.get("model") or "not recorded"),
        ("seed", "not recorded" if history.get("seed") is None else history.get("seed")),
        ("steps", f"{_count(history.last_step)} of {_count(history.total_steps)}"),
        ("parameters", parameters),
    ]
    if history.get("length") is not None:
        facts.append(("sequence length", f"{history.get('length')} samples"))
    for split in ("test", "validation"):
        result = history.test if split == "test" else history.validation
        for k, measure in enumerate(history.objective.measures):
            value = "not reached"
            if result is not None:
                value = measure.show(result.get(measure.key))
                value += f" (loss {_small(result.get('loss'))})" if k == 0 else ""
            facts.append((f"{split} {measure.label}", value))
    for name, value in history.baselines.items():
        facts.append((f"without a model: {name}", history.objective.measure.show(value)))
    facts += _runs_on(environment)

    right = ""
    if history.sizes_before:
        largest = max([*history.sizes_before, *history.sizes_after, 1])
        triples = list(zip(history.paths, history.sizes_before, history.sizes_after, strict=True))
        right += '<h2>State of each layer</h2><div class="scroll">' + _table(
            ("layer", "before", "after"),
            triples,
            numeric=(1, 2),
            bars=[(before / largest, after / largest) for _, before, after in triples],
        )
        right += "</div><br>"
    seconds = dict(history.seconds)
    total = seconds.pop("total", None)
    if seconds or total is not None:
        spent = {_PHASES.get(name, name): value for name, value in seconds.items()}
        if total is not None and "train" in history.seconds:
            spent["everything else"] = max(0.0, total - sum(seconds.values()))
        longest = max([*spent.values(), 1e-9])
        rows = [(name, format_seconds(value)) for name, value in spent.items()]
        bars = [(value / longest, value / longest) for value in spent.values()]
        if total is not None:
            rows.append(("in all", format_seconds(total)))
        share = history.summary.get("host_share")
        if share is not None:
            rows.append(("of that neither training nor evaluation", f"{share:.1%}"))
        waited = history.summary.get("data_share")
        if waited is not None:
            rows.append(("of training, waiting for batches", f"{waited:.2%}"))
        right += "<h2>Wall time</h2>" + _table((), rows, numeric=(1,), bars=bars) + "<br>"
    phases = [
        (
            f"{phase['from_step']} to {phase['to_step']}",
            sum(phase["d_state"]),
            sum(phase.get("width", phase["d_state"])),
            "not measured" if not phase["steps_per_second"] else f"{phase['steps_per_second']:.4g}",
        )
        for phase in history.phases
    ]
    if phases:
        right += "<h2>Speed</h2>" + _table(
            ("steps", "states", "in programs for", "steps/s"), phases, numeric=(1, 2, 3)
        )
    left = "<h2>Summary</h2>" + _table((), facts)
    return f'<section class="columns"><div>{left}</div><div>{right}</div></section>'


def _runs_on(environment: Any) -> list[tuple[str, str]]:
    """What the environment file says, a line for each of its keys."""
    if not isinstance(environment, Mapping):
        return [("environment", "not recorded")]
    lines = []
    for key, value in environment.items():
        text = _flat(value)
        lines.append((str(key).replace("_", " "), text if len(text) <= 600 else text[:599] + "…"))
    return lines


def _flat(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_flat(item)}" for key, item in value.items())
    if isinstance(value, list):
        return ", ".join(_flat(item) for item in value)
    return "none" if value is None else str(value)


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
        losses = f"{_small(event['loss_before'])} → {_small(event['loss_after'])}"
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
                    _small(row["bound"], "none known"),
                    _small(row["error"], "not measured")
                    + (" (beyond the bound)" if row.get("holds") is False else ""),
                    _small(row["sigma_next"], "–"),
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
        + _table(head, rows, numeric)
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
        f"<section><h2>A sample</h2><pre>{_escape(sample)}</pre><figcaption>The beginning of the "
        "test text, and what the model wrote after it, each token drawn from its predictions."
        "</figcaption>"
        "</section>"
    )


def _details(name: str, text: str | None) -> str:
    if text is None:
        return f'<p class="none">{_escape(name)}: not in this run directory.</p>'
    return f"<details><summary>{_escape(name)}</summary><pre>{_escape(text)}</pre></details>"
