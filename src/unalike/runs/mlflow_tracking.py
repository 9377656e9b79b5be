"""A run in MLflow: parameters, metrics by epoch, final figures with intervals, report, model and its registration, where a tracking URI is set.

Nothing is imported and nothing is sent unless the user set ``mlflow.tracking_uri`` or MLFLOW_TRACKING_URI. The work never waits
long for a server: each call has a time limit, and after the first one that fails there is one warning and no further call.
"""

from __future__ import annotations

import logging
import os
import re
import threading
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from unalike import __version__
from unalike.errors import missing_extra
from unalike.progress import warn
from unalike.runs.filenames import (
    AUTOMATIC_FILE,
    BEST_SPEC_FILE,
    EXPERIMENT_FILE,
    METRICS_FILE,
    MODEL_CARD_FILE,
    MODEL_CARD_PAGE,
    PER_CLASS_FILE,
    RECORD_FILE,
    REPORT_FILE,
    SEARCH_FILE,
    STATUS_FILE,
)
from unalike.sanitize import redact, redact_all
from unalike.telemetry import disable_telemetry

if TYPE_CHECKING:
    from unalike.spec import Experiment

# The actions that make or measure a model.
TRACKED_ACTIONS = ("train", "evaluate", "export", "quantize", "gen_engine", "gen_trt_engine")
# Those whose model becomes a version in the model registry; the others write a model in another format.
REGISTERED_ACTIONS = ("train",)
MODEL_FOLDER = "model"  # of the artifacts
# Longest wait for one call, seconds; for a file, what its size takes at the least rate, bytes per second, is added.
CALL_SECONDS, LEAST_RATE = 30.0, 250_000
# The first call opens the store; that of a new SQLite file makes its tables, some ten seconds (2026-11-29).
OPEN_SECONDS = 90.0
# MLflow's own limits are minutes. They are read at every request; what the user set stays.
CLIENT_SETTINGS = {
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true", "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
}  # fmt: skip
# Bounds of MLflow's API: entries of a request, length of a parameter.
BATCH, MAX_PARAMETER = 100, 500
DEFAULT_EXPERIMENT = "unalike"
MODEL_SUFFIXES = (".pth", ".onnx", ".xml", ".engine")
# Parts of the spec that are filed as parameters, besides the action's own section.
PARAMETER_SECTIONS = ("model_name", "automl_policy", "automl", "train", "model", "dataset")
# Files of a results folder that are kept with the run, where the action wrote them.
RECORDS = (
    REPORT_FILE, EXPERIMENT_FILE, RECORD_FILE, STATUS_FILE, METRICS_FILE, PER_CLASS_FILE, AUTOMATIC_FILE, SEARCH_FILE, BEST_SPEC_FILE,
    MODEL_CARD_FILE, MODEL_CARD_PAGE,
)  # fmt: skip
_NOT_IN_MODEL_NAMES = re.compile(r"[/:]+")
_NOT_IN_NAMES = re.compile(r"[^\w\-. /]", re.ASCII)


class FinalFigures(NamedTuple):
    """What a run reports at its end.

    Attributes:
        kpi: Metrics by name.
        intervals: (low, high) of those that have an interval, by the same names.
        outputs: Main files that the run wrote, wherever they are.
    """

    kpi: Mapping[str, Any]
    intervals: Mapping[str, tuple[float, float]]
    outputs: Sequence[Path]

    def models(self) -> list[Path]:
        """The models among the outputs; beside an .xml its weights."""
        paths = [path for path in dict.fromkeys(self.outputs) if path.suffix in MODEL_SUFFIXES]
        return paths + [path.with_suffix(".bin") for path in paths if path.suffix == ".xml"]


def tracking_uri(experiment: Experiment | None) -> str:
    """The tracking URI that the user set, in the spec or in the environment; empty: none."""
    section = getattr(experiment, "mlflow", None)
    own = getattr(section, "tracking_uri", None)
    return str(own or os.environ.get("MLFLOW_TRACKING_URI") or "")


def open_tracking(action: str, experiment: Experiment | None) -> MlflowRun | None:
    """The run of an action in MLflow; None where the user set no tracking URI, or the action makes and measures no model."""
    uri = tracking_uri(experiment)
    if not uri or action not in TRACKED_ACTIONS or experiment is None:
        return None
    return MlflowRun(uri, action, experiment)


