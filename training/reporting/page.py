"""The pieces of HTML that a report is made of."""

import html
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .plates import Plate, as_script

STYLE = Path(__file__).with_name("report.css")
SCRIPTS = [Path(__file__).with_name(name) for name in ("axes.js", "report.js")]


def page(title: str, sections: Sequence[str], plates: Mapping[str, Plate]) -> str:
    """A whole page, which needs no other file.

    `sections` are HTML; empty ones are left out. The figures `plates` are drawn in the places that
    `plate_section` makes for their names.
    """
    body = "\n".join(section for section in sections if section)
    script = "\n".join(file.read_text(encoding="utf-8") for file in SCRIPTS)
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{STYLE.read_text()}</style></head>\n"
        f"<body><main>\n{body}\n</main>\n"
        f'<script type="application/json" id="figures">{as_script(plates)}</script>\n'
        f"<script>\n{script}</script>\n</body></html>\n"
    )


def section(heading: str, content: str, kind: str = "") -> str:
    """A card of the page; nothing where there is no content."""
    if not content:
        return ""
    opening = f'<section class="{kind}">' if kind else "<section>"
    return f"{opening}<h2>{escape(heading)}</h2>{content}</section>"


def plate_section(name: str, plate: Plate) -> str:
    """The place of the figure `name`, with its heading and its caption."""
    return section(
        plate.heading,
        f'<figure><div id="{escape(name)}"><noscript>The figure is drawn by the script at the end '
        f"of this page.</noscript></div><figcaption>{escape(plate.caption)}</figcaption></figure>",
    )


def cards(entries: Sequence[tuple[str, str]]) -> str:
    """A row of large values, each with what it is."""
    inner = "".join(
        f'<div class="card"><b>{escape(value)}</b><span>{escape(label)}</span></div>'
        for value, label in entries
    )
    return f'<div class="cards">{inner}</div>' if entries else ""


def commands(entries: Sequence[tuple[str, str]]) -> str:
    """Commands that can be copied, each with what it does. RUN stands for the page's folder."""
    inner = "".join(
        f'<p>{escape(what)}</p><div><code class="command">{escape(command)}</code></div>'
        for what, command in entries
    )
    return f'<div class="commands">{inner}</div>' if entries else ""


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


def _row(cells: Sequence[Any], head: Sequence[str], numeric: Sequence[int], tag: str) -> str:
    inner = []
    for i, cell in enumerate(cells):
        kind = ' class="n"' if i in numeric else ""
        name = f' data-name="{escape(head[i])}"' if head and tag == "td" else ""
        inner.append(f"<{tag}{kind}{name}>{escape(cell)}</{tag}>")
    return f"<tr>{''.join(inner)}</tr>"


def table(
    head: Sequence[str],
    rows: Sequence[Sequence[Any]],
    numeric: Sequence[int] = (),
    bars: Sequence[tuple[float | int, float | int]] = (),
    wide: bool = False,
) -> str:
    """A table; the cells of the columns `numeric` stand at the right.

    `bars` adds a last column: for each row, the lengths of an outer and an inner bar, in [0, 1].
    `wide`: on a narrow screen each row becomes a block, every cell with the name of its column.
    """
    lines = [_row(row, head if wide else (), numeric, "td") for row in rows]
    for i, (outer, inner) in enumerate(bars):
        # The inner bar lies over the outer one.
        bar = (
            f'<td class="bar"><i style="width:{100 * outer:.1f}%"></i>'
            f'<i class="in" style="width:{100 * inner:.1f}%;margin-top:-10px"></i></td>'
        )
        lines[i] = lines[i].removesuffix("</tr>") + bar + "</tr>"
    header = _row(head, (), numeric, "th") if head else ""
    if header and bars:
        header = header.removesuffix("</tr>") + "<th></th></tr>"
    opening = '<table class="wide">' if wide else "<table>"
    return f"{opening}{header}{''.join(lines)}</table>"


def details(name: str, text: str | None) -> str:
    """A file called `name` with this text, folded up; None: there is none."""
    if text is None:
        return f'<p class="none">{escape(name)}: not in this run directory.</p>'
    return f"<details><summary>{escape(name)}</summary><pre>{escape(text)}</pre></details>"
