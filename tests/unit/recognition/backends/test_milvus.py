"""A gallery on a server of Milvus Lite: the laws of a gallery, and what is special to Milvus."""

from __future__ import annotations

import threading
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tests.support.laws import ALL_LAWS
from tests.support.milvus import milvus_server
from tests.support.postgres import new_database
from unalike.errors import DataError, ModelError
from unalike.recognition.backends.address import copy_gallery, open_gallery, replace_gallery, save_gallery
from unalike.recognition.backends.conformance import calibration_for
from unalike.recognition.backends.conformance_copies import require_same
from unalike.recognition.backends.conformance_networks import conversion_to, identity_of
from unalike.recognition.backends.conformance_oracle import DIM, create, enrol, random_vectors
from unalike.recognition.backends.milvus import MilvusGallery
from unalike.recognition.backends.milvus_address import MilvusAddress
from unalike.recognition.backends.milvus_connection import MilvusConnection
from unalike.recognition.backends.milvus_lock import read_listing
from unalike.recognition.gallery import Gallery

pytestmark = pytest.mark.slow


@pytest.fixture
def address(request: pytest.FixtureRequest) -> str:
    return f"{milvus_server()}?gallery={request.node.name.replace('[', '.').replace(']', '')}"


@pytest.mark.parametrize("law", ALL_LAWS, ids=lambda law: law.__name__)
def test_milvus_keeps_the_law(law: Callable[[str], None], address: str) -> None:
    law(address)


@pytest.mark.parametrize("law", ALL_LAWS, ids=lambda law: law.__name__)
def test_milvus_keeps_the_law_with_an_index(law: Callable[[str], None], address: str) -> None:
    law(address.replace("?", "?index=hnsw&"))


def listing_of(address: str) -> Any:
    """The collections of a gallery."""
    return read_listing(MilvusConnection(MilvusAddress.parse(address)))


def test_galleries_go_from_one_store_to_another(address: str, tmp_path: Path) -> None:
    """File, Milvus, PostgreSQL and back: ids, revision, calibration and network travel along."""
    pytest.importorskip("psycopg")
    gallery = Gallery(DIM, identity_of(1))
    gallery.enrol(random_vectors(9), list("abcabcabc"), [f"{row}.jpg" for row in range(9)])
    gallery.remove(ids=[4])
    gallery.calibration = calibration_for(gallery)
    places = [gallery.save(tmp_path / "a.gallery"), address, f"{new_database()}&gallery=a", f"{address}.again",
              tmp_path / "b.gallery"]  # fmt: skip
    for source, target in pairwise(places):
        require_same(copy_gallery(source, target), gallery)
        require_same(open_gallery(target), gallery)
        assert open_gallery(target).stale == ""


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """A gallery of 100 references in a file."""
    gallery = Gallery(DIM)
    gallery.enrol(random_vectors(101), [f"class {row % 7}" for row in range(101)], [f"{row}.jpg" for row in range(101)])
    gallery.remove(ids=[50])
    return gallery.save(tmp_path / "shop.gallery")


