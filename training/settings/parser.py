"""The command lines of the scripts: mistakes in one sentence, help for 80 columns."""

import argparse
import re
from collections.abc import Sequence
from typing import Any, NoReturn

from .errors import UsageError, nearest, shown
from .help import Help, Row, shown_rows

HELP = "--help-all"
"""The option for complete help; `--help` shows the most important options."""


class Parser(argparse.ArgumentParser):
    """A parser that raises: `UsageError` for a mistake, `Help` where help is requested.

    `doc` is the script's docstring: a first line, and examples.
    """

    def __init__(self, doc: str | None = None):
        super().__init__(add_help=False, allow_abbrev=False)
        self._doc = (doc or "").strip()

    def error(self, message: str) -> NoReturn:
        raise UsageError(self._in_words(message))

    def parse_known_args(self, *args: Any, **others: Any) -> Any:
        """As argparse, which however takes `--task=--` for an option with an empty list."""
        found, rest = super().parse_known_args(*args, **others)
        for action in self._actions:
            if action.nargs is None and getattr(found, action.dest, None) == [] != action.default:
                self.error(f"argument {'/'.join(action.option_strings)}: expected one argument")
        return found, rest

    def read(self, argv: Sequence[str]) -> argparse.Namespace:
        """The values of all options. `Help` where `argv` requests it."""
        if asks_for_help(argv):
            _, _, examples = self._doc.partition("\n")  # the script has printed its first line
            raise Help(f"{examples}\n\n{shown_rows(self._rows())}".lstrip("\n"))
        for word in argv:  # before argparse says what is missing
            if word.startswith("--") and word.split("=")[0] not in self._option_string_actions:
                self.error(f"unrecognized arguments: {word}")
        return self.parse_args(argv)

    def _rows(self) -> list[Row]:
        """Each option with its default and its help."""
        rows = []
        for action in self._actions:
            name = " ".join(action.option_strings) or str(action.dest)
            default = action.default
            if action.nargs == 0 or default is None:
                value = "" if action.nargs == 0 or not action.option_strings else _kind(action)
            else:
                value = str(default)
            words = action.help or ""
            if action.choices is not None and "{choices}" in words:
                words = words.replace("{choices}", ", ".join(map(str, action.choices)))
            rows.append((f"{name} {value}".strip(), words))
        return [*rows, ("--help", "this page")]

    def _in_words(self, message: str) -> str:
        """The message of argparse in the style of all messages."""
        if found := re.fullmatch(r"argument (\S+): expected .* arguments?", message):
            return f"{found[1]} must be followed by its value"
        if found := re.fullmatch(r"argument (\S+): invalid (\w+) value: '(.*)'", message):
            words = {"int": "a whole number", "float": "a number"}.get(found[2], "of its kind")
            return f"{found[1]} must be {words}, got {shown(found[3])}"
        if found := re.match(r"argument (\S+): invalid choice: '(.*?)' \(choose from", message):
            choices = next(
                list(map(str, action.choices or ()))
                for action in self._actions
                if found[1] in (*action.option_strings, action.dest, action.metavar)
            )
            listed, hint = ", ".join(choices), nearest(found[2], choices)
            return f"{found[1]} must be one of {listed}, got {shown(found[2])}{hint}"
        if found := re.fullmatch(r"unrecognized arguments: (.*)", message):
            first = found[1].split()[0]
            known = [name for action in self._actions for name in action.option_strings]
            if not first.startswith("-"):
                return f"{shown(first)} must belong to an option, but stands alone"
            return f"unknown option {first}{nearest(first.split('=')[0], known)} (--help lists all)"
        if found := re.fullmatch(r"the following arguments are required: (.*)", message):
            return f"{found[1]} must be given (--help explains the options)"
        if found := re.fullmatch(r"one of the arguments (.*) is required", message):
            return f"one of {', '.join(found[1].split())} must be given"
        return message


def asks_for_help(argv: Sequence[str]) -> bool:
    """Whether a command line requests help, short or complete."""
    return bool({"-h", "--help", HELP} & set(argv))


def asks_for_all(argv: Sequence[str]) -> bool:
    """Whether a command line requests help on all options."""
    return HELP in argv


def _kind(action: Any) -> str:
    """A word that stands for the value of an option without a default."""
    names = {int: "N", float: "X"}
    return str(action.metavar or names.get(action.type, action.dest.upper()))