class MlflowRun:
    """One run in MLflow; every method returns within its time limit and raises nothing.

    Args:
        uri: Tracking URI; user information in it is never printed.
        action: The action.
        experiment: Its spec; the section ``mlflow`` names experiment and run.
    """

    def __init__(self, uri: str, action: str, experiment: Experiment) -> None:
        self.uri, self.action = uri, action
        self._name = experiment.mlflow.experiment or os.environ.get("MLFLOW_EXPERIMENT_NAME") or DEFAULT_EXPERIMENT
        self._run_name = experiment.mlflow.run_name
        self._client: Any = None
        self._failed = False
        self._parameters: set[str] = set()  # names of those that MLflow has; it takes no second value
        self._epoch, self._latest = 0, dict[str, float]()
        self.run_id = ""

    # -- from start to end --

    def start(self, experiment: Experiment, folder: Path, run_id: str = "") -> str:
        """Create the run, or continue one, and file the parameters that the user set.

        Args:
            experiment: The spec.
            folder: The results folder, a tag of the run.
            run_id: The run to continue, empty for a new one.

        Returns:
            The run's id; empty where MLflow cannot be used.
        """
        self.run_id = self._attempt(lambda: self._open(folder, run_id), OPEN_SECONDS) or ""
        self._file_parameters({path: value for path, value in self._values(experiment) if experiment.is_set(path)})
        return self.run_id

    def log(self, kpi: Mapping[str, Any], epoch: int) -> None:
        """File metrics of an epoch: the last values of each, when the next epoch begins or the run ends.

        Args:
            kpi: Metrics by name; what is no finite number is left out.
            epoch: Counted from 0.
        """
        if epoch != self._epoch:
            self._file_latest()
        self._epoch = epoch
        self._latest |= _numbers(kpi)

    def finish(self, status: str, experiment: Experiment, folder: Path, final: FinalFigures) -> None:
        """File what is left: metrics, the settled parameters, final figures, records and models; then close the run.

        Args:
            status: FINISHED, FAILED or KILLED.
            experiment: The spec, with the fields that were settled.
            folder: The results folder.
            final: Figures and outputs; models are filed for a run that finished, and that of a training is registered.
        """
        self._file_latest()
        self._file_parameters(dict(self._values(experiment)))
        figures = _numbers(final.kpi)
        for name, bounds in final.intervals.items():
            figures |= _numbers({f"{name} {end}": value for end, value in zip(("low", "high"), bounds, strict=True)})
        self._file_metrics({f"final/{name}": value for name, value in figures.items()}, 0)
        for path in (folder / name for name in RECORDS):
            self._file(path, None)
        models = final.models() if status == "FINISHED" else []
        for path in models:
            self._file(path, MODEL_FOLDER)
        self._attempt(lambda: self._client.set_terminated(self.run_id, status))
        if models and self.action in REGISTERED_ACTIONS:
            self._attempt(self._register, loss="the model is filed with its run, and not in the model registry")

    # -- calls --

    def _open(self, folder: Path, run_id: str) -> str:
        client = self._client = _make_client(self.uri)
        if run_id:
            run = client.get_run(run_id)
            self._parameters = set(run.data.params)
            client.update_run(run_id, status="RUNNING")
            return run_id
        existing = client.get_experiment_by_name(self._name)
        number = existing.experiment_id if existing is not None else self._create_experiment()
        tags = {"unalike.version": __version__, "unalike.action": self.action, "unalike.folder": redact(str(folder))}
        name = self._run_name or f"{self.action} {folder.parent.name if folder.name == self.action else folder.name}"
        return str(client.create_run(number, tags=tags, run_name=redact(name)).info.run_id)

    def _create_experiment(self) -> str:
        try:
            return str(self._client.create_experiment(self._name))
        except Exception:  # another process may have created it meanwhile
            existing = self._client.get_experiment_by_name(self._name)
            if existing is None:
                raise
            return str(existing.experiment_id)

    def _values(self, experiment: Experiment) -> list[tuple[str, Any]]:
        """(dotted path, value) of the fields of the action's sections; credentials are hidden."""
        tree = redact_all(experiment.to_dict())
        tops = [top for top in (*PARAMETER_SECTIONS, self.action) if top in tree]
        return [leaf for top in dict.fromkeys(tops) for leaf in _leaves(top, tree[top])]

    def _file_parameters(self, values: Mapping[str, Any]) -> None:
        texts = {_safe_name(name): str(value)[:MAX_PARAMETER] for name, value in values.items()}
        new = [(name, text) for name, text in texts.items() if name not in self._parameters]
        for start in range(0, len(new), BATCH):
            self._attempt(partial(self._send_parameters, new[start : start + BATCH]))
        self._parameters |= {name for name, _ in new}

    def _send_parameters(self, texts: Sequence[tuple[str, str]]) -> None:
        from mlflow.entities import Param

        self._client.log_batch(self.run_id, params=[Param(name, text) for name, text in texts])

    def _file_latest(self) -> None:
        values, self._latest = self._latest, {}
        self._file_metrics(values, self._epoch)

    def _file_metrics(self, values: Mapping[str, float], epoch: int) -> None:
        if values:
            self._attempt(lambda: self._send_metrics(values, epoch))

    def _send_metrics(self, values: Mapping[str, float], epoch: int) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        metrics = [Metric(_safe_name(name), value, now, epoch) for name, value in values.items()]
        for start in range(0, len(metrics), BATCH):
            self._client.log_batch(self.run_id, metrics=metrics[start : start + BATCH])

    def _file(self, path: Path, folder: str | None) -> None:
        if path.is_file():
            seconds = CALL_SECONDS + path.stat().st_size / LEAST_RATE
            self._attempt(lambda: self._client.log_artifact(self.run_id, str(path), folder), seconds)

    def _register(self) -> None:
        """Make the run's model a version of the registered model that is called as the experiment; once a run."""
        client, name = self._client, _NOT_IN_MODEL_NAMES.sub("_", self._name).strip("_") or DEFAULT_EXPERIMENT
        try:
            client.create_registered_model(name)
        except Exception:  # noqa: BLE001  it is there already; else what follows fails for the same reason
            client.get_registered_model(name)
        if any(version.name == name for version in client.search_model_versions(f"run_id = '{self.run_id}'")):
            return  # a run that was resumed has filed its new model at the same place
        source = f"{client.get_run(self.run_id).info.artifact_uri}/{MODEL_FOLDER}"
        tags = {"unalike.version": __version__, "unalike.action": self.action}
        client.create_model_version(name, source, self.run_id, tags=tags, await_creation_for=0)

    def _attempt(self, call: Callable[[], Any], seconds: float = CALL_SECONDS, loss: str = "") -> Any:
        """Make a call in a thread of its own and wait for it; the first that fails or takes too long is the last.

        A thread, since some waits have no limit in the client: the look-up of a name, a locked file, a folder of a network.
        """
        if self._failed:
            return None
        outcome: dict[str, Any] = {}

        def work() -> None:
            try:
                outcome["value"] = call()
            except Exception as error:  # noqa: BLE001  a service for records must not end the work
                outcome["error"] = error

        thread = threading.Thread(target=work, name="mlflow", daemon=True)
        thread.start()
        thread.join(seconds)
        if thread.is_alive():
            self._give_up(f"no answer within {seconds:.0f} s", loss)
        elif isinstance(outcome.get("error"), ImportError):
            self._give_up(str(missing_extra("mlflow-skinny", "mlflow", "a tracking URI")))
        elif "error" in outcome:
            self._give_up(_reason(outcome["error"]), loss)
        return outcome.get("value")

    def _give_up(self, reason: str, loss: str = "") -> None:
        self._failed = True
        warn(f"MLflow at {redact(self.uri)}: {reason}; {loss or f'{self.action} goes on without it'}")


