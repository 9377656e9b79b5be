"""Labeled images: one a content, the surest label, unreadable ones left out, a manifest that trainings read."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

from tests.support.serving import picture
from unalike.data.imageset import load_images
from unalike.learning.labeled_images import (
    CORRECTION,
    FOLDER,
    REFERENCE,
    DataReport,
    LabeledImage,
    drop_unreadable,
    read_folder,
    unite_images,
    write_training_manifest,
)
from unalike.storage.digests import content_sha256

NOW = datetime(2026, 11, 29, tzinfo=UTC)


def test_of_one_content_the_surest_label_is_taken() -> None:
    report = DataReport()
    images = [
        LabeledImage("1" * 64, "old", FOLDER, name="old/1.png"),
        LabeledImage("1" * 64, "enrolled", REFERENCE, name="r"),
        LabeledImage("1" * 64, "first word", CORRECTION, time=NOW, name="d1"),
        LabeledImage("1" * 64, "last word", CORRECTION, time=NOW + timedelta(hours=1), name="d2"),
        LabeledImage("2" * 64, "b", FOLDER),
        LabeledImage("2" * 64, "b", REFERENCE),
    ]
    for order in (images, images[::-1]):
        report = DataReport()
        united = unite_images(order, report)
        assert [(image.label, image.source) for image in united] == [("b", REFERENCE), ("last word", CORRECTION)]
        assert report.duplicates == 4 and len(report.conflicts) == 1
    plain = report.to_dict()
    assert plain["images"] == 2 and plain["classes"] == 2 and plain["sources"] == {CORRECTION: 1, REFERENCE: 1}
    assert plain["single"] == {"count": 2, "names": ["b", "last word"]} and plain["conflicts"]["count"] == 1


def test_a_folder_gives_paths_labels_and_digests(tmp_path: Path) -> None:
    for label, color in (("red", "red"), ("green", "green")):
        (tmp_path / label).mkdir()
        (tmp_path / label / "1.png").write_bytes(picture(color))
        (tmp_path / label / "2.png").write_bytes(picture(color, shift=3))
    images = read_folder(tmp_path)
    assert {image.label for image in images} == {"red", "green"} and len(images) == 4
    assert content_sha256(picture("red")) in {image.sha256 for image in images}
    assert all(Path(image.path).is_file() and image.source == FOLDER for image in images)


def test_images_that_cannot_be_decoded_are_left_out_and_named(tmp_path: Path) -> None:
    contents = {"a": picture("red"), "b": picture("green")[:60], "c": b"text"}
    images = [LabeledImage(content_sha256(content), name, REFERENCE, name=name) for name, content in contents.items()]
    report = DataReport()
    kept = drop_unreadable(images, lambda image: contents[image.name], report, max_pixels=10**6)
    assert [image.name for image in kept] == ["a"] and report.images == {"a": 1}
    assert {name for name, _ in report.unreadable} == {"b", "c"} and report.to_dict()["unreadable"]["count"] == 2
    drop_unreadable(images[:1], lambda image: contents[image.name], report, max_pixels=4)
    assert len(report.unreadable) == 3


def test_the_manifest_is_what_a_training_reads(tmp_path: Path) -> None:
    labels = ["=1+1", "a,b", "Käse", 'quote"']
    images = []
    for number, label in enumerate(labels):
        path = tmp_path / f"{number}.png"
        path.write_bytes(picture("red", shift=number))
        images.append(LabeledImage("0" * 64, label, FOLDER, str(path)))
    loaded = load_images(write_training_manifest(tmp_path / "training.csv", images))
    assert sorted(loaded.label_names()) == sorted(labels) and len(loaded) == len(labels)
