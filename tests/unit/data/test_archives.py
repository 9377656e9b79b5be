"""Archives unpack once, whole and nowhere else."""

from __future__ import annotations

import errno
import gzip
import io
import os
import re
import subprocess
import sys
import tarfile
import time
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from tests.support.mutations import mutations
from unalike.data import archives
from unalike.data.archives import open_archive
from unalike.data.imageset import load_images
from unalike.errors import DataError
from unalike.source_names import source_name
from unalike.storage.file_lock import file_lock


def png(colour: str = "red") -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (8, 8), colour).save(out, "PNG")
    return out.getvalue()


CONTENT = {"known/a/1.png": png(), "known/a/2.png": png("blue"), "known/Brücke 2/1.png": png("lime")}


def tar(path: Path, content: dict[str, bytes], mode: str = "w:gz", links: dict[str, str] | None = None) -> Path:
    with tarfile.open(path, mode) as out:
        for name, data in content.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            out.addfile(member, io.BytesIO(data))
        for name, target in (links or {}).items():
            member = tarfile.TarInfo(name)
            member.type, member.linkname = tarfile.SYMTYPE, target
            out.addfile(member)
    return path


def packed_zip(path: Path, content: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as out:
        for name, data in content.items():
            out.writestr(name, data)
    return path


PACKERS: dict[str, Callable[[Path, dict[str, bytes]], Path]] = {
    "a.tar": lambda path, content: tar(path, content, "w"),
    "a.tar.gz": tar,
    "a.TGZ": tar,
    "a.zip": packed_zip,
}


@pytest.mark.parametrize("name", PACKERS)
def test_loads_like_the_folder(tmp_path: Path, name: str) -> None:
    path = PACKERS[name](tmp_path / name, CONTENT)
    images = load_images(path, cache_dir=tmp_path / "cache")
    assert images.classes == ("Brücke 2", "a") and images.counts().tolist() == [1, 2]
    assert images.source == str(path)
    assert {p.read_bytes() for p in images.paths} == set(CONTENT.values())


@pytest.mark.parametrize("name", PACKERS)
def test_same_content_is_unpacked_once(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    first = open_archive(PACKERS[name](tmp_path / name, CONTENT), tmp_path / "cache")
    copy = tmp_path / f"copy {name}"
    copy.write_bytes((tmp_path / name).read_bytes())
    for unpack in ("_unpack_tar", "_unpack_zip"):
        monkeypatch.setattr(archives, unpack, lambda *a: pytest.fail("unpacked again"))
    assert open_archive(copy, tmp_path / "cache") == first
    assert os.listdir(tmp_path / "cache" / "archives") == [first.name]


def test_other_content_under_the_same_name_is_seen(tmp_path: Path) -> None:
    path = tar(tmp_path / "a.tar.gz", CONTENT)
    first = open_archive(path, tmp_path / "cache")
    tar(path, {"b/1.png": png()})
    assert open_archive(path, tmp_path / "cache") != first
    assert load_images(path, cache_dir=tmp_path / "cache").classes == ("b",)


def test_cache_place_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNALIKE_CACHE", str(tmp_path / "mine"))
    assert (tmp_path / "mine") in open_archive(tar(tmp_path / "a.tar.gz", CONTENT)).parents
    monkeypatch.delenv("UNALIKE_CACHE")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert archives.default_cache_dir() == tmp_path / "home" / ".cache" / "unalike"


OUTSIDE = ["../evil.png", "a/../../evil.png"]


@pytest.mark.parametrize("name", PACKERS)
@pytest.mark.parametrize("member", OUTSIDE)
def test_paths_that_leave_the_folder_are_refused(tmp_path: Path, name: str, member: str) -> None:
    path = PACKERS[name](tmp_path / name, {"a/1.png": png(), member: png()})
    with pytest.raises(DataError, match="evil.png"):
        open_archive(path, tmp_path / "cache")
    assert not list(tmp_path.rglob("evil.png")) and not list((tmp_path / "cache" / "archives").iterdir())


@pytest.mark.parametrize("member", ["/tmp/evil-unalike.png", "C:/evil.png", "a\\..\\..\\evil.png", "\\evil.png"])
def test_zip_with_absolute_and_windows_paths_is_refused(tmp_path: Path, member: str) -> None:
    with pytest.raises(DataError, match="outside"):
        open_archive(packed_zip(tmp_path / "a.zip", {member: png()}), tmp_path / "cache")
    assert not Path("/tmp/evil-unalike.png").exists()


def test_zip_of_windows_with_backslashes(tmp_path: Path) -> None:
    path = packed_zip(tmp_path / "a.zip", {"a\\1.png": png(), "b\\1.png": png()})
    assert load_images(path, cache_dir=tmp_path / "cache").classes == ("a", "b")


def test_links_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="'a/x.png' is a link"):
        open_archive(tar(tmp_path / "a.tar", CONTENT, "w", {"a/x.png": "/etc/passwd"}), tmp_path / "cache")
    info = zipfile.ZipInfo("a/x.png")
    info.external_attr = 0o120777 << 16
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as out:
        out.writestr(info, "/etc/passwd")
    with pytest.raises(DataError, match="'a/x.png' is a link"):
        open_archive(tmp_path / "a.zip", tmp_path / "cache")


def test_devices_are_refused(tmp_path: Path) -> None:
    member = tarfile.TarInfo("a/pipe.png")
    member.type = tarfile.FIFOTYPE
    with tarfile.open(tmp_path / "a.tar", "w") as out:
        out.addfile(member)
    with pytest.raises(DataError, match="pipe.png"):
        open_archive(tmp_path / "a.tar", tmp_path / "cache")


def test_encrypted_zip_is_refused(tmp_path: Path) -> None:
    path = packed_zip(tmp_path / "a.zip", {"a/1.png": png()})
    content = bytearray(path.read_bytes())
    content[6] |= 1  # the flag in the member's header and in the directory
    content[content.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match="password"):
        open_archive(path, tmp_path / "cache")


@pytest.mark.parametrize("name", PACKERS)
@pytest.mark.parametrize("kept", [0.0, 0.01, 0.3, 0.7, 0.95])
def test_truncated_archives_are_refused_and_leave_nothing(tmp_path: Path, name: str, kept: float) -> None:
    path = PACKERS[name](tmp_path / name, {f"a/{i}.bin": os.urandom(20_000) for i in range(5)})
    whole = path.read_bytes()
    path.write_bytes(whole[: int(100_000 * kept)])
    with pytest.raises(DataError, match=f"{name}: damaged or truncated"):
        open_archive(path, tmp_path / "cache")
    assert not list((tmp_path / "cache" / "archives").iterdir())
    path.write_bytes(whole)
    assert len(list((open_archive(path, tmp_path / "cache") / "a").iterdir())) == 5


def test_damage_in_the_middle_is_found(tmp_path: Path) -> None:
    for name in ("a.tar.gz", "a.zip"):
        path = PACKERS[name](tmp_path / name, {f"a/{i}.bin": os.urandom(20_000) for i in range(5)})
        content = bytearray(path.read_bytes())
        content[50_000:50_020] = b"x" * 20
        path.write_bytes(content)
        with pytest.raises(DataError, match="damaged"):
            open_archive(path, tmp_path / "cache")


@pytest.mark.parametrize("name", PACKERS)
def test_zipped_or_not_is_seen_from_the_content(tmp_path: Path, name: str) -> None:
    other = "w" if name.lower().endswith("gz") else "w:gz"
    if name != "a.zip":
        assert len(load_images(tar(tmp_path / name, CONTENT, other), cache_dir=tmp_path / "cache")) == 3


@pytest.mark.parametrize("name", PACKERS)
def test_something_else_under_an_archives_name(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"this is no archive" * 100)
    with pytest.raises(DataError, match="damaged"):
        open_archive(tmp_path / name, tmp_path / "cache")


def test_bombs_stop_at_the_stated_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "RATIO_FLOOR_BYTES", 1_000_000)
    zeros = {f"a/{i}.bin": bytes(400_000) for i in range(4)}
    for name in ("a.tar.gz", "a.zip"):
        with pytest.raises(DataError, match="at most 100 times its own size"):
            open_archive(PACKERS[name](tmp_path / name, zeros), tmp_path / "cache")
    assert not list((tmp_path / "cache" / "archives").iterdir())
    open_archive(tar(tmp_path / "b.tar", zeros, "w"), tmp_path / "cache")  # an uncompressed one is its own size
    monkeypatch.setattr(archives, "MAX_MEMBERS", 2)
    with pytest.raises(DataError, match="2 members"):
        open_archive(tar(tmp_path / "c.tar", CONTENT, "w"), tmp_path / "cache")


