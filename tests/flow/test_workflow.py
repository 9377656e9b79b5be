"""The whole way from archives in an S3 server to an engine, as chained jobs: the example as it stands, and the skill's shell."""

from __future__ import annotations

import json
import os
import re
import stat
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from tests.flow.conftest import draw_class
from tests.support.paths import ROOT
from tests.support.program import TINY, process
from unalike.actions import skill as handbook
from unalike.jobs import Workspace
from unalike.jobs.tao_layout import DATA_SOURCES

pytestmark = pytest.mark.slow
SETS = {"known": {"train": 6, "reference": 3, "val": 2, "test": 2}, "unknown": {"reference": 3, "test": 2}}


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A real S3 server that holds TAO's layout below s3://shop/data; the environment that leads to it."""
    pytest.importorskip("moto")
    pytest.importorskip("s3fs")
    from tests.support.stores import call, s3_server

    root = tmp_path_factory.mktemp("layout")
    top = Path(DATA_SOURCES["train"]["dataset.train_dataset"]).parents[1]
    with s3_server(root / "log") as address:
        call(f"{address}/shop", b"", "PUT")
        for kind, parts in SETS.items():
            for seed, (part, count) in enumerate(parts.items()):
                for number in range(5):
                    draw_class(root / kind / part / f"{kind} {number}", number + 10 * (kind == "unknown"), count, seed)
                archive = root / f"{kind}-{part}.tar.gz"
                with tarfile.open(archive, "w:gz") as tar:
                    tar.add(root / kind / part, part)
                call(f"{address}/shop/data/{top}/{kind}_classes/{part}.tar.gz", archive.read_bytes(), "PUT")
        yield {
            "AWS_ENDPOINT_URL": address, "AWS_ACCESS_KEY_ID": "me", "AWS_SECRET_ACCESS_KEY": "x", "AWS_DEFAULT_REGION": "us-east-1",
            "UNALIKE_CACHE": str(root / "cache"),
        }  # fmt: skip


@pytest.mark.parametrize("policy", ["off", "auto"])
def test_the_example_walks_the_whole_way(server, tmp_path, policy):
    words = [
        "s3://shop/data",
        "--policy",
        policy,
        *TINY,
        "num_epochs=2",
        "batch_size=8",
        "dataset.validation.fraction=0.4",
    ]
    words += ["automl.trials=2"] if policy == "auto" else []
    env = {**server, "UNALIKE_WORKSPACE": str(tmp_path / "jobs")}
    done = process(*words, program=(str(ROOT / "examples" / "workflow.py"),), env=env, cwd=tmp_path, timeout=3000)
    assert done.returncode == 0, done.stdout + done.stderr[-4000:]
    jobs = Workspace(tmp_path / "jobs").jobs()
    chain = [job for job in jobs if job.trial is None]
    assert [job.action for job in chain] == [
        "train",
        "export",
        "gen_engine",
        "evaluate",
        "inference",
        "evaluate",
        "inference",
    ]
    assert {job.status for job in chain} == {"Complete"} and chain[0].policy == policy
    assert len([job for job in jobs if job.trial is not None]) == (2 if policy == "auto" else 0)
    # No path but the root was given: every model is the parent's.
    train, export, engine, measured, _, engine_measured, recognized = chain
    folder = Path(json.loads((Path(train.run_dir) / "search.json").read_text())["best"]["folder"]) if policy == "auto" else \
        Path(train.run_dir)  # fmt: skip
    assert measured.filled["evaluate.checkpoint"] == str(folder / "ml_model_best.pth")
    assert (
        engine.filled["gen_engine.onnx_file"] == export.filled["export.onnx_file"] == f"{export.results_dir}/model.onnx"
    )
    assert engine_measured.filled["evaluate.engine"].endswith(".xml")
    assert recognized.filled["inference.engine"] == engine_measured.filled["evaluate.engine"]
    told = [name for job in chain for name in (*job.overrides, *job.filled)]
    assert not any(name.endswith(("checkpoint", "onnx_file", "engine")) for job in chain for name in job.overrides), (
        told
    )
    metrics = json.loads((Path(engine_measured.run_dir) / "metrics.json").read_text())
    assert metrics["queries"] == 10 and metrics["micro"]["precision_at_1"]["value"] > 0.2
    same = json.loads((Path(measured.run_dir) / "metrics.json").read_text())["micro"]["precision_at_1"]["value"]
    assert abs(metrics["micro"]["precision_at_1"]["value"] - same) <= 0.2  # two of ten queries, in another precision
    assert len((Path(recognized.run_dir) / "result.csv").read_text().splitlines()) == 10


