"""Promotion by the verdict or an override that is audited; the return to the former model; what has no picture waits for a folder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.support.learning import NAME, Scene, hue_picture, make_scene
from tests.support.postgres import new_database
from unalike.errors import DataError
from unalike.recognition.backends.address import edit_gallery
from unalike.recognition.gallery_conversion import MissingOriginals
from unalike.recognition.recognizer import Recogniser
from unalike.serve.learning.promotion import PromotionRefused, missing_originals, promote, roll_back
from unalike.serve.store.references import reference_name


@pytest.fixture(params=["file", "postgresql"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "file":
        return str(tmp_path / "colors.gallery")
    pytest.importorskip("psycopg")
    return f"{new_database()}&gallery=colors"


def enroll(scene: Scene, number: int, shade: int, label: str) -> None:
    """Enroll one more picture with the model in service."""
    gallery = scene.load()
    recognizer = Recogniser.load(scene.place.model_in_service(gallery), runtime="onnxruntime")
    content = hue_picture(number, shade)
    name = reference_name(scene.store.images.put(content), f"later {shade}")
    with edit_gallery(scene.place.address) as edited:
        edited.enrol(recognizer.encode([content]), [label], [name])


def answers(scene: Scene) -> list[str]:
    """What the gallery says of the colors, by the model that it names."""
    gallery = scene.load()
    recognizer = Recogniser.load(scene.place.model_in_service(gallery), gallery, runtime="onnxruntime")
    return [str(answer.nearest) for answer in recognizer.identify([hue_picture(number, 77) for number in range(4)])]


def test_a_better_candidate_is_promoted_and_taken_back(tmp_path: Path, address: str) -> None:
    scene = make_scene(tmp_path, kind="gray", calibrated=True, address=address)
    for shade in range(24):
        scene.correct(shade % 4, shade)
    before = answers(scene)
    vectors_ND = scene.load().vectors_ND
    candidate = scene.add_candidate("color")
    promotion = promote(scene.place, candidate.id, actor="chief", request_id="r1")
    expected = [f"color {number}" for number in range(4)]
    assert answers(scene) == expected != before
    gallery = scene.load()
    assert gallery.model_identity.network == candidate.network and gallery.calibration is not None and not gallery.stale
    assert (promotion.model, promotion.file) == (candidate.id, candidate.file)
    assert promotion.former == str(tmp_path / "service.onnx") and scene.store.learning.promotions(NAME) == [promotion]
    entry = scene.store.audit.find().items[0]
    assert (entry.actor, entry.action, entry.outcome, entry.request_id) == ("chief", "model.promote", "done", "r1")
    assert entry.details["verdict"]["decision"] == "promote" and entry.details["override"] is False
    with pytest.raises(DataError, match="in service already"):
        promote(scene.place, candidate.id, actor="chief")
    enroll(scene, 3, 5, "color 3")
    back = roll_back(scene.place, actor="chief")
    gallery = scene.load()
    assert answers(scene) == before or len(gallery) == 13
    assert gallery.model_identity.file == str(tmp_path / "service.onnx") and gallery.calibration is not None
    np.testing.assert_array_equal(gallery.vectors_ND[:12], vectors_ND)  # as they were, not computed again
    assert len(gallery) == 13 and back.kind == "rollback" and back.model is None
    assert scene.store.audit.find(action="model.rollback").items[0].outcome == "done"
    with pytest.raises(DataError, match="no model of the gallery colors was promoted"):
        roll_back(scene.place, actor="chief")


def test_a_bad_candidate_is_refused_and_an_override_is_audited(tmp_path: Path, address: str) -> None:
    scene = make_scene(tmp_path, kind="color", address=address)
    for shade in range(8):
        scene.correct(shade % 4, shade)
    bad = scene.add_candidate("gray")
    before = scene.load()
    with pytest.raises(PromotionRefused, match="not promoted: the candidate is worse"):
        promote(scene.place, bad.id, actor="chief")
    entry = scene.store.audit.find().items[0]
    assert entry.outcome == "failed" and "worse" in entry.error
    after = scene.load()
    np.testing.assert_array_equal(after.vectors_ND, before.vectors_ND)
    assert after.entries() == before.entries() and scene.store.learning.promotions(NAME) == []
    with pytest.raises(DataError, match="an override without a reason"):
        promote(scene.place, bad.id, actor="chief", override=True, reason=" ")
    promote(scene.place, bad.id, actor="chief", override=True, reason="a test of the line")
    entry = scene.store.audit.find().items[0]
    assert (
        entry.outcome == "done"
        and entry.details["override"] is True
        and entry.details["reason"] == "a test of the line"
    )
    assert scene.load().model_identity.network == bad.network


def test_references_without_a_picture_wait_for_a_folder(tmp_path: Path, address: str) -> None:
    scene = make_scene(tmp_path, address=address)
    recognizer = Recogniser.load(tmp_path / "service.onnx", runtime="onnxruntime")
    pictures = tmp_path / "pictures" / "color 9"
    pictures.mkdir(parents=True)
    (pictures / "a.png").write_bytes(hue_picture(6, 1))
    with edit_gallery(scene.place.address) as gallery:
        gallery.enrol(recognizer.encode([hue_picture(6, 1)]), ["color 9"], ["/gone/color 9/a.png"])
    candidate = scene.add_candidate("color")
    assert missing_originals(scene.place) == ["/gone/color 9/a.png"]
    assert missing_originals(scene.place, str(tmp_path / "pictures")) == []
    with pytest.raises(MissingOriginals):
        promote(scene.place, candidate.id, actor="chief", override=True, reason="x")
    assert scene.store.learning.promotions(NAME) == []
    with pytest.raises(DataError, match="there is no folder"):
        promote(scene.place, candidate.id, actor="chief", override=True, reason="x", source=str(tmp_path / "none"))
    promote(scene.place, candidate.id, actor="chief", override=True, reason="x", source=str(tmp_path / "pictures"))
    assert scene.load().model_identity.network == candidate.network
    roll_back(scene.place, actor="chief")  # its vectors were kept
    assert len(scene.load()) == 13


def test_two_promotions_are_taken_back_one_after_the_other(tmp_path: Path, address: str) -> None:
    scene = make_scene(tmp_path, address=address)
    first, second = scene.add_candidate("color"), scene.add_candidate("other")
    for candidate in (first, second):
        promote(scene.place, candidate.id, actor="chief", override=True, reason="x")
    assert roll_back(scene.place, actor="chief").model == first.id
    assert scene.load().model_identity.network == first.network
    assert roll_back(scene.place, actor="chief").model is None
    assert scene.load().model_identity.file == str(tmp_path / "service.onnx")


def test_classes_that_were_renamed_or_removed_since_stay_so(tmp_path: Path, address: str) -> None:
    scene = make_scene(tmp_path, address=address)
    promote(scene.place, scene.add_candidate("color").id, actor="chief", override=True, reason="x")
    with edit_gallery(scene.place.address) as gallery:
        gallery.rename("color 0", "<b>new</b>")
        gallery.remove(["color 1"])
    roll_back(scene.place, actor="chief")
    assert set(scene.load().counts()) == {"<b>new</b>", "color 2", "color 3"}
