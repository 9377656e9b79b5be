"""A run's folder: where it lies, who holds it, what it says about itself, and how it ends.

Every action works inside one ``with open_run(...) as run``. The folder then always tells the truth: ``status.json``
ends in SUCCESS or in FAILURE with the reason, ``experiment.yaml`` holds the resolved spec, ``run.json`` says what ran
where, on which data, for how long. Only rank 0 writes.
"""

from __future__ import annotations

import json
import math
import os
import platform
import signal
import socket
import sys
import time
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, Protocol, Self

from . import __version__
from .data.cache import staging_entry
from .data.stores import uri_of
from .data.whole import write_text
from .errors import Interrupted, RunError, SpecError, UnalikeError, redact, redact_all
from .failures import known_failure, signal_name
from .lock import release_lock, take_lock
from .mirror import Mirror, mirror_of
from .progress import say

FORMAT_VERSION = 1
STATUSES = ("STARTED", "RUNNING", "SUCCESS", "FAILURE", "SKIPPED")
# Any of these says that a folder holds a run already, one of TAO's included.
RUN_MARKS = ("status.json", "experiment.yaml", "run.json")
# What --overwrite may delete, besides files that the run registered with ``own``: names that only we write.
OWN_FILES = (
    *RUN_MARKS, "FAILURE.txt", "traceback.txt", "notices.json", "notices.txt",
    "model_epoch_*_step_*.pth", "ml_model_latest.pth", "ml_model_best.pth", "model_card.json", "model_card.md",
    "events.out.tfevents.*", "tensorboard/events.out.tfevents.*", "train_split.csv", "split.csv",
    "metrics.json", "per_class.csv", "predictions.parquet", "predictions.csv", "confusion.csv",
    "study.db", "study.db-*", "trials.jsonl", "search.json", "best_spec.yaml", "selection.csv",
    "result.csv", "result.jsonl", "report.html", ".*.partial-*",
)  # fmt: skip
PARTS = ("fine_tuning", "fine_tuning_[0-9]")
# Whose versions a run records: what may change a number.
RECORDED_PACKAGES = (
    "numpy", "Pillow", "torch", "timm", "lightning-fabric", "pytorch-metric-learning", "scikit-learn", "optuna",
    "onnx", "onnxruntime", "openvino", "safetensors", "faiss-cpu",
)  # fmt: skip
SECRET_WORDS = ("key", "token", "password", "secret")


class Spec(Protocol):
    """What a run needs of an Experiment."""

    def to_yaml(self) -> str: ...


def json_text(value: Any, *, indent: int | None = None) -> str:
    """JSON in readable Unicode; the bytes of names that are not UTF-8 as JSON's own escapes, so that any reader takes it.

    ``json.loads`` gives such names back as Python has them. Raises ValueError for numbers that JSON cannot hold.
    """
    text = json.dumps(value, indent=indent, allow_nan=False, ensure_ascii=False)
    return text.encode("utf-8", "backslashreplace").decode()


def process_rank() -> int:
    """This process's rank by torchrun's, SLURM's or Fabric's environment; 0 when it is alone."""
    env = os.environ
    if env.get("RANK", "").isdigit():
        return int(env["RANK"])
    if int(env.get("SLURM_NTASKS") or 1) > 1 and env.get("SLURM_PROCID", "").isdigit():
        return int(env["SLURM_PROCID"])
    return int(env.get("NODE_RANK") or 0) or int(env.get("LOCAL_RANK") or 0)


def process_count() -> int:
    """How many processes share this run by torchrun's or SLURM's environment; 1 when it is alone."""
    for name in ("WORLD_SIZE", "SLURM_NTASKS"):
        if os.environ.get(name, "").isdigit():
            return max(1, int(os.environ[name]))
    return 1


def results_folder(action: str, experiment: Spec | None) -> Path | None:
    """The contract's rule: ``<action>.results_dir``, else ``results_dir/<action>``; None when neither is set.

    Evaluate and inference on a TensorRT engine go to ``trt_evaluate`` and ``trt_inference``. Of a URI it is the folder on
    this machine in which the run works.
    """
    place = _results_place(action, experiment)
    uri = uri_of(place)
    return staging_entry(uri).path if uri else Path(place).expanduser() if place else None


