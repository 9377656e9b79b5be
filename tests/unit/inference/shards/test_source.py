"""Sources of shards: what each kind lists, with classes, and what is refused."""

from __future__ import annotations

import uuid
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.support.sharding import image_bytes, write_images, write_tar
from unalike.data.notices import Notices
from unalike.errors import DataError
from unalike.inference.shards.source import FILES, TARS, ShardSource, open_source
from unalike.storage.filesystems import RemoteStore


def opened(source: object, labeled: bool = True) -> ShardSource:
    return open_source(str(source), labeled=labeled, notices=Notices())


def put(address: str, files: dict[str, bytes]) -> None:
    store = RemoteStore(address)
    for name, content in files.items():
        store.fs.pipe_file(f"{store.path}/{name}", content)


def test_a_folder_lists_its_images_with_their_classes(tmp_path: Path) -> None:
    paths = write_images(tmp_path, 7)
    source = opened(tmp_path)
    assert (source.kind, source.count) == (FILES, 7)
    assert [(item.path, item.label) for item in source.items()] == [(str(p), p.parent.name) for p in sorted(paths)]
    before = list(source.items())
    paths[0].write_bytes(paths[0].read_bytes() + b"more")
    assert list(opened(tmp_path).items()) != before, "a file of another size is another item"
    assert {item.label for item in opened(tmp_path, labeled=False).items()} == {""}


def test_a_prefix_is_listed_by_the_store_alone() -> None:
    address = f"memory://{uuid.uuid4().hex}/shop"
    put(
        address,
        {
            "b/2.png": image_bytes(2),
            "a/1.png": image_bytes(1),
            "a/.hidden.png": b"",
            "root.png": b"x",
            "a/notes.txt": b"",
        },
    )
    notices = Notices()
    source = open_source(address, labeled=True, notices=notices)
    assert [(item.path, item.label) for item in source.items()] == [
        (f"{address}/a/1.png", "a"),
        (f"{address}/b/2.png", "b"),
    ]
    assert notices.counts == {"root-image": 1, "stray": 1}
    assert [item.path.rpartition("/")[2] for item in opened(address, labeled=False).items()] == [
        "1.png",
        "2.png",
        "root.png",
    ]


def test_tars_of_a_folder_a_prefix_and_a_pattern(tmp_path: Path) -> None:
    names = [str(write_tar(tmp_path / f"part-{n:02d}.tar", {"0.png": image_bytes(n)})) for n in range(3)]
    for source in (tmp_path, tmp_path / "part-{00..02}.tar"):
        assert (opened(source).kind, [item.path for item in opened(source).items()]) == (TARS, names)
    address = f"memory://{uuid.uuid4().hex}/shop"
    put(address, {"1.tar": Path(names[1]).read_bytes(), "0.tar": Path(names[0]).read_bytes()})
    assert [item.path for item in opened(address).items()] == [f"{address}/0.tar", f"{address}/1.tar"]
    with pytest.raises(DataError, match="part-03.tar: No such file"):
        opened(tmp_path / "part-{00..03}.tar")


def manifest(path: Path, columns: dict[str, list]) -> Path:
    if path.suffix == ".parquet":
        pq.write_table(pa.table(columns), path)
    else:
        rows = [",".join(columns), *(",".join(map(str, row)) for row in zip(*columns.values(), strict=True))]
        path.write_text("\n".join(rows) + "\n")
    return path


@pytest.mark.parametrize("name", ["all.csv", "all.parquet"])
def test_a_manifest_names_images_relative_to_itself_and_regions(tmp_path: Path, name: str) -> None:
    columns = {"path": ["a/1.png", "/else/2.png", "s3://shop/3.png"], "label": ["a", "b", "c"],
               "x": ["0", "", ""], "y": ["1", "", ""], "width": ["2", "", ""], "height": ["3", "", ""]}  # fmt: skip
    path = manifest(tmp_path / name, columns)
    items = [(item.path, item.label) for item in opened(path).items()]
    assert items == [(f"{tmp_path}/a/1.png#0,1,2,3", "a"), ("/else/2.png", "b"), ("s3://shop/3.png", "c")]


def test_a_manifest_of_a_store_names_images_beside_it(tmp_path: Path) -> None:
    place = uuid.uuid4().hex
    put(f"memory://{place}", {"lists/all.csv": b"path\n../photos/1.png\n2.png\n"})
    items = list(opened(f"memory://{place}/lists/all.csv", labeled=False).items())
    assert [item.path for item in items] == [f"memory://{place}/photos/1.png", f"memory://{place}/lists/2.png"]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"file": ["1.png"], "label": ["a"]}, "no column 'path'"),
        ({"path": ["1.png"]}, "no column 'label'"),
        ({"path": ["1.png", "2.png"], "label": ["a", None]}, "row 2: an empty cell"),
        ({"path": ["https://me:secret@host/1.png"], "label": ["a"]}, "credentials in the environment"),
        ({"path": ["1.png"], "label": ["a"], "x": ["no"], "y": ["1"], "width": ["2"], "height": ["3"]}, "row 1, box no, 1, 2, 3"),
    ],
)  # fmt: skip
def test_manifests_that_are_refused(tmp_path: Path, columns: dict, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        list(opened(manifest(tmp_path / "all.parquet", columns)).items())
    assert "secret" not in str(caught.value)


def test_sources_that_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="credentials in the environment") as caught:
        opened("ftp://me:secret@host/photographs")
    assert "secret" not in str(caught.value)
    with pytest.raises(DataError, match="no such file or folder"):
        opened(tmp_path / "nothing")
    address = f"memory://{uuid.uuid4().hex}/shop"
    put(address, {"notes.txt": b""})
    with pytest.raises(DataError, match="holds no images"):
        opened(address)
