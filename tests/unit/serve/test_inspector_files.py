"""Files of fitted inspectors: listed by valid names, copied without replacing any, and part of a backup."""

from __future__ import annotations

from pathlib import Path

from tests.support.serving import store_in
from unalike.serve.inspector_files import copy_inspectors, inspector_file, list_inspectors, removed_file
from unalike.serve.store.backup import backup, restore


def write(folder: Path, name: str, content: str) -> None:
    path = inspector_file(folder, name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)


def test_inspectors_are_listed_and_copied_and_none_is_replaced(tmp_path: Path) -> None:
    source, target = tmp_path / "a", tmp_path / "b"
    assert list_inspectors(source) == []
    for name in ("part", "other", "no name!"):
        write(source, name, f"new {name}")
    removed_file(source, "gone").parent.mkdir()
    removed_file(source, "gone").write_text("removed")
    write(target, "part", "old")
    assert list_inspectors(source) == ["other", "part"]
    copy_inspectors(source, target)
    assert (
        inspector_file(target, "part").read_text() == "old"
        and inspector_file(target, "other").read_text() == "new other"
    )
    assert list_inspectors(target) == ["other", "part"] and not removed_file(target, "gone").exists()


def test_a_backup_holds_them(tmp_path: Path) -> None:
    with store_in(tmp_path) as store:
        write(store.folder, "part", "fitted")
        backup(store, tmp_path / "backup", {})
    restore(tmp_path / "backup", tmp_path / "restored")
    assert inspector_file(tmp_path / "restored", "part").read_text() == "fitted"
