"""Images by content hash: in a folder, in memory and in S3; thumbnails; sweeping that loses nothing given again."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("moto")

from tests.support.stores import call, s3_server
from unalike.errors import NoSuchImage, StoreError, UnreadableImage
from unalike.serve.store.images import SIDES, ImageStore, media_type_of
from unalike.serve.store.records import utc_now
from unalike.storage import atomic
from unalike.storage.digests import content_sha256


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with s3_server(tmp_path_factory.mktemp("moto") / "log") as address:
        call(f"{address}/bucket", b"", "PUT")
        yield address


@pytest.fixture(params=["folder", "memory", "s3"])
def images(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ImageStore:
    if request.param == "folder":
        return ImageStore(tmp_path / "images")
    if request.param == "memory":
        return ImageStore(f"memory://{tmp_path.name}/images")
    for name, value in {
        "AWS_ENDPOINT_URL": request.getfixturevalue("s3"), "AWS_ACCESS_KEY_ID": "me", "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    return ImageStore(f"s3://bucket/{tmp_path.name}")


def picture(height: int = 300, width: int = 600, kind: str = "JPEG") -> bytes:
    stream = io.BytesIO()
    ramp = np.linspace(0, 255, width, dtype=np.uint8)
    Image.fromarray(np.broadcast_to(ramp[None, :, None], (height, width, 3))).save(stream, kind)
    return stream.getvalue()


def test_content_comes_back_under_its_hash(images: ImageStore) -> None:
    content = picture()
    sha = images.put(content, "image/jpeg")
    assert sha == content_sha256(content) == images.put(content)
    assert images.get(sha) == content and images.exists(sha)
    with images.open(sha) as stream:
        assert stream.read(3) == content[:3]
    other = images.put(b"other")
    assert sorted(images.hashes()) == sorted([sha, other])


def test_what_is_not_there(images: ImageStore) -> None:
    sha = "0" * 64
    for read in (images.get, images.open, images.thumbnail):
        with pytest.raises(NoSuchImage, match="no image 0000"):
            read(sha)
    assert not images.exists(sha) and not images.delete(sha) and list(images.hashes()) == []


@pytest.mark.parametrize("sha", ["", "../../etc/passwd", "A" * 64, "0" * 63, "0" * 65, "0" * 64 + "\n", "/" + "0" * 63])
def test_no_path_comes_from_a_client(tmp_path: Path, sha: str) -> None:
    images = ImageStore(tmp_path / "images")
    for use in (images.get, images.open, images.thumbnail, images.exists, images.delete):
        with pytest.raises(NoSuchImage, match="expected 64 hexadecimal digits"):
            use(sha)


def test_a_thumbnail_is_small_upright_and_kept(images: ImageStore, monkeypatch: pytest.MonkeyPatch) -> None:
    source = Image.open(io.BytesIO(picture()))
    exif = source.getexif()
    exif[0x0112] = 6  # stored on its side
    stream = io.BytesIO()
    source.save(stream, "JPEG", exif=exif)
    sha = images.put(stream.getvalue())
    content = images.thumbnail(sha, 100)
    assert Image.open(io.BytesIO(content)).size == (64, 128) and Image.open(io.BytesIO(content)).format == "JPEG"
    monkeypatch.setattr("unalike.serve.store.images.open_image", None)
    assert images.thumbnail(sha, 128) == content  # 100 was rounded up to it
    assert images.delete(sha) and not images.delete(sha)
    with pytest.raises(NoSuchImage):
        images.thumbnail(sha, 128)


def test_any_side_becomes_one_of_a_few(tmp_path: Path) -> None:
    images = ImageStore(tmp_path / "images")
    sha = images.put(picture(10, 3000, "PNG"))
    widths = {Image.open(io.BytesIO(images.thumbnail(sha, side))).width for side in (-1, 1, 64, 65, 300, 1024, 10**9)}
    assert widths <= set(SIDES)
    assert len(list((tmp_path / "images" / "thumbnails").iterdir())) == len(widths)


def test_what_is_no_image_has_no_thumbnail(tmp_path: Path) -> None:
    images = ImageStore(tmp_path / "images")
    with pytest.raises(UnreadableImage):
        images.thumbnail(images.put(b"GIF89a no image"))
    with pytest.raises(UnreadableImage):
        images.thumbnail(images.put(picture(2000, 2000)), max_pixels=1000)


def test_damage_is_found(tmp_path: Path) -> None:
    images = ImageStore(tmp_path / "images")
    sha = images.put(b"content")
    path = tmp_path / "images" / sha[:2] / sha
    path.write_bytes(b"CONTENT")
    with pytest.raises(StoreError, match=f"image {sha} .* is damaged; expected content of that SHA-256"):
        images.get(sha)
    path.write_bytes(b"half")
    assert images.put(b"content") == sha and images.get(sha) == b"content"  # another size: written anew


def test_only_what_is_old_is_listed_and_deleted(tmp_path: Path) -> None:
    images = ImageStore(tmp_path / "images")
    old, new, again = (images.put(content) for content in (b"old", b"new", b"again"))
    limit = utc_now() - timedelta(days=30)
    for sha in (old, again):
        os.utime(tmp_path / "images" / sha[:2] / sha, (limit.timestamp() - 60,) * 2)
    images.put(b"again")  # the same content once more keeps it
    assert list(images.hashes(limit)) == [old]
    assert images.delete(old, limit) and not images.delete(new, limit) and not images.delete(again, limit)
    assert sorted(images.hashes()) == sorted([new, again])


def test_an_image_given_again_while_it_is_swept_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = ImageStore(tmp_path / "images")
    sha, limit = images.put(b"content"), utc_now() - timedelta(days=30)
    path = tmp_path / "images" / sha[:2] / sha
    os.utime(path, (limit.timestamp() - 60,) * 2)
    rename, calls = os.rename, []

    def rename_after_put(source: Path, target: Path) -> None:
        if not calls:
            images.put(b"content")  # between the look at its time and the deletion
        calls.append(source)
        rename(source, target)

    monkeypatch.setattr(os, "rename", rename_after_put)
    assert not images.delete(sha, limit) and len(calls) == 2
    assert images.get(sha) == b"content" and os.listdir(path.parent) == [sha]


def test_remote_images_are_swept_by_their_time(images: ImageStore) -> None:
    sha = images.put(b"content")
    assert not images.delete(sha, utc_now() - timedelta(hours=1))
    assert list(images.hashes(utc_now() - timedelta(hours=1))) == []
    assert list(images.hashes(utc_now() + timedelta(hours=1))) == [sha]
    assert images.delete(sha, utc_now() + timedelta(hours=1)) and not images.exists(sha)


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match=r"file/images cannot be written.*--images"):
        ImageStore(tmp_path / "file" / "images")
    with pytest.raises(StoreError, match="images cannot be written there"):
        ImageStore("https://example.org/images")


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP", "AVIF"])
def test_media_types_by_content(kind: str) -> None:
    assert media_type_of(picture(8, 8, kind)) == f"image/{kind.lower()}"


def test_no_media_type() -> None:
    assert media_type_of(b"<svg>") == "" and media_type_of(b"") == ""


def test_an_image_that_was_kept_without_waiting_is_on_the_disk_when_it_is_given_to_be_safe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That of a decision which becomes a reference."""
    store = ImageStore(tmp_path)
    synced: list[str] = []
    fsync = os.fsync

    def record(descriptor: int) -> None:
        synced.append(os.path.realpath(f"/proc/self/fd/{descriptor}"))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", record)
    sha = store.put(b"content", sync=False)
    assert not synced and store.get(sha) == b"content"
    assert store.put(b"content") == sha
    assert synced == [str(tmp_path / sha[:2] / sha), str(tmp_path / sha[:2])]


def test_a_thumbnail_waits_for_no_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = ImageStore(tmp_path)
    sha = images.put(picture())
    waits: list[str] = []
    monkeypatch.setattr(atomic, "sync_file", lambda path: waits.append("file"))
    monkeypatch.setattr(atomic, "sync_folder", lambda path: waits.append("folder"))
    assert images.thumbnail(sha, 64) == images.thumbnail(sha, 64) and waits == []
    images.put(b"another")
    assert "file" in waits, "what cannot be made again does wait"
