"""A gallery embedded by another network: ids, names and classes stay, the file is the old or the new one, changes meanwhile are taken over."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.support.learning import hue_picture, network_bytes
from tests.support.postgres import new_database
from unalike.errors import ModelError, RunError
from unalike.recognition.backends.address import edit_gallery, open_gallery, save_gallery
from unalike.recognition.backends.protocol import Entry, GalleryBackend
from unalike.recognition.gallery import Gallery
from unalike.recognition.gallery_conversion import (
    EmbeddedReferences,
    MissingOriginals,
    convert_gallery,
    embed_references,
)
from unalike.recognition.recognizer import Recogniser
from unalike.recognition.snapshot_view import SnapshotView


@pytest.fixture
def recognizers(tmp_path: Path) -> tuple[Recogniser, Recogniser]:
    result = []
    for kind in ("color", "other"):
        path = tmp_path / f"{kind}.onnx"
        path.write_bytes(network_bytes(kind))
        result.append(Recogniser.load(path, runtime="onnxruntime"))
    return result[0], result[1]


def read(entry: Entry) -> bytes | None:
    number, _, shade = entry.name.partition("-")
    return None if entry.name == "lost" else hue_picture(int(number), int(shade))


@pytest.fixture(params=["file", "postgresql"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "file":
        return str(tmp_path / "g.gallery")
    pytest.importorskip("psycopg")
    return f"{new_database()}&gallery=g"


def load(address: str) -> Gallery:
    """What a gallery holds, in memory."""
    with open_gallery(address).view() as view:
        return Gallery.of_state(SnapshotView(view.snapshot(), view.calibration, view.model_identity))


def make_gallery(recognizer: Recogniser, address: str, *, half: bool = False) -> str:
    for number in range(3):
        names = [f"{number}-{shade}" for shade in range(3)]
        attributes = [{"site": f"s{number}"}, {}, {"site": "all"}]
        recognizer.enrol([hue_picture(number, shade) for shade in range(3)], f"c{number}", names, attributes)
    gallery = recognizer.gallery
    assert isinstance(gallery, Gallery)
    gallery.store(half=half)
    gallery.remove(names=["0-1"])
    gallery.rename("c2", "c2 <new>")
    save_gallery(gallery, address)
    return address


def facts(gallery: GalleryBackend) -> list[tuple[int, str, str]]:
    with gallery.view() as view:
        return [tuple(entry) for entry in view.entries(limit=1000)]


def do_nothing() -> Callable[[Recogniser], None]:
    return lambda _: None


@pytest.mark.parametrize("half", [False, True])
def test_ids_names_and_classes_stay_and_vectors_are_those_of_the_new_network(
    recognizers: tuple[Recogniser, Recogniser], address: str, half: bool
) -> None:
    path = make_gallery(recognizers[0], address, half=half)
    before = load(path)
    convert_gallery(path, recognizers[1], read, do_nothing())
    after = load(path)
    assert facts(after) == facts(before) and after.half == half and after.calibration is None
    assert after.model_identity.network == recognizers[1].model_identity.network
    entries = [Entry(*values) for values in facts(after)]
    expected = recognizers[1].encode([read(entry) for entry in entries])
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(after.vectors_ND, expected, atol=2e-3 if half else 1e-5)
    assert after.revision == before.revision + 1
    ids = after.enrol(np.ones((1, 4)), ["later"])
    assert ids == [9]  # no id is used again


def test_what_is_known_is_not_embedded_again(
    recognizers: tuple[Recogniser, Recogniser], address: str, tmp_path: Path
) -> None:
    path = make_gallery(recognizers[0], address)
    entries = [Entry(*values) for values in facts(load(path))]
    known = EmbeddedReferences({})
    first = embed_references(recognizers[1], entries[:3], read, known)
    asked: list[str] = []

    def note(entry: Entry) -> bytes | None:
        asked.append(entry.name)
        return read(entry)

    everything = embed_references(recognizers[1], entries, note, known)
    np.testing.assert_array_equal(everything[:3], first)
    assert set(asked) == {entry.name for entry in entries[3:]}
    file = tmp_path / "kept.gallery"
    known.save(file, recognizers[1].model_identity)
    again = EmbeddedReferences.of_gallery(Gallery.load(file))
    assert again.vectors.keys() == known.vectors.keys()
    for key, vector_D in known.vectors.items():
        np.testing.assert_array_equal(again.vectors[key], vector_D)


def test_references_without_a_picture_are_named_and_nothing_changes(
    recognizers: tuple[Recogniser, Recogniser], address: str
) -> None:
    path = make_gallery(recognizers[0], address)
    with edit_gallery(path) as gallery:
        gallery.enrol(np.ones((1, 4)), ["bare"], ["lost"])
    before = facts(load(path))
    with pytest.raises(MissingOriginals, match="1 references have no picture, such as 'lost'") as caught:
        convert_gallery(path, recognizers[1], read, do_nothing())
    assert caught.value.names == ["lost"] and facts(load(path)) == before


def test_changes_meanwhile_are_taken_over_and_later_ones_of_the_old_network_refused(
    recognizers: tuple[Recogniser, Recogniser], address: str
) -> None:
    path = make_gallery(recognizers[0], address)
    other = open_gallery(path)
    changed: list[str] = []

    def change_once(_: Recogniser) -> None:
        if not changed:
            changed.append("x")
            with other.change() as gallery:
                gallery.enrol(recognizers[0].encode([hue_picture(5, 5)]), ["c5"], ["5-5"])
                gallery.remove(names=["1-1"])

    replaced: list[int] = []
    before = convert_gallery(
        path, recognizers[1], read, change_once, on_replace=lambda former: replaced.append(len(former))
    )
    after = load(path)
    names = [fact[2] for fact in facts(after)]
    assert "5-5" in names and "1-1" not in names and len(after) == 8 == len(before) and replaced == [8]
    with pytest.raises(ModelError), other.change() as gallery:
        gallery.remove(names=["5-5"])
    assert facts(other) == facts(before)  # who reads the old state goes on


def test_a_gallery_that_never_rests_is_left_alone(recognizers: tuple[Recogniser, Recogniser], address: str) -> None:
    path = make_gallery(recognizers[0], address)
    other = open_gallery(path)
    count = 0

    def change_always(_: Recogniser) -> None:
        nonlocal count
        count += 1
        with other.change() as gallery:
            gallery.enrol(np.ones((1, 4)), ["c5"], [f"5-{count}"])

    with pytest.raises(RunError, match="changed again and again"):
        convert_gallery(path, recognizers[1], read, change_always)
    assert load(path).model_identity.network == recognizers[0].model_identity.network


def test_a_calibration_of_the_new_gallery_is_kept(recognizers: tuple[Recogniser, Recogniser], address: str) -> None:
    path = make_gallery(recognizers[0], address)
    convert_gallery(path, recognizers[1], read, lambda recognizer: recognizer.set_threshold()[0])
    after = load(path)
    assert after.calibration is not None and after.stale == ""
