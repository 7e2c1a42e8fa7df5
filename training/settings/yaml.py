"""Configurations as YAML."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import yaml

from .config import RunConfig
from .errors import UsageError


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file. `UsageError` for a file that holds none."""
    try:
        content = yaml.safe_load(path.read_text())
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise UsageError(f"{path} is no text, let alone YAML") from None
    except yaml.YAMLError as error:
        raise UsageError(f"{path} is not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict):
        raise UsageError(f"{path} must hold `option: value` lines, got {content!r}")
    return content


def write_yaml(config: RunConfig[Any, Any]) -> str:
    """The configuration as YAML that `--config` reads."""
    return yaml.safe_dump(plain_config(config), sort_keys=False)


def plain_config(config: RunConfig[Any, Any]) -> dict[str, Any]:
    """The configuration as mappings, lists, strings and numbers."""
    return _plain(asdict(config))


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _plain(each) for name, each in value.items()}
    if isinstance(value, tuple):
        return [_plain(each) for each in value]
    return str(value) if isinstance(value, Path) else value