def test_a_bomb_that_lies_about_its_size(tmp_path: Path) -> None:
    path = packed_zip(tmp_path / "a.zip", {"a/1.bin": bytes(1_000_000)})
    content = bytearray(path.read_bytes())
    place = content.index(b"PK\x01\x02") + 24  # the declared size in the directory
    content[place : place + 4] = (10).to_bytes(4, "little")
    path.write_bytes(content)
    with pytest.raises(DataError, match="damaged"):
        open_archive(path, tmp_path / "cache")


def test_a_gzip_within_a_tar_header_of_nonsense(tmp_path: Path) -> None:
    (tmp_path / "a.tar.gz").write_bytes(gzip.compress(os.urandom(5000)))
    with pytest.raises(DataError, match="damaged"):
        open_archive(tmp_path / "a.tar.gz", tmp_path / "cache")


def test_a_cache_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(DataError, match=r"^the cache .*cache cannot be written .*set UNALIKE_CACHE"):
        open_archive(tar(tmp_path / "a.tar.gz", CONTENT), tmp_path / "cache")


def test_a_disk_that_becomes_full_is_no_damage_of_the_archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(archives.shutil, "copyfileobj", fail)
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("a/b.png", b"x")
    with pytest.raises(DataError, match="the disk is full.*UNALIKE_CACHE"):
        open_archive(tmp_path / "a.zip", tmp_path / "cache")


