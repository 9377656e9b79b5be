"""Labeled images of a service: references with pictures, and decisions by what people said last."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.learning import NAME, hue_picture, make_scene
from tests.support.serving import picture
from unalike.errors import DataError
from unalike.learning.labeled_images import CORRECTION, FOLDER, REFERENCE
from unalike.recognition.backends.protocol import Entry
from unalike.serve.learning.collection import Originals, collect_images
from unalike.serve.learning.gallery_models import entries_of
from unalike.serve.store import DecisionRecord, Feedback
from unalike.storage.digests import content_sha256


def test_references_and_corrections_are_collected(tmp_path: Path) -> None:
    scene = make_scene(tmp_path, classes=3)
    wrong = scene.correct(0, 1, label="color 1")
    new = scene.correct(0, 2, "new class", "fresh")
    confirmed = scene.correct(0, 3, "confirmed")
    scene.correct(0, 4, "unusable")
    gone = scene.correct(0, 5)
    scene.store.images.delete(gone)
    other = DecisionRecord("identify", "another gallery", "label", label="x", image=wrong)
    scene.store.decisions.add([other])
    scene.store.decisions.give_feedback(other.id, Feedback("wrong", "y"))
    withdrawn = DecisionRecord("identify", NAME, "label", label="x", image=scene.store.images.put(hue_picture(0, 9)))
    scene.store.decisions.add([withdrawn])
    for verdict in ("confirmed", "withdrawn"):
        scene.store.decisions.give_feedback(withdrawn.id, Feedback(verdict))
    images, report = collect_images(scene.store, NAME, entries_of(scene.load()), Originals(scene.store))
    taught = {image.sha256: image.label for image in images if image.source == CORRECTION}
    assert taught == {wrong: "color 1", new: "fresh", confirmed: "color 0"}
    assert sum(image.source == REFERENCE for image in images) == 9 and report.missing == []
    assert report.images == {"color 0": 4, "color 1": 4, "color 2": 3, "fresh": 1}


def test_a_correction_that_was_enrolled_counts_once(tmp_path: Path) -> None:
    scene = make_scene(tmp_path, classes=2)
    enrolled = content_sha256(hue_picture(0, 1000))
    record = DecisionRecord("identify", NAME, "label", label="color 1", image=enrolled)
    scene.store.decisions.add([record])
    scene.store.decisions.give_feedback(record.id, Feedback("wrong", "color 0"))
    images, report = collect_images(scene.store, NAME, entries_of(scene.load()), Originals(scene.store))
    assert [image.source for image in images if image.sha256 == enrolled] == [CORRECTION] and report.duplicates == 1
    assert report.conflicts == []


def test_a_folder_adds_images_and_the_service_may_be_left_out(tmp_path: Path) -> None:
    scene = make_scene(tmp_path, classes=2)
    (tmp_path / "old" / "red").mkdir(parents=True)
    (tmp_path / "old/red/1.png").write_bytes(picture("red"))
    (tmp_path / "old/red/2.png").write_bytes(hue_picture(0, 1000))  # enrolled as color 0
    entries = entries_of(scene.load())
    folder = str(tmp_path / "old")
    images, report = collect_images(scene.store, NAME, entries, Originals(scene.store), folder=folder)
    assert report.sources == {REFERENCE: 6, FOLDER: 1} and len(report.conflicts) == 1
    images, _ = collect_images(scene.store, NAME, entries, Originals(scene.store), folder=folder, with_service=False)
    assert [image.label for image in images] == ["red", "red"]
    with pytest.raises(DataError, match="no such file or folder"):
        collect_images(scene.store, NAME, entries, Originals(scene.store), folder=str(tmp_path / "none"))


def test_pictures_of_paths_are_read_there_or_in_the_folder_that_is_named(tmp_path: Path) -> None:
    scene = make_scene(tmp_path, classes=1)
    for label in ("oak", "elm"):
        (tmp_path / "copy" / label).mkdir(parents=True)
        (tmp_path / "copy" / label / "1.png").write_bytes(picture("red", shift=len(label) + ord(label[0])))
    here = tmp_path / "here.png"
    here.write_bytes(picture("blue"))
    plain, moved = Originals(scene.store), Originals(scene.store, tmp_path / "copy")
    oak, lost = Entry(1, "oak", "/was/once/oak/1.png"), Entry(2, "x", "/was/once/1.png")
    assert plain.read(Entry(0, "x", str(here))) == picture("blue") and plain.digest(Entry(0, "x", str(here)))
    assert plain.read(oak) is None and plain.digest(oak) is None
    assert moved.read(oak) == (tmp_path / "copy/oak/1.png").read_bytes()
    assert moved.read(lost) is None  # two are called so
    assert moved.read(Entry(3, "x", "a vector alone")) is None
    assert moved.read(Entry(4, "x", f"sha256:{'0' * 64}/t")) is None
