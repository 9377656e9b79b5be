"""Sets of images in tar files, compared with folders of the same content."""

from __future__ import annotations

import random
import tarfile
import uuid
from pathlib import Path

import fsspec
import numpy as np
import pytest

from tests.support.sharding import image_bytes, write_tar
from unalike.data.decode import decode
from unalike.data.imageset import ImageSet, load_images
from unalike.data.notices import Notices
from unalike.data.tar_sets import MemberPaths, find_tars, list_tars
from unalike.errors import DataError
from unalike.source_names import source_name


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNALIKE_CACHE", str(tmp_path / "cache"))


def described(images: ImageSet, root: str) -> list[tuple[str, str, int]]:
    rows = zip(images.paths, images.label_names(), strict=True)
    return [(source_name(path).removeprefix(root), label, int(decode(path)[0, 0, 0])) for path, label in rows]


def random_tree(folder: Path, rng: random.Random) -> None:
    """Images, other files and empty folders, some of them deep, hidden or beside each other."""
    names = ["a", "B", "ü", "u\u0308x", "10", "9", "__MACOSX", ".git", "c d"]
    top = folder / "wrapper" if rng.random() < 0.3 else folder
    for number in range(rng.randrange(3, 25)):
        parts = [rng.choice(names) for _ in range(rng.choice((1, 1, 1, 2, 3)))]
        place = top.joinpath(*parts)
        place.mkdir(parents=True, exist_ok=True)
        kind = rng.random()
        if kind < 0.8:
            (place / f"{rng.choice(names)}{number}.png").write_bytes(image_bytes(number))
        elif kind < 0.9:
            (place / rng.choice(("notes.txt", "more.zip"))).write_bytes(b"x")
    (top / "a").mkdir(parents=True, exist_ok=True)
    (top / "a/last.png").write_bytes(image_bytes(200))
    if rng.random() < 0.2:
        (top / "root.png").write_bytes(image_bytes(201))