def _make_client(uri: str) -> Any:
    """MLflow's client, with short limits, silent, and without telemetry."""
    disable_telemetry()
    for name, value in CLIENT_SETTINGS.items():
        os.environ.setdefault(name, value)
    warnings.filterwarnings("ignore", module=r"mlflow(\.|$)")
    from mlflow.tracking import MlflowClient

    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.ERROR)
    return MlflowClient(tracking_uri=uri)


def _reason(error: Exception) -> str:
    """The first line of an error, without credentials."""
    return redact((str(error).splitlines() or [""])[0][:300] or type(error).__name__)


def _safe_name(name: str) -> str:
    """A name that MLflow takes: ``R@1`` becomes ``R at 1``."""
    return _NOT_IN_NAMES.sub("_", name.replace("@", " at "))


def _numbers(kpi: Mapping[str, Any]) -> dict[str, float]:
    """The finite numbers among metrics; numbers of numpy and torch too."""
    numbers = {}
    for name, value in kpi.items():
        try:
            number = float(value)
        except (TypeError, ValueError):
            continue
        if number - number == 0 and not isinstance(value, str):
            numbers[name] = number
    return numbers


def _leaves(path: str, value: Any) -> list[tuple[str, Any]]:
    if isinstance(value, Mapping) and value:
        return [leaf for key, item in value.items() for leaf in _leaves(f"{path}.{key}", item)]
    return [(path, value)]