def test_what_killed_runs_left_is_removed_when_old(tmp_path: Path) -> None:
    shelf = tmp_path / "cache" / "archives"
    for name in (".partial-old", ".partial-at-work"):
        (shelf / name / "a").mkdir(parents=True)
    old = time.time() - 2 * archives.STALE_SECONDS
    os.utime(shelf / ".partial-old", (old, old))
    open_archive(tar(tmp_path / "a.tar.gz", CONTENT), tmp_path / "cache")
    assert not (shelf / ".partial-old").exists() and (shelf / ".partial-at-work").exists()


def test_an_old_folder_that_a_process_is_filling_stays(tmp_path: Path) -> None:
    """By a clock that was set forward every folder is old."""
    partial = tmp_path / "archives" / ".partial-x"
    partial.mkdir(parents=True)
    os.utime(partial, (0, 0))
    with file_lock(partial):
        archives._remove_stale(tmp_path / "archives")
        assert partial.is_dir()
    archives._remove_stale(tmp_path / "archives")
    assert not partial.exists()


@pytest.mark.parametrize("suffix", [".tar", ".zip"])
def test_archives_in_archives_are_named_and_can_be_given(
    tmp_path: Path, suffix: str, capsys: pytest.CaptureFixture[str]
) -> None:
    pack = packed_zip if suffix == ".zip" else lambda path, content: tar(path, content, "w")
    inner = pack(tmp_path / f"inner{suffix}", CONTENT).read_bytes()
    outer = pack(tmp_path / f"outer{suffix}", {f"inner{suffix}": inner})
    with pytest.raises(
        DataError, match=re.escape(f"holds archives, no class folders with images; give one of them: {outer}!")
    ):
        load_images(outer, cache_dir=tmp_path / "cache")
    images = load_images(f"{outer}!inner{suffix}", cache_dir=tmp_path / "cache")
    assert images.classes == ("Brücke 2", "a") and len(images) == 3
    name = source_name(images.paths[0])
    assert name.startswith(f"{outer}!inner{suffix}!known/")
    assert load_images(name, labeled=False, cache_dir=tmp_path / "cache").paths == (images.paths[0],)
    mixed = pack(tmp_path / f"mixed{suffix}", {**CONTENT, "known/a/more.zip": b"x", "known/a/note.txt": b"x"})
    assert len(load_images(mixed, cache_dir=tmp_path / "cache")) == 3
    assert "1 archive among the images skipped: unpack it first: a/more.zip" in capsys.readouterr().err


