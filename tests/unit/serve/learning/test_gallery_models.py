"""The model in service, candidates, and what is known of the images that each was trained on."""

from __future__ import annotations

import os
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.support.learning import NAME, make_scene
from unalike.errors import DataError, SpecError
from unalike.serve.learning.gallery_models import choose_gallery, entries_of
from unalike.serve.model_files import model_file


def test_the_model_in_service_is_the_promoted_one_else_that_of_the_options_else_the_gallerys(tmp_path: Path) -> None:
    scene = make_scene(tmp_path)
    gallery = scene.load()
    assert scene.place.model_in_service(gallery) == str(tmp_path / "service.onnx")
    named = replace(scene.place, model="other.onnx")
    assert named.model_in_service(gallery) == "other.onnx"
    candidate = scene.add_candidate("color")
    own = model_file(scene.store.folder, candidate.id)
    gallery.model_identity = replace(gallery.model_identity, file=f"/somewhere/models/{candidate.id}/model.onnx")
    assert named.model_in_service(gallery) == str(own)
    assert scene.place.stored_file(str(own)) == candidate.file and scene.place.file_of(candidate.file) == str(own)
    assert scene.place.file_of("pretrained") == "pretrained" and scene.place.file_of("/a/b.onnx") == "/a/b.onnx"


def test_what_is_known_of_a_training(tmp_path: Path) -> None:
    scene = make_scene(tmp_path)
    assert scene.place.facts_of("pretrained:resnet18").is_frozen
    file = tmp_path / "service.onnx"
    moment = datetime(2026, 3, 1, tzinfo=UTC)
    os.utime(file, (moment.timestamp(), moment.timestamp()))
    facts = scene.place.facts_of(str(file))
    assert facts.until == moment and facts.hashes is None and not facts.is_frozen
    assert scene.place.facts_of(str(tmp_path / "gone.onnx")).until is None
    candidate = scene.add_candidate("color", frozenset(("a" * 64,)))
    assert scene.place.facts_of(scene.place.file_of(candidate.file)).hashes == {"a" * 64}


def test_a_candidate_belongs_to_its_gallery(tmp_path: Path) -> None:
    scene = make_scene(tmp_path)
    candidate = scene.add_candidate("color")
    assert scene.place.candidate(candidate.id) == candidate
    for place, name in ((replace(scene.place, name="line"), candidate.id), (scene.place, "none")):
        with pytest.raises(DataError, match="no model"):
            place.candidate(name)


def test_the_only_gallery_need_not_be_named(tmp_path: Path) -> None:
    scene = make_scene(tmp_path)
    assert (
        choose_gallery(scene.store, None)
        == (NAME, str(tmp_path / "colors.gallery"))
        == choose_gallery(scene.store, NAME)
    )
    with pytest.raises(SpecError, match="no gallery 'colour'.*colors"):
        choose_gallery(scene.store, "colour")
    scene.store.galleries.register({"second": str(tmp_path / "second.gallery")})
    with pytest.raises(SpecError, match="2 galleries"):
        choose_gallery(scene.store, None)
    assert len(entries_of(scene.load())) == 12
