"""The sink that logs a run to MLflow."""

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..settings.errors import UsageError
from .events import Event
from .trackers import Scalars

EXPERIMENT = "compressm-zoo"

RUN_ID = "mlflow.txt"
"""The file of a run directory with the identifier of its MLflow run."""


class MLflowSink:
    """The sink that repeats a run's scalars in MLflow, with its options as parameters.

    `uri` is where MLflow keeps its runs: a folder (`file:mlruns`), a database
    (`sqlite:///mlflow.db`), or a server. A run that resumes goes on with its own run of MLflow,
    which takes nothing back: what was logged after the checkpoint is logged again. `UsageError`
    where the package mlflow is missing, and where there is no such place.
    """

    def __init__(self, uri: str, folder: Path, options: Mapping[str, Any]):
        try:
            from mlflow.entities import Metric, Param  # pyright: ignore[reportMissingImports]
            from mlflow.exceptions import MlflowException  # pyright: ignore[reportMissingImports]
            from mlflow.tracking import MlflowClient  # pyright: ignore[reportMissingImports]
        except ImportError:
            raise UsageError(
                "`loop.mlflow` needs the package mlflow: pip install 'compressm-zoo[mlflow]'"
            ) from None
        self._metric, self._scalars, self._ended = Metric, Scalars(), False
        if uri.startswith("file:"):
            # newer versions of MLflow refuse folders without this setting
            os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
        try:
            self._client = MlflowClient(tracking_uri=uri)
            self._run = self._begun(folder, options, Param)
        except MlflowException as error:
            said = " ".join(str(error).split())
            raise UsageError(f"`loop.mlflow` must be where MLflow keeps runs: {said}") from None

    def _begun(self, folder: Path, options: Mapping[str, Any], Param: Any) -> str:
        """The run of MLflow of the run in `folder`, a new one if it has none."""
        client = self._client
        note = folder / RUN_ID
        if note.exists():
            return note.read_text().strip()
        known = client.get_experiment_by_name(EXPERIMENT)
        experiment = client.create_experiment(EXPERIMENT) if known is None else known.experiment_id
        run = client.create_run(experiment, tags={"mlflow.runName": folder.name}).info.run_id
        note.write_text(f"{run}\n")
        params = [Param(name, str(value)[:LONGEST]) for name, value in options.items()]
        for first in range(0, len(params), AT_ONCE):
            client.log_batch(run, params=params[first : first + AT_ONCE])
        return run

    def write(self, event: Event) -> None:
        """Logs the scalars of `event`."""
        self._ended = self._ended or event["event"] == "end"
        found = self._scalars.of(event)
        if not found:
            return
        now = int(1000 * time.time())
        metrics = [
            self._metric(name.replace("[", ".").replace("]", ""), value, now, int(event["step"]))
            for name, value in found.items()
        ]
        self._client.log_batch(self._run, metrics=metrics)

    def rewind(self, step: int) -> None:
        """Logs that the run has gone back. MLflow keeps earlier values."""
        self._client.set_tag(self._run, "gone back to step", str(step))

    def close(self) -> None:
        """Says that the run has ended, or was stopped."""
        self._client.set_terminated(self._run, "FINISHED" if self._ended else "KILLED")


LONGEST = 500
"""Characters of a parameter that MLflow takes."""

AT_ONCE = 100
"""Parameters that it takes at once."""