def test_several_processes_at_once(tmp_path: Path) -> None:
    path = tar(tmp_path / "a.tar.gz", {f"{c}/{i}.png": png() for c in "abcd" for i in range(50)})
    program = (
        "import sys; from pathlib import Path; from unalike.data.imageset import load_images;"
        "s = load_images(sys.argv[1], cache_dir=Path(sys.argv[2])); print(len(s), s.fingerprint(), s.paths[0])"
    )
    command = [sys.executable, "-c", program, str(path), str(tmp_path / "cache")]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(3)]
    answers = [process.communicate(timeout=60) for process in running]
    assert all(process.returncode == 0 for process in running), answers
    assert len({out for out, _ in answers}) == 1 and answers[0][0].startswith("200 ")
    assert len(list((tmp_path / "cache" / "archives").iterdir())) == 1


def tar_of_one(content: bytes = png(), **pax: str) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
        member = tarfile.TarInfo("k/a.png")
        member.size, member.pax_headers = len(content), pax
        archive.addfile(member, io.BytesIO(content))
    return out.getvalue()


def zip_of_one(method: int = zipfile.ZIP_STORED, name: str = "k/a.png") -> bytearray:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as archive:
        archive.writestr(name, png() * 50)
    return bytearray(out.getvalue())


def flipped(content: bytearray, *offsets: int) -> bytes:
    for offset in offsets:
        content[offset] ^= 0xFF
    return bytes(content)


def claiming(size: int) -> bytes:
    """A tar file whose first member is a pax header of this size, with half a megabyte behind it."""
    member = tarfile.TarInfo("pax")
    member.type, member.size = tarfile.XHDTYPE, size
    return member.tobuf() + b"1" * 500_000


ODD = {
    "name.zip": bytes(zip_of_one(name="k/\u4e2d.png").replace("k/\u4e2d".encode(), b"k/\xff\xfe\xfd")),
    **{f"{name}.zip": flipped(zip_of_one(method), 60, 80, 100, 140)
       for name, method in (("lzma", zipfile.ZIP_LZMA), ("bz2", zipfile.ZIP_BZIP2), ("deflate", zipfile.ZIP_DEFLATED))},
    "lzma options.zip": flipped(zip_of_one(zipfile.ZIP_LZMA), 40),
    "nul.tar": tar_of_one(path="k/a\0b.png"), "sparse.tar": tar_of_one(**{"GNU.sparse.map": "a,b", "GNU.sparse.size": "9"}),
    "sparse lines.tar": tar_of_one(b"1" * 3_000_000, **{"GNU.sparse.major": "1", "GNU.sparse.minor": "0"}),
    "size.tar": tar_of_one(size="x"), "negative.tar": tar_of_one(size="-5"), "header.tar": claiming(900 << 20),
    "chain.tar": claiming(0)[:512] * 5000, "long name.tar": tar_of_one(path="k/" + "x" * 300 + ".png"),
    "deep.tar": tar_of_one(path="k/" * 3000 + "a.png"), "name of nothing.tar": tar_of_one(path=""),
}  # fmt: skip


