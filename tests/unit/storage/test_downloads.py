"""Downloads above 100 MiB: asked for on a terminal, refused without one with the line that allows them, never when offline."""

from __future__ import annotations

import io
import threading

import pytest

from unalike.errors import DataError, SpecError
from unalike.storage import downloads
from unalike.storage.downloads import (
    ALWAYS,
    ASK,
    LIMIT_BYTES,
    NEVER,
    VARIABLE,
    DownloadRefused,
    allow_download,
    download_policy,
    hub_is_forbidden,
    network_is_forbidden,
    policy_of_action,
    set_command,
    set_policy,
)

WEIGHTS = "the weights of x (hub timm/x)"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch) -> None:
    for key in (VARIABLE, "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "WORLD_SIZE", "SLURM_NTASKS"):
        monkeypatch.setenv(key, "")
    monkeypatch.setattr(downloads, "_command", ())
    monkeypatch.setattr(downloads, "_takes_option", False)


def answer(monkeypatch: pytest.MonkeyPatch, text: str) -> Terminal:
    shown = Terminal()
    monkeypatch.setattr(downloads.sys, "stdin", Terminal(text))
    monkeypatch.setattr(downloads.sys, "stderr", shown)
    return shown


def test_small_downloads_go_on_without_a_question(monkeypatch):
    shown = answer(monkeypatch, "n\n")
    allow_download(WEIGHTS, "x", LIMIT_BYTES)
    assert shown.getvalue() == ""


@pytest.mark.parametrize("size", [LIMIT_BYTES + 1, None])
def test_larger_ones_and_those_of_unknown_size_are_asked_for(monkeypatch, size):
    shown = answer(monkeypatch, "y\n")
    allow_download(WEIGHTS, "x", size)
    amount = "105 MB" if size else "an unknown number of bytes"
    assert shown.getvalue() == f"{WEIGHTS}: download {amount}? [y/N] "
    for text in ("\n", "", "no\n"):
        answer(monkeypatch, text)
        with pytest.raises(DownloadRefused, match="were not downloaded, as you answered"):
            allow_download(WEIGHTS, "x", size)


def test_without_a_terminal_the_refusal_shows_the_line_that_allows_it(monkeypatch):
    monkeypatch.setattr(downloads.sys, "stdin", io.StringIO("y\n"))
    with pytest.raises(DownloadRefused, match="no terminal to ask on"):
        allow_download(WEIGHTS, "x", 10**9)
    set_command(["train", "my photos", "model.backbone=x"])
    set_policy("")
    line = "unalike train 'my photos' model.backbone=x --download; or fetch it first: unalike trunks fetch x"
    with pytest.raises(DownloadRefused) as refusal:
        allow_download(WEIGHTS, "x", 10**9)
    assert line in str(refusal.value) and "1000 MB" in str(refusal.value)
    set_command(["demo"])
    assert downloads.allowing_line() == f"{VARIABLE}=always unalike demo", "a command without the option"
    set_command([])
    assert downloads.allowing_line() == 'os.environ["UNALIKE_DOWNLOAD"] = "always"', "a call in Python"


def test_only_the_main_thread_of_a_single_process_asks(monkeypatch):
    answer(monkeypatch, "y\ny\n")
    outcomes: list[BaseException] = []

    def ask() -> None:
        try:
            allow_download(WEIGHTS, "x", 10**9)
        except DownloadRefused as error:
            outcomes.append(error)

    thread = threading.Thread(target=ask)
    thread.start()
    thread.join()
    monkeypatch.setenv("WORLD_SIZE", "2")
    ask()
    assert len(outcomes) == 2


def test_what_forbids_goes_before_what_allows(monkeypatch):
    assert download_policy() == ASK and not hub_is_forbidden()
    with policy_of_action(ALWAYS):
        allow_download(WEIGHTS, "x", 10**12)
        monkeypatch.setenv(VARIABLE, NEVER)
        assert download_policy() == NEVER and "--offline" in hub_is_forbidden()
    monkeypatch.setenv(VARIABLE, ALWAYS)
    with policy_of_action(NEVER):
        assert download_policy() == NEVER and not network_is_forbidden(), "a spec's field is about weights alone"
    assert download_policy() == ALWAYS
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert hub_is_forbidden() == "HF_HUB_OFFLINE is set"
    monkeypatch.setenv(VARIABLE, "perhaps")
    with pytest.raises(SpecError, match="expected ask, always or never"):
        download_policy()


def test_offline_forbids_the_hub_and_every_other_address():
    from unalike.storage.fetch import local_path

    set_policy(NEVER)
    assert downloads.os.environ["HF_HUB_OFFLINE"] == "1" and network_is_forbidden()
    with pytest.raises(DataError, match=r"--offline, or UNALIKE_DOWNLOAD=never, forbids the network"):
        local_path("https://127.0.0.1:9/weights.pth")
