"""The texts of `--help` and `--help-all` of the scripts, for a terminal of 80 columns."""

import ast
import inspect
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from functools import cache
from itertools import pairwise
from typing import Any

WIDTH = 80
"""Columns of the text."""
LEFT = 34
"""Columns for an option and its default."""

Row = tuple[str, str]
"""An option with its value, and its description."""


class Help(Exception):
    """A request for help; the text is the help."""


def shown_rows(rows: Iterable[Row], left: int = LEFT) -> str:
    """Options on the left, what they do on the right, lines of up to `WIDTH` columns.

    An option that is too long for its column has a line of its own.
    """
    lines = []
    for option, words in rows:
        wrapped = textwrap.wrap(words, WIDTH - left - 2, break_on_hyphens=False) or [""]
        if len(option) > left - 2:
            lines.append(f"  {option}")
        else:
            lines.append(f"  {option:<{left}}{wrapped.pop(0)}".rstrip())
        lines += [" " * (left + 2) + line for line in wrapped]
    return "\n".join(lines)


def shown_page(groups: Mapping[str, Iterable[Row]], left: int = LEFT) -> str:
    """Groups of options, each under its title."""
    return "\n".join(
        f"{textwrap.fill(title, WIDTH)}\n{shown_rows(rows, left)}" for title, rows in groups.items()
    )


def option(name: str, value: Any) -> str:
    """An option of a configuration as it is typed, with its present value."""
    typed = f"--{name.replace('_', '-')}"
    if value is None:
        return typed
    values = value if isinstance(value, list | tuple) else [value]
    return " ".join([typed, *(f"{v:g}" if isinstance(v, float) else str(v) for v in values)])


def all_rows(config: Any, prefix: str = "") -> dict[str, list[Row]]:
    """All options of a configuration, by the titles of its groups, with the docstrings of its
    fields."""
    own: list[Row] = []
    groups: dict[str, list[Row]] = {}
    docs = field_docs(type(config))
    for field in fields(config):
        value, name = getattr(config, field.name), f"{prefix}{field.name}"
        if is_dataclass(value):
            groups |= all_rows(value, f"{name}.")
        else:
            own.append((option(name, value), docs.get(field.name, "")))
    title = prefix.rstrip(".") or "run"
    about = " ".join((type(config).__doc__ or "").split("\n\n")[0].split())
    return {f"{title}: {about}": own, **groups}


@cache
def field_docs(kind: type) -> dict[str, str]:
    """The docstrings below a class's fields; empty without source code."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(kind)))
    except (OSError, TypeError, SyntaxError):
        return {}
    assert isinstance(tree.body[0], ast.ClassDef)
    docs: dict[str, str] = {}
    body: Sequence[ast.stmt] = tree.body[0].body
    for field, text in pairwise(body):
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name):
            said = text.value if isinstance(text, ast.Expr) else None
            if isinstance(said, ast.Constant) and isinstance(said.value, str):
                docs[field.target.id] = " ".join(said.value.replace("`", "").split())
    return docs
