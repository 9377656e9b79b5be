"""A run's folder: where, whose, what it says, and how it ends."""

from __future__ import annotations

import errno
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from unalike.errors import DataError, DeviceError, Interrupted, RunError, SpecError
from unalike.runs.environment import process_rank
from unalike.runs.failures import saved_traceback
from unalike.runs.filenames import LOCK_FILE
from unalike.runs.folder import open_run, results_folder
from unalike.storage.atomic import write_text


class Spec(SimpleNamespace):
    def to_yaml(self, *, redacted: bool = False) -> str:
        return "results_dir: x\n"


def spec(root: Path | str | None = None, *, action: str = "train", own: Path | None = None, **section: Any) -> Spec:
    return Spec(results_dir=root, **{action: SimpleNamespace(results_dir=own, seed=7, **section)})


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "status.json").read_text().splitlines()]


def record(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "run.json").read_text())


def test_names_that_are_not_utf8(tmp_path: Path) -> None:
    odd = "K\udce4se"
    with open_run("train", spec(tmp_path)) as run:
        run.status("RUNNING", odd)
        run.record(data=odd)
        write_text(run.dir / "list.txt", odd)
    assert lines(run.dir)[1]["message"] == record(run.dir)["data"] == odd
    assert (run.dir / "list.txt").read_bytes() == b"K\xe4se"
    with open_run("train", spec(tmp_path), overwrite=True):
        pass


# ---- where ----


def test_folder_rule_of_the_contract(tmp_path: Path) -> None:
    assert results_folder("train", spec(tmp_path)) == tmp_path / "train"
    assert results_folder("train", spec(tmp_path, own=tmp_path / "mine")) == tmp_path / "mine"
    assert results_folder("train", spec()) is None
    engine = spec(tmp_path, action="evaluate", trt_engine="model.engine")
    assert results_folder("evaluate", engine) == tmp_path / "trt_evaluate"


def test_unset_folder_is_named_by_time_and_never_shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with open_run("train", spec()) as first, open_run("train", spec()) as second:
        assert first.dir != second.dir
    for run in (first, second):
        assert run.dir.parent == Path("runs") and "-train" in run.dir.name
        assert run.dir.name[:8].isdigit()
        assert record(run.dir)["exit"] == 0


def test_the_latest_run_has_a_link_and_a_failed_call_leaves_no_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    def fail(error: BaseException, *, writes: bool = False) -> Path:
        with pytest.raises(type(error)), open_run("train", spec()) as run:
            if writes:
                (run.dir / "ml_model_latest.pth").write_text("x")
            raise error
        return run.dir

    assert not fail(DataError("no images")).exists()
    assert not Path("runs").exists()
    with open_run("train", spec()) as first:
        pass
    assert Path("runs/latest").resolve() == first.dir.resolve()
    assert not fail(SpecError("a mistake")).exists()
    assert Path("runs/latest").resolve() == first.dir.resolve()
    for error, writes in ((DataError("late"), True), (Interrupted(2, "stopped"), False), (ZeroDivisionError(), False)):
        kept = fail(error, writes=writes)
        assert kept.exists() and Path("runs/latest").resolve() == kept.resolve()


def test_a_folder_of_a_call_that_failed_without_results_is_used_again(tmp_path: Path) -> None:
    with pytest.raises(DataError), open_run("train", spec(tmp_path)):
        raise DataError("no images")
    assert lines(tmp_path / "train")[-1]["status"] == "FAILURE"
    with open_run("train", spec(tmp_path)):
        pass
    assert [line["status"] for line in lines(tmp_path / "train")] == ["STARTED", "SUCCESS"]


def test_folder_that_cannot_be_used_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "train").write_text("a file")
    with pytest.raises(RunError, match="is a file"):
        open_run("train", spec(tmp_path))
    with pytest.raises(RunError, match="an address that can be written"):
        open_run("train", spec("https://host/results"))


# ---- whose ----


