"""Files that an earlier version wrote still open, and give what they gave then.

``tests/fixtures/earlier_versions`` holds a checkpoint, an ONNX file, a gallery, an inspector, an approved set, specs,
the folders of a training and of a search, and a workspace of jobs, as version 0.1.0 wrote them; its README.md says how.
``expected.json`` beside them holds what that version made of each. Only the command line and the public names are used.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import unalike
from tests.support.program import unalike as program

FIXTURES = Path(__file__).parents[1] / "fixtures" / "earlier_versions"
EXPECTED: dict[str, Any] = json.loads((FIXTURES / "expected.json").read_text(encoding="utf-8"))
CHECKPOINT = "training/train/ml_model_latest.pth"
# A runtime may add in another order on another CPU; what is stored or decided may not change at all.
COMPUTED = 1e-4
STORED = 1e-6


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the files, which may be written to; it is the working folder, as it was when they were made."""
    shutil.copytree(FIXTURES, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def told(*words: str) -> Any:
    """What a command printed as JSON."""
    done = program(*words, "--json")
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(done.stdout)


def same_direction(vector: np.ndarray, expected: list[float], apart: float = COMPUTED) -> None:
    """The same vector but for rounding; both may be short, so unit vectors are compared."""
    first, second = (np.asarray(v, np.float64) / np.linalg.norm(v) for v in (vector, expected))
    np.testing.assert_allclose(first, second, atol=apart)
    assert np.linalg.norm(vector) == pytest.approx(np.linalg.norm(expected), rel=10 * apart)


def test_a_checkpoint_gives_its_vector(here: Path) -> None:
    pytest.importorskip("torch")
    recognizer = unalike.Recogniser.load(CHECKPOINT, runtime="torch", precision="fp32")
    same_direction(recognizer.encode("picture.png")[0], EXPECTED["checkpoint"]["vector"])


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_an_exported_network_gives_its_vector(here: Path, runtime: str) -> None:
    pytest.importorskip(runtime)
    recognizer = unalike.Recogniser.load("network.onnx", runtime=runtime, precision="fp32")
    same_direction(recognizer.encode("picture.png")[0], EXPECTED["onnx"]["vector"])


def by_program() -> tuple[dict[str, Any], dict[str, Any]]:
    """What the gallery's commands say: the gallery, and an answer for each picture."""
    listed = told("gallery", "list", "things.gallery")
    found = told("identify", "things.gallery", "picture.png", "images/query", "-k", "2", "--runtime", "onnxruntime",
                 "--precision", "fp32")  # fmt: skip
    held = {"classes": listed["classes"], **{k: listed["calibration"][k] for k in ("threshold", "margin")}}
    return held, {answer["path"]: answer for answer in found["answers"]}


def by_recognizer() -> tuple[dict[str, Any], dict[str, Any]]:
    """The same in a program."""
    recognizer = unalike.Recogniser.load("network.onnx", "things.gallery", runtime="onnxruntime", precision="fp32")
    calibration = recognizer.gallery.calibration
    assert calibration is not None
    held = {"classes": recognizer.gallery.counts(), "threshold": calibration.threshold, "margin": calibration.margin}
    paths = [*EXPECTED["gallery"]["answers"]]
    answers = recognizer.identify(paths, k=2)
    return held, {path: answer.to_dict() for path, answer in zip(paths, answers, strict=True)}


@pytest.mark.parametrize("ask", [by_program, by_recognizer])
def test_a_gallery_answers_as_it_did(here: Path, ask: Callable[[], tuple[dict[str, Any], dict[str, Any]]]) -> None:
    pytest.importorskip("onnxruntime")
    held, answers = ask()
    expected = EXPECTED["gallery"]
    assert held["classes"] == expected["classes"]
    assert held["threshold"] == pytest.approx(expected["threshold"], abs=STORED)
    assert held["margin"] == pytest.approx(expected["margin"], abs=STORED)
    assert answers.keys() == expected["answers"].keys()
    for path, one in expected["answers"].items():
        answer = answers[path]
        assert {k: answer[k] for k in ("decision", "label", "nearest")} == {
            k: one[k] for k in ("decision", "label", "nearest")
        }, path
        assert answer["score"] == pytest.approx(one["score"], abs=COMPUTED), path
        assert [neighbour["name"] for neighbour in answer["neighbours"]] == one["neighbours"], path


def test_a_gallery_can_be_changed_and_calibrated_again(here: Path) -> None:
    pytest.importorskip("onnxruntime")
    done = program("gallery", "remove", "things.gallery", "thing 5")
    assert done.returncode == 0 and "15 images of 5 classes" in done.stdout, done.stderr
    refused = program("calibrate", "things.gallery", "--rate", "0.3")  # five classes of three like images support less
    assert refused.returncode != 0 and "independent" in refused.stderr, refused.stderr
    made = told("calibrate", "things.gallery", "--rate", refused.stderr.split("rate of ")[-1].split(" ")[0])
    assert made["calibration"]["false_match"]["classes"] == 5


def test_an_inspector_judges_as_it_did(here: Path) -> None:
    pytest.importorskip("onnxruntime")
    inspector = unalike.Inspector.load("plates.inspector", runtime="onnxruntime", threads=1)
    assert inspector.extractor.centers is None and inspector.config.localize_by == "score"  # as it was fitted
    one = ("--runtime", "onnxruntime", "--threads", "1")
    found = told("inspect", "run", "plates.inspector", *EXPECTED["inspector"], *one)
    answers = {answer["path"]: answer for answer in found["answers"]}
    for path, expected in EXPECTED["inspector"].items():
        seen = inspector.inspect(path)
        assert seen.decision == answers[path]["decision"] == expected["decision"], path
        assert seen.threshold == pytest.approx(expected["threshold"], abs=STORED)
        for score in (seen.score, answers[path]["score"]):
            assert score == pytest.approx(expected["score"], rel=10 * COMPUTED), path
        assert [list(spot.box) for spot in seen.regions] == expected["boxes"], path
    # It learns too, though it holds neither names nor sizes: its defective image, confirmed by mistake, is named.
    path = next(path for path, expected in EXPECTED["inspector"].items() if expected["decision"] == "defective")
    learned = told(
        "inspect",
        "learn",
        "plates.inspector",
        path,
        "-o",
        "learned.inspector",
        "--runtime",
        "onnxruntime",
        "--threads",
        "1",
    )
    assert learned["images"] == inspector.facts["images"] + 1 and learned["defective_before"] == 1
    again = unalike.Inspector.load("learned.inspector", runtime="onnxruntime", threads=1)
    assert again.extractor.centers is None and again.inspect(path).score < inspector.inspect(path).score


@pytest.mark.slow
def test_an_approved_set_is_calibrated_anew(here: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Its assets and vectors hold; its thresholds are of measures that are computed otherwise now."""
    pytest.importorskip("cv2")
    pytest.importorskip("onnxruntime")
    verifier = unalike.Verifier.load("marks.set", runtime="onnxruntime")
    assert verifier.thresholds is None and "calibrated by an earlier version" in capfd.readouterr().err
    verifier.calibrate(0.25, trials=6)
    for path, one in EXPECTED["set"].items():
        verdict = verifier.verify(path).to_dict()
        assert (verdict["answer"], verdict["asset"]) == (one["answer"], one["asset"]), path
        assert verdict["likeness"] == pytest.approx(one["likeness"], abs=0.02), path  # its network is INT8
        assert verdict["turn"] == pytest.approx(one["turn"], abs=0.3)
        assert verdict["scale"] == pytest.approx(one["scale"], rel=0.01)


@pytest.mark.parametrize("spec", ["training/train/experiment.yaml", "search/train/best_spec.yaml"])
def test_a_resolved_spec_is_valid(here: Path, spec: str) -> None:
    pytest.importorskip("torch")
    checked = unalike.check(spec, ["results_dir=elsewhere"])
    assert not checked.faults


def test_a_spec_and_a_checkpoint_measure_what_they_did(here: Path) -> None:
    pytest.importorskip("torch")
    words = ["evaluate", "-e", "training/train/experiment.yaml", "-r", "measured"]
    done = program(*words, f"evaluate.checkpoint={CHECKPOINT}")
    assert done.returncode == 0, done.stderr[-4000:]
    metrics = json.loads(Path("measured/evaluate/metrics.json").read_text(encoding="utf-8"))["micro"]
    for name, value in EXPECTED["evaluated"].items():
        assert metrics[name]["value"] == pytest.approx(value, abs=STORED), name


def test_a_training_is_known_as_one_and_goes_on(here: Path) -> None:
    pytest.importorskip("torch")
    words = ["train", "-e", "training/train/experiment.yaml", "-r", "training", "train.num_epochs=3"]
    refused = program(*words)
    assert refused.returncode != 0 and "--resume" in refused.stderr, refused.stderr
    done = program(*words, "--resume")
    assert done.returncode == 0, done.stderr[-4000:]
    lines = [json.loads(line) for line in Path("training/train/status.json").read_text(encoding="utf-8").splitlines()]
    losses = [line["kpi"]["train_loss"] for line in lines if "train_loss" in line.get("kpi", {})]
    assert losses == pytest.approx(EXPECTED["resumed"]["losses"], rel=10 * COMPUTED)
    assert lines[-1]["status"] == "SUCCESS"
    recognizer = unalike.Recogniser.load(CHECKPOINT, runtime="torch", precision="fp32")
    same_direction(recognizer.encode("picture.png")[0], EXPECTED["resumed"]["vector"], 10 * COMPUTED)


def test_a_search_can_be_looked_at(here: Path) -> None:
    found = told("automl", "show", "search")
    assert [[t["trial"], t["state"], t["value"]] for t in found["trials"]] == EXPECTED["search"]["trials"]
    assert found["best"]["trial"] == EXPECTED["search"]["best"]


def test_the_jobs_of_a_workspace_are_listed(here: Path) -> None:
    (job,) = told("job", "list", "-w", "jobs")["jobs"]
    assert {name: job[name] for name in EXPECTED["job"]} == EXPECTED["job"]
    assert told("job", "show", EXPECTED["job"]["id"], "-w", "jobs")["status"] == "Complete"