@pytest.mark.parametrize("name", ODD)
def test_odd_archives_are_opened_or_refused_in_one_line(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(ODD[name])
    start = time.process_time()
    try:
        open_archive(tmp_path / name, tmp_path / "cache")
    except DataError as error:
        assert str(error).startswith(str(tmp_path / name)) and "\n" not in str(error) and len(str(error)) < 600
    assert time.process_time() - start < 5
    assert not list((tmp_path / "cache" / "archives").glob(".partial-*"))


@pytest.mark.parametrize(
    "seeds", [range(60), pytest.param(range(60, 5000), marks=pytest.mark.slow)], ids=["some", "many"]
)
@pytest.mark.parametrize("kind", ["stored.zip", "lzma.zip", "pax.tar", "plain.tar.gz"])
def test_damaged_archives_are_opened_or_refused(tmp_path: Path, kind: str, seeds: range) -> None:
    whole = {
        "stored.zip": bytes(zip_of_one()), "lzma.zip": bytes(zip_of_one(zipfile.ZIP_LZMA)),
        "pax.tar": tar_of_one(comment="x"), "plain.tar.gz": gzip.compress(tar_of_one(), 1),
    }[kind]  # fmt: skip
    for seed, content in mutations(whole, seeds):
        (tmp_path / kind).write_bytes(content)
        try:
            open_archive(tmp_path / kind, tmp_path / "cache")
        except DataError as error:
            assert "\n" not in str(error) and len(str(error)) < 1500
        except Exception as error:  # noqa: BLE001  named with its seed, so that it can be mended
            pytest.fail(f"seed {seed}: {type(error).__name__}: {error}")


def test_a_tar_header_of_hundreds_of_megabytes_takes_no_memory(tmp_path: Path) -> None:
    path = tmp_path / "a.tar.gz"
    with gzip.open(path, "wb", 1) as out:
        out.write(claiming(300 << 20)[:512])
        for _ in range(300):
            out.write(bytes(1 << 20))
    tracemalloc.start()
    with pytest.raises(DataError, match="a header of more than 1 MiB"):
        open_archive(path, tmp_path / "cache")
    assert tracemalloc.get_traced_memory()[1] < 16 << 20
    tracemalloc.stop()


def test_empty_members_count_as_what_they_take_on_a_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "RATIO_FLOOR_BYTES", 100 * archives.MEMBER_BYTES)
    path = tar(tmp_path / "a.tar.gz", {f"{i}.png": b"" for i in range(5000)})
    with pytest.raises(DataError, match="at most 100 times its own size"):
        open_archive(path, tmp_path / "cache")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes")
@pytest.mark.parametrize("name", ["a.tar", "a.zip"])
def test_a_named_pipe_is_refused(tmp_path: Path, name: str) -> None:
    os.mkfifo(tmp_path / name)
    with pytest.raises(DataError, match="is a named pipe"):
        open_archive(tmp_path / name, tmp_path / "cache")