@pytest.mark.parametrize("seed", range(30))
def test_a_tar_is_listed_as_the_folder_that_was_packed(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    folder = tmp_path / "folder"
    random_tree(folder, rng)
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        tar.add(folder, arcname=".")
    for labeled in (True, False):
        for class_from in ("top", "leaf", "path"):
            of_folder, of_tar = Notices(), Notices()
            expected = load_images(folder, labeled=labeled, class_from=class_from, notices=of_folder)
            images = load_images(
                tmp_path / "a.tar", labeled=labeled, class_from=class_from, notices=of_tar, in_place=True
            )
            assert isinstance(images.paths, MemberPaths) and images.classes == expected.classes
            assert described(images, f"{tmp_path}/a.tar!") == described(expected, f"{folder}/")
            assert images.fingerprint() == expected.fingerprint()
            rename = {str(folder): str(tmp_path / "a.tar")}
            assert sorted((k, rename.get(n, n)) for k, n, _ in of_tar) == sorted(
                (k, rename.get(n, n)) for k, n, _ in of_folder
            )
    assert not (tmp_path / "cache/archives").exists()


def shards(folder: Path, numbers: range, each: int = 4) -> list[Path]:
    """Tar files ``part-00.tar``, ... of class folders; every class has images in every file."""
    folder.mkdir(exist_ok=True)
    return [
        write_tar(
            folder / f"part-{part:02}.tar",
            {f"k{i % 2}/{each * part + i:03}.png": image_bytes(each * part + i) for i in range(each)},
        )
        for part in numbers
    ]


def test_several_tar_files_are_one_set_however_they_are_named(tmp_path: Path) -> None:
    shards(tmp_path / "s", range(3))
    folder = tmp_path / "folder"
    for number in range(12):
        path = folder / f"k{number % 4 % 2}" / f"{number:03}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(image_bytes(number))
    expected = load_images(folder)
    for source in (f"{tmp_path}/s/part-{{00..02}}.tar", tmp_path / "s", f"{tmp_path}/s/"):
        images = load_images(source, in_place=True)
        assert [source_name(path).rpartition("!")[2] for path in images.paths] == [
            path.relative_to(folder).as_posix() for path in expected.paths
        ]
        assert images.labels_N.tolist() == expected.labels_N.tolist() and images.fingerprint() == expected.fingerprint()


def test_samples_of_webdataset(tmp_path: Path) -> None:
    members: dict[str, bytes] = {}
    for number in range(6):
        members |= {f"{number:04}.png": image_bytes(number), f"{number:04}.cls": f"class {number % 3}".encode()}
    write_tar(tmp_path / "a.tar", members | {"other/9.png": image_bytes(9)})
    notices = Notices()
    images = load_images(tmp_path / "a.tar", in_place=True, notices=notices)
    assert images.classes == ("class 0", "class 1", "class 2", "other")
    assert described(images, f"{tmp_path}/a.tar!") == [
        (f"{n:04}.png", f"class {n % 3}", n) for n in (0, 3, 1, 4, 2, 5)
    ] + [("other/9.png", "other", 9)]
    assert notices.counts == {"class-of-one": 1}
    classes = tmp_path / "classes.yaml"
    classes.write_text("class 0: zero\nclass 1: one\nclass 2: two\nother: more\n")
    assert load_images(tmp_path / "a.tar", in_place=True, class_map=classes).classes == ("more", "one", "two", "zero")
    unlabeled = load_images(tmp_path / "a.tar", in_place=True, labeled=False)
    assert len(unlabeled) == 7 and set(unlabeled.labels_N.tolist()) == {-1}


def test_a_folder_in_a_tar(tmp_path: Path) -> None:
    members = {f"{part}/{k}/{i}.png": image_bytes(i) for part in ("known", "new") for k in "ab" for i in range(2)}
    path = write_tar(tmp_path / "a.tar", members)
    images = load_images(f"{path}!new", in_place=True)
    assert images.classes == ("a", "b")
    assert source_name(images.paths[0]) == f"{path}!new/a/0.png"
    with pytest.raises(DataError, match="no such file or folder"):
        load_images(f"{path}!none", in_place=True)


def test_what_is_not_read_in_place(tmp_path: Path) -> None:
    write_tar(tmp_path / "a.tar.gz", {"a/1.png": image_bytes(1), "b/1.png": image_bytes(1)}, "w:gz")
    (tmp_path / "plain").mkdir()
    for source in (
        tmp_path / "a.tar.gz",
        tmp_path / "plain",
        tmp_path / "none.tar",
        "s3://b/c.tar.gz",
        "",
    ):
        assert find_tars(source) is None
    assert len(load_images(tmp_path / "a.tar.gz", in_place=True)) == 2  # unpacked
    (tmp_path / "mixed").mkdir()
    shards(tmp_path / "mixed", range(1))
    (tmp_path / "mixed/part-01.tar").write_bytes((tmp_path / "a.tar.gz").read_bytes())
    for source in (tmp_path / "mixed", f"{tmp_path}/mixed/part-{{00..01}}.tar"):
        with pytest.raises(DataError, match=r"part-01\.tar: compressed"):
            find_tars(source)
    with pytest.raises(DataError, match=r"part-02\.tar: no such file"):
        find_tars(f"{tmp_path}/mixed/part-{{02..05}}.tar")
    (tmp_path / "mixed/readme.txt").write_text("more than tar files")
    assert find_tars(tmp_path / "mixed") is None


@pytest.mark.parametrize("ending", ["/part-{00..01}.tar", "", "/"])
@pytest.mark.parametrize("limit", ["0.000001", "1"])
def test_tar_files_of_a_store_are_read_in_parts_where_they_would_fill_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str, ending: str
) -> None:
    monkeypatch.setenv("UNALIKE_CACHE_LIMIT", limit)  # GB
    place = f"memory://{uuid.uuid4().hex}"
    for path in shards(tmp_path / "s", range(2)):
        with fsspec.open(f"{place}/{path.name}", "wb") as out:
            out.write(path.read_bytes())
    images = load_images(place + ending, in_place=True)
    expected = load_images(tmp_path / "s", in_place=True)
    assert images.fingerprint() == expected.fingerprint()
    assert source_name(images.paths[0]) == f"{place}/part-00.tar!k0/000.png"
    assert [decode(a).tolist() for a in images.paths] == [decode(b).tolist() for b in expected.paths]
    assert (tmp_path / "cache/remote").exists() is (limit == "1") and not (tmp_path / "cache/archives").exists()
    rows = tmp_path / "rows.csv"
    rows.write_text(f"path,label\n{place}/part-00.tar!k0/000.png,a\n")
    if limit == "1":
        listed = load_images(rows, in_place=True)
        assert source_name(listed.paths[0]) == f"{place}/part-00.tar!k0/000.png" and decode(listed.paths[0]).shape
        assert not (tmp_path / "cache/archives").exists()


