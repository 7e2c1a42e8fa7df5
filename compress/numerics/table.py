"""Values that are shown as tables: printed, in a terminal with rich, and in a notebook."""

import abc
import html
from typing import Any


class Table(abc.ABC):
    """A value with a `header()` and `rows()`, all of strings; the first column is text."""

    @abc.abstractmethod
    def header(self) -> list[str]:
        """The titles of the columns."""

    @abc.abstractmethod
    def rows(self) -> list[list[str]]:
        """The rows, as wide as the header."""

    def __str__(self) -> str:
        rows = [self.header(), *self.rows()]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        return "\n".join(
            "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])])
            for row in rows
        )

    def __repr__(self) -> str:
        return f"{type(self).__name__}\n{self}"

    def _repr_html_(self) -> str:
        """What a notebook shows."""

        def line(cells: list[str], tag: str) -> str:
            return "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in cells)

        body = "".join(f"<tr>{line(row, 'td')}</tr>" for row in self.rows())
        return f"<table><thead><tr>{line(self.header(), 'th')}</tr></thead>{body}</table>"

    def __rich__(self) -> Any:
        from rich.table import Table  # takes 50 ms, and most tables are never shown

        table = Table()
        for k, title in enumerate(self.header()):
            table.add_column(title, justify="right" if k else "left")
        for row in self.rows():
            table.add_row(*row)
        return table
