"""serve keys, backup, restore and purge: what they print, what they refuse, and that secrets are printed once alone."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
import typer
from typer.testing import CliRunner, Result

pytest.importorskip("alembic")

from unalike.cli.serve_store import add_store_commands
from unalike.errors import DataError, SpecError, StoreError, UnalikeError
from unalike.recognition.gallery import Gallery
from unalike.serve.store import DecisionRecord, open_store
from unalike.serve.store.records import utc_now
from unalike.serve.store.references import reference_name

app = typer.Typer()
add_store_commands(app)


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("FOLDER", "STORE", "IMAGES"):
        monkeypatch.delenv(f"UNALIKE_SERVE_{name}", raising=False)


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, arguments)


def refusal(kind: type[UnalikeError], *arguments: str) -> str:
    result = run(*arguments)
    assert isinstance(result.exception, kind), result.exception
    return str(result.exception)


def test_a_key_is_made_listed_and_revoked(tmp_path: Path) -> None:
    secret = run("keys", "add", "till-3", "--role", "view", "--folder", "service").stdout.strip()
    with open_store(None, tmp_path / "service") as store:
        key = store.keys.authenticate(secret)
        assert key is not None and (key.name, key.role) == ("till-3", "view")
        assert store.audit.find(action="keys.add").items[0].actor.startswith("command line")
    listing = run("keys", "list", "--folder", "service").stdout
    assert listing.startswith(f"{key.id}  view      till-3: last used ") and secret not in listing
    assert run("keys", "revoke", "till-3", "--folder", "service").stdout == f"revoked {key.id} of till-3\n"
    (entry,) = json.loads(run("keys", "list", "--folder", "service", "--json").stdout)["keys"]
    assert entry["revoked"] is not None and "digest" not in entry
    assert "was revoked before" in refusal(DataError, "keys", "revoke", "till-3", "--folder", "service")


def test_a_key_as_json_has_its_secret(tmp_path: Path) -> None:
    answer = json.loads(run("keys", "add", "a", "--gallery", "shop", "--folder", str(tmp_path), "--json").stdout)
    assert answer["secret"].startswith(f"unalike_{answer['id']}_") and answer["gallery"] == "shop"


def test_no_store_is_made_where_none_was_named(tmp_path: Path) -> None:
    for arguments in (
        ("keys", "add", "a"),
        ("keys", "list"),
        ("backup", "copy"),
        ("keys", "list", "--folder", "nowhere"),
    ):
        assert "no store of a service in" in refusal(SpecError, *arguments)
    assert not list(tmp_path.iterdir())
    run("keys", "add", "a", "--folder", "runs/demo/serve")
    assert "a: not used yet" in run("keys", "list").stdout  # the folder of a service on what the demo left


def test_the_folder_may_be_a_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNALIKE_SERVE_FOLDER", str(tmp_path / "service"))
    assert run("keys", "add", "a").exit_code == 0 and (tmp_path / "service" / "store.db").is_file()


def service(tmp_path: Path) -> str:
    """A store with one decision, and a gallery whose reference is the decision's image."""
    with open_store(None, tmp_path / "service") as store:
        sha = store.images.put(b"content")
        store.decisions.add([DecisionRecord("identify", "shop", "label", label="pear", image=sha)])
        gallery = Gallery(4)
        gallery.enrol(np.eye(4)[:2], ["pear", "apple"], [reference_name(sha, "1"), "apple.jpg"])
        store.galleries.register({"shop": str(gallery.save(tmp_path / "shop.gallery"))})
    return sha


def test_backup_and_restore(tmp_path: Path) -> None:
    sha = service(tmp_path)
    result = run("backup", "copy", "--folder", "service")
    assert result.stdout == f"{tmp_path / 'copy'}: 1 decisions, 1 images, 1 galleries\n"
    line = run("restore", "copy", "--folder", "new").stdout
    assert "start it with: unalike serve --folder new -g shop=new/galleries/shop.gallery" in line
    with open_store(None, tmp_path / "new") as store:
        assert store.images.get(sha) == b"content" and store.decisions.count() == 1
    assert "exists" in refusal(StoreError, "restore", "copy", "--folder", "new")
    assert "is not empty" in refusal(StoreError, "backup", "copy", "--folder", "service")
    assert "NAME=FILE" in refusal(SpecError, "backup", "other", "--gallery", "shop.gallery", "--folder", "service")


def test_purge_of_an_image_and_of_a_class(tmp_path: Path) -> None:
    sha = service(tmp_path)
    assert json.loads(run("purge", "--image", sha, "--folder", "service", "--json").stdout) == {
        "images": 1, "references": 1, "decisions": 1, "answers": 0
    }  # fmt: skip
    assert Gallery.load("shop.gallery").labels == ("apple",)
    line = run("purge", "--class", "apple", "--folder", "service").stdout
    assert line == "removed 0 images, 1 references, 0 decisions\n" and len(Gallery.load("shop.gallery")) == 0
    assert run("purge", "--expired", "--folder", "service").stdout == "removed 0 images, 0 references, 0 decisions\n"


def test_a_purge_keeps_to_the_retention_that_was_changed_on_the_page(tmp_path: Path) -> None:
    service(tmp_path)
    with open_store(None, tmp_path / "service") as store:
        store.decisions.add([DecisionRecord("identify", "shop", "label", time=utc_now() - timedelta(days=10))])
        before = store.decisions.count()
    command = ("purge", "--expired", "--folder", "service")
    assert "0 decisions" in run(*command).stdout
    with open_store(None, tmp_path / "service") as store:
        store.service_settings.change({"decision_days": 5.0})
    assert "0 decisions" in run(*command, "--decision-days", "20").stdout, "what is named counts"
    assert "1 decisions" in run(*command).stdout
    with open_store(None, tmp_path / "service") as store:
        assert store.decisions.count() == before - 1


def test_purge_needs_to_know_what(tmp_path: Path) -> None:
    service(tmp_path)
    for arguments in ((), ("--expired", "--class", "a")):
        assert "expected one of --image, --class and --expired" in refusal(SpecError, "purge", *arguments)
    two = ("purge", "--class", "pear", "--folder", "service", "--gallery", "b=shop.gallery")
    assert "2 galleries: shop, b" in refusal(SpecError, *two)
    assert "no gallery 'c'" in refusal(DataError, *two, "--of", "c")
    nothing = ("purge", "--expired", "--folder", "service", "--forget", "shop")
    assert "no gallery is registered" in refusal(SpecError, *nothing)
