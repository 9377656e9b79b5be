"""The store as a whole: what one process wrote another reads, and a change is all or none."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from unalike.serve.store import DecisionRecord, Store, open_store


def test_everything_is_in_the_folder(tmp_path: Path) -> None:
    with open_store(None, tmp_path / "new" / "service") as store:
        sha = store.images.put(b"content")
        store.decisions.add([DecisionRecord("identify", "shop", "label", image=sha)])
    with open_store(None, tmp_path / "new" / "service") as store:
        (record,) = store.decisions.find().items
        assert record.image is not None and store.images.get(record.image) == b"content"
    assert {path.name for path in (tmp_path / "new" / "service").iterdir()} == {"store.db", "images"}


def test_images_may_be_elsewhere(tmp_path: Path) -> None:
    with open_store(None, tmp_path / "service", tmp_path / "pictures") as store:
        store.images.put(b"content")
    assert (tmp_path / "pictures").is_dir() and not (tmp_path / "service" / "images").exists()


def test_a_transaction_that_fails_leaves_nothing(store: Store) -> None:
    with pytest.raises(ZeroDivisionError), store.transaction() as connection:
        store.audit.begin("ann", "references.add", "shop", connection=connection)
        store.audit.begin("ann", "references.remove", "shop", connection=connection)
        raise ZeroDivisionError
    assert not store.audit.find().items


def test_another_user_of_the_machine_can_run_a_store_of_their_own(tmp_path: Path) -> None:
    """As root: a process of user 65534 creates a store in its folder, and root reads it on."""
    os = pytest.importorskip("os")
    if not hasattr(os, "geteuid") or os.geteuid() != 0:
        pytest.skip("needs root, to become another user")
    folder = tmp_path / "service"
    folder.mkdir()
    os.chown(folder, 65534, 65534)
    for parent in (tmp_path, *tmp_path.parents[:2]):
        parent.chmod(parent.stat().st_mode | 0o011)
    program = (
        "import os, sys\n"
        "from unalike.serve.store import DecisionRecord, open_store\n"
        "store = open_store(None, sys.argv[2])  # imports all that is needed, which that user may not read\n"
        "store.decisions.add([DecisionRecord('identify', 'shop', 'label', image=store.images.put(b'content'))])\n"
        "os.setgid(65534); os.setuid(65534)\n"
        "with open_store(None, sys.argv[1]) as store:\n"
        "    store.decisions.add([DecisionRecord('identify', 'shop', 'label', image=store.images.put(b'content'))])\n"
    )
    environment = {**os.environ, "HOME": str(folder)}
    done = subprocess.run(
        [sys.executable, "-c", program, str(folder), str(tmp_path / "first")],
        check=False,
        capture_output=True,
        text=True,
        env=environment,
    )
    if "PermissionError" in done.stderr or "ModuleNotFoundError" in done.stderr:
        pytest.skip("that user cannot read this installation")
    assert done.returncode == 0, done.stderr
    with open_store(None, folder) as store:
        store.decisions.add([DecisionRecord("identify", "shop", "label")])
        assert store.decisions.count() == 2
        # SQLite gives files that root creates to the owner of the database, so that the service can go on.
        assert {path.stat().st_uid for path in folder.glob("store.db*")} == {65534}
