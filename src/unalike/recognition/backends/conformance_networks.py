"""Laws of a gallery that gets another network: ``NETWORK_LAWS``, as ``conformance.LAWS``.

Shape letters: N enrolled vectors, D width.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from unalike.errors import DataError, ModelError
from unalike.recognition.backends.address import delete_gallery, open_gallery, replace_gallery
from unalike.recognition.backends.conformance import Law, calibration_for
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
from unalike.recognition.model_identity import ModelIdentity

NETWORK_LAWS: list[Law] = []
_VIEW = {"size": [224, 224], "decoding": {"version": 2, "ground": None, "range": None}}


def network_law(function: Law) -> Law:
    """Add a law to ``NETWORK_LAWS``."""
    NETWORK_LAWS.append(function)
    return function


def identity_of(number: int) -> ModelIdentity:
    """A network."""
    return ModelIdentity(
        random_vectors(1, seed=100 + number)[0], _VIEW, f"models/{number}.onnx", "", f"weights {number}"
    )


def conversion_to(number: int, seed: int, labels: str = "aabb") -> Gallery:
    """The same references by another network."""
    gallery = Gallery(DIM, identity_of(number))
    gallery.enrol(random_vectors(len(labels), seed=seed), list(labels), [f"{row}.jpg" for row in range(len(labels))])
    gallery.calibration = calibration_for(gallery)
    return gallery


@network_law
def the_network_is_kept_and_checked(address: str) -> None:
    """The network comes back with its probe; another network and another decoding are refused; a completed one is kept."""
    probe_D = random_vectors(1)[0]
    identity = ModelIdentity(probe_D, _VIEW, "models/\udcff ü.onnx", "tf_efficientnet_lite0", "weights 1234")
    gallery = create(address, identity=identity)
    again = open_gallery(address)
    require(again.model_identity.equals(identity), "the network")
    again.model_identity.check_compatible(identity)
    other = ModelIdentity(probe_D, _VIEW, "", "", "weights 5678")
    require_error(ModelError, lambda: again.model_identity.check_compatible(other), "another network")
    completed = identity.with_decoding(type(identity.decoding)(ground=(255, 255, 255)))
    with again.change() as change:
        change.model_identity = completed
        change.enrol(random_vectors(1), ["a"])
    gallery.refresh()
    for each in (gallery, open_gallery(address)):
        require(each.model_identity.equals(completed), "the decoding that was completed")


@network_law
def a_gallery_gets_another_network_in_one_step(address: str) -> None:
    """Who opens it sees the new one; who has it open reads the former one, until ``refresh`` says that it is of another network."""
    gallery, reader = create(address, identity=identity_of(1)), open_gallery(address)
    enrol(gallery, random_vectors(4), list("aabb"), [f"{row}.jpg" for row in range(4)])
    reader.refresh()
    query_D = random_vectors(1, seed=5)
    with reader.view() as view:
        before = view.search(query_D, 4)
    new, steps = conversion_to(2, seed=50), []
    with gallery.view() as view:
        pass
    require(
        replace_gallery(address, new, view, lambda: steps.append(open_gallery(address).model_identity.network)),
        "not replaced",
    )
    require_equal(steps, ["weights 1"], "networks when the change was announced")
    after = open_gallery(address)
    require(after.model_identity.equals(identity_of(2)), "the network of the new one")
    require_equal((listed(after), after.calibration), (new.entries(), new.calibration), "the new one")
    for _ in range(2):
        with reader.view() as view:
            former = view.search(query_D, 4)
            require_equal(view.model_identity.network, "weights 1", "network of who reads the former one")
            require_equal(
                (former.ids_QK.tolist(), former.entries_QK),
                (before.ids_QK.tolist(), before.entries_QK),
                "its neighbors",
            )
        require_error(ModelError, reader.refresh, "another network")
    require_error(ModelError, lambda: enrol(reader, random_vectors(1), ["lost"]), "another network")
    require_equal(enrol(after, random_vectors(1), ["later"]), [4], "the next id")


@network_law
def what_others_changed_meanwhile_is_not_replaced(address: str) -> None:
    """A reference or a class that was changed since the view keeps the gallery as it is, without an announcement."""
    gallery = create(address, identity=identity_of(1))
    enrol(gallery, random_vectors(4), list("aabb"))
    announcements: list[int] = []
    changes: tuple[Callable[[GalleryBackend], object], ...] = (
        lambda change: change.enrol(random_vectors(1), ["c"]),
        lambda change: change.remove(ids=[0]),
        lambda change: change.rename("b", "d"),
        lambda change: change.merge(["a"], "d"),
    )
    for make in changes:
        with gallery.view() as view:
            pass
        with open_gallery(address).change() as change:
            make(change)
        is_replaced = replace_gallery(address, conversion_to(2, seed=50), view, lambda: announcements.append(1))
        require(not is_replaced, "replaced")
        require_equal(announcements, [], "announced")
        gallery.refresh()
        require_equal(open_gallery(address).model_identity.network, "weights 1", "network")
    with gallery.view() as view:
        pass
    try:
        replace_gallery(address, conversion_to(2, seed=50), view, _fail)
    except KeyboardInterrupt:
        require_equal(listed(open_gallery(address)), listed(gallery), "after an exception")
    with gallery.view() as view:
        pass
    require(replace_gallery(address, conversion_to(2, seed=50), view), "not replaced after the changes")


def _fail() -> None:
    raise KeyboardInterrupt


@network_law
def a_change_waits_for_the_replacement_or_comes_before_it(address: str) -> None:
    """While the replacement is announced nobody else changes the gallery: what was acknowledged is in the new one."""
    gallery, other = create(address, identity=identity_of(1)), open_gallery(address)
    enrol(gallery, random_vectors(4), list("aabb"))
    outcomes: list[str] = []

    def write() -> None:
        try:
            enrol(other, random_vectors(1), ["late"])
            outcomes.append("written")
        except ModelError:
            outcomes.append("refused")

    writer = threading.Thread(target=write)

    def announce() -> None:
        writer.start()
        writer.join(0.3)
        outcomes.append("announced")

    with gallery.view() as view:
        pass
    require(replace_gallery(address, conversion_to(2, seed=50), view, announce), "not replaced")
    writer.join()
    require_equal(outcomes, ["announced", "refused"], "order")
    require("late" not in open_gallery(address).counts(), "a change of the former network")


@network_law
def former_states_are_removed_when_that_is_asked_for(address: str) -> None:
    """The gallery stays; a later replacement, a new gallery of that address and its deletion are possible."""
    gallery = create(address, identity=identity_of(1))
    enrol(gallery, random_vectors(4), list("aabb"))
    for number in (2, 3, 1):
        present = open_gallery(address)
        with present.view() as view:
            pass
        require(replace_gallery(address, conversion_to(number, seed=50 + number), view), "not replaced")
        open_gallery(address).drop_former(3600.0)  # none is as old
        require_equal(present.counts(), {"a": 2, "b": 2}, "counts by who reads the former one")
    after = open_gallery(address)
    after.drop_former()
    require_equal((after.counts(), after.model_identity.network), ({"a": 2, "b": 2}, "weights 1"), "after the removal")
    delete_gallery(address)
    require_error(DataError, lambda: open_gallery(address))
    require_equal(len(create(address)), 0, "a new gallery of that address")
