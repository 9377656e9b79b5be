"""Jobs: the store tells the truth, specs are completed from parents, killed jobs go on."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
import zipfile
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from unalike.cli import run_command
from unalike.errors import DeviceError, RunError, SpecError
from unalike.jobs import Workspace, schedulers
from unalike.jobs import parent_fields as mapping
from unalike.jobs.command import action_arguments, resume_arguments
from unalike.jobs.database import DATABASE_FILE, Job, JobStore
from unalike.jobs.gpu_queue import choose_gpus, take_turn
from unalike.jobs.kubernetes import make_manifest
from unalike.jobs.outputs import find_model
from unalike.jobs.schedulers import Slurm
from unalike.jobs.workspace import with_folders
from unalike.runs.processes import ProcessId, is_alive, this_boot
from unalike.runs.written_model import newest_checkpoint
from unalike.spec.reading import yaml_line

# Stands in for the command line: keeps its words, writes what the action would, obeys SIGTERM with 143.
STUB = """
import json, os, pathlib, signal, sys, time, zipfile
action, words = sys.argv[1], sys.argv[2:]
fields = dict(word.split("=", 1) for word in words if "=" in word)
run = pathlib.Path(json.loads(fields["results_dir"])) / action
run.mkdir(parents=True, exist_ok=True)
def tell(status, message, **more):
    with open(run / "status.json", "a") as file:
        file.write(json.dumps({"status": status, "message": message, **more}) + chr(10))
def end(number, frame):
    tell("FAILURE", "stopped by SIGTERM; saved")
    sys.exit(143)
signal.signal(signal.SIGTERM, end)
(run / "run.json").write_text("{}")
tell("STARTED", "started")
with open(run / "words.jsonl", "a") as file:
    file.write(json.dumps(sys.argv[1:]) + chr(10))
print("hello from", action, flush=True)
if action == "train":
    with zipfile.ZipFile(run / "model_epoch_000_step_00001.pth", "w") as file:
        file.writestr("a", "b")
if fields.get("model_name") == '"fails"':
    print("error: it was made to fail", file=sys.stderr)
    sys.exit(3)
pause = run.parent / "go"
while fields.get("model_name") == '"waits"' and not pause.exists():
    time.sleep(0.02)
if action == "train":
    os.rename(run / "model_epoch_000_step_00001.pth", run / "ml_model_best.pth")
if action == "export":
    pathlib.Path(json.loads(fields["export.onnx_file"])).write_bytes(b"onnx")