def test_a_cache_that_cannot_be_written_is_named_where_results_go_to_an_address(tmp_path, monkeypatch) -> None:
    (tmp_path / "cache").write_text("a file")
    monkeypatch.setenv("UNALIKE_CACHE", str(tmp_path / "cache"))
    with pytest.raises(DataError, match="the cache .* UNALIKE_CACHE names"), open_run("train", spec("memory://b/x")):
        pass


def test_occupied_folder_is_refused(tmp_path: Path) -> None:
    with open_run("train", spec(tmp_path)):
        pass
    with pytest.raises(RunError, match="--resume.*--overwrite"):
        open_run("train", spec(tmp_path))
    assert not (tmp_path / "train" / LOCK_FILE).exists()
    with open_run("train", spec(tmp_path), resume=True) as run:
        assert run.resuming
    assert [line["status"] for line in lines(tmp_path / "train")] == ["STARTED", "SUCCESS"] * 2


def test_resume_without_a_run_starts_one(tmp_path: Path) -> None:
    with open_run("train", spec(tmp_path), resume=True) as run:
        assert not run.resuming
    with pytest.raises(SpecError):
        open_run("train", spec(), resume=True)
    with pytest.raises(SpecError):
        open_run("train", spec(tmp_path), resume=True, overwrite=True)


def test_checkpoint_of_this_folder_asks_for_resuming(tmp_path: Path) -> None:
    with open_run("train", spec(tmp_path)):
        pass
    mine = spec(tmp_path, resume_training_checkpoint_path=str(tmp_path / "train" / "model_epoch_000_step_00001.pth"))
    with open_run("train", mine) as run:
        assert run.resuming


def test_overwrite_deletes_what_we_wrote_and_nothing_else(tmp_path: Path) -> None:
    outside = tmp_path / "keep.pth"
    outside.write_text("outside")
    with open_run("train", spec(tmp_path)) as run:
        (run.dir / "model_epoch_001_step_00010.pth").write_text("weights")
        (run.dir / "model.onnx").write_text("graph")
        run.own(run.dir / "model.onnx", outside)
        (run.dir / "ml_model_latest.pth").symlink_to(outside)
        for part, files in (
            ("fine_tuning", ["experiment.yaml"]),
            ("fine_tuning_1", ["ml_model_latest.pth", "mine.txt"]),
        ):
            (run.dir / part / "tensorboard").mkdir(parents=True)
            (run.dir / part / "tensorboard" / "events.out.tfevents.1").write_text("")
            for name in files:
                (run.dir / part / name).write_text("")
    (run.dir / "notes.txt").write_text("the user's")
    (run.dir / "photographs").mkdir()
    (run.dir / "photographs" / "status.json").write_text("the user's too")
    with open_run("train", spec(tmp_path), overwrite=True):
        left = {str(path.relative_to(run.dir)) for path in run.dir.rglob("*")}
    ours = {"status.json", "run.json", "experiment.yaml", LOCK_FILE}
    theirs = {"notes.txt", "photographs", "photographs/status.json", "fine_tuning_1", "fine_tuning_1/mine.txt"}
    assert left == ours | theirs
    assert outside.read_text() == "outside"
    assert len(lines(run.dir)) == 2


def test_overwrite_refuses_a_run_that_is_not_ours(tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "status.json").write_text("{}\n")
    with pytest.raises(RunError, match="did not write"):
        open_run("train", spec(tmp_path), overwrite=True)
    assert (tmp_path / "train" / "status.json").exists()


def test_foreign_files_do_not_make_a_folder_occupied(tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "notes.txt").write_text("mine")
    with open_run("train", spec(tmp_path)):
        pass
    assert (tmp_path / "train" / "notes.txt").read_text() == "mine"
    assert lines(tmp_path / "train")[-1]["status"] == "SUCCESS"


def test_lock_names_its_holder(tmp_path: Path) -> None:
    with open_run("train", spec(tmp_path)), pytest.raises(RunError, match=f"in use by process {os.getpid()}"):
        open_run("train", spec(tmp_path), resume=True)


def write_lock(folder: Path, **holder: object) -> None:
    folder.mkdir(parents=True)
    (folder / LOCK_FILE).write_text(json.dumps({"process_start": "", **holder}))


