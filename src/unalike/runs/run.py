"""A run: its status lines, its record, its signals, and how it ends.

Every action works inside one ``with open_run(...) as run``. ``status.json`` then always ends in SUCCESS or in FAILURE
with the reason, ``experiment.yaml`` holds the resolved spec, ``run.json`` records what ran where, on which data, for how
long. Only rank 0 writes.
"""

from __future__ import annotations

import json
import math
import os
import platform
import signal
import socket
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Any, Self

from unalike import __version__
from unalike.errors import Interrupted, RunError, UnalikeError
from unalike.progress import say
from unalike.runs.environment import redacted_command, versions
from unalike.runs.failures import known_failure, signal_name
from unalike.runs.filenames import EXPERIMENT_FILE, RECORD_FILE, STATUS_FILE, TRACEBACK_FILE
from unalike.runs.lock import release_lock
from unalike.runs.mlflow_tracking import FinalFigures
from unalike.runs.record import read_json
from unalike.runs.unnamed_folder import keep_or_remove
from unalike.sanitize import redact, redact_all
from unalike.storage.atomic import write_text

if TYPE_CHECKING:
    from unalike.runs.mlflow_tracking import MlflowRun
    from unalike.runs.upload import Uploader
    from unalike.spec import Experiment

FORMAT_VERSION = 1
STATUSES = ("STARTED", "RUNNING", "SUCCESS", "FAILURE", "SKIPPED")


def json_text(value: Any, *, indent: int | None = None) -> str:
    """Encode plain data as JSON in readable Unicode.

    Bytes of file names that are not UTF-8 become JSON's escapes, which any reader accepts and ``json.loads`` turns back
    into Python's surrogates. Raises ValueError for numbers that JSON cannot hold.
    """
    text = json.dumps(value, indent=indent, allow_nan=False, ensure_ascii=False)
    return text.encode("utf-8", "backslashreplace").decode()