tell("SUCCESS", "done", kpi={"R@1": 0.5})
"""


@pytest.fixture
def workspace(tmp_path, monkeypatch):
    stub = tmp_path / "stub.py"
    stub.write_text(STUB)
    monkeypatch.chdir(tmp_path)
    # The stand-in program needs no data; test_mandatory.py holds that a job without its data is refused.
    monkeypatch.setattr("unalike.jobs.workspace.refuse_incomplete", lambda job, parent: None)
    held = Workspace(tmp_path / "jobs", program=(sys.executable, str(stub)))
    yield held
    for job in held.store.all():  # nothing outlives a test
        for pid, start in ((job.runner_pid, job.runner_start), (job.action_pid, job.action_start)):
            if pid != os.getpid() and job.boot == this_boot() and is_alive(pid, start):
                os.kill(pid, signal.SIGKILL)


def words_of(job, attempt=-1):
    return json.loads((Path(job.run_dir) / "words.jsonl").read_text().splitlines()[attempt])


def until(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.05)


def at_work(workspace, job):
    """The job once its action has begun."""
    until(lambda: (Path(job.run_dir) / "words.jsonl").exists() and workspace.get(job.id).action_pid)
    return workspace.get(job.id)


def archive(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("a", "b")
    return path


# ---- chains ----


def test_a_chain_takes_its_models_from_its_parents(workspace, tmp_path):
    train = workspace.create("train", {"num_epochs": 3, "dataset.train_dataset": str(tmp_path)})
    export = workspace.create("export", parent_job_id=train.id[:5], wait_for_parent=True)
    for timeout in (-1.0, float("nan"), 1e30, float("inf")):
        with pytest.raises(SpecError, match=r"a timeout of (-1|nan|1e\+30|inf) seconds; expected 0 to 31622400"):
            workspace.wait([export.id], timeout=timeout)
    (export,) = workspace.wait([export.id], timeout=100)
    train = workspace.get(train.id)
    assert (train.status, train.exit_code, train.figures, train.policy) == ("Complete", 0, {"R@1": 0.5}, "auto")
    assert "train.num_epochs=3" in words_of(train) and words_of(train)[-2:] == ["--automl-policy", "auto"]
    assert export.status == "Complete" and export.parent_job_id == train.id
    best = Path(train.run_dir) / "ml_model_best.pth"
    assert f"export.checkpoint={json.dumps(str(best))}" in words_of(export)
    assert workspace.model(export.id) == workspace.folder / export.id / "model.onnx"
    assert "hello from export" in "".join(workspace.log(export.id))
    with pytest.raises(
        SpecError, match="evaluate with parent .* expected a parent that is train or distill or gen_trt_engine"
    ):
        inner = workspace.store.get(export.id)
        mapping.refuse_parent(Job("x", "evaluate"), Job(inner.id, "evaluate"))


@pytest.mark.parametrize(
    "action", ["train", "evaluate", "inference", "export", "gen_trt_engine", "quantize", "gen_engine"]
)
def test_a_runner_killed_in_the_middle_of_an_action_is_told_and_goes_on(workspace, action):
    job = at_work(
        workspace, workspace.create(action, {"model_name": "waits"}, automl_policy="off" if action == "train" else None)
    )
    assert job.status == "Running" and job.host
    os.kill(job.runner_pid, signal.SIGKILL)
    os.killpg(job.action_pid, signal.SIGKILL)
    (job,) = workspace.wait([job.id], timeout=60)
    assert job.status == "Error" and job.error.startswith("the process is gone") and "resume" in job.error
    assert Workspace(workspace.folder).get(job.id).status == "Error"
    (Path(job.results_dir) / "go").touch()
    workspace.resume(job.id)
    (job,) = workspace.wait([job.id], timeout=60)
    assert (job.status, job.attempt, job.error) == ("Complete", 2, "")
    assert words_of(job)[-1] == ("--resume" if action == "train" else "--overwrite")
    if action == "train":
        own = json.dumps(str(Path(job.run_dir) / "model_epoch_000_step_00001.pth"))
        assert f"train.resume_training_checkpoint_path={own}" in words_of(job)
    with pytest.raises(RunError, match="is Complete; expected one that is Paused, Error, Canceled"):
        workspace.resume(job.id)


def test_pause_cancel_and_failure(workspace):
    workspace.allow_at_once(2)
    paused = at_work(workspace, workspace.create("train", ["model_name=waits"]))
    failed = workspace.create("evaluate", {"model_name": "fails"})
    (failed,) = workspace.wait([failed.id], timeout=60)
    assert (failed.status, failed.exit_code, failed.error) == ("Error", 3, "it was made to fail")
    assert workspace.pause(paused.id).requested == "pause"
    (paused,) = workspace.wait([paused.id], timeout=60)
    assert (paused.status, paused.exit_code) == ("Paused", 143) and "saved" in paused.note
    again = at_work(workspace, workspace.resume(paused.id))
    until(lambda: words_of(again)[-1] == "--resume")
    workspace.cancel(paused.id)
    assert workspace.wait([paused.id], timeout=60)[0].status == "Canceled"
    with pytest.raises(RunError, match="parent .* is Canceled; expected one that is Complete"):
        workspace.create("export", parent_job_id=paused.id)
    assert workspace.delete(paused.id) == [paused.id] and not (workspace.folder / paused.id).exists()
    with pytest.raises(RunError, match="no job"):
        workspace.get(paused.id)


def test_jobs_take_turns_and_a_parent_at_work_is_refused_or_waited_for(workspace):
    first = at_work(workspace, workspace.create("train", ["model_name=waits"]))
    with pytest.raises(RunError, match="is Running; expected one that is Complete; wait for it"):
        workspace.create("export", parent_job_id=first.id)
    second = workspace.create("evaluate", ["evaluate.checkpoint=a.pth"])
    third = workspace.create("export", parent_job_id=first.id, wait_for_parent=True)
    until(lambda: workspace.get(second.id).ready)
    assert {workspace.get(job.id).status for job in (second, third)} == {"Pending"}
    with pytest.raises(RunError, match="is Running"):
        workspace.delete(first.id)
    assert workspace.cancel(second.id).status == "Canceled"
    workspace.cancel(first.id, now_=True)
    (third,) = workspace.wait([third.id], timeout=60)
    assert third.status == "Error" and third.error.startswith(f"its parent {first.id} is Canceled")


# ---- specs ----


def test_all_faults_come_in_one_report_when_the_job_is_made(workspace):
    with pytest.raises(SpecError) as error:
        workspace.create("train", {"num_epochs": -1, "train.num_epoch": 2, "feat_dim": "x"})
    assert all(
        name in str(error.value) for name in ("3 faults", "train.num_epochs", "train.num_epoch", "model.feat_dim")
    )
    with pytest.raises(SpecError, match="given twice"):
        workspace.create("train", {"num_epochs": 1, "train.num_epochs": 2})
    with pytest.raises(SpecError, match="did you mean 'train'"):
        workspace.create("trian")
    assert workspace.jobs() == []


def test_what_a_job_does_not_use_is_said(capsys):
    from unalike.jobs.job_spec import check_job_spec
    from unalike.jobs.parent_fields import refuse_parent

    check_job_spec("evaluate", None, {}, None, "off")
    assert "automl_policy: off is not used by evaluate" in capsys.readouterr().err
    refuse_parent(Job("aa", "compare"), Job("bb", "discover"))
    assert "compare takes nothing from its parent bb" in capsys.readouterr().err
    check_job_spec("train", None, {}, None, "off")
    refuse_parent(Job("aa", "evaluate"), Job("bb", "train"))
    assert not capsys.readouterr().err


def test_the_policy_is_of_the_run_and_the_spec_is_the_users(tmp_path):
    from unalike.jobs.job_spec import check_job_spec

    assert check_job_spec("train", None, {}, None, None).policy == "auto"
    # A plain training of a job is TAO's, with a spec or without; `unalike train` without a spec is ours.
    assert check_job_spec("train", None, {"num_epochs": 3}, "d", "off").overrides["train.recipe"] == "tao"
    assert check_job_spec("train", None, {"automl_policy": "off"}, "d", None).overrides["train.recipe"] == "tao"
    assert check_job_spec("train", None, {"train.recipe": "unalike"}, "d", "off").overrides["train.recipe"] == "unalike"
    assert "train.recipe" not in check_job_spec("train", None, {}, "d", None).overrides
    assert check_job_spec("train", {"automl_policy": "off"}, {}, None, None).policy == "off"
    assert check_job_spec("train", {"automl_policy": "off"}, {}, None, "auto").policy == "auto"
    assert check_job_spec("export", None, {}, None, None).policy is None
    told = check_job_spec(
        "evaluate", {"train": {"num_epochs": 2}}, {"batch_size": 7, "model": {"feat_dim": 64}}, "photos", None
    )
    assert told.spec == {"train": {"num_epochs": 2}}
    assert told.overrides == {"evaluate.batch_size": 7, "model.feat_dim": 64, "dataset.val_dataset.reference": "photos"}


@pytest.mark.parametrize(
    "value",
    [1e-5, 3, True, None, "a: b # 'c'", "off", "2024", [1, 2], {"a": 1e-7}, "line\nend", "ü", "🧀 \\ü", "odd\udcff 🧀"],
)
def test_values_survive_the_command_line(value):
    from unalike.spec.reading import parse_yaml

    assert parse_yaml(yaml_line(value)) == value and "\n" not in yaml_line(value)


def test_the_mapping_is_the_contracts(tmp_path):
    parents = {name: Job(name, name, results_dir=str(tmp_path / name), run_dir=str(tmp_path / name / name), cwd=str(tmp_path))
               for name in ("train", "export", "gen_trt_engine")}  # fmt: skip
    best = archive(tmp_path / "train/train/ml_model_best.pth")
    for name, file in (("export", "a.onnx"), ("gen_trt_engine", "b.engine")):
        (tmp_path / name / name).mkdir(parents=True)
        (tmp_path / name / name / file).write_bytes(b"x")
    onnx, engine = tmp_path / "export/export/a.onnx", tmp_path / "gen_trt_engine/gen_trt_engine/b.engine"
    own = tmp_path / "own"

    def filled(action, parent=None, **fields):
        job = Job("own", action, results_dir=str(own), run_dir=str(own / action), overrides=fields)
        return mapping.fields_from_parent(job, parents.get(parent))

    results = {"results_dir": str(own)}
    assert filled("train") == results
    assert filled("train", "train") == results | {"model.pretrained_model_path": str(best)}
    for action in ("evaluate", "inference"):
        assert filled(action, "train") == results | {f"{action}.checkpoint": str(best)}
        assert filled(action, "gen_trt_engine") == results | {f"{action}.trt_engine": str(engine)}
        assert filled(action, "export") == results | {f"{action}.onnx_file": str(onnx)}
    assert filled("export", "train") == results | {
        "export.checkpoint": str(best),
        "export.onnx_file": str(own / "model.onnx"),
    }
    prefix = "gen_trt_engine."
    made = {
        f"{prefix}trt_engine": str(own / "model.engine"),
        f"{prefix}tensorrt.calibration.cal_cache_file": str(own / "cal.bin"),
    }
    assert filled("gen_trt_engine", "export") == results | made | {f"{prefix}onnx_file": str(onnx)}
    # what the user wrote stays
    assert filled("evaluate", "train", **{"evaluate.checkpoint": "mine.pth", "results_dir": "there"}) == {}
    assert filled("evaluate", "train", **{"evaluate.onnx_file": "mine.onnx"}) == results
    # a training that has something to resume takes that and no pretrained model
    older = archive(own / "train/model_epoch_009_step_00010.pth")
    newest = archive(own / "train/model_epoch_010_step_00100.pth")
    (own / "train/model_epoch_011_step_00110.pth").write_bytes(newest.read_bytes()[:-30])  # half-written
    assert filled("train", "train") == results | {"train.resume_training_checkpoint_path": str(newest)}
    newest.unlink()
    assert newest_checkpoint(own / "train") == older
    at = mapping.JobContext(Job("own", "evaluate"), parents["train"])
    assert mapping.FUNCTIONS["parent_model_folder"](at) == str(best.parent)


def test_commands_of_one_section_take_their_inputs_from_parents(tmp_path):
    def parent(action, file):
        folder = tmp_path / action
        folder.mkdir()
        (folder / file).write_bytes(b"x")
        return Job(action, action, run_dir=str(folder), cwd=str(tmp_path))

    def filled(action, given, **fields):
        job = Job("own", action, results_dir="own", run_dir=str(tmp_path / "own"), overrides=fields)
        mapping.refuse_parent(job, given)
        return mapping.fields_from_parent(job, given)

    inspector, network = parent("inspect_fit", "part.inspector"), parent("export", "a.onnx")
    onnx = str(tmp_path / "export" / "a.onnx")
    assert filled("inspect_run", inspector) == {
        "results_dir": "own", "inspect_run.inspector": str(tmp_path / "inspect_fit" / "part.inspector"),
    }  # fmt: skip
    for action in ("verify", "discover", "gallery_build", "bench_engine", "embed"):
        assert filled(action, network) == {"results_dir": "own", f"{action}.model": onnx}
        assert filled(action, network, **{f"{action}.model": "mine"}) == {"results_dir": "own"}
    assert filled("distill", network) == {"results_dir": "own", "distill.teachers": onnx}
    with pytest.raises(SpecError, match="inspect_run with parent export.*expected a parent that is inspect_fit"):
        filled("inspect_run", network)
    job = Job("own", "inspect_fit", run_dir=str(tmp_path / "own"), overrides={"inspect_fit.good": "Käse 🧀/"})
    assert action_arguments(job, tmp_path) == ["inspect", "fit", 'inspect_fit.good="K\\u00e4se 🧀/"']


def test_a_missing_artefact_names_the_folder_and_what_was_looked_for(tmp_path):
    job = Job("abc", "train", run_dir=str(tmp_path))
    with pytest.raises(RunError) as error:
        find_model(job)
    assert str(tmp_path) in str(error.value) and "ml_model_best.pth" in str(error.value)
    (tmp_path / "ml_model_best.pth").write_bytes(archive(tmp_path / "x.zip").read_bytes()[:-5])
    with pytest.raises(RunError, match="wrote no model"):
        find_model(job)  # half-written
    with pytest.raises(RunError, match="is evaluate, which writes no model"):
        find_model(Job("abc", "evaluate"))


# ---- searches ----


def test_trials_are_jobs_and_a_search_gives_its_best_trials_model(workspace):
    search = Job("feedbeef", "train", "Complete", str(workspace.folder / "feedbeef"), str(workspace.folder / "feedbeef/train"),
                 policy="auto", created=5.0)  # fmt: skip
    workspace.store.insert(search)
    run = Path(search.run_dir)
    states = ["complete", "pruned", "failed", "complete", "running"]
    rows = []
    for number, state in enumerate(states):
        folder = run / f"trial_{number:03d}"
        archive(folder / "ml_model_best.pth")
        (folder / "trial_spec.yaml").write_text(f"train: {{num_epochs: {number + 1}}}")
        if state != "running":
            rows.append({"trial": number, "state": state, "reason": "why" if state in ("pruned", "failed") else "",
                         "kpi": {"R@1": number}, "seconds": 3, "folder": str(folder)})  # fmt: skip
    (run / "trials.jsonl").write_text("\n".join(map(json.dumps, rows)) + '\n{"torn')
    (run / "search.json").write_text(json.dumps({"best": {"folder": str(run / "trial_003")}, "trials": rows[:2]}))
    jobs = {job.id: job for job in workspace.jobs()}
    assert [jobs[f"feedbeef.{n}"].status for n in range(5)] == ["Complete", "Canceled", "Error", "Complete", "Error"]
    assert {job.parent_job_id for job in jobs.values() if job.trial is not None} == {"feedbeef"}
    assert jobs["feedbeef.1"].error == "why" and jobs["feedbeef.3"].spec == {"train": {"num_epochs": 4}}
    assert workspace.get("feed").id == "feedbeef"  # its trials' ids begin so too
    assert workspace.model("feed") == run / "trial_003/ml_model_best.pth"
    assert mapping.fields_from_parent(Job("x", "export", "Pending", "out", "out/export"), jobs["feedbeef.0"])["export.checkpoint"] == str(
        run / "trial_000/ml_model_best.pth")  # fmt: skip
    assert workspace.jobs() == list(jobs.values())  # looking twice changes nothing
    with pytest.raises(RunError, match="is a trial; cancel its search"):
        workspace.cancel("feedbeef.0")
    assert len(workspace.delete("feedbeef")) == 6


# ---- store ----


def test_an_interrupted_attempt_is_settled_by_its_folder(workspace):
    dead = {"boot": this_boot(), "runner_pid": 2**22 + 1, "runner_start": "1", "started": time.time() - 10}
    other_boot = dead | {"boot": this_boot().partition("/")[0] + "/earlier", "runner_pid": os.getpid()}
    elsewhere = dead | {"boot": "another-machine/boot"}
    for name, facts in (("a" * 8, dead), ("b" * 8, other_boot), ("c" * 8, elsewhere), ("d" * 8, dead), ("e" * 8, dead)):
        workspace.store.insert(
            Job(name, "evaluate", "Running", run_dir=str(workspace.folder / name / "evaluate"), **facts)
        )
    done = workspace.folder / ("d" * 8) / "evaluate"
    done.mkdir(parents=True)
    (done / "status.json").write_text('{"status": "SUCCESS", "kpi": {"R@1": 1}}\n{"torn')
    workspace.store.update("e" * 8, requested="pause")
    status = {job.id[0]: job.status for job in workspace.jobs()}
    assert status == {"a": "Error", "b": "Error", "c": "Running", "d": "Complete", "e": "Paused"}


def test_ids_schema_and_lost_races(workspace, tmp_path):
    store = workspace.store
    store.insert(Job("aa11", "train", "Error", run_dir="x"))
    store.insert(Job("aa22", "train", "Complete", run_dir="x"))
    with pytest.raises(RunError, match="several jobs begin with 'aa': aa11, aa22"):
        store.find("aa")
    assert store.find("aa2").id == "aa22"
    assert not store.update("aa11", expect=("Running",), status="Complete")
    assert not store.update("aa11", at_attempt=7, status="Complete")
    assert store.update("aa11", at_attempt=1, status="Canceled") and store.get("aa11").status == "Canceled"
    with sqlite3.connect(store.path) as db:
        assert db.execute("PRAGMA journal_mode").fetchone()[0] == "wal"
        db.execute("PRAGMA user_version = 99")
    with pytest.raises(RunError, match="version 99"):
        JobStore(workspace.folder)
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / DATABASE_FILE).write_text("no database " * 100)
    with pytest.raises(RunError, match="cannot be used"):
        JobStore(tmp_path / "bad")


def test_gpus_are_shared_out_and_waited_for(tmp_path):
    job = Job("a", "train", policy="off")
    assert choose_gpus(job, [], []) == []
    assert choose_gpus(job, ["0", "1"], ["0"]) == ["1"] and choose_gpus(job, ["0", "1"], ["0", "1"]) is None
    assert choose_gpus(Job("a", "train", policy="auto"), ["0", "1", "2"], ["1"]) == ["0", "2"]
    named = Job("a", "train", overrides={"train.gpu_ids": [1]})
    assert choose_gpus(named, ["4", "5"], []) == ["5"] and choose_gpus(named, ["4", "5"], ["5"]) is None
    with pytest.raises(DeviceError, match="at most 1"):
        choose_gpus(Job("a", "train", overrides={"train.num_gpus": 2}), ["0"], [])
    store, me = JobStore(tmp_path), ProcessId.of(os.getpid())
    for name in "abc":
        store.insert(Job(name, "evaluate", created=ord(name), boot=me.boot, runner_pid=me.pid, runner_start=me.start))
    assert [take_turn(store, name, 1, ["0", "1"]) for name in "abc"] == [None] * 3  # now they wait, in this order
    assert take_turn(store, "c", 1, ["0", "1"]) is None
    assert [take_turn(store, name, 1, ["0", "1"]).gpus for name in "ab"] == [["0"], ["1"]]
    assert take_turn(store, "c", 1, ["0", "1"]) is None
    store.update("a", status="Complete")
    assert take_turn(store, "c", 1, ["0", "1"]).gpus == ["0"]


# ---- elsewhere ----

OBJECT, TEXT = {"type": "object"}, {"type": "string", "minLength": 1}
MANIFEST = {
    **OBJECT, "required": ["apiVersion", "kind", "metadata", "spec"], "additionalProperties": False,
    "properties": {
        "apiVersion": {"const": "batch/v1"}, "kind": {"const": "Job"},
        "metadata": {**OBJECT, "required": ["name"], "properties": {"name": {"pattern": "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", "maxLength": 63}}},
        "spec": {**OBJECT, "required": ["template"], "properties": {"backoffLimit": {"const": 0}, "template": {**OBJECT, "properties": {
            "spec": {**OBJECT, "required": ["restartPolicy", "containers", "volumes"], "properties": {
                "restartPolicy": {"enum": ["Never", "OnFailure"]},
                "volumes": {"type": "array", "items": {**OBJECT, "required": ["name"], "oneOf": [
                    {"required": ["hostPath"]}, {"required": ["persistentVolumeClaim"]}]}},
                "containers": {"type": "array", "minItems": 1, "items": {**OBJECT, "required": ["name", "image", "command"], "properties": {
                    "image": TEXT, "command": {"type": "array", "items": TEXT},
                    "resources": {**OBJECT, "properties": {"limits": {**OBJECT, "additionalProperties": TEXT}}}}}}}}}}}},
    },
}  # fmt: skip


@pytest.mark.parametrize("options", [{}, {"gpus": 2, "cpus": 4, "memory_gb": 8, "claim": "shared", "mounts": ["data:/data", "/more"],
                                         "namespace": "team", "service_account": "jobs"}])  # fmt: skip
def test_the_manifest_fits_its_schema(tmp_path, options):
    jsonschema = pytest.importorskip("jsonschema")
    told = make_manifest(
        Job("3f2a91c4", "train", options={"image": "unalike:1", **options}), tmp_path / "3f2a91c4", tmp_path
    )
    jsonschema.Draft202012Validator(MANIFEST).validate(told)
    pod = told["spec"]["template"]["spec"]
    assert {v["name"] for v in pod["volumes"]} == {m["name"] for m in pod["containers"][0]["volumeMounts"]}
    limits = pod["containers"][0].get("resources", {}).get("limits", {})
    assert limits.get("nvidia.com/gpu") == ("2" if options else None)


def test_a_manifest_job_is_pending_until_its_folder_says_more(workspace):
    with pytest.raises(SpecError, match="without an image"):
        workspace.create("train", where="kubernetes")
    with pytest.raises(SpecError, match="option 'imgae' for kubernetes.*did you mean 'image'"):
        workspace.create("train", where="kubernetes", options={"imgae": "x"})
    job = workspace.create("train", where="kubernetes", options={"image": "x"})
    assert workspace.get(job.id).status == "Pending" and (workspace.folder / job.id / "kubernetes.yaml").exists()
    outcome = {"format_version": 1, "attempt": 1, "host": "pod", "boot": "pod/x", "pid": 7, "started": 1.0, "ended": None,
               "exit_code": None, "error": ""}  # fmt: skip
    (workspace.folder / job.id / "outcome.json").write_text(json.dumps(outcome))
    assert workspace.get(job.id).status == "Running" and workspace.get(job.id).host == "pod"
    (workspace.folder / job.id / "outcome.json").write_text(
        json.dumps(outcome | {"ended": 2.0, "exit_code": 1, "error": "no"})
    )
    assert (workspace.get(job.id).status, workspace.get(job.id).error) == ("Error", "no")


@pytest.mark.parametrize("minutes", ["1e30", "0", "nan", "soon"])
def test_the_time_of_a_job_on_slurm_is_a_number_up_to_a_year(minutes):
    pytest.importorskip("submitit")
    with pytest.raises(SpecError, match=f"minutes={minutes}; expected a number of minutes, 1 to 527040"):
        Slurm({"minutes": minutes})
    assert Slurm({"minutes": "90"}).minutes == 90


def test_slurm_by_submitits_local_executor(workspace):
    pytest.importorskip("submitit")
    options = {"cluster": "local", "python": sys.executable, "minutes": 5}
    job = at_work(workspace, workspace.create("train", {"model_name": "waits"}, where="slurm", options=options))
    assert job.status == "Running"
    until(lambda: (Path(job.run_dir) / "model_epoch_000_step_00001.pth").exists())  # there is something to resume
    workspace.pause(job.id)
    (job,) = workspace.wait([job.id], timeout=60)
    assert job.status == "Paused"
    (Path(job.results_dir) / "go").touch()
    workspace.resume(job.id)
    (job,) = workspace.wait([job.id], timeout=60)
    assert (job.status, job.figures, words_of(job)[-1]) == ("Complete", {"R@1": 0.5}, "--resume")


@pytest.mark.slow
def test_ray_jobs_for_real(workspace, tmp_path, monkeypatch):
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")  # else a cluster asks for the token of the process that started it
    pytest.importorskip("ray")
    with ray_cluster() as url:
        options = {"address": url, "cpus": 1}
        job = workspace.create("train", where="ray", options=options)
        (job,) = workspace.wait([job.id], timeout=240)
        assert (job.status, job.figures) == ("Complete", {"R@1": 0.5}), (job.error, "".join(workspace.log(job.id)))
        other = workspace.create("export", {"model_name": "waits"}, parent_job_id=job.id, where="ray", options=options)
        until(lambda: workspace.get(other.id).status == "Running", 120)
        workspace.cancel(other.id)
        assert workspace.wait([other.id], timeout=120)[0].status == "Canceled"


RAY_CLUSTER = """
import sys, ray
context = ray.init(num_cpus=1, include_dashboard=True, dashboard_port=0, log_to_driver=False)
print("cluster", f"http://{context.dashboard_url}", flush=True)
sys.stdin.read()
"""


@contextlib.contextmanager
def ray_cluster():
    """A cluster of one core, in a process of its own: what Ray leaves in a process would be there in later tests too."""
    with subprocess.Popen(
        [sys.executable, "-c", RAY_CLUSTER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "RAY_AUTH_MODE": "disabled"},
    ) as head:
        try:
            yield next(line for line in head.stdout if line.startswith("cluster ")).split()[1]
        finally:
            head.stdin.close()


@pytest.mark.parametrize(
    ("failures", "attempts"), [(["No available agent to submit job"] * 2, 3), (["no such runtime_env"], 1)]
)
def test_a_cluster_without_agents_yet_is_asked_again(monkeypatch, tmp_path, failures, attempts):
    calls = []

    def submit_job(**fields):
        calls.append(fields)
        if len(calls) <= len(failures):
            raise RuntimeError(f"Request failed with status code 500: {failures[len(calls) - 1]}")

    monkeypatch.setattr(schedulers, "AGENT_POLL_S", 0.001)
    cluster = object.__new__(schedulers.RayJobs)
    cluster.options, cluster.python, cluster.client = {}, "python", SimpleNamespace(submit_job=submit_job)
    job = Job("aa11", "train", "Pending", attempt=1)
    if attempts > len(failures):
        assert cluster.submit(tmp_path, job) == "unalike-aa11-1"
    else:
        with pytest.raises(DeviceError, match="does not take the job: .*no such runtime_env"):
            cluster.submit(tmp_path, job)
    assert len(calls) == attempts


# ---- command line ----


def test_the_command_line(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("unalike.progress._verbosity", 1)  # -q is for this test alone
    store = JobStore(tmp_path)
    store.insert(Job("aa11", "train", "Error", run_dir=str(tmp_path / "aa11/train"), error="bad", created=1.0))
    (tmp_path / "aa11").mkdir()
    (tmp_path / "aa11/log.txt").write_text("one\ntwo\n")
    place = ["-w", str(tmp_path)]

    def said(*words, code=0):
        assert run_command(["job", *words, *place]) == code
        return capsys.readouterr().out

    assert said("list") == "aa11  Error     train: bad\n"
    assert said("list", "--status", "running") == ""
    assert json.loads(said("list", "--json"))["jobs"][0]["id"] == "aa11"
    assert json.loads(said("show", "aa", "--json"))["error"] == "bad"
    assert said("logs", "aa", "-n", "1") == "two\n"
    assert json.loads(said("logs", "aa", "--json"))["lines"] == ["one", "two"]
    said("wait", "aa", code=1)
    said("cancel", "aa", code=1)
    said("create", "trian", code=2)
    said("create", "train", "--option", "image", code=2)
    assert json.loads(said("delete", "aa", "--json")) == {"deleted": ["aa11"]}
    words = (
        "create",
        "train",
        "--root",
        "s3://b/",
        "num_epochs=2",
        "-q",
        "--where",
        "kubernetes",
        "--option",
        "image=x",
    )
    made = store.get(said(*words).strip())
    root = "s3://b/metric_learning_recognition/retail-product-checkout-dataset_classification_demo/known_classes"
    assert made.overrides["dataset.train_dataset"] == f"{root}/train.tar.gz" and made.overrides["train.num_epochs"] == 2
    assert made.overrides["dataset.val_dataset.query"] == f"{root}/val.tar.gz" and made.status == "Pending"
    assert action_arguments(Job("x", "export", spec={}), tmp_path) == ["export", "-e", str(tmp_path / "spec.yaml")]
    assert run_command(["job", "create", "export", "--root", "s3://b/", *place]) == 2  # without a checkpoint
    assert "--root s3://b/ is not used by export" in capsys.readouterr().err


def test_a_job_survives_its_shell_and_leaves_the_skill_alone(workspace, tmp_path):
    """The process that made the job, and its whole group, is killed at once; the job goes on."""
    from unalike.actions import skill as handbook

    before = (handbook.FOLDER / handbook.INFO).read_bytes()
    program = (
        "import sys, time; from unalike.jobs import Workspace\n"
        f"held = Workspace({str(workspace.folder)!r}, program={workspace.program!r})\n"
        "print(held.create('train', {'model_name': 'waits', 'dataset.train_dataset': '.'}, automl_policy='off').id, flush=True); time.sleep(600)"
    )
    shell = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, start_new_session=True)
    job_id = shell.stdout.readline().strip()
    os.killpg(shell.pid, signal.SIGHUP)
    os.killpg(shell.pid, signal.SIGKILL)
    shell.wait()
    job = at_work(workspace, workspace.get(job_id))
    assert job.status == "Running"
    (Path(job.results_dir) / "go").touch()
    assert workspace.wait([job_id], timeout=60)[0].status == "Complete"
    assert (handbook.FOLDER / handbook.INFO).read_bytes() == before  # the run's policy is not the model's


@pytest.mark.parametrize("address", ["https://me:s3cr3t@h/x.zip", "https://h/x.zip?sig=s3cr3t"])
def test_what_gives_access_is_never_written_down(workspace, address):
    for told in ({"overrides": {"dataset.train_dataset": address}}, {"spec": {"dataset": {"train_dataset": address}}}):
        with pytest.raises(SpecError, match=r"dataset.train_dataset: .*\*\*\*.* a job is stored on disk") as error:
            workspace.create("train", told.get("overrides", ()), spec=told.get("spec"))
        assert "s3cr3t" not in str(error.value)
    assert workspace.jobs() == [] and b"s3cr3t" not in workspace.store.path.read_bytes()


def test_tao_s_word_for_auto_and_a_wrong_one(workspace):
    from unalike.jobs.job_spec import check_job_spec

    assert check_job_spec("train", None, {}, None, "on").policy == "auto"
    with pytest.raises(SpecError, match="expected auto or off"):
        workspace.create("train", automl_policy="maybe")


def test_results_in_a_store_are_found_by_their_address(tmp_path, monkeypatch):
    monkeypatch.setenv("UNALIKE_CACHE", str(tmp_path / "cache"))
    job = with_folders(
        Job("own", "export", results_dir=str(tmp_path), cwd=str(tmp_path), overrides={"results_dir": "s3://b/r/"}), None
    )
    assert job.results_dir == "s3://b/r/" and job.run_dir.startswith(str(tmp_path / "cache"))
    from unalike.storage.cache import staging_entry

    assert Path(job.run_dir) == staging_entry("s3://b/r/export").path  # where the action works, by the same rule
    assert mapping.fields_from_parent(job, None) == {}  # no single file can be written into a store
    assert resume_arguments(job) == [] and resume_arguments(replace(job, attempt=2)) == ["--overwrite"]
    assert resume_arguments(replace(job, action="train", attempt=2)) == ["--resume"]
    there = {
        "ml_model_latest.pth": 1,
        "model_epoch_001_step_00009.pth": 1,
        "model_epoch_010_step_00100.pth": 1,
        "x/y.pth": 1,
    }
    monkeypatch.setattr("unalike.jobs.outputs.RemoteStore", lambda address: SimpleNamespace(listing=lambda: there))
    train = replace(job, action="train")
    assert find_model(train) == "s3://b/r/train/ml_model_latest.pth"
    del there["ml_model_latest.pth"]
    assert find_model(train) == "s3://b/r/train/model_epoch_010_step_00100.pth"
    there["ml_model_best.pth"] = 1
    assert find_model(train) == "s3://b/r/train/ml_model_best.pth"
    at = mapping.JobContext(Job("x", "evaluate"), train)
    assert mapping.FUNCTIONS["parent_model_folder"](at) == "s3://b/r/train"
    there.clear()
    with pytest.raises(RunError, match="s3://b/r/train does not hold ml_model_best.pth"):
        find_model(train)
