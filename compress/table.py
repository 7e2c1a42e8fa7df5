"""Values that print as tables, in a terminal with rich too."""

from typing import Any


class Table:
    """What has a `header()` and `rows()`, all of strings; the first column is text."""

    def header(self) -> list[str]:
        """The titles of the columns."""
        raise NotImplementedError

    def rows(self) -> list[list[str]]:
        """The rows, as wide as the header."""
        raise NotImplementedError

    def __str__(self) -> str:
        rows = [self.header(), *self.rows()]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        return "\n".join(
            "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])])
            for row in rows
        )

    def __rich__(self) -> Any:
        from rich.table import Table  # takes 50 ms, and most tables are never shown

        table = Table()
        for k, title in enumerate(self.header()):
            table.add_column(title, justify="right" if k else "left")
        for row in self.rows():
            table.add_row(*row)
        return table