def test_members_of_one_name_are_said(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w") as out:
        for data in (b"first", b"second", b"third"):
            member = tarfile.TarInfo("a/0.png")
            member.size = len(data)
            out.addfile(member, io.BytesIO(data))
    assert (open_archive(path, tmp_path / "cache") / "a/0.png").read_bytes() == b"third"
    assert "2 members (the first: 'a/0.png') stood there before" in capfd.readouterr().err
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("a/0.png", b"first")
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr("a/0.png", b"second")
    assert (open_archive(tmp_path / "a.zip", tmp_path / "cache") / "a/0.png").read_bytes() == b"second"
    assert "1 member (the first: 'a/0.png')" in capfd.readouterr().err


def test_an_encrypted_member_is_named(tmp_path: Path) -> None:
    content = bytearray(packed_zip(tmp_path / "a.zip", {"a/0.png": b"x"}).read_bytes())
    content[6] |= 1
    content[content.index(b"PK\1\2") + 8] |= 1
    (tmp_path / "a.zip").write_bytes(content)
    with pytest.raises(
        DataError, match=r"member 'a/0.png' is encrypted; expected a zip archive without a password; unpack"
    ):
        open_archive(tmp_path / "a.zip", tmp_path / "cache")


def test_an_absolute_name_is_refused_and_makes_no_class(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"member '/data-unalike/a/0.png' would be written outside.*tar -C"):
        open_archive(tar(tmp_path / "a.tar", {"/data-unalike/a/0.png": png()}, "w"), tmp_path / "cache")
    assert not Path("/data-unalike").exists()


def test_the_remedy_for_a_hard_link_follows_hard_links(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as out:
        member = tarfile.TarInfo("a/1.png")
        member.type, member.linkname = tarfile.LNKTYPE, "a/0.png"
        out.addfile(member)
    with pytest.raises(DataError, match="hard link.*--hard-dereference"):
        open_archive(tmp_path / "a.tar", tmp_path / "cache")


@pytest.mark.parametrize("suffix", [".tar", ".zip"])
@pytest.mark.parametrize("names", [("a/0.png", "a"), ("a", "a/0.png"), ("a/" + "x" * 300,)])
def test_a_name_that_the_folder_cannot_hold_is_said(tmp_path: Path, suffix: str, names: tuple[str, ...]) -> None:
    content = dict.fromkeys(names, b"content")
    path = packed_zip(tmp_path / "a.zip", content) if suffix == ".zip" else tar(tmp_path / "a.tar", content, "w")
    with pytest.raises(DataError, match=rf"member '{names[-1][:20]}.*; expected names that one folder can hold"):
        open_archive(path, tmp_path / "cache")


def test_a_damaged_header_in_the_middle_of_a_tar_file_is_no_end_of_it(tmp_path: Path) -> None:
    """tarfile takes it for one: what stood behind it was lost without a word."""
    names = {f"a/{i}.png": bytes(1000) for i in range(6)}
    whole = bytearray(tar(tmp_path / "a.tar", names, "w").read_bytes())
    member = 512 + 1024
    whole[3 * member + 5] ^= 0xFF
    (tmp_path / "a.tar").write_bytes(whole)
    with pytest.raises(DataError, match="damaged or truncated .at byte 4608: bad checksum"):
        open_archive(tmp_path / "a.tar", tmp_path / "cache")
    (tmp_path / "a.tar").write_bytes(whole[: 2 * member + 100])
    with pytest.raises(DataError, match="damaged or truncated .at byte 3072: truncated header"):
        open_archive(tmp_path / "a.tar", tmp_path / "cache")


@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_what_follows_the_end_of_a_tar_file_is_said(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], mode: str
) -> None:
    one = tar(tmp_path / "a.tar.gz", {"a/1.png": b"1"}, mode).read_bytes()
    other = tar(tmp_path / "a.tar.gz", {"b/2.png": b"2"}, mode).read_bytes()
    (tmp_path / "a.tar.gz").write_bytes(one + other)
    assert [path.name for path in open_archive(tmp_path / "a.tar.gz", tmp_path / "cache").rglob("*.png")] == ["1.png"]
    assert "data follow the end of the archive, as where archives were joined" in capfd.readouterr().err
    (tmp_path / "a.tar.gz").write_bytes(one)
    open_archive(tmp_path / "a.tar.gz", tmp_path / "cache")
    assert "data follow" not in capfd.readouterr().err


def test_a_tar_file_that_is_cut_off_between_two_members_is_said(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    whole = tar(tmp_path / "a.tar", {f"a/{i}.png": bytes(1000) for i in range(6)}, "w").read_bytes()
    (tmp_path / "a.tar").write_bytes(whole[: 2 * (512 + 1024)])
    assert len(list(open_archive(tmp_path / "a.tar", tmp_path / "cache").rglob("*.png"))) == 2
    assert "its last block is missing: if it was cut off, files after 'a/1.png' are lost" in capfd.readouterr().err
    (tmp_path / "a.tar").write_bytes(whole)
    open_archive(tmp_path / "a.tar", tmp_path / "cache")
    assert "missing" not in capfd.readouterr().err
