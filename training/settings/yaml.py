"""Configurations as YAML, read with limits: a file is checked before it is used."""

import re
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import yaml

from .config import RunConfig
from .errors import UsageError, shown

LARGEST_FILE = 2**20
"""Most bytes of a configuration file."""
DEEPEST = 16
"""Deepest nesting of brackets or indentation."""
NUMBERS = ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")
OTHER_BASE = re.compile(r"[-+]?(0[0-7_]+|.*:.*)")
"""What YAML 1.1 reads as a number of base 8 or 60, `010` and `1:30`: text here, as in YAML 1.2."""
MOST_VALUES = 10_000
"""Most keys and values, counting each repetition by an alias."""


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file. `UsageError` for a file that holds none, or is beyond a limit."""
    text = _text(path)
    try:
        _check_depth(text, path)
        loader = yaml.SafeLoader(text)
        node = loader.get_single_node()
        if node is not None:
            _count_values(node, path, {}, ())
    except yaml.YAMLError as error:
        raise UsageError(f"{path} must be YAML, got: {' '.join(str(error).split())}") from None
    try:
        content = None if node is None else loader.construct_document(node)
    except (ValueError, yaml.YAMLError) as error:  # a number of 5000 digits, an unknown tag
        raise UsageError(
            f"{path} must hold plain values, got: {' '.join(str(error).split())}"
        ) from None
    except Exception:  # whatever its reader makes of !!bool x
        raise UsageError(f"{path} must hold plain values, got one that its tag forbids") from None
    if not isinstance(content, dict):
        raise UsageError(f"{path} must hold `option: value` lines, got {shown(content)}")
    return content


def write_yaml(config: RunConfig[Any, Any]) -> str:
    """The configuration as YAML that `--config` reads."""
    return yaml.safe_dump(plain_config(config), sort_keys=False)


def plain_config(config: RunConfig[Any, Any]) -> dict[str, Any]:
    """The configuration as mappings, lists, strings and numbers."""
    return _plain(asdict(config))


def flat_config(config: RunConfig[Any, Any]) -> dict[str, Any]:
    """The configuration as options by their names on the command line: `network.d_model`."""
    return flat(plain_config(config))


def flat(options: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Options in groups as one mapping, whose names have those of the groups in front."""
    found: dict[str, Any] = {}
    for name, value in options.items():
        if isinstance(value, dict):
            found |= flat(value, f"{prefix}{name}.")
        else:
            found[f"{prefix}{name}"] = value
    return found


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _plain(each) for name, each in value.items()}
    if isinstance(value, tuple):
        return [_plain(each) for each in value]
    return str(value) if isinstance(value, Path) else value


def _text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            raw = file.read(LARGEST_FILE + 1)
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from None
    if len(raw) > LARGEST_FILE:
        raise UsageError(f"{path} must have at most {LARGEST_FILE} bytes, got more")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} must be text in UTF-8, got {error.reason}") from None


def _check_depth(text: str, path: Path) -> None:
    """`UsageError` for deep nesting, found by a parser that does not nest its own calls."""
    depth = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if depth > DEEPEST:
            raise UsageError(f"{path} must have at most {DEEPEST} levels of nesting, got more")


def _count_values(
    node: yaml.Node, path: Path, known: dict[int, int], above: tuple[int, ...]
) -> int:
    """The values below `node`, with aliases replaced; `known` has those of nodes by their ids.

    `UsageError` for more than `MOST_VALUES`, for an anchor inside itself, and for a key that stands
    twice in one mapping.
    """
    if id(node) in above:
        where = f"line {node.start_mark.line + 1}"
        raise UsageError(f"{path} must have no anchor that holds itself, got one in {where}")
    if id(node) in known:
        return known[id(node)]
    children: list[yaml.Node] = []
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            name = str(key.value)
            if name in seen and name != "<<":
                where = f"line {key.start_mark.line + 1}"
                raise UsageError(f"{path} must have each key once, got {name!r} again in {where}")
            seen.add(name)
            children += [key, value]
    elif isinstance(node, yaml.SequenceNode):
        children = list(node.value)
    elif node.tag in NUMBERS and OTHER_BASE.fullmatch(node.value):
        node.tag = "tag:yaml.org,2002:str"
    total = 1 + sum(_count_values(each, path, known, (*above, id(node))) for each in children)
    if total > MOST_VALUES:
        raise UsageError(f"{path} must hold at most {MOST_VALUES} values, got more")
    known[id(node)] = total
    return total
