"""Names of references hold the hash of their picture; galleries of a service are registered without passwords."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.reference_galleries import make_gallery
from unalike.errors import DataError, NoSuchImage
from unalike.recognition.gallery import Gallery
from unalike.serve.store import Store
from unalike.serve.store.references import hash_of_reference, hashes_of, open_galleries, reference_name, references_of

SHA = "0123456789abcdef" * 4


def test_a_name_and_its_hash() -> None:
    assert hash_of_reference(reference_name(SHA, "token/1")) == SHA
    for name in ("", "photos/a.jpg", f"sha256:{SHA}", f"sha256:{SHA}/", f"sha256:{SHA.upper()}/x", f"x sha256:{SHA}/x"):
        assert hash_of_reference(name) is None
    with pytest.raises(NoSuchImage):
        reference_name("../x", "token")


def test_all_references_of_a_gallery_or_of_a_class() -> None:
    names = [reference_name(SHA, str(number)) if number % 3 else f"{number}.jpg" for number in range(8)]
    gallery = make_gallery(*((f"class{number % 2}", name) for number, name in enumerate(names)))
    assert [one.id for one in references_of(gallery)] == list(range(8))
    assert [one.id for one in references_of(gallery, "class1")] == [1, 3, 5, 7]
    assert hashes_of(references_of(gallery)) == {SHA}


def test_galleries_are_registered_once_and_without_a_password(store: Store, tmp_path: Path) -> None:
    first, second = tmp_path / "first.gallery", tmp_path / "second.gallery"
    first.touch()
    second.touch()
    for _ in range(2):
        store.galleries.register(
            {"db": "postgresql://me:hunter22@host/db?gallery=x&password=hunter22", "shop": str(first)}
        )
    assert store.galleries.list() == {"shop": str(first), "db": "postgresql://me@host/db?gallery=x"}
    store.galleries.register({"shop": str(second)})  # of another service, since the first is there
    assert store.galleries.list()["shop"] == str(second) and store.galleries.list()["shop-2"] == str(first)
    second.unlink()
    store.galleries.register({"shop": str(tmp_path / "moved.gallery")})
    addresses = store.galleries.list()
    assert (addresses["shop"], addresses["shop-2"], len(addresses)) == (str(tmp_path / "moved.gallery"), str(first), 3)


def test_a_gallery_that_is_gone_is_forgotten_on_request(store: Store, tmp_path: Path) -> None:
    store.galleries.register({"shop": str(tmp_path / "no.gallery")})
    with pytest.raises(DataError, match=r"no\.gallery"), open_galleries(store.galleries.list()):
        pass
    with pytest.raises(DataError, match="no gallery 'shp' is registered; did you mean 'shop'"):
        store.galleries.forget("shp")
    assert store.galleries.forget("shop") == str(tmp_path / "no.gallery") and store.galleries.list() == {}


def test_galleries_are_opened_and_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = make_gallery(("pear", "a.jpg")).save(tmp_path / "shop.gallery")
    closed = []
    monkeypatch.setattr(Gallery, "close", lambda gallery: closed.append(gallery), raising=False)
    with open_galleries({"shop": str(path)}) as galleries:
        assert galleries["shop"].counts() == {"pear": 1} and not closed
    assert closed == [galleries["shop"]]
    with pytest.raises(DataError), open_galleries({"shop": str(path), "other": "no.gallery"}):
        pass
    assert len(closed) == 2
