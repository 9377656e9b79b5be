"""Names of references hold the hash of their picture; galleries of a service are registered without passwords."""

from __future__ import annotations

import pytest

from tests.support.reference_galleries import make_gallery
from unalike.serve.store import NoSuchImage, Store
from unalike.serve.store.references import hash_of_reference, hashes_of, reference_name, references_of

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


def test_galleries_are_registered_once_and_without_a_password(store: Store) -> None:
    store.galleries.register(
        {"shop": "/data/shop.gallery", "db": "postgresql://me:hunter22@host/db?gallery=x&password=hunter22"}
    )
    store.galleries.register({"shop": "/data/new.gallery"})
    addresses = store.galleries.list()
    assert addresses["shop"] == "/data/new.gallery" and sorted(addresses) == ["db", "shop"]
    assert addresses["db"] == "postgresql://me@host/db?gallery=x"