def _results_place(action: str, experiment: Spec | None) -> str:
    """The results folder as it was named, a path or a URI; empty when none was."""
    section = getattr(experiment, action, None)
    own = getattr(section, "results_dir", None)
    root = getattr(experiment, "results_dir", None)
    engine = action in ("evaluate", "inference") and getattr(section, "trt_engine", None)
    return str(own) if own else f"{str(root).rstrip('/')}/{'trt_' * bool(engine)}{action}" if root else ""


def holds_run(folder: Path) -> bool:
    """Whether the folder holds a run's files, ours or TAO's."""
    return any((folder / mark).exists() for mark in RUN_MARKS)


def open_run(
    action: str, experiment: Spec | None, *, resume: bool = False, overwrite: bool = False, rank: int | None = None
) -> Run:
    """Claim the folder of a run; use the result as a context manager.

    ``resume`` goes on in a folder that holds a run (and starts one where there is none); ``overwrite`` deletes the
    files that the former run wrote there, nothing else. Raises RunError when the folder is occupied, locked or
    cannot be written, SpecError when the two are combined or ``resume`` has no folder to look in.
    """
    if resume and overwrite:
        raise SpecError("--resume and --overwrite together", remedy="choose one")
    rank = process_rank() if rank is None else rank
    folder = results_folder(action, experiment)
    if folder is None and resume:
        raise SpecError("--resume without a results folder", remedy="name the folder of the run with --results-dir")
    checkpoint = getattr(getattr(experiment, action, None), "resume_training_checkpoint_path", None)
    if checkpoint and folder is not None and Path(checkpoint).resolve().parent == folder.resolve():
        resume = resume or not overwrite  # continuing from a checkpoint of this very folder was asked for by name
    if rank != 0:
        return Run(action, experiment, folder or Path("runs"), resume=resume, rank=rank)
    uri = uri_of(_results_place(action, experiment))
    mirror = mirror_of(uri, RUN_MARKS) if uri else None
    try:
        folder = _new_folder(action) if folder is None else folder
        folder.mkdir(parents=True, exist_ok=True)
        take_lock(folder, action)
    except OSError as error:
        raise _folder_error(folder, error) from error
    try:
        if mirror is not None:
            mirror.pull(resume=resume, overwrite=overwrite)
        resume = _settle_occupancy(folder, resume=resume, overwrite=overwrite)
        if mirror is not None:
            mirror.prune()
    except BaseException:
        release_lock(folder)
        raise
    return Run(action, experiment, folder, resume=resume, rank=0, mirror=mirror)


def _folder_error(folder: Path | None, error: OSError) -> RunError:
    where = folder if folder is not None else Path("runs").resolve()
    if isinstance(error, (FileExistsError, NotADirectoryError)):
        return RunError(f"results folder {where} is a file", expected="a folder", remedy="choose another results_dir")
    why = error.strerror or str(error)
    return RunError(f"results folder {where} cannot be written ({why})", remedy="choose another with --results-dir")


def _new_folder(action: str) -> Path:
    stem = f"{datetime.now():%Y%m%d-%H%M%S}-{action}"
    for count in range(1, 1000):
        folder = Path("runs") / (stem if count == 1 else f"{stem}-{count}")
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            if not Path("runs").is_dir():
                raise
        else:
            return folder
    raise RunError(f"runs/ holds a thousand folders named {stem}", remedy="name one with --results-dir")


def _settle_occupancy(folder: Path, *, resume: bool, overwrite: bool) -> bool:
    """Refuse, clear or go on; returns whether there is a run to go on with."""
    if not holds_run(folder):
        if resume:
            say(f"{folder}: no run to resume there, starting from the beginning")
        return False
    if resume:
        return True
    if not overwrite:
        raise RunError(
            f"{folder} holds another run",
            remedy="go on with it (--resume), replace it (--overwrite) or choose another folder (--results-dir)",
        )
    _clear(folder)
    return False


