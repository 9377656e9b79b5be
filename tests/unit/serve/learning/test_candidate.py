"""A candidate from what a service holds: what it is trained on, what is withheld, and how it compares; made-up networks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.support.learning import NAME, make_scene, network_bytes
from unalike.actions.result import Result
from unalike.data.imageset import load_images
from unalike.errors import DataError
from unalike.learning.verdict import PROMOTE, TOO_FEW, WORSE
from unalike.serve.learning import candidate as module
from unalike.serve.learning.candidate import TrainingOptions, check_data, compare_candidate, train_candidate
from unalike.serve.model_files import model_file, training_digests


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Training and export are replaced: they keep what they were given, and write a made-up network."""
    calls: dict[str, Any] = {}

    def train(spec: Any, overrides: Any, *, data: Path) -> Result:
        images = load_images(data)
        calls.update(spec=spec, overrides=overrides, images=images, exist=[path.is_file() for path in images.paths])
        return Result(data.parent, data.parent / "best.pth", {"known classes R@1": 0.5})

    def export(checkpoint: Path, manifest: Path, folder: Path) -> Path:
        file = folder / "made-up.onnx"
        file.write_bytes(network_bytes("color"))
        return file

    monkeypatch.setattr("unalike.actions.train.train", train)
    monkeypatch.setattr(module, "_export", export)
    return calls


def test_a_training_gets_all_but_the_withheld_images(tmp_path: Path, trained: dict[str, Any]) -> None:
    scene = make_scene(tmp_path)
    taught = {scene.correct(number, shade) for number in range(4) for shade in range(10)}
    options = TrainingOptions(minutes=0.5, goal="known-classes", share=0.5, name="second")
    record, result = train_candidate(scene.place, options, tmp_path / "task", task="t1")
    digests = training_digests(scene.store.folder, record.id)
    assert digests is not None and 19 <= len(taught - digests) <= 24
    assert len(digests) == len(trained["images"]) == 52 - len(taught - digests)
    assert all(trained["exist"]) and not (tmp_path / "task/images").exists()
    assert set(trained["images"].classes) == {f"color {number}" for number in range(4)}
    assert {"automl.minutes=0.5", "automl.goal=known-classes", "automl_policy=auto"} <= set(trained["overrides"])
    assert model_file(scene.store.folder, record.id).read_bytes() == network_bytes("color")
    assert scene.store.learning.model(record.id) == record and (record.name, record.task) == ("second", "t1")
    assert record.facts["withheld"] == len(taught - digests) and record.facts["figures"] == {"known classes R@1": 0.5}
    assert record.network.startswith("weights") and result["data"]["images"] == 52


def test_images_that_came_before_the_model_in_service_are_all_trained_on(
    tmp_path: Path, trained: dict[str, Any]
) -> None:
    scene = make_scene(tmp_path)
    earlier = {scene.correct(number, shade, days=-1) for number in range(4) for shade in range(5)}
    record, _ = train_candidate(scene.place, TrainingOptions(share=0.5), tmp_path / "task")
    assert earlier <= (training_digests(scene.store.folder, record.id) or set()) and record.facts["withheld"] == 0


def test_too_little_to_train_on_is_refused(tmp_path: Path, trained: dict[str, Any]) -> None:
    scene = make_scene(tmp_path, classes=1)
    with pytest.raises(DataError, match="images of 1 classes to train on"):
        train_candidate(scene.place, TrainingOptions(), tmp_path / "task")
    with pytest.raises(DataError, match="no image to train on"):
        check_data(scene.place, TrainingOptions(with_service=False))
    assert not trained


def test_unreadable_images_are_found_before(tmp_path: Path) -> None:
    scene = make_scene(tmp_path)
    (tmp_path / "old" / "color 0").mkdir(parents=True)
    (tmp_path / "old/color 0/broken.png").write_bytes(b"\x89PNG\r\n\x1a\n broken")
    (tmp_path / "old/color 0/other.png").write_bytes(b"no picture")
    images, report = check_data(scene.place, TrainingOptions(data=str(tmp_path / "old")))
    assert len(images) == 12 and len(report.unreadable) == 2
    assert len(check_data(scene.place, TrainingOptions(data=str(tmp_path / "old")), decode=False)[0]) == 14


def test_a_better_candidate_is_told_from_a_worse_one(tmp_path: Path) -> None:
    scene = make_scene(tmp_path, kind="gray")
    for number in range(4):
        for shade in range(8):
            scene.correct(number, shade)
    better, same = scene.add_candidate("color"), scene.add_candidate("gray")
    comparison = compare_candidate(scene.place, better.id)
    result = comparison.result
    assert result["images"] == 32 and result["classes"] == 4 and result["references"] == 12
    assert result["after"] == 1.0 and result["before"] < 0.7 and result["verdict"]["decision"] == PROMOTE
    assert result["gains"] == len(result["changes"]) > 0 and all(change["gain"] for change in result["changes"])
    assert result["left_out"]["seen by the model in service"] == 12  # the references, whose time is not known
    assert scene.store.learning.comparison(better.id, scene.load().model_identity.network) == comparison
    equal = compare_candidate(scene.place, same.id).result
    assert equal["verdict"]["decision"] == TOO_FEW and equal["verdict"]["missing"] > 100 and equal["changes"] == []


def test_a_bad_candidate_is_worse(tmp_path: Path) -> None:
    scene = make_scene(tmp_path, kind="color")
    for shade in range(8):
        scene.correct(shade % 4, shade)
    bad = scene.add_candidate("gray")
    result = compare_candidate(scene.place, bad.id).result
    assert result["verdict"]["decision"] == WORSE and result["losses"] > 0 == result["gains"]
    assert {change["before"] == change["label"] for change in result["changes"]} == {True}


def test_what_the_candidate_was_trained_on_does_not_count(tmp_path: Path) -> None:
    scene = make_scene(tmp_path)
    taught = [scene.correct(shade % 4, shade) for shade in range(12)]
    scene.correct(7, 1, label="never enrolled")
    candidate = scene.add_candidate("color", frozenset(taught[:9]))
    result = compare_candidate(scene.place, candidate.id).result
    assert result["images"] == 3 and result["left_out"]["seen by the candidate"] == 9
    assert result["left_out"]["class not enrolled"] == 1


def test_withheld_references_are_no_references_of_the_comparison(tmp_path: Path) -> None:
    """An image that was enrolled after it was corrected is looked up among the others."""
    scene = make_scene(tmp_path, kind="color", references=2)
    sha = scene.correct(0, 1)
    from unalike.recognition.gallery import Gallery
    from unalike.serve.store.references import reference_name

    recognizer = scene.place.open(str(tmp_path / "service.onnx"))
    with Gallery.edit(scene.place.address) as gallery:
        gallery.enrol(recognizer.encode([scene.store.images.get(sha)]), ["color 0"], [reference_name(sha, "t")])
    result = compare_candidate(scene.place, scene.add_candidate("other").id).result
    assert (result["images"], result["references"]) == (1, 8)


def test_nothing_to_compare_on_is_said(tmp_path: Path) -> None:
    scene = make_scene(tmp_path)
    result = compare_candidate(scene.place, scene.add_candidate("color").id).result
    assert (
        result["images"] == 0
        and result["verdict"]["decision"] == TOO_FEW
        and "no held-out image" in result["verdict"]["reason"]
    )
    with pytest.raises(DataError, match="no model"):
        compare_candidate(scene.place, "none")
    assert NAME == scene.place.name
