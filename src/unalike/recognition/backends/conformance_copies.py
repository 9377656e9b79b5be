"""Laws of copies of a gallery: ``COPY_LAWS``, as ``conformance.LAWS``; an address with ``.copy`` behind it is another address."""

from __future__ import annotations

import numpy as np

from unalike.errors import DataError
from unalike.recognition.backends.address import copy_gallery, open_gallery, save_gallery
from unalike.recognition.backends.conformance import Law, calibration_for
from unalike.recognition.backends.conformance_networks import identity_of
from unalike.recognition.backends.conformance_oracle import (
    DIM,
    create,
    enrol,
    listed,
    random_vectors,
    require,
    require_equal,
    require_error,
)
from unalike.recognition.backends.protocol import GalleryBackend
from unalike.recognition.gallery import Gallery

COPY_LAWS: list[Law] = []


def copy_law(function: Law) -> Law:
    """Add a law to ``COPY_LAWS``."""
    COPY_LAWS.append(function)
    return function


def require_same(copy: GalleryBackend, gallery: GalleryBackend) -> None:
    """Raise AssertionError unless two galleries hold the same references, vectors, calibration and network."""
    require_equal(listed(copy), listed(gallery), "references")
    require_equal(list(copy.counts().items()), list(gallery.counts().items()), "classes in their order")
    require_equal((copy.half, copy.dim), (gallery.half, gallery.dim), "half precision and width")
    with copy.view() as view, gallery.view() as other:
        require_equal(view.revision, other.revision, "revision")
        require_equal(view.calibration, other.calibration, "calibration")
        require(view.model_identity.equals(other.model_identity), "network")
        ids = [entry.id for entry in listed(gallery)]
        require(np.array_equal(view.vectors(ids), other.vectors(ids)), "vectors")


@copy_law
def a_copy_holds_all_that_the_gallery_holds(address: str) -> None:
    """Ids with their gaps, names, classes in their order, revision, calibration and network, also in half precision."""
    for half in (False, True):
        place = f"{address}.half" if half else address
        gallery = create(place, half=half, identity=identity_of(1))
        names = ["\udcff.jpg", "a\x00b", "\x1a0000", "名前", "", "x" * 3000, "6", "7"]
        enrol(gallery, random_vectors(8), ["b", "a", "c", "a", "ü", "b", "d", "d"], names)
        with gallery.change() as change:
            change.remove(ids=[2, 7])
            change.merge(["d"], "a")
        gallery.calibration = calibration_for(gallery)
        gallery.save()
        copy = copy_gallery(place, f"{place}.copy")
        for each in (copy, open_gallery(f"{place}.copy")):
            require_same(each, gallery)
        require_equal(enrol(copy, random_vectors(1), ["e"]), [8], "the next id of the copy")
        require_equal(gallery.counts().get("e"), None, "a change of the copy in the gallery")


@copy_law
def a_copy_replaces_another_gallery_where_that_is_asked_for(address: str) -> None:
    """Without, the gallery at the target stays as it is; a gallery is not copied onto itself, nor one that does not exist."""
    gallery = create(address)
    enrol(gallery, random_vectors(3), list("abc"))
    other = Gallery(DIM)
    other.enrol(random_vectors(2, seed=5), ["x", "y"])
    save_gallery(other, f"{address}.copy")
    require_error(DataError, lambda: copy_gallery(address, f"{address}.copy"), "exists")
    require_equal(open_gallery(f"{address}.copy").counts(), {"x": 1, "y": 1}, "the gallery at the target")
    require_same(copy_gallery(address, f"{address}.copy", overwrite=True), gallery)
    require_error(DataError, lambda: copy_gallery(address, address, overwrite=True), "itself")
    require_error(DataError, lambda: copy_gallery(f"{address}.none", f"{address}.other"))
    require_error(DataError, lambda: open_gallery(f"{address}.other"))


@copy_law
def an_empty_gallery_is_copied(address: str) -> None:
    """With its width and network."""
    gallery = create(address, identity=identity_of(2))
    require_same(copy_gallery(address, f"{address}.copy"), gallery)
