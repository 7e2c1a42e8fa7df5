"""A configuration changed by options: those of a command line, or those of a mapping."""

import contextlib
import difflib
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, fields, is_dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import tyro

from .config import RunConfig
from .errors import UsageError, nearest, shown


def with_arguments(config: RunConfig[Any, Any], argv: Sequence[str]) -> RunConfig[Any, Any]:
    """`config` with the options of a command line. `UsageError` in one line."""
    return read_options(RunConfig[type(config.layer), type(config.data)], config, argv)


def read_options(kind: Any, default: Any, argv: Sequence[str]) -> Any:
    """`default`, of the dataclass `kind`, changed by the options of a command line.

    tyro reads them, by dotted names, from the dataclasses. `UsageError` in one line.
    """
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            return tyro.cli(
                kind,
                args=list(argv),
                default=default,
                add_help=False,
                config=(tyro.conf.FlagConversionOff,),
            )
    except SystemExit:
        raise UsageError(_one_line(said.getvalue(), default, argv)) from None
    except ValueError as error:  # what a config's __post_init__ has to say
        raise UsageError(str(error)) from None


def with_options(config: RunConfig[Any, Any], options: Mapping[str, Any]) -> RunConfig[Any, Any]:
    """`config` with options by their dotted names, `compression.tolerance`, or by nested mappings.

    `UsageError` for an unknown name, or a value that does not fit.
    """
    known = option_names(config)
    given: dict[str, list[str]] = {}
    for name, value in leaves(options):
        name = name.replace("-", "_")
        if name in given:
            raise UsageError(f"key {name} must stand once, got it twice")
        if value == {} and _is_group(config, name):
            continue
        if name not in known:
            raise UsageError(_unknown(name, value, known))
        if isinstance(value, Mapping | list | tuple) and _is_single(_kind_of(config, name)):
            raise UsageError(f"`{name}` must be a single value, got {shown(value)}")
        given[name] = _as_arguments(name, value)
    argv = [argument for arguments in given.values() for argument in arguments]
    return with_arguments(config, argv) if argv else config


def _is_group(config: Any, name: str) -> bool:
    """Whether this is a group of options, which may have none."""
    for part in name.split("."):
        config = getattr(config, part, None)
    return is_dataclass(config)


def _kind_of(config: Any, name: str) -> Any:
    """The annotation of an option."""
    *groups, last = name.split(".")
    for group in groups:
        config = getattr(config, group)
    return get_type_hints(type(config)).get(last)


def _is_single(kind: Any) -> bool:
    """Whether an option of this kind has one value."""
    if get_origin(kind) in (Union, UnionType):
        return all(map(_is_single, get_args(kind)))
    return get_origin(kind) is Literal or kind in (str, NoneType, *KINDS)


def _as_arguments(name: str, value: Any) -> list[str]:
    """An option in command-line form. Its value cannot be mistaken for another option."""
    option = f"--{name.replace('_', '-')}"
    if not isinstance(value, list | tuple):
        return [f"{option}={value}"]
    values = [str(each) for each in value]
    for each in values:
        if each.startswith("--"):
            raise UsageError(f"`{name}` must hold values, got {shown(each)}")
    return [option, *values]


def _unknown(name: str, value: Any, known: Sequence[str]) -> str:
    """The message for a key that is not an option."""
    if any(each.startswith(f"{name}.") for each in known):
        return f"`{name}` must be a group of options, got {shown(value)}"
    near = difflib.get_close_matches(name, known, n=1)
    hint = f", did you mean {near[0]}?" if near else " (--help-all lists all)"
    return f"unknown key {shown(name).strip(QUOTES)}{hint}"


QUOTES = "'\""


def option_names(config: Any) -> list[str]:
    """The dotted names of all options of a configuration."""
    return [name for name, _ in leaves(asdict(config))]


def _one_line(said: str, config: Any, argv: Sequence[str]) -> str:
    """tyro's boxed message in one sentence, with the nearest option where one was unknown."""
    text = re.sub(r"\x1b\[[0-9;]*m", "", said)
    text = " ".join(re.sub(r"[╭╮╰╯│─━]+", " ", text).split())
    known = option_names(config)
    for argument in argv:
        name = argument.split("=")[0].removeprefix("--").replace("-", "_")
        if argument.startswith("--") and name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f", did you mean --{near[0].replace('_', '-')}?" if near else ""
            return f"unknown option {shown(argument).strip(QUOTES)}{hint} (--help-all lists all)"
    if found := re.search(r"Error parsing (?:run)?[\w.]*:? ?--([\w.-]+):", text):
        return _wrong_value(found[1], config, argv)
    if found := re.search(r"invalid choice .*? for argument '--([\w.-]+)'.*?\((.*?)\)", text):
        return _wrong_choice(found[1], re.findall(r"'([^']*)'", found[2]), argv)
    if found := re.search(r"(?:Missing value for argument|Missing argument) '?(--[\w.-]+)", text):
        return f"{found[1]} must be followed by its value"
    if found := re.search(r"Unrecognized options: (.*?)(?: For full|$)", text):
        return f"{shown(found[1])} must belong to an option, but stands alone"
    text = re.sub(r"^.*?Value error ", "", text)
    text = re.sub(r"^Error parsing [\w.]+: ", "", text)
    return re.split(r" Argument helptext:| For full helptext", text)[0]


def _wrong_value(option: str, config: Any, argv: Sequence[str]) -> str:
    """The requirement on a value of the wrong type."""
    name = option.replace("-", "_")
    *groups, last = name.split(".")
    owner: Any = config
    for group in groups:
        owner = getattr(owner, group)
    kinds = {each.name: each.type for each in fields(owner)}
    allowed = get_args(kinds[last]) or (kinds[last],)
    words = next((said for kind, said in KINDS.items() if kind in allowed), "of another kind")
    words += ", or None" if type(None) in allowed else ""
    return f"`{name}` must be {words}, got {_value_of(option, argv)}"


def _wrong_choice(option: str, choices: Sequence[str], argv: Sequence[str]) -> str:
    """The choices of an option, and the nearest one."""
    value = _value_of(option, argv)
    hint = nearest(value.strip(QUOTES), choices)
    return f"`{option.replace('-', '_')}` must be one of {', '.join(choices)}, got {value}{hint}"


def _value_of(option: str, argv: Sequence[str]) -> str:
    """What `argv` gives to an option, as a message shows it."""
    wanted = option.replace("-", "_")
    for at, argument in reversed(list(enumerate(argv))):
        name, equals, value = argument.removeprefix("--").partition("=")
        if argument.startswith("--") and name.replace("-", "_") == wanted:
            return shown(value if equals else " ".join(argv[at + 1 : at + 2]))
    return "none"


KINDS = {int: "a whole number", float: "a number", bool: "True or False", Path: "a path"}
"""What the values of options are, in words."""


def leaves(tree: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    """(dotted name, value) of all values that are no mappings, or empty ones."""
    for name, value in tree.items():
        if isinstance(value, Mapping) and value:
            yield from leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
