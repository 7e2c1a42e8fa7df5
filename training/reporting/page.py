"""The pieces of HTML that a report is made of."""

import html
import json
from collections.abc import Sequence
from typing import Any

STYLE = """
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
"""The style sheet of a page."""


def dump(value: Any) -> str | None:
    """A value as JSON, None for None."""
    return None if value is None else json.dumps(value, indent=2, ensure_ascii=False)


def escape(value: Any) -> str:
    """A value as text that HTML takes as it is."""
    return html.escape(str(value))


def format_count(value: int | None) -> str:
    """A whole number with a thin space between thousands."""
    return "not recorded" if value is None else f"{value:,}".replace(",", "\u202f")


def format_short(value: float | int | None, missing: str = "not finite") -> str:
    """A number in three digits; `missing` where there is none."""
    return missing if value is None else f"{value:.3g}"


def _row(cells: Sequence[Any], numeric: Sequence[int], tag: str) -> str:
    kinds = [' class="n"' if i in numeric else "" for i in range(len(cells))]
    inner = [
        f"<{tag}{kind}>{escape(cell)}</{tag}>" for kind, cell in zip(kinds, cells, strict=True)
    ]
    return f"<tr>{''.join(inner)}</tr>"


def table(
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


def details(name: str, text: str | None) -> str:
    """A file called `name` with this text, folded up; None: there is none."""
    if text is None:
        return f'<p class="none">{escape(name)}: not in this run directory.</p>'
    return f"<details><summary>{escape(name)}</summary><pre>{escape(text)}</pre></details>"