def interrupted(shop: Path, address: str, calls: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Begin a copy that fails at the writing call of that number."""
    upsert, count = MilvusConnection.upsert, [0]

    def fail_later(self: MilvusConnection, name: str, rows: Any) -> None:
        count[0] += 1
        if count[0] == calls:
            raise KeyboardInterrupt
        upsert(self, name, rows)

    with monkeypatch.context() as patch:
        patch.setattr(MilvusConnection, "upsert", fail_later)
        with pytest.raises(KeyboardInterrupt):
            copy_gallery(shop, address)


def test_an_interrupted_copy_goes_on_and_is_not_seen_before_it_is_complete(
    shop: Path, address: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from unalike.recognition.backends import milvus_publication, milvus_rows

    monkeypatch.setattr(milvus_rows, "WRITE_BYTES", 1000)
    monkeypatch.setattr(milvus_publication, "WRITE_BYTES", 1000)
    for calls, count in ((12, 5), (8, 20)):
        interrupted(shop, address, calls, monkeypatch)
        with pytest.raises(DataError, match="there is no gallery"):
            open_gallery(address)
        listing = listing_of(address)
        assert len(listing.vectors) == len(listing.logs) == 1 and not listing.registers
        (name,) = listing.vectors.values()
        assert MilvusConnection(MilvusAddress.parse(address)).count(name, "added > 0") > count
    copy = copy_gallery(shop, address)
    assert "the copy goes on at" in capsys.readouterr().err
    require_same(copy, open_gallery(shop))
    assert len(listing_of(address).vectors) == 1 and enrol(copy, random_vectors(1), ["new"]) == [101]
    with Gallery.edit(shop) as gallery:
        gallery.enrol(random_vectors(1, seed=8), ["more"], ["more.jpg"])
    interrupted(shop, f"{address}.b", 10, monkeypatch)
    with Gallery.edit(shop) as gallery:
        gallery.remove(labels=["more"])
    require_same(copy_gallery(shop, f"{address}.b"), open_gallery(shop))
    assert len(listing_of(f"{address}.b").vectors) == 1, "what was begun from another state is gone"


def test_a_copy_of_the_same_source_over_itself_and_its_changes(shop: Path, address: str) -> None:
    copy = copy_gallery(shop, address)
    enrol(copy, random_vectors(1), ["new"])
    require_same(copy_gallery(shop, address, overwrite=True), open_gallery(shop))
    assert len(listing_of(address).vectors) == 1


def test_one_of_those_who_make_a_gallery_at_once_makes_it(address: str) -> None:
    outcomes: list[str] = []

    def make(number: int) -> None:
        memory = Gallery(DIM)
        memory.enrol(random_vectors(3), [f"{number}"] * 3)
        try:
            save_gallery(memory, address)
            outcomes.append(f"{number}")
        except DataError as error:
            assert "exists" in str(error)

    threads = [threading.Thread(target=make, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(outcomes) == 1 and open_gallery(address, verify=True).counts() == {outcomes[0]: 3}
    listing = listing_of(address)
    assert (len(listing.registers), len(listing.vectors), len(listing.logs)) == (1, 1, 1)


def test_a_former_gallery_is_read_until_it_is_removed_and_leaves_no_collection(address: str) -> None:
    gallery = create(address, identity=identity_of(1))
    enrol(gallery, random_vectors(4), list("aabb"))
    with gallery.view() as view:
        pass
    assert replace_gallery(address, conversion_to(2, seed=50), view)
    assert gallery.counts() == {"a": 2, "b": 2} and len(listing_of(address).vectors) == 2
    open_gallery(address).drop_former()
    with pytest.raises(ModelError):
        gallery.counts()
    assert len(listing_of(address).vectors) == len(listing_of(address).logs) == 1


def test_a_gallery_that_was_replaced_by_another_width_is_refused(address: str) -> None:
    gallery = create(address)
    save_gallery(Gallery(DIM + 1), address, overwrite=True)
    for call in (gallery.refresh, gallery.view, lambda: enrol(gallery, random_vectors(1), ["a"])):
        with pytest.raises(ModelError, match=f"now has width {DIM + 1}, not {DIM}"):
            call()


def test_rows_that_another_program_removed_are_found(address: str) -> None:
    """Nothing is answered from a part of the gallery."""
    gallery = create(address)
    assert isinstance(gallery, MilvusGallery)
    enrol(gallery, random_vectors(4), list("aabb"))
    with gallery.view() as view:
        gallery._connection.delete(view.collection, "id == 0")
        with pytest.raises(DataError, match="the server gave 3 hits, not 4 references"):
            view.search(random_vectors(1), 4)
    with pytest.raises(DataError, match="is damaged: 3 vectors in place of 4"):
        open_gallery(address, verify=True)