class Run:
    """A run in its folder; opened by ``open_run``, used as a context manager.

    Attributes:
        action: The action's name.
        dir: The folder. On ranks above 0, when no results folder is set, it means nothing until the caller has
            broadcast it.
        resuming: Whether the folder held a run that is resumed.
        rank: This process's rank; ranks above 0 write nothing.

    A folder that the user did not name (``unnamed``) is removed where the run fails before it wrote results; else
    ``runs/latest`` becomes a link to it.
    """

    def __init__(
        self, action: str, experiment: Experiment | None, folder: Path, *, resume: bool, rank: int,
        uploader: Uploader | None = None, unnamed: bool = False, tracking: MlflowRun | None = None,
    ) -> None:  # fmt: skip
        self.action, self.dir, self.resuming, self.rank = action, folder, resume, rank
        self._experiment, self._uploader, self._unnamed, self._tracking = experiment, uploader, unnamed, tracking
        self._facts: dict[str, Any] = {}
        self._files: list[str] = []
        self._outputs: list[Path] = []
        self._intervals: dict[str, tuple[float, float]] = {}
        self._conclusion: tuple[str, Mapping[str, Any] | None] = (f"{action} finished", None)
        self._signal = 0
        self._graceful = False
        self._handlers: dict[int, Any] = {}
        self._pid = os.getpid()
        self._start, self._start_clock = time.time(), time.monotonic()

    # -- status and record --

    def status(
        self, status: str, message: str = "", kpi: Mapping[str, Any] | None = None, *,
        verbosity: str = "INFO", **progress: Any,
    ) -> None:  # fmt: skip
        """Append one line to ``status.json``.

        Args:
            status: One of ``STATUSES``.
            message: One line for people.
            kpi: Metrics by name; values that are not finite are written as null.
            verbosity: INFO or ERROR.
            **progress: ``epoch``, ``step``, ``max_epoch``, ``max_step`` (numbers), ``time_per_epoch``, ``eta`` (seconds,
                written as h:mm:ss).
        """
        if status not in STATUSES:
            raise ValueError(f"status {status!r}, expected one of {', '.join(STATUSES)}")
        now = datetime.now()
        line: dict[str, Any] = {
            "date": f"{now:%m/%d/%Y}", "time": f"{now:%H:%M:%S}", "status": status,
            "verbosity": verbosity, "message": redact(message),
        }  # fmt: skip
        for key, value in progress.items():
            if value is not None:
                seconds = key in ("time_per_epoch", "eta") and not isinstance(value, str)
                line[key] = str(timedelta(seconds=round(value))) if seconds else _plain(value)
        if kpi:
            line["kpi"] = {name: _plain(value) for name, value in kpi.items()}
        if self.rank == 0:
            with open(self.dir / STATUS_FILE, "ab") as file:
                file.write(json_text(line).encode() + b"\n")
            if self._tracking is not None and kpi and status == "RUNNING" and progress.get("epoch") is not None:
                self._tracking.log(kpi, int(progress["epoch"]))

    def conclude(
        self, message: str, kpi: Mapping[str, Any] | None = None, *, outputs: Sequence[str | Path] = ()
    ) -> None:
        """Set message and metrics of the closing SUCCESS line.

        Args:
            message: One line for people.
            kpi: Metrics by name.
            outputs: Main files that the run wrote, wherever they are; models among them are filed with the run in MLflow.
        """
        self._conclusion, self._outputs = (message, kpi), [Path(path) for path in outputs]

    def add_intervals(self, intervals: Mapping[str, tuple[float, float]]) -> None:
        """Set (low, high) of metrics that have a confidence interval, by the names that ``conclude`` gets."""
        self._intervals |= intervals

    def record(self, **facts: Any) -> None:
        """Add facts to ``run.json``: ``device``, ``seed``, ``data`` (a fingerprint), or any other by name."""
        self._facts.update(facts)
        self._write_record(None)

    def own(self, *paths: str | Path) -> None:
        """Register files of the run whose names --overwrite could not know; those outside the folder are ignored."""
        for path in paths:
            if Path(path).resolve().parent == self.dir.resolve():
                self._files.append(Path(path).name)
        self._write_record(None)

    def write_experiment(self, experiment: Experiment) -> None:
        """Write ``experiment.yaml`` again after more fields have been settled."""
        self._experiment = experiment
        if self.rank == 0:
            write_text(self.dir / EXPERIMENT_FILE, experiment.to_yaml(redacted=True))

    # -- signals --

    def stop_requested(self) -> int:
        """The number of the signal that asked to stop, or 0."""
        return self._signal

    @contextmanager
    def graceful(self) -> Iterator[None]:
        """While inside, the first signal only sets ``stop_requested``; the loop saves, then calls ``stop``.

        A second signal stops at once. Outside, every signal does.
        """
        self._graceful = True
        try:
            yield
        finally:
            self._graceful = False

    def stop(self, detail: str = "") -> None:
        """Raise Interrupted when a signal asked for it; ``detail`` says what was saved."""
        if self._signal:
            raise Interrupted(self._signal, f"stopped by {signal_name(self._signal)}{'; ' + detail if detail else ''}")

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._pid:  # a forked worker inherits the handler and must not handle the signal
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
            return
        first, self._signal = not self._signal, self._signal or number
        if not (self._graceful and first):
            # Not an Exception: libraries that catch those around an image or a batch must not catch this.
            raise KeyboardInterrupt
        say(f"{signal_name(number)}: saving a checkpoint after this step, then stopping (once more: stop at once)")

    def _install_handlers(self) -> None:
        for name in ("SIGINT", "SIGTERM", "SIGHUP"):
            number = getattr(signal, name, None)
            if number is None or signal.getsignal(number) in (signal.SIG_IGN, None):
                continue  # nohup and background shells ignore some on purpose
            try:
                self._handlers[number] = signal.signal(number, self._on_signal)
            except ValueError:
                return  # only the main thread may; elsewhere the caller's handlers stay

    # -- start and end --

    def __enter__(self) -> Self:
        self._install_handlers()
        if self.rank == 0:
            try:
                self._begin()
            except BaseException as error:
                self.__exit__(type(error), error, error.__traceback__)
                raise  # unchanged, where __exit__ has not raised a one-line error in its place
        return self

    def _begin(self) -> None:
        status = self.dir / STATUS_FILE
        if status.exists() and not status.read_bytes().endswith(b"\n"):
            with open(status, "ab") as file:  # a kill may have torn the last line
                file.write(b"\n")
        if self.resuming and (run_id := read_json(self.dir / RECORD_FILE).get("mlflow_run")):
            self._facts["mlflow_run"] = run_id
        self._write_record(None)
        if self._experiment is not None:
            self.write_experiment(self._experiment)
        self.status("STARTED", f"{self.action} {'resumed' if self.resuming else 'started'}")
        if self._uploader is not None:
            self._uploader.start()
        if self._tracking is not None and self._experiment is not None:
            former = self._facts.get("mlflow_run", "") if self.resuming else ""
            run_id = self._tracking.start(self._experiment, self.dir, str(former))
            if run_id:
                self.record(mlflow_run=run_id)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self._handlers.clear()
        failure = known_failure(error, self._signal) if error is not None else None
        if isinstance(failure, Interrupted):
            failure.run_folder, failure.is_named = str(self.dir), not self._unnamed
        if self.rank == 0:
            try:
                self._write_end(error, failure)
                self._finish_tracking(error, failure)
                self._upload_rest(has_failed=error is not None)
            finally:
                release_lock(self.dir)
                if self._unnamed:
                    keep_or_remove(self.dir, failure)
        if failure is not None and failure is not error:
            raise failure from error

    def _write_end(self, error: BaseException | None, failure: UnalikeError | None) -> None:
        if error is None:
            message, kpi = self._conclusion
            self.status("SUCCESS", message, kpi)
            self._write_record(0)
            return
        reason = str(failure) if failure is not None else f"{type(error).__name__}: {error}"
        try:
            if failure is None:
                path = self.dir / TRACEBACK_FILE
                write_text(path, redact("".join(traceback.format_exception(error))))
                error.unalike_traceback = path  # type: ignore[attr-defined]
            self.status("FAILURE", " ".join(reason.split()), verbosity="ERROR")
            self._write_record(failure.exit_code if failure is not None else _exit_code(error))
        except OSError as write_error:
            # The disk that caused the failure may be full; the reason still goes to the caller.
            say(
                f"warning: {self.dir}: the failure could not be recorded ({write_error.strerror or write_error})",
                level=0,
            )

    def _finish_tracking(self, error: BaseException | None, failure: UnalikeError | None) -> None:
        if self._tracking is None or self._experiment is None:
            return
        status = "FINISHED" if error is None else "KILLED" if isinstance(failure, Interrupted) else "FAILED"
        kpi = self._conclusion[1] if error is None else None
        self._tracking.finish(
            status, self._experiment, self.dir, FinalFigures(kpi or {}, self._intervals, self._outputs)
        )

    def _upload_rest(self, *, has_failed: bool) -> None:
        """Upload the remaining results; a successful run becomes a failure when that cannot be done."""
        if self._uploader is None:
            return
        try:
            self._uploader.finish()
        except RunError as upload_error:
            self.status("FAILURE", str(upload_error), verbosity="ERROR")
            self._write_record(upload_error.exit_code)
            if not has_failed:
                raise
            say(f"warning: {upload_error}", level=0)

    def _write_record(self, exit_code: int | None) -> None:
        if self.rank != 0:
            return
        is_over = exit_code is not None
        record = {
            "format_version": FORMAT_VERSION, "tool": "unalike", "version": __version__, "action": self.action,
            "command": redacted_command(), "resumed": self.resuming, "host": socket.gethostname(), "pid": self._pid,
            "started": f"{datetime.fromtimestamp(self._start):%Y-%m-%d %H:%M:%S}",
            "wall_time_s": round(time.monotonic() - self._start_clock, 3) if is_over else None, "exit": exit_code,
            "python": platform.python_version(), "platform": platform.platform(), "versions": versions(),
            "device": None, "seed": getattr(getattr(self._experiment, self.action, None), "seed", None), "data": None,
            **{key: _plain(value) for key, value in self._facts.items()},
            "files": sorted(set(self._files)),
        }  # fmt: skip
        write_text(self.dir / RECORD_FILE, json_text(redact_all(record), indent=2) + "\n")


def _exit_code(error: BaseException) -> int:
    return error.code if isinstance(error, SystemExit) and isinstance(error.code, int) else 1


def _plain(value: Any) -> Any:
    """Data that JSON can hold: numbers of numpy and torch as Python's, those that are not finite as null, the rest as text."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if not isinstance(value, (str, int, float, bool, type(None))):
        value = value.item() if hasattr(value, "item") else str(value)
    return None if isinstance(value, float) and not math.isfinite(value) else value