def test_results_of_jobs_may_lie_in_the_store(server, tmp_path, monkeypatch):
    """Training and export send their results to S3; the next job takes them, also when this machine lost its copy."""
    for name, value in server.items():
        monkeypatch.setenv(name, value)
    from unalike.jobs import data_sources

    workspace = Workspace(tmp_path / "jobs")
    tiny = dict(word.split("=", 1) for word in TINY)
    tiny = {key: int(value) if value.isdigit() else value for key, value in tiny.items()}
    train = workspace.create("train", {**data_sources("train", "s3://shop/data"), **tiny, "num_epochs": 1, "batch_size": 8,
                                       "results_dir": "s3://shop/results"}, automl_policy="off")  # fmt: skip
    (train,) = workspace.wait([train.id], timeout=900)
    assert train.status == "Complete" and train.figures, "".join(workspace.log(train.id))[-3000:]
    assert train.results_dir == "s3://shop/results" and (Path(train.run_dir) / "ml_model_best.pth").is_file()
    for path in Path(train.run_dir).glob("*.pth"):
        path.unlink()  # as a full cache would
    assert workspace.model(train.id) == "s3://shop/results/train/ml_model_best.pth"
    export = workspace.create("export", {"results_dir": "s3://shop/results"}, parent_job_id=train.id)
    (export,) = workspace.wait([export.id], timeout=900)
    assert export.status == "Complete", "".join(workspace.log(export.id))[-3000:]
    assert export.filled == {"export.checkpoint": "s3://shop/results/train/ml_model_best.pth"}
    assert Path(str(workspace.model(export.id))).suffix == ".onnx"


def test_every_command_of_the_skill_runs(images, tmp_path):
    """SKILL.md's shell blocks in their order, as they stand; the program makes trainings tiny, and waits at the end."""
    shim = tmp_path / "bin" / "unalike"
    shim.parent.mkdir()
    shim.write_text(f"""#!{sys.executable}
import os, sys
words = sys.argv[1:]
tiny = {TINY!r} + ["train.batch_size=12", "dataset.validation.fraction=0.4"]
if words[0] == "train" or words[:3] == ["job", "create", "train"]:
    for flag, value in (("--minutes", "0.5"), ("--trials", "2")):
        if flag in words:
            words[words.index(flag) + 1] = value
    if "--minutes" not in words:
        words += tiny
    words = [word.replace("num_epochs=20", "num_epochs=2") for word in words]
os.execv(sys.executable, [sys.executable, "-m", "unalike", *words])
""")
    shim.chmod(shim.stat().st_mode | stat.S_IXUSR)
    for name in ("train", "reference", "query"):
        (tmp_path / ("photographs" if name == "train" else name)).symlink_to(images / name)
    (tmp_path / "spec.yaml").write_text("train: {num_epochs: 2, seed: 1}\ndataset: {train_dataset: photographs}\n"
                                        "model: {backbone: test_efficientnet, pretrained: false, input_height: 64, input_width: 64}\n")  # fmt: skip
    text = (handbook.FOLDER / "SKILL.md").read_text(encoding="utf-8")
    env = {**os.environ, "PATH": f"{shim.parent}:{os.environ['PATH']}", "OMP_NUM_THREADS": "1",
           "UNALIKE_WORKSPACE": str(tmp_path / "jobs")}  # fmt: skip
    shell = "\n".join(re.findall(r"^```sh\n(.*?)^```", text, re.MULTILINE | re.DOTALL))
    (tmp_path / "all.sh").write_text(f"set -ex\n{shell}")
    done = subprocess.run(
        ["sh", "all.sh"], cwd=tmp_path, env=env, capture_output=True, text=True, timeout=3000, check=False
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-5000:]
    assert (
        (tmp_path / "model.onnx").is_file()
        and (tmp_path / "model.xml").is_file()
        and (tmp_path / "shop.gallery").is_file()
    )
    (python,) = re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    tiny = ", ".join(
        f'"{word.split("=")[0]}": {_literal(word.split("=")[1])}' for word in [*TINY, "train.batch_size=12"]
    )
    program = python.replace('"num_epochs": 2}', f'"num_epochs": 2, {tiny}}}')
    assert program != python
    (tmp_path / "chain.py").write_text(program)
    done = subprocess.run([sys.executable, "chain.py"], cwd=tmp_path, env=env, capture_output=True, text=True, timeout=1500,
                          check=False)  # fmt: skip
    assert done.returncode == 0 and done.stdout.startswith("Complete {"), done.stdout + done.stderr[-3000:]
    jobs = Workspace(tmp_path / "jobs")
    ended = jobs.wait([job.id for job in jobs.jobs()], timeout=1500)
    assert {job.status for job in ended} == {"Complete"}, [(job.action, job.error) for job in ended]


def _literal(word):
    return word if word.isdigit() else f'"{word}"'