def test_lock_of_a_dead_process_is_taken_over_and_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dead = subprocess.Popen([sys.executable, "-c", "pass"])
    dead.wait()
    write_lock(tmp_path / "train", host=socket.gethostname(), pid=dead.pid)
    with open_run("train", spec(tmp_path)):
        assert json.loads((tmp_path / "train" / LOCK_FILE).read_text())["pid"] == os.getpid()
    assert f"took over the lock of process {dead.pid}" in capsys.readouterr().err
    assert sorted(os.listdir(tmp_path / "train")) == ["experiment.yaml", "run.json", "status.json"]


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")
def test_lock_of_a_reused_process_number_is_taken_over(tmp_path: Path) -> None:
    write_lock(tmp_path / "train", host=socket.gethostname(), pid=os.getppid(), process_start="1")
    with open_run("train", spec(tmp_path)) as run:
        assert json.loads((run.dir / LOCK_FILE).read_text())["pid"] == os.getpid()
    assert lines(run.dir)[-1]["status"] == "SUCCESS"


def test_lock_of_another_host_or_unreadable_is_obeyed(tmp_path: Path) -> None:
    write_lock(tmp_path / "train", host="elsewhere", pid=1)
    with pytest.raises(RunError, match="process 1 on elsewhere"):
        open_run("train", spec(tmp_path))
    (tmp_path / "train" / LOCK_FILE).write_text("")
    with pytest.raises(RunError, match="cannot be read"):
        open_run("train", spec(tmp_path))


def test_other_ranks_write_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    assert process_rank() == 1
    with open_run("train", spec(tmp_path)) as run:
        run.status("RUNNING", "x")
        run.record(device="cpu")
        run.write_experiment(spec(tmp_path))
    assert list(tmp_path.iterdir()) == []


# ---- what it says ----


def test_status_lines_are_the_contract_s(tmp_path: Path) -> None:
    import numpy as np

    with open_run("train", spec(tmp_path)) as run:
        run.status("RUNNING", "epoch 1", {"train_loss": np.float32(0.5), "val_AMI": float("nan")}, epoch=1, step=20,
                   max_epoch=5, max_step=100, time_per_epoch=61.2, eta=4000.0)  # fmt: skip
        run.conclude("trained", {"val Precision at Rank 1": 0.75})
    started, running, done = lines(run.dir)
    assert set(started) == {"date", "time", "status", "verbosity", "message"}
    time.strptime(f"{started['date']} {started['time']}", "%m/%d/%Y %H:%M:%S")
    assert running["kpi"] == {"train_loss": 0.5, "val_AMI": None}
    assert (running["time_per_epoch"], running["eta"], running["max_step"]) == ("0:01:01", "1:06:40", 100)
    assert (done["status"], done["message"]) == ("SUCCESS", "trained")
    assert done["kpi"] == {"val Precision at Rank 1": 0.75}
    with pytest.raises(ValueError):
        run.status("DONE")


def test_record_says_what_ran(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["unalike", "train", "encryption_key=abc", "a.api_token=abc", "train.seed=7"])
    with open_run("train", spec(tmp_path)) as run:
        run.record(device="cpu", data="a fingerprint")
        assert record(run.dir)["exit"] is None
    told = record(run.dir)
    assert told["command"] == ["unalike", "train", "encryption_key=***", "a.api_token=***", "train.seed=7"]
    assert (told["seed"], told["device"], told["data"], told["exit"]) == (7, "cpu", "a fingerprint", 0)
    assert told["wall_time_s"] >= 0 and "numpy" in told["versions"]
    assert (run.dir / "experiment.yaml").read_text() == "results_dir: x\n"


def test_torn_last_line_is_closed_before_going_on(tmp_path: Path) -> None:
    with open_run("train", spec(tmp_path)) as run:
        pass
    with open(run.dir / "status.json", "a") as file:
        file.write('{"date": "11/')
    with open_run("train", spec(tmp_path), resume=True):
        pass
    assert (run.dir / "status.json").read_text().splitlines()[2] == '{"date": "11/'


# ---- how it ends ----

