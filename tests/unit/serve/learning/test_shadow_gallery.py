"""A gallery as a candidate would serve it: what it answers, references that come and go, those without a picture."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.support.learning import Scene, hue_picture, make_scene
from unalike.errors import DataError, ModelError, UnreadableImage
from unalike.recognition.backends.address import edit_gallery, open_gallery
from unalike.recognition.gallery import Gallery
from unalike.serve.learning import shadow_gallery as module
from unalike.serve.learning.promotion import promote
from unalike.serve.learning.shadow_gallery import ShadowGallery
from unalike.serve.model_files import vectors_file
from unalike.serve.store.references import reference_name


def shadow_of(scene: Scene, kind: str = "color") -> ShadowGallery:
    return ShadowGallery(scene.place, open_gallery(scene.place.address), scene.add_candidate(kind))


def enroll(scene: Scene, number: int, label: str, name: str | None = None) -> None:
    content = hue_picture(number, 5)
    with edit_gallery(scene.place.address) as gallery:
        name = name or reference_name(scene.store.images.put(content), "later")
        gallery.enrol(np.ones((1, 4)), [label], [name])


def test_a_candidate_answers_as_it_would_after_a_promotion(tmp_path: Path) -> None:
    scene = make_scene(tmp_path, kind="gray", calibrated=True)
    shadow = shadow_of(scene)
    answers = [shadow.identify(hue_picture(number, 77)) for number in range(4)]
    assert [answer.nearest for answer in answers] == [f"color {number}" for number in range(4)]
    promote(scene.place, shadow.place.store.learning.models()[0].id, actor="chief", override=True, reason="x")
    gallery = scene.load()
    assert gallery.calibration is not None
    recognizer = scene.place.open(scene.place.model_in_service(gallery), gallery)
    for answer, promoted in zip(answers, recognizer.identify([hue_picture(n, 77) for n in range(4)]), strict=True):
        assert (answer.decision, answer.label) == (promoted.decision, promoted.label)
        assert answer.score == pytest.approx(promoted.score, abs=1e-6)
        assert answer.threshold == pytest.approx(promoted.threshold)
    with pytest.raises(ModelError):
        shadow.identify(hue_picture(0, 77))


def test_references_that_come_and_go_are_taken_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scene = make_scene(tmp_path)
    shadow = shadow_of(scene)
    assert shadow.identify(hue_picture(6, 1)).nearest != "color 6"
    monkeypatch.setattr(module, "CONVERT_S", 0.0)
    enroll(scene, 6, "color 6")
    assert shadow.identify(hue_picture(6, 1)).nearest == "color 6" and shadow.size == 13
    monkeypatch.setattr(module, "CONVERT_S", 1e9)
    with edit_gallery(scene.place.address) as gallery:
        gallery.remove(["color 6"])
    assert shadow.identify(hue_picture(6, 1)).nearest != "color 6", "a class that was removed is named no more"
    kept = Gallery.load(vectors_file(scene.store.folder, scene.place.name, shadow._candidate.model_identity))
    assert len(kept) == 12 == shadow.size


def test_vectors_are_computed_once_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scene = make_scene(tmp_path)
    first = shadow_of(scene)
    monkeypatch.setattr("unalike.recognition.gallery_conversion.embed_files", None)  # nothing is left to embed
    again = ShadowGallery(scene.place, open_gallery(scene.place.address), scene.store.learning.models()[0])
    assert again.size == first.size == 12


def test_references_without_a_usable_picture_are_left_out(tmp_path: Path) -> None:
    scene = make_scene(tmp_path)
    enroll(scene, 5, "color 5", "/gone/a.png")
    (tmp_path / "broken.png").write_bytes(b"\x89PNG broken")
    enroll(scene, 5, "color 5", str(tmp_path / "broken.png"))
    shadow = shadow_of(scene)
    assert sorted(shadow.left_out) == sorted(["/gone/a.png", str(tmp_path / "broken.png")]) and shadow.size == 12
    with pytest.raises(UnreadableImage):
        shadow.identify(b"\x89PNG broken")


def test_without_a_picture_there_is_nothing_to_answer_by(tmp_path: Path) -> None:
    scene = make_scene(tmp_path, classes=1, references=1)
    with edit_gallery(scene.place.address) as gallery:
        gallery.remove(["color 0"])
        gallery.enrol(np.ones((1, 4)), ["bare"], ["/gone/a.png"])
    with pytest.raises(DataError, match="no reference has a picture"):
        shadow_of(scene).identify(hue_picture(0, 1))