def test_a_prefix_with_more_than_tar_files_is_a_folder(tmp_path: Path) -> None:
    place = f"memory://{uuid.uuid4().hex}"
    for name in ("k0/1.png", "k1/2.png"):
        with fsspec.open(f"{place}/{name}", "wb") as out:
            out.write(image_bytes(1))
    assert load_images(place, in_place=True).classes == ("k0", "k1")
    with fsspec.open(f"{place}/part.tar", "wb") as out:
        out.write(write_tar(tmp_path / "a.tar", {"k2/1.png": image_bytes(3)}).read_bytes())
    assert find_tars(place) is None and load_images(place, in_place=True).classes == ("k0", "k1")
    assert find_tars(f"memory://{uuid.uuid4().hex}") is None
    with pytest.raises(DataError, match="is not there|no such|nothing"):
        load_images(f"memory://{uuid.uuid4().hex}", in_place=True)


def test_a_compressed_tar_file_of_a_store_is_unpacked_whatever_its_name(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "a.tar", {f"k{i}/1.png": image_bytes(i) for i in range(2)}, "w:gz")
    address = f"memory://{uuid.uuid4().hex}/a.tar"
    with fsspec.open(address, "wb") as out:
        out.write(path.read_bytes())
    assert load_images(address, in_place=True).classes == ("k0", "k1")


def test_paths_are_a_sequence(tmp_path: Path) -> None:
    shards(tmp_path / "s", range(2))
    source = find_tars(tmp_path / "s")
    assert source is not None
    paths = list_tars(source, Notices(), labeled=True).paths
    names = list(paths)
    assert len(paths) == 8 and paths[-1] == names[-1] and list(paths[2:5]) == names[2:5] and names[3] in paths
    assert list(paths.take(np.array([5, 1]))) == [names[5], names[1]]
    assert paths == list_tars(source, Notices(), labeled=False).paths and paths != paths[1:] and paths != names
    with pytest.raises(IndexError):
        paths[8]
    other = find_tars(f"{tmp_path}/s/part-{{00..00}}.tar")
    assert other is not None
    assert list_tars(other, Notices(), labeled=True).paths == paths.take(np.array([0, 1, 4, 5]))


def test_rows_of_a_manifest_name_members(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "a.tar", {f"x/{i}.png": image_bytes(i) for i in range(4)})
    rows = "".join(f"{name},k{i % 2}\n" for i, name in enumerate(["a.tar!x/0.png", f"{path}!x/1.png", "a.tar!x/9.png"]))
    (tmp_path / "rows.csv").write_text("path,label\n" + rows)
    notices = Notices()
    images = load_images(tmp_path / "rows.csv", in_place=True, notices=notices)
    assert [int(decode(p)[0, 0, 0]) for p in images.paths] == [0, 1] and notices.counts["missing"] == 1
    assert images.fingerprint() == load_images(tmp_path / "rows.csv", in_place=True, notices=notices).fingerprint()
    assert not (tmp_path / "cache/archives").exists()
    assert len(load_images(tmp_path / "rows.csv", notices=notices)) == 2  # unpacked
    assert (tmp_path / "cache/archives").exists()
