"""Names of collections in Milvus: the state of a register, and which gallery a collection belongs to."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import replace

import pytest

from unalike.recognition.backends import milvus_names
from unalike.recognition.backends.milvus_names import (
    Listing,
    Register,
    gallery_names,
    log_name,
    new_uid,
    prefix_of,
    vectors_name,
)

GALLERIES = (
    "shop",
    "Shop",
    "shop_2",
    "shop__2",
    "shop_x",
    "parts ü",
    "x" * 200,
    "x" * 201,
    "a.b",
    "a_x2e_b",
    "名前",
    "0",
    "\udcff",
)


def free(gallery: str = "shop") -> Register:
    return Register(prefix_of(gallery), new_uid(), 7, 9, 1, False, "")


def test_each_gallery_has_a_prefix_that_is_no_beginning_of_another() -> None:
    prefixes = [prefix_of(name) for name in GALLERIES]
    assert all(re.fullmatch(r"unalike_[A-Za-z0-9_]+", prefix) for prefix in prefixes)
    assert not [a for a in prefixes for b in prefixes if a is not b and b.startswith(a)]
    for name in GALLERIES:
        register = replace(free(name).taken_over().renewed(), commit=10**9, attempt=10**9)
        assert len(register.name) <= 255 and len(vectors_name(register.prefix, new_uid(), 10**6)) <= 255


def test_a_name_says_all_that_a_register_holds() -> None:
    register = free()
    for each in (
        register,
        register.taken(),
        register.taken().renewed(),
        register.taken().freed(9, 9),
        register.taken_over(),
    ):
        names = [
            each.name,
            vectors_name(each.prefix, each.uid, 3),
            log_name(each.prefix, each.uid),
            prefix_of("shop2") + "r_x",
        ]
        listing = Listing.of(names, "shop")
        assert listing.registers == (each,) and listing.register == each
        assert (listing.vectors, listing.logs) == ({each.uid: names[1]}, {each.uid: names[2]})
    assert Listing.of([replace(register, commit=0).name], "shop").register is None, "one that is not complete"


def test_every_name_is_a_new_one() -> None:
    register = free()
    names = {call().name for call in (register.taken, register.taken_over) for _ in range(50)}
    held = register.taken()
    names |= {
        call().name for call in (held.renewed, lambda: held.freed(7, 9), lambda: held.freed(10, 10)) for _ in range(50)
    }
    assert len(names) == 250
    assert held.renewed().owner == held.renewed().renewed().owner == held.owner


@pytest.mark.skipif(
    not milvus_names._machine(), reason="a system that does not tell one start of a machine from another"
)
def test_a_process_that_ended_has_abandoned_its_register(monkeypatch: pytest.MonkeyPatch) -> None:
    code = "from unalike.recognition.backends.milvus_names import Register; print(Register('p', 'a', 1, 1, 0, False, '').taken().mark)"
    mark = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    register = replace(free(), is_held=True, mark=mark)
    assert register.is_abandoned() and register.renewed().is_abandoned()
    assert not free().taken().is_abandoned(), "this process runs"
    assert not free().is_abandoned() and not replace(register, mark="zz").is_abandoned()
    with monkeypatch.context() as patch:
        patch.setattr(milvus_names, "_machine", lambda: "another")
        assert not register.is_abandoned(), "of another machine nothing is known"
    owner = free().taken().mark.split("q")
    assert replace(register, mark="q".join([*owner[:2], "1", owner[3]])).is_abandoned(), (
        "another process of that number"
    )


def test_names_of_galleries_are_read_off_their_registers() -> None:
    names = [free(name).name for name in GALLERIES] + ["other", vectors_name(prefix_of("hidden"), "a", 0)]
    assert gallery_names(names) == [name for name in GALLERIES if len(name) < 100]