ENDINGS: list[tuple[BaseException, type[BaseException], int, str]] = [
    (ValueError("of\ntwo lines"), ValueError, 1, "ValueError: of two lines"),
    (RunError("found", remedy="do this"), RunError, 1, "found; do this"),
    (MemoryError(), DeviceError, 1, "out of memory"),
    (
        OSError(errno.ENOSPC, "No space left", "/x/model.pth"),
        RunError,
        1,
        "the disk is full while writing /x/model.pth",
    ),
    (KeyboardInterrupt(), Interrupted, 130, "stopped by Ctrl-C"),
    (SystemExit(0), RunError, 1, "ended early by sys.exit"),
    (SystemExit(3), SystemExit, 3, "SystemExit: 3"),
]


@pytest.mark.parametrize(("thrown", "seen", "code", "message"), ENDINGS)
def test_every_ending_is_written_down(
    tmp_path: Path, thrown: BaseException, seen: type[BaseException], code: int, message: str
) -> None:
    with pytest.raises(seen) as caught, open_run("train", spec(tmp_path)):
        raise thrown
    last = lines(tmp_path / "train")[-1]
    assert last["status"] == "FAILURE" and message in last["message"]
    assert record(tmp_path / "train")["exit"] == code
    assert not (tmp_path / "train" / LOCK_FILE).exists()
    if seen in (ValueError, SystemExit):
        path = saved_traceback(caught.value)
        assert path is not None and "Traceback" in path.read_text()


def test_full_disk_that_cannot_even_take_the_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(RunError, match="disk is full"), open_run("train", spec(tmp_path)) as run:
        monkeypatch.setattr(run, "status", full)
        full()


def test_failure_while_beginning_is_written_down_and_unlocks(tmp_path: Path) -> None:
    broken = spec(tmp_path)
    broken.to_yaml = lambda **_: 1 / 0  # type: ignore[method-assign, assignment, return-value]
    with pytest.raises(ZeroDivisionError), open_run("train", broken):
        pass
    assert lines(tmp_path / "train")[-1]["status"] == "FAILURE"
    assert not (tmp_path / "train" / LOCK_FILE).exists()


PROGRAM = """
import sys, time
from types import SimpleNamespace as N
from unalike.errors import UnalikeError
from unalike.runs.folder import open_run

class Spec(N):
    def to_yaml(self, *, redacted=False): return ""

graceful, forever = sys.argv[2] == "graceful", sys.argv[2] == "stubborn"
try:
    with open_run("train", Spec(results_dir=sys.argv[1], train=N(results_dir=None))) as run:
        if not graceful and not forever:
            print("ready", flush=True)
            try:
                time.sleep(60)
            except Exception:
                time.sleep(60)
        with run.graceful():
            print("ready", flush=True)
            while forever or not run.stop_requested():
                time.sleep(0.02)
            run.stop("checkpoint saved")
except UnalikeError as error:
    print(error, flush=True)
    sys.exit(error.exit_code)
"""


@pytest.mark.parametrize(("number", "code", "name"), [(signal.SIGTERM, 143, "SIGTERM"), (signal.SIGINT, 130, "Ctrl-C")])
@pytest.mark.parametrize("mode", ["graceful", "immediate", "stubborn"])
def test_signals_stop_the_run(tmp_path: Path, number: int, code: int, name: str, mode: str) -> None:
    command = [sys.executable, "-c", PROGRAM, str(tmp_path), mode]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
        process.send_signal(number)
        if mode == "stubborn":  # the first asks, the second stops at once
            time.sleep(0.3)
            assert process.poll() is None
            process.send_signal(number)
        try:
            out, _ = process.communicate(timeout=30)
        finally:
            process.kill()  # else a process that did not stop would be waited for without end
    assert process.returncode == code
    assert f"stopped by {name}" in out and ("checkpoint saved" in out) == (mode == "graceful")
    assert lines(tmp_path / "train")[-1]["status"] == "FAILURE"
    assert record(tmp_path / "train")["exit"] == code


def test_handlers_are_given_back(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGTERM)
    with open_run("train", spec(tmp_path)):
        assert signal.getsignal(signal.SIGTERM) != before
    assert signal.getsignal(signal.SIGTERM) == before