def _clear(folder: Path) -> None:
    """Delete what the former run wrote: by record and by our own names, files of this folder only, links unfollowed."""
    record: Any = None
    try:
        record = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        pass  # no record, or a torn one: the next lines refuse
    if not isinstance(record, dict) or record.get("tool") != "unalike":
        raise RunError(
            f"{folder} holds a run that this tool did not write (no run.json of ours)",
            remedy="remove it yourself or choose another folder with --results-dir",
        )
    # Training in parts (``learn.part``) has run folders of its own within.
    parts = [path for name in PARTS for path in folder.glob(name) if path.is_dir() and not path.is_symlink()]
    doomed = {path for place in (folder, *parts) for pattern in OWN_FILES for path in place.glob(pattern)}
    inside = folder.resolve()
    for name in record.get("files", []):
        path = folder / str(name)
        if path.parent.resolve() == inside:
            doomed.add(path)
    for path in sorted(doomed):
        if path.is_symlink() or path.is_file():
            path.unlink(missing_ok=True)
    for place in (*(part / "tensorboard" for part in parts), *parts, folder / "tensorboard"):
        if place.is_dir() and not place.is_symlink() and not any(place.iterdir()):
            place.rmdir()


# ---- the run ----


class Run:
    """One run's folder while it is worked in; made by ``open_run``, used as a context manager.

    Attributes: ``dir`` the folder; ``action``; ``resuming`` whether it held a run to go on with; ``rank`` (ranks above
    0 write nothing; when no results folder is set their ``dir`` is meaningless until the caller has broadcast it).
    """

    def __init__(
        self, action: str, experiment: Spec | None, folder: Path, *, resume: bool, rank: int,
        mirror: Mirror | None = None,
    ) -> None:  # fmt: skip
        self.action, self.dir, self.resuming, self.rank, self._mirror = action, folder, resume, rank, mirror
        self._experiment = experiment
        self._facts: dict[str, Any] = {}
        self._files: list[str] = []
        self._conclusion: tuple[str, Mapping[str, Any] | None] = (f"{action} finished", None)
        self._signal = 0
        self._graceful = False
        self._handlers: dict[int, Any] = {}
        self._pid = os.getpid()
        self._start = time.time()

    # -- what the action tells --

    def status(
        self, status: str, message: str = "", kpi: Mapping[str, Any] | None = None, *,
        verbosity: str = "INFO", **progress: Any,
    ) -> None:  # fmt: skip
        """Append one line to ``status.json``.

        ``progress``: ``epoch``, ``step``, ``max_epoch``, ``max_step`` (numbers), ``time_per_epoch``, ``eta`` (seconds,
        written as h:mm:ss). KPI values that are not finite are written as null.
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
            with open(self.dir / "status.json", "ab") as file:
                file.write(json_text(line).encode() + b"\n")

    def conclude(self, message: str, kpi: Mapping[str, Any] | None = None) -> None:
        """Set what the closing SUCCESS line says."""
        self._conclusion = (message, kpi)

    def record(self, **facts: Any) -> None:
        """Add facts to ``run.json``: ``device``, ``seed``, ``data`` (a fingerprint) and whatever else the action knows."""
        self._facts.update(facts)
        self._write_record(None)

    def own(self, *paths: str | Path) -> None:
        """Register files of the run whose names --overwrite could not know; those outside the folder are left out."""
        for path in paths:
            if Path(path).resolve().parent == self.dir.resolve():
                self._files.append(Path(path).name)
        self._write_record(None)

    def write_experiment(self, experiment: Spec) -> None:
        """Write ``experiment.yaml`` anew, once more fields have been settled."""
        self._experiment = experiment
        if self.rank == 0:
            write_text(self.dir / "experiment.yaml", redact(experiment.to_yaml()))

    # -- stopping --

    def stop_requested(self) -> int:
        """The number of the signal that asked to stop, or 0."""
        return self._signal

    @contextmanager
    def graceful(self) -> Iterator[None]:
        """While inside, the first signal only sets ``stop_requested``; the loop saves, then calls ``stop``.

        A second signal stops at once. Outside, every signal does: nobody is asking.
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
        if os.getpid() != self._pid:  # a forked worker inherits the handler, but not the duty
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
            return
        first, self._signal = not self._signal, self._signal or number
        if not (self._graceful and first):
            # Not an Exception: libraries that catch those around an image or a batch must not swallow it.
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
                return  # only the main thread may; elsewhere the caller's handlers rule

    # -- beginning and end --

    def __enter__(self) -> Self:
        self._install_handlers()
        if self.rank == 0:
            try:
                self._begin()
            except BaseException as error:
                self.__exit__(type(error), error, error.__traceback__)
                raise  # as it came, where __exit__ had no better form to raise
        return self

    def _begin(self) -> None:
        status = self.dir / "status.json"
        if status.exists() and not status.read_bytes().endswith(b"\n"):
            with open(status, "ab") as file:  # a kill may have torn the last line
                file.write(b"\n")
        self._write_record(None)
        if self._experiment is not None:
            self.write_experiment(self._experiment)
        self.status("STARTED", f"{self.action} {'resumed' if self.resuming else 'started'}")
        if self._mirror is not None:
            self._mirror.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self._handlers.clear()
        known = known_failure(error, self._signal) if error is not None else None
        if self.rank == 0:
            try:
                self._end(error, known)
                self._deliver(failed=error is not None)
            finally:
                release_lock(self.dir)
        if known is not None and known is not error:
            raise known from error

    def _end(self, error: BaseException | None, known: UnalikeError | None) -> None:
        if error is None:
            message, kpi = self._conclusion
            self.status("SUCCESS", message, kpi)
            self._write_record(0)
            return
        reason = str(known) if known is not None else f"{type(error).__name__}: {error}"
        try:
            if known is None:
                path = self.dir / "traceback.txt"
                write_text(path, redact("".join(traceback.format_exception(error))))
                error.unalike_traceback = path  # type: ignore[attr-defined]
            self.status("FAILURE", " ".join(reason.split()), verbosity="ERROR")
            self._write_record(known.exit_code if known is not None else _exit_code(error))
        except OSError as second:
            # The disk that caused the failure cannot take the words about it; the reason still goes to the caller.
            say(f"warning: {self.dir}: the failure could not be written down ({second.strerror or second})", level=0)

    def _deliver(self, *, failed: bool) -> None:
        """Send the results where they belong; a run that ended well ends in failure when that cannot be done."""
        if self._mirror is None:
            return
        try:
            self._mirror.finish()
        except RunError as refused:
            self.status("FAILURE", str(refused), verbosity="ERROR")
            self._write_record(refused.exit_code)
            if not failed:
                raise
            say(f"warning: {refused}", level=0)

    def _write_record(self, exit_code: int | None) -> None:
        if self.rank != 0:
            return
        ended = exit_code is not None
        record = {
            "format_version": FORMAT_VERSION, "tool": "unalike", "version": __version__, "action": self.action,
            "command": _shown_command(), "resumed": self.resuming, "host": socket.gethostname(), "pid": self._pid,
            "started": f"{datetime.fromtimestamp(self._start):%Y-%m-%d %H:%M:%S}",
            "wall_time_s": round(time.time() - self._start, 3) if ended else None, "exit": exit_code,
            "python": platform.python_version(), "platform": platform.platform(), "versions": versions(),
            "device": None, "seed": getattr(getattr(self._experiment, self.action, None), "seed", None), "data": None,
            **{key: _plain(value) for key, value in self._facts.items()},
            "files": sorted(set(self._files)),
        }  # fmt: skip
        write_text(self.dir / "run.json", json_text(redact_all(record), indent=2) + "\n")


def _exit_code(error: BaseException) -> int:
    return error.code if isinstance(error, SystemExit) and isinstance(error.code, int) else 1


def _plain(value: Any) -> Any:
    """Numbers of numpy and torch as Python's, not-finite ones as null, the rest as JSON can hold it."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if not isinstance(value, (str, int, float, bool, type(None))):
        value = value.item() if hasattr(value, "item") else str(value)
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _shown_command() -> list[str]:
    """The command line, with the values of keys and tokens left out."""
    shown = []
    for word in sys.argv:
        name, equals, _ = word.partition("=")
        secret = equals and any(part in name.lower().rsplit(".", 1)[-1].split("_") for part in SECRET_WORDS)
        shown.append(f"{name}=***" if secret else word)
    return shown


_found_versions: dict[str, str] = {}


def versions() -> dict[str, str]:
    """Installed versions of what may change a number; read from package metadata, nothing is imported."""
    if not _found_versions:
        from importlib import metadata

        for name in RECORDED_PACKAGES:
            try:
                _found_versions[name] = metadata.version(name)
            except metadata.PackageNotFoundError:
                continue
    return dict(_found_versions)
