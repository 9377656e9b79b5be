"""The client of Milvus: where it is missing, what its import does, and its errors."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys

import pytest

from tests.support.milvus import milvus_server
from tests.support.paths import SOURCE
from unalike.errors import DatabaseUnavailable, DataError, MissingExtra
from unalike.recognition.backends import milvus_connection
from unalike.recognition.backends.address import open_gallery, save_gallery
from unalike.recognition.backends.conformance_oracle import DIM, create, enrol, random_vectors
from unalike.recognition.backends.milvus import MilvusGallery
from unalike.recognition.gallery import Gallery

IMPORT = """
import dotenv.main
def refuse(*_, **__):
    raise AssertionError("a .env file is looked for")
dotenv.main.find_dotenv = refuse
from unalike.recognition.backends.milvus_connection import import_pymilvus
import os
assert import_pymilvus().MilvusClient and "PYTHON_DOTENV_DISABLED" not in os.environ
print("imported")
"""


def test_the_extra_is_named_where_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pymilvus", None)
    with pytest.raises(MissingExtra, match=r"a gallery in Milvus needs pymilvus; install it with: .*\[milvus\]"):
        open_gallery("milvus://127.0.0.1:1?gallery=a")


def test_a_folder_needs_milvus_lite(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    pytest.importorskip("pymilvus")
    monkeypatch.setitem(sys.modules, "milvus_lite", None)
    with pytest.raises(MissingExtra, match=r"needs milvus-lite; install it with: .*\[milvus-lite\]"):
        open_gallery(f"milvus://{tmp_path}/a.db?gallery=a")


@pytest.mark.slow
def test_the_import_reads_no_environment_file() -> None:
    pytest.importorskip("pymilvus")
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(SOURCE)}
    done = subprocess.run([sys.executable, "-c", IMPORT], env=environment, capture_output=True, text=True, check=False)
    assert "imported" in done.stdout, done.stderr


@pytest.mark.slow
def test_errors_name_the_gallery_and_the_remedy(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    server = milvus_server()
    create(f"{server}?gallery=parts ü")
    with pytest.raises(DataError, match=r"no gallery 'part ü' in milvus://.*did you mean 'parts ü'"):
        open_gallery(f"{server}?gallery=part ü")
    with pytest.raises(DataError, match="make it with unalike gallery build"):
        open_gallery(f"{server}?gallery=quite other")
    with pytest.raises(DataError, match="from 2 to 32768 in Milvus"):
        save_gallery(Gallery(1), f"{server}?gallery=narrow")
    monkeypatch.setattr(milvus_connection, "CONNECT_TIMEOUT_S", 0.5)
    with pytest.raises(
        DatabaseUnavailable, match=r"milvus://127.0.0.1:1\?gallery=a: .*check that the server runs"
    ) as caught:
        open_gallery("milvus://anna:hunter2@127.0.0.1:1?gallery=a".replace("anna:hunter2@", ""))
    assert "\n" not in str(caught.value)
    assert "Traceback" not in capfd.readouterr().err, "pymilvus writes each error to standard error"


@pytest.mark.slow
def test_a_secret_is_told_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither by the object, nor by errors, nor by what goes to another process."""
    address = f"{milvus_server().replace('://', '://anna:hunter2@')}?gallery=secret"
    gallery = create(address)
    told = [repr(gallery), gallery.address, repr(pickle.dumps(gallery)), repr(gallery.__getstate__())]  # type: ignore[attr-defined]
    monkeypatch.setattr(milvus_connection, "CONNECT_TIMEOUT_S", 0.5)
    for wrong in (
        address + "s",
        address.replace("127.0.0.1", "127.0.0.1:1/x?gallery=a#"),
        "milvus://anna:hunter2@127.0.0.1:1?gallery=a",
    ):
        with pytest.raises(DataError) as caught:
            open_gallery(wrong)
        told.append(f"{caught.value} {caught.value.__cause__}")
    assert not [text for text in told if "hunter2" in text]


@pytest.mark.slow
def test_a_folder_of_milvus_lite_in_this_process(tmp_path) -> None:
    pytest.importorskip("milvus_lite")
    address = f"milvus://{tmp_path}/shop.db?gallery=parts"
    gallery = create(address)
    assert isinstance(gallery, MilvusGallery) and enrol(gallery, random_vectors(3), list("aab")) == [0, 1, 2]
    with open_gallery(address).view() as view:
        assert view.counts() == {"a": 2, "b": 1} and view.search(random_vectors(1), 1).ids_QK.tolist() == [[0]]
    with pytest.raises(DataError, match="without an index for approximate search"):
        gallery.open_index()
    assert gallery.dim == DIM and open_gallery(address, verify=True).revision == 1
    gallery.close()
    assert len(gallery) == 3, "a later call opens another connection"
