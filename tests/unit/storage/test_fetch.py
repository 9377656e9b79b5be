"""Data and models behind addresses, from a real S3 server process: fetched once, gone on with, checked, shared."""

from __future__ import annotations

import functools
import http.server
import json
import os
import random
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("moto")
pytest.importorskip("s3fs")

import s3fs

from tests.support.stores import Wire, call, image, packed, s3_server
from unalike.data.imageset import load_images
from unalike.errors import DataError
from unalike.storage import cache
from unalike.storage import fetch as remote
from unalike.storage.cache import CacheEntry, make_room
from unalike.storage.fetch import fetch_files, local_path, uri_of
from unalike.storage.filesystems import RemoteFile, RemoteStore

ROOT = "metric_learning_recognition/retail-product-checkout-dataset_classification_demo"
KNOWN = {f"train/{c}/{n}.png": image((10 * c, n, 5)) for c in range(3) for n in range(4)}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with s3_server(tmp_path_factory.mktemp("moto") / "log") as address:
        call(f"{address}/bucket", b"", "PUT")
        yield address


@pytest.fixture
def wire(server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Wire]:
    """The server behind a wire, an empty cache, credentials in the environment, no patience."""
    wire = Wire(server)
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in {
        "AWS_ENDPOINT_URL": wire.url, "AWS_ACCESS_KEY_ID": "me", "AWS_SECRET_ACCESS_KEY": "s3cr3t",
        "AWS_DEFAULT_REGION": "us-east-1", "AWS_EC2_METADATA_DISABLED": "true", "UNALIKE_CACHE": str(tmp_path / "cache"),
        "AWS_CONFIG_FILE": str(tmp_path / "none"), "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "none"),
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(remote, "BACKOFF_S", 0.01)
    monkeypatch.setattr(remote, "ATTEMPTS", 2)
    monkeypatch.setattr(s3fs.S3FileSystem, "retries", 1)
    monkeypatch.setattr(cache, "_shared_locks", {})
    yield wire
    wire.close()


def put(server: str, key: str, data: bytes) -> str:
    call(f"{server}/bucket/{key}", data, "PUT")
    return f"s3://bucket/{key}"


def line(fault: pytest.ExceptionInfo[DataError]) -> str:
    text = str(fault.value)
    assert "\n" not in text and "s3cr3t" not in text and fault.value.exit_code != 0
    return text


# ---------------------------------------------------------------- archives


def test_the_contracts_archives_are_fetched_once(server: str, wire: Wire, tmp_path: Path) -> None:
    uri = put(server, f"{ROOT}/known_classes/train.tar.gz", packed(KNOWN))
    images = load_images(uri)
    assert len(images) == 12 and images.classes == ("0", "1", "2") and images.source == uri
    assert load_images(Path(uri)).paths == images.paths  # Path() folds the slashes
    assert len(wire.gets("train.tar.gz")) == 1
    put(server, f"{ROOT}/known_classes/train.tar.gz", packed({"a/1.png": KNOWN["train/0/0.png"]}))
    assert load_images(uri).classes == ("a",)
    assert len(wire.gets("train.tar.gz")) == 2
    kept = b"".join(p.read_bytes() for p in (tmp_path / "cache").rglob("*") if p.is_file())
    assert b"s3cr3t" not in kept


def test_a_cut_connection_is_gone_on_with(
    server: str, wire: Wire, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    data = random.Random(0).randbytes(1_000_000)
    uri = put(server, "big.bin", data)
    monkeypatch.setattr(remote, "BLOCK_BYTES", 50_000)
    wire.budget = 470_000
    with pytest.raises(DataError, match="connection broke off.*are kept: run it again") as fault:
        local_path(uri)
    assert uri in line(fault)
    first = wire.gets("big.bin")
    wire.budget = None
    assert local_path(uri).read_bytes() == data
    second = wire.gets("big.bin")[len(first) :]
    starts = sorted(int(r.removeprefix("bytes=").split("-")[0]) for r in second)
    assert "bytes=0-49999" in first and starts[0] >= 200_000 and len(set(starts)) == len(starts)
    assert "continuing at" in capsys.readouterr().err


def test_a_short_break_is_not_even_an_error(server: str, wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    data = random.Random(1).randbytes(400_000)
    uri = put(server, "short.bin", data)
    monkeypatch.setattr(remote, "BLOCK_BYTES", 50_000)
    monkeypatch.setattr(remote, "BACKOFF_S", 0.2)
    monkeypatch.setattr(remote, "ATTEMPTS", 8)
    wire.budget = 200_000
    threading.Timer(0.1, lambda: setattr(wire, "budget", None)).start()
    assert local_path(uri).read_bytes() == data


def test_what_changed_meanwhile_is_not_spliced(server: str, wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "BLOCK_BYTES", 50_000)
    uri = put(server, "changing.bin", b"a" * 300_000)
    wire.budget = 150_000
    with pytest.raises(DataError, match="broke off"):
        local_path(uri)
    wire.budget = None
    put(server, "changing.bin", b"b" * 300_000)
    assert local_path(uri).read_bytes() == b"b" * 300_000


def test_damage_in_the_cache_is_found_and_mended(server: str, wire: Wire) -> None:
    uri = put(server, "model.bin", b"x" * 1000)
    path = local_path(uri)
    path.write_bytes(b"x" * 999 + b"y")
    assert local_path(uri).read_bytes() == b"x" * 1000
    assert len(wire.gets("model.bin")) == 2


def test_truncated_and_escaping_archives_are_refused_by_their_address(server: str, wire: Wire, tmp_path: Path) -> None:
    truncated = put(server, "cut.tar.gz", packed(KNOWN)[:-40])
    with pytest.raises(DataError, match="damaged or truncated.*download it again") as fault:
        load_images(truncated)
    assert truncated in line(fault) and str(tmp_path) not in line(fault)
    escaping = put(server, "evil.tar.gz", packed({"../../evil.png": b"x"}))
    with pytest.raises(DataError, match="evil.png.*plain relative names") as fault:
        load_images(escaping)
    assert escaping in line(fault)
    assert not list(tmp_path.rglob("evil.png"))


# ---------------------------------------------------------------- folders and manifests


def test_of_a_folder_only_what_changed_is_fetched(server: str, wire: Wire) -> None:
    for name, data in KNOWN.items():
        put(server, f"folder/{name}", data)
    put(server, "folder/train/notes.txt", b"no image" * 1000)
    first = load_images("s3://bucket/folder/")
    assert len(first) == 12 and first.classes == ("0", "1", "2")
    assert wire.gets("notes.txt") == [] and len(wire.gets("0.png")) == 3
    put(server, "folder/train/1/0.png", image((1, 2, 3)))
    put(server, "folder/train/3/9.png", image((4, 5, 6)))
    before = len([text for text in wire.asked if ".png" in text.split("\r\n")[0]])
    second = load_images("s3://bucket/folder")
    fetched = [text for text in wire.asked if ".png" in text.split("\r\n")[0]][before:]
    assert len(second) == 13 and len(second.classes) == 4 and len(fetched) == 2
    assert first.paths[4].read_bytes() == KNOWN["train/1/0.png"]  # whoever reads the older state is not disturbed
    assert [p for p in second.paths if p.read_bytes() == image((1, 2, 3))]


@pytest.mark.parametrize(
    "name", ["../evil.png", "a/../../evil.png", "a//evil.png", "/evil.png", "C:/evil.png", "a\\b.png"]
)
def test_names_that_lead_out_are_refused(name: str) -> None:
    store = RemoteStore("memory://names")
    item = RemoteFile(store, f"/names/{name}", 1, "1")
    assert list(remote._visible({"a/b.png": item, "__MACOSX/b.png": item}, store)) == ["a/b.png"]
    with pytest.raises(DataError, match="outside its folder"):
        remote._visible({name: item}, store)


def test_manifests_and_class_maps_lie_anywhere(server: str, wire: Wire, tmp_path: Path) -> None:
    put(server, "m/images/1.png", image((1, 1, 1)))
    put(server, "elsewhere/2.png", image((2, 2, 2)))
    other = put(server, "elsewhere/4.png", image((2, 2, 2)))
    rows = f"path,label\nimages/1.png,a\n../elsewhere/2.png,b\n{other},b\nimages/3.png,a\n"
    names = put(server, "m/names.yaml", b"a: Apple\n")
    images = load_images(put(server, "m/list.csv", rows.encode()), class_map=names)
    assert images.label_names() == ("Apple", "b", "b")
    assert [p.name for p in images.paths] == ["1.png", "2.png", "4.png"]
    (tmp_path / "here.csv").write_text(f"path,label\n{other},x\n")
    assert load_images(tmp_path / "here.csv").paths[0].read_bytes() == image((2, 2, 2))
    outside = put(server, "m/out.csv", b"path,label\n../../../1.png,a\n")
    with pytest.raises(DataError, match="row 1.*outside s3://bucket"):
        load_images(outside)


def test_weights_and_models_too(server: str, wire: Wire, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    from unalike.errors import ModelError
    from unalike.inference.loaded_model import load_model
    from unalike.model.weight_files import read_weights

    torch.save({"a.weight": torch.arange(6.0)}, tmp_path / "w.pth")
    uri = put(server, "w.pth", (tmp_path / "w.pth").read_bytes())
    assert read_weights(uri)["a.weight"].tolist() == [0, 1, 2, 3, 4, 5]
    with pytest.raises(ModelError, match="unknown kind"):
        load_model(put(server, "w.txt", b"x"))


# ---------------------------------------------------------------- failures


def test_names_that_are_not_there(server: str, wire: Wire) -> None:
    put(server, "near/train.tar.gz", b"x")
    with pytest.raises(DataError, match="nothing exists under that name.*did you mean 'train.tar.gz'") as fault:
        load_images("s3://bucket/near/trian.tar.gz")
    assert "s3://bucket/near/trian.tar.gz" in line(fault)
    with pytest.raises(DataError, match="there is no 'no-such-bucket'"):
        load_images("s3://no-such-bucket/train.tar.gz")
    with pytest.raises(DataError, match="unknown kind of address.*did you mean 's3'"):
        load_images("s33://bucket/a.zip")
    with pytest.raises(DataError, match="give the complete address again"):
        load_images("https://***@h/a.zip")


def test_a_server_that_does_not_answer(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
    for uri in ("s3://bucket/a.tar.gz", f"http://u:s3cr3t@127.0.0.1:{port}/a.tar.gz?sig=s3cr3t"):
        with pytest.raises(DataError, match="cannot be reached.*AWS_ENDPOINT_URL") as fault:
            load_images(uri)
        line(fault)


def test_wrong_and_no_credentials(server: str, wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    uri = put(server, "closed.tar.gz", packed(KNOWN))
    call(f"{server}/moto-api/reset-auth", b"0", "POST")  # from now on the server checks who asks
    try:
        with pytest.raises(DataError, match="access denied.*check AWS_ACCESS_KEY_ID") as fault:
            load_images(uri)
        assert uri in line(fault)
    finally:
        call(f"{server}/moto-api/reset-auth", b"inf", "POST")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    with pytest.raises(DataError, match="no credentials found.*AWS_ACCESS_KEY_ID"):
        load_images(uri)


def test_a_missing_extra_is_one_line(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    from unalike.errors import MissingExtra

    monkeypatch.setitem(sys.modules, "fsspec", None)
    with pytest.raises(MissingExtra, match=r"s3://b/a.zip needs s3fs; install it with: .* install .*\[remote\]'"):
        load_images("s3://b/a.zip")


# ---------------------------------------------------------------- the web


class _Plain(http.server.SimpleHTTPRequestHandler):
    """A server that knows no ranges, as Python's own, and keeps one name to itself."""

    def send_head(self):  # type: ignore[no-untyped-def]
        return self.send_error(403) if self.path.startswith("/closed") else super().send_head()

    def log_message(self, format: str, *args: object) -> None:
        pass


def test_web_servers_with_and_without_ranges(
    server: str, wire: Wire, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = random.Random(2).randbytes(500_000)
    put(server, "web.bin", data)
    uri = f"{wire.url}/bucket/web.bin"
    wire.budget = 300_000
    with pytest.raises(DataError, match="broke off"):
        local_path(uri)
    wire.budget = None
    assert local_path(uri).read_bytes() == data
    assert int(wire.gets("web.bin")[-1].removeprefix("bytes=").rstrip("-")) > 100_000

    (tmp_path / "www").mkdir()
    (tmp_path / "www" / "a b.zip").write_bytes(data)
    handler = functools.partial(_Plain, directory=str(tmp_path / "www"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as plain:
        threading.Thread(target=plain.serve_forever, daemon=True).start()
        plain_wire = Wire(f"http://127.0.0.1:{plain.server_port}")
        plain_wire.budget = 200_000
        address = f"{plain_wire.url}/a%20b.zip?sig=s3cr3t"
        with pytest.raises(DataError, match="broke off") as fault:
            local_path(address)
        line(fault)
        plain_wire.budget = None
        path = local_path(address)
        assert path.name == "a b.zip" and path.read_bytes() == data
        assert local_path(address.replace("s3cr3t", "another")) == path  # signed anew, the same file
        with pytest.raises(DataError, match="access denied.*a signed address") as fault:
            local_path(f"{plain_wire.url}/closed.zip?sig=s3cr3t")
        line(fault)
        plain_wire.close()
        plain.shutdown()
    assert b"s3cr3t" not in b"".join(p.read_bytes() for p in (tmp_path / "cache").rglob("*.json*"))


# ---------------------------------------------------------------- the cache


def test_two_processes_fetch_once(server: str, wire: Wire) -> None:
    uri = put(server, "shared.tar.gz", packed(KNOWN))
    program = f"from unalike.data.imageset import load_images; print(*load_images({uri!r}).paths)"
    env = os.environ | {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    both = [
        subprocess.Popen([sys.executable, "-c", program], env=env, text=True, stdout=subprocess.PIPE) for _ in range(2)
    ]
    shown = [process.communicate(timeout=120)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert shown[0] == shown[1] and len(shown[0].split()) == 12
    assert len(wire.gets("shared.tar.gz")) == 1


def _entry(root: Path, key: str, size: int, age: int) -> CacheEntry:
    entry = CacheEntry(root, "remote", key)
    entry.path.mkdir(parents=True)
    (entry.path / "file").write_bytes(bytes(size))
    entry.set_size(size)
    os.utime(entry.use_file, (1e9 - age, 1e9 - age))
    return entry


def test_the_cache_is_bounded_and_spares_what_is_in_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fcntl = pytest.importorskip("fcntl")
    monkeypatch.setattr(cache, "_shared_locks", {})
    monkeypatch.setenv("UNALIKE_CACHE_LIMIT", "0.00001")  # 10,000 bytes
    oldest, used, old, new = (_entry(tmp_path, key, 3000, age) for age, key in zip((9, 8, 7, 6), "abcd", strict=True))
    with used.use_file.open() as somebody:
        fcntl.flock(somebody, fcntl.LOCK_SH)  # as another process would
        make_room(tmp_path)
        assert [e.path.exists() for e in (oldest, used, old, new)] == [False, True, True, True]
        make_room(tmp_path, 4000, "a.zip")
        assert [e.path.exists() for e in (oldest, used, old, new)] == [False, True, False, True]
    make_room(tmp_path, 7000, "a.zip")
    assert [e.path.exists() for e in (oldest, used, old, new)] == [False, False, False, True]
    new.lock_shared()
    make_room(tmp_path, 9000, "a.zip")
    assert new.path.exists()
    with pytest.raises(DataError, match="a.zip is .*UNALIKE_CACHE_LIMIT"):
        make_room(tmp_path, 10_001, "a.zip")
    monkeypatch.setenv("UNALIKE_CACHE_LIMIT", "many")
    with pytest.raises(DataError, match="found|'many'.*number of gigabytes"):
        make_room(tmp_path)


def test_undelivered_results_are_never_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNALIKE_CACHE_LIMIT", "0.000001")
    results = CacheEntry(tmp_path, "results", "run")
    results.path.mkdir(parents=True)
    (results.path / "model.pth").write_bytes(bytes(5000))
    make_room(tmp_path)
    assert results.path.exists()


def test_what_is_an_address() -> None:
    assert uri_of("s3://b/k") == uri_of(Path("s3://b/k")) == uri_of("S3://b/k") == "s3://b/k"
    for text in ("C:/data", "data", "/data/s3:/x", "file:///data", "odd:/data", ""):
        assert uri_of(text) == ""
    assert json.dumps(uri_of("az://c@a/k")) == '"az://c@a/k"'


@pytest.mark.parametrize("address", ["https://[::1", "s3://[x/y", "http://[/a.zip"])
def test_addresses_that_are_none(address: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no address"):
        local_path(address, tmp_path)
    with pytest.raises(DataError, match="no address"):
        fetch_files([address], "m.csv", tmp_path)
    with pytest.raises(DataError, match="chain"):
        local_path("https://[::1]/a::b", tmp_path)
