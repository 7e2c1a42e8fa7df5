"""The environment of a run: versions, hardware, commit."""

import json
import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

import jax

from zoo.recurrence.choice import usable_cores
from zoo.recurrence.compiled import native

from .events import write_json

LIBRARIES = (
    "compressm-zoo",
    "jax",
    "jaxlib",
    "equinox",
    "optax",
    "diffrax",
    "jaxtyping",
    "beartype",
    "numpy",
    "scipy",
    "tensorflow-datasets",
    "array_record",
    "orbax-checkpoint",
    "scikit-learn",
)


def describe_environment() -> dict[str, Any]:
    """Versions, processor, memory, devices and git commit, as JSON can hold them."""
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "versions": {name: _version(name) for name in LIBRARIES},
        "processor": _processor(),
        "cores": usable_cores(),
        "memory_gib": _memory_gib(),
        "backend": jax.default_backend(),
        "devices": [device.device_kind for device in jax.devices()],
        "recurrence_compiled": native("float32"),
        "xla_flags": os.environ.get("XLA_FLAGS"),
        "git_commit": _git_commit(),
    }


def note_environment(file: Path) -> None:
    """Write `describe_environment()` to `file`; a resumed run extends the file. "resumed" holds the
    environments after the first, where they differ from the one before.
    """
    now = describe_environment()
    if not file.exists():
        write_json(file, now)
        return
    try:
        before = json.loads(file.read_text())
        resumed = before.pop("resumed", [])
    except (ValueError, AttributeError, TypeError) as error:
        raise ValueError(f"{file} must be JSON, as a run leaves it, got: {error}") from None
    if now != [before, *resumed][-1]:
        write_json(file, {**before, "resumed": [*resumed, now]})


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def _memory_gib() -> float | None:
    if "SC_PHYS_PAGES" not in os.sysconf_names:
        return None
    return round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30, 1)


def _git_commit() -> str | None:
    """The commit of this checkout, with "-dirty" where tracked files differ from it."""
    try:
        described = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return described.stdout.strip() or None
