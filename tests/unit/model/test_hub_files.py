"""Weight files of the hub, against a hub on the loopback interface: whole and checked, or absent."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.hub import COMMIT, Hub, hub_of_this_process
from unalike.errors import WeightsError
from unalike.model import hub_files
from unalike.model.hub_files import HubFile, HubUnavailable, ask_hub, download, find_cached

REPO, NAME = "timm/small", "model.safetensors"
CONTENT = bytes(range(256)) * 12_000  # 3 MB


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    with hub_of_this_process(monkeypatch, tmp_path, {f"{REPO}/{NAME}": CONTENT}) as running:
        yield running


def fetch() -> Path:
    answer = ask_hub(REPO, NAME)
    assert isinstance(answer, HubFile)
    return download(REPO, NAME, answer)


def leftovers(folder: Path) -> list[Path]:
    """Files outside the staging folder."""
    return [path for path in folder.rglob("*") if path.is_file() and hub_files._STAGING not in path.parts]


def test_the_hub_states_size_and_digest_without_sending_the_file(hub):
    assert ask_hub(REPO, NAME) == HubFile(len(CONTENT), hashlib.sha256(CONTENT).hexdigest(), COMMIT)
    assert ask_hub(REPO, "other.bin") == hub_files.NO_SUCH_FILE
    assert hub.downloads() == []


def test_a_download_is_found_in_the_layout_of_huggingface_hub(hub, tmp_path):
    path = fetch()
    assert path.read_bytes() == CONTENT
    assert path == tmp_path / "hub" / "models--timm--small" / "snapshots" / COMMIT / NAME
    assert find_cached(REPO) == path and find_cached(REPO, NAME) == path and find_cached(REPO, "x.bin") is None
    from huggingface_hub import hf_hub_download

    assert Path(hf_hub_download(REPO, NAME, cache_dir=tmp_path / "hub", local_files_only=True)) == path
    asked = len(hub.downloads())
    assert fetch() == path and len(hub.downloads()) == asked, "it is not downloaded again"


def test_an_interrupted_download_leaves_nothing_and_is_continued(hub, tmp_path, monkeypatch):
    monkeypatch.setattr(hub_files, "BACKOFF_S", 0.0)
    hub.stop_after = 100_000
    with pytest.raises(HubUnavailable, match="0.1 MB are kept, and the next time continues there"):
        fetch()
    assert find_cached(REPO) is None and leftovers(tmp_path / "hub") == []
    assert hub.sent == 100_000
    hub.stop_after = None
    assert fetch().read_bytes() == CONTENT
    assert hub.sent == len(CONTENT), "the second run asked for the rest alone"


def test_a_wrong_digest_or_size_is_refused_and_removed(hub, tmp_path):
    hub.stated_sha256 = "0" * 64
    with pytest.raises(WeightsError, match="arrived damaged and was removed: SHA-256 .* the hub states 0000"):
        fetch()
    assert find_cached(REPO) is None and leftovers(tmp_path / "hub") == []
    hub.stated_sha256 = ""
    assert fetch().read_bytes() == CONTENT


def test_a_kill_while_it_is_written_is_continued_too(hub, tmp_path):
    digest = hashlib.sha256(CONTENT).hexdigest()
    part = tmp_path / "hub" / hub_files._STAGING / f"models--timm--small--{digest}.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(CONTENT[:2_000_000])
    assert fetch().read_bytes() == CONTENT and hub.sent == len(CONTENT) - 2_000_000
    assert list(part.parent.iterdir()) == []


def test_a_commit_that_is_none_chooses_no_path(hub):
    answer = ask_hub(REPO, NAME)
    assert isinstance(answer, HubFile)
    with pytest.raises(HubUnavailable, match="commit '../../x'"):
        download(REPO, NAME, replace(answer, commit="../../x"))


def test_a_token_is_sent_where_there_is_one(hub, monkeypatch):
    hub.asks_token = True
    assert ask_hub(REPO, NAME) == "401 Unauthorized"
    monkeypatch.setenv("HF_TOKEN", "secret")
    assert fetch().read_bytes() == CONTENT


def test_a_store_on_another_host_and_a_new_name_are_followed_and_the_store_gets_no_token(hub, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "secret")
    hub.has_store, hub.renamed = True, {"old/name": REPO}
    answer = ask_hub("old/name", NAME)
    assert answer == HubFile(len(CONTENT), hashlib.sha256(CONTENT).hexdigest(), COMMIT)
    assert hub.store_tokens == [], "a question does not reach the store"
    assert download("old/name", NAME, answer).read_bytes() == CONTENT
    assert hub.store_tokens == [None]


def test_a_disk_that_takes_nothing_is_one_line(hub, tmp_path, monkeypatch):
    (tmp_path / "hub").write_text("a file where the folder should be", encoding="utf-8")
    with pytest.raises(WeightsError, match="cannot be written into .* set HF_HOME"):
        fetch()
