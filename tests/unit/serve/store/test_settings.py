"""Settings: kept by kind and name, replaced as a whole, and part of a transaction where one is given."""

from __future__ import annotations

import pytest

from unalike.serve.store import Store

HOSTILE = "<b onclick=alert(1)>\"' \u202e" + "w" * 600


def test_settings_are_set_replaced_and_removed_and_say_what_was_before(store: Store) -> None:
    settings = store.settings
    assert settings.get("inspector", "part") is None and settings.all("inspector") == {}
    assert settings.set("inspector", "part", {"threshold": 0.5}, "ann") is None
    assert settings.set("inspector", "part", {"threshold": 0.25, "boxes": [[1, 2, 3, 4]]}, "ann") == {"threshold": 0.5}
    settings.set("regions", "part", {"boxes": []}, "bob")
    assert settings.all("inspector") == {"part": {"threshold": 0.25, "boxes": [[1, 2, 3, 4]]}}
    assert settings.get("regions", "part") == {"boxes": []}
    assert settings.set("inspector", "part", None, "ann") == {"threshold": 0.25, "boxes": [[1, 2, 3, 4]]}
    assert settings.all("inspector") == {} and settings.get("regions", "part") == {"boxes": []}
    assert settings.set("inspector", "part", None, "ann") is None


def test_any_name_is_found_again(store: Store) -> None:
    store.settings.set("regions", HOSTILE, {"boxes": [[0, 0, 1, 1]]}, "ann")
    assert store.settings.get("regions", HOSTILE) == {"boxes": [[0, 0, 1, 1]]}
    assert store.settings.get("regions", HOSTILE + "x") is None


def test_a_transaction_that_fails_sets_nothing(store: Store) -> None:
    with pytest.raises(ZeroDivisionError), store.transaction() as connection:
        store.settings.set("inspector", "part", {"threshold": 1}, "ann", connection=connection)
        assert store.settings.get("inspector", "part", connection=connection) == {"threshold": 1}
        raise ZeroDivisionError
    assert store.settings.get("inspector", "part") is None
