"""Files of models in the folder of a service: found after a move, with the digests of their trainings; vectors are kept and removed."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from unalike.recognition.gallery import Gallery
from unalike.recognition.model_identity import ModelIdentity
from unalike.serve.model_files import (
    copy_models,
    keep_model,
    keep_vectors,
    model_file,
    own_model,
    relative_file,
    remove_learning_data,
    training_digests,
    vectors_file,
)


def test_a_model_is_kept_with_the_digests_of_its_training(tmp_path: Path) -> None:
    source = tmp_path / "trained.onnx"
    source.write_bytes(b"network")
    path = keep_model(tmp_path / "serve", "0197", source, frozenset(("b" * 64, "a" * 64)))
    assert path == model_file(tmp_path / "serve", "0197") and path.read_bytes() == b"network"
    assert training_digests(tmp_path / "serve", "0197") == {"a" * 64, "b" * 64}
    assert training_digests(tmp_path / "serve", "other") is None


def test_a_gallery_names_its_model_also_after_the_folder_was_moved(tmp_path: Path) -> None:
    source = tmp_path / "trained.onnx"
    source.write_bytes(b"network")
    path = keep_model(tmp_path / "serve", "0197", source, frozenset())
    assert own_model(tmp_path / "serve", str(path)) == path
    assert relative_file(tmp_path / "serve", str(path)) == "models/0197/model.onnx"
    (tmp_path / "serve").rename(tmp_path / "moved")
    assert own_model(tmp_path / "moved", str(path)) == model_file(tmp_path / "moved", "0197")
    for other in ("pretrained", str(source), "", "models/none/model.onnx"):
        assert own_model(tmp_path / "moved", other) is None
    assert relative_file(tmp_path / "moved", "pretrained:x") == "pretrained:x"
    assert relative_file(tmp_path / "moved", "m.onnx") == os.path.abspath("m.onnx")


def test_vectors_of_another_network_or_gallery_have_another_file(tmp_path: Path) -> None:
    files = {
        vectors_file(tmp_path, name, ModelIdentity(network=network)) for name in ("a", "b") for network in ("1", "2")
    }
    assert len(files) == 4
    gallery = Gallery(2)
    gallery.enrol(np.eye(2), ["a", "b"], ["x", "y"])
    for file in files:
        keep_vectors(gallery, file)
        np.testing.assert_array_equal(Gallery.load(file).vectors_ND, gallery.vectors_ND)
    remove_learning_data(tmp_path)
    assert not any(file.exists() for file in files)


def test_models_are_copied_and_those_that_are_there_stay(tmp_path: Path) -> None:
    source = tmp_path / "trained.onnx"
    source.write_bytes(b"network")
    keep_model(tmp_path / "one", "0197", source, frozenset(("a" * 64,)))
    copy_models(tmp_path / "one", tmp_path / "two")
    copy_models(tmp_path / "one", tmp_path / "two")
    assert model_file(tmp_path / "two", "0197").read_bytes() == b"network"
    assert training_digests(tmp_path / "two", "0197") == {"a" * 64}
    copy_models(tmp_path / "nothing", tmp_path / "two")
