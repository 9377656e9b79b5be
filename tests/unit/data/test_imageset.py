"""Folders, manifests and single images become the right set of images, whatever else lies about."""

from __future__ import annotations

import os
import random
import sys
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from unalike.data.folders import ClassMap
from unalike.data.imageset import ImageSet, align_labels, load_images, resolve_source
from unalike.data.notices import Notices
from unalike.errors import DataError, SpecError, UnalikeError


def put(root: Path, *names: str) -> Path:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), "red").save(path)
    return root


def shown(images: ImageSet, root: Path) -> list[tuple[str, str]]:
    return [(p.relative_to(root).as_posix(), n) for p, n in zip(images.paths, images.label_names(), strict=True)]


# ---------------------------------------------------------------- folders


def test_class_is_the_first_level_and_images_are_found_below_it(tmp_path: Path) -> None:
    put(tmp_path, "b/2.png", "a/deep/er/1.jpg", "a/0.JPG", "b/1.png")
    images = load_images(tmp_path)
    assert shown(images, tmp_path) == [("a/0.JPG", "a"), ("a/deep/er/1.jpg", "a"), ("b/1.png", "b"), ("b/2.png", "b")]
    assert images.classes == ("a", "b") and images.labels_N.dtype == np.int64
    assert images.counts().tolist() == [2, 2] and len(images) == 4 and images.source == str(tmp_path)
    assert images.groups is None and images.splits is None


def test_class_from_leaf_and_path(tmp_path: Path) -> None:
    put(tmp_path, "x/red/1.png", "y/red/1.png", "y/blue/1.png", "z/1.png")
    assert load_images(tmp_path).classes == ("x", "y", "z")
    leaf = load_images(tmp_path, class_from="leaf")
    assert leaf.classes == ("blue", "red", "z") and leaf.counts().tolist() == [1, 2, 1]
    assert load_images(tmp_path, class_from="path").classes == ("x/red", "y/blue", "y/red", "z")
    with pytest.raises(SpecError, match="did you mean 'leaf'"):
        load_images(tmp_path, class_from="leef")


def test_order_does_not_depend_on_the_listing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path, *[f"{c}/{i}.png" for c in ("B", "a", "ä", "c d", "10", "9") for i in (3, 1, 20)])
    first = load_images(tmp_path)
    listing = os.scandir

    class Shuffled:
        def __init__(self, folder: str) -> None:
            self.entries = list(listing(folder))
            random.Random(5).shuffle(self.entries)

        def __enter__(self) -> list:
            return self.entries

        def __exit__(self, *args: object) -> None:
            pass

    monkeypatch.setattr(os, "scandir", Shuffled)
    second = load_images(tmp_path)
    assert first.paths == second.paths and first.classes == second.classes == ("10", "9", "B", "a", "c d", "ä")


def test_spaces_umlauts_and_both_unicode_forms(tmp_path: Path) -> None:
    put(tmp_path / "train", "Bru\u0308cke rot/bild 1.png", "a/1.png")  # as macOS writes it
    put(tmp_path / "query", "Br\u00fccke rot/1.png", "a/1.png")
    train, query = load_images(tmp_path / "train"), load_images(tmp_path / "query")
    assert train.classes == query.classes == ("Br\u00fccke rot", "a")
    assert all(path.exists() for path in train.paths)


def test_d33_hidden_litter_is_silent_and_strays_are_counted(tmp_path: Path) -> None:
    put(tmp_path, "a/1.png", "a/2.png", "b/1.png", "b/2.png")
    put(tmp_path, ".hidden/1.png", "__MACOSX/a/._1.png", "a/._1.png", "a/.DS_Store.png")
    for name in ("Thumbs.db", "a/thumbs.db", "desktop.ini", ".DS_Store"):
        (tmp_path / name).write_text("x")
    notices = Notices()
    before = load_images(tmp_path, notices=notices)
    assert not len(notices) and before.classes == ("a", "b") and len(before) == 4
    for name in ("README.md", "a/notes.txt", "Aaa.csv", "b/labels.json"):
        (tmp_path / name).write_text("x")
    put(tmp_path, "0.png")
    after = load_images(tmp_path, notices=notices)
    assert after.paths == before.paths and np.array_equal(after.labels_N, before.labels_N)
    assert notices.counts == {"stray": 4, "root-image": 1}


def test_d33_empty_classes_are_named_and_shift_nothing(tmp_path: Path) -> None:
    put(tmp_path, "a/1.png", "a/2.png", "c/1.png", "c/2.png")
    (tmp_path / "b" / "inner").mkdir(parents=True)
    (tmp_path / "d").mkdir()
    notices = Notices()
    images = load_images(tmp_path, notices=notices)
    assert notices.names("empty-class") == ("b", "d")
    assert images.classes == ("a", "c") and [n for _, n in shown(images, tmp_path)] == ["a", "a", "c", "c"]


def test_classes_of_one_are_named_and_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    put(tmp_path, "a/1.png", "b/1.png", "b/2.png")
    load_images(tmp_path)
    assert "1 class with a single image: no other of its class in the set: a" in capsys.readouterr().err
    load_images(tmp_path, notices=Notices())
    assert capsys.readouterr().err == ""  # whoever gave the notices says them


def test_wrapper_is_unwrapped_once_or_twice(tmp_path: Path) -> None:
    put(tmp_path, "out/known/a/1.png", "out/known/b/1.png", "__MACOSX/x.png")
    (tmp_path / "README").write_text("x")
    notices = Notices()
    images = load_images(tmp_path, notices=notices)
    assert images.classes == ("a", "b") and notices.names("wrapper") == ("out", "known")
    assert len(load_images(tmp_path, labeled=False)) == 2


@pytest.mark.parametrize(
    "names, classes",
    [
        (["a/1.png", "a/2.png"], ("a",)),  # one class is no wrapper
        (["w/a/1.png", "w/a/2.png"], ("a",)),
        (["a/1.png", "a/in/2.png"], ("a",)),  # images beside folders
        (["w/a/in/1.png", "w/b/in/1.png"], ("a", "b")),
        (["w/a/1.png", "v/b/1.png"], ("v", "w")),
        (["0.png", "w/a/1.png", "w/b/1.png"], ("w",)),  # an image beside it
    ],
)
def test_what_is_a_wrapper(tmp_path: Path, names: list[str], classes: tuple[str, ...]) -> None:
    assert load_images(put(tmp_path, *names)).classes == classes


def test_links(tmp_path: Path) -> None:
    root = put(tmp_path / "root", "a/1.png", "b/1.png")
    put(tmp_path / "elsewhere", "1.png", "2.png")
    (root / "c").symlink_to(tmp_path / "elsewhere")
    (root / "a" / "round").symlink_to(root)
    (root / "b" / "self").symlink_to(root / "b")
    (root / "b" / "gone.png").symlink_to(tmp_path / "nothing.png")
    (root / "b" / "2.png").symlink_to(tmp_path / "elsewhere" / "2.png")
    notices = Notices()
    images = load_images(root, notices=notices)
    assert images.classes == ("a", "b", "c") and images.counts().tolist() == [1, 2, 2]
    assert set(notices.names("link-loop")) == {"a/round", "b/self"}
    assert notices.names("broken-link") == ("b/gone.png",)


def test_unlabelled_folder_takes_every_image(tmp_path: Path) -> None:
    put(tmp_path, "1.png", "x/2.png", "x/y/3.webp")
    images = load_images(tmp_path, labeled=False)
    assert (
        len(images) == 3
        and (images.labels_N == -1).all()
        and images.classes == ()
        and images.label_names() == ("",) * 3
    )
    assert images.counts().tolist() == []


def test_one_image(tmp_path: Path) -> None:
    path = put(tmp_path, "one image.png") / "one image.png"
    images = load_images(path, labeled=False)
    assert images.paths == (path,) and images.labels_N.tolist() == [-1]
    with pytest.raises(DataError, match="no class"):
        load_images(path)


def test_folders_without_anything_usable(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no image"):
        load_images(tmp_path)
    with pytest.raises(DataError, match="no image"):
        load_images(tmp_path, labeled=False)
    put(tmp_path, "1.png", "2.png")
    with pytest.raises(DataError, match="2 images directly in it, no class folders"):
        load_images(tmp_path)
    (tmp_path / "a").mkdir()
    (tmp_path / "train.tar.gz").write_bytes(b"")
    with pytest.raises(DataError, match="give one of them: .*train.tar.gz"):
        load_images(tmp_path)


def test_sources_that_are_not_there(tmp_path: Path) -> None:
    put(tmp_path, "train/a/1.png")
    with pytest.raises(DataError, match="did you mean 'train'"):
        load_images(tmp_path / "trian")
    (tmp_path / "weights.pth").write_bytes(b"x")
    with pytest.raises(DataError, match="expected a folder, an archive"):
        load_images(tmp_path / "weights.pth")


def test_locate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "d").mkdir()
    assert resolve_source("~/d") == tmp_path / "d" and resolve_source(f"file://{tmp_path}/d") == tmp_path / "d"
    with pytest.raises(DataError, match="no data given"):
        resolve_source("")


# ---------------------------------------------------------------- names


def test_d23_class_map_yaml_names_by_folder(tmp_path: Path) -> None:
    put(tmp_path / "data", *[f"{c}/{i}.png" for c in ("007", "no", "zebra", "plain") for i in range(2)])
    (tmp_path / "map.yaml").write_text("007: Bond\nno: Nein\nzebra: Aal\nabsent: x\n")
    notices = Notices()
    images = load_images(tmp_path / "data", class_map=tmp_path / "map.yaml", notices=notices)
    assert images.classes == ("Aal", "Bond", "Nein", "plain")
    assert {p.parent.name: n for p, n in zip(images.paths, images.label_names(), strict=True)} == {
        "007": "Bond",
        "no": "Nein",
        "zebra": "Aal",
        "plain": "plain",
    }
    assert notices.names("unmapped-class") == ("plain",)


def test_d23_two_folders_may_share_a_name(tmp_path: Path) -> None:
    put(tmp_path / "data", "a/1.png", "b/1.png", "c/1.png")
    (tmp_path / "map.yml").write_text("{a: same, b: same}")
    images = load_images(tmp_path / "data", class_map=tmp_path / "map.yml")
    assert images.classes == ("c", "same") and images.counts().tolist() == [1, 2]


def test_d23_one_class_a_line(tmp_path: Path) -> None:
    put(tmp_path / "data", "a/1.png", "c/1.png")
    (tmp_path / "data" / "b").mkdir()
    listed = tmp_path / "classes.txt"
    listed.write_text("Anna\nBert\nClara\n\n")  # by place: the empty folder b counts
    assert load_images(tmp_path / "data", class_map=listed).classes == ("Anna", "Clara")
    listed.write_text("c\nb\na\nd\n")  # the folders' own names, in any order, more than there are
    assert load_images(tmp_path / "data", class_map=listed).label_names() == ("a", "c")
    listed.write_text("Anna\nBert\n")
    with pytest.raises(DataError, match="2 lines for 3 folders"):
        load_images(tmp_path / "data", class_map=listed)


@pytest.mark.parametrize("content", ["a: [1, 2]", "{", "- {a: b}"])
def test_faulty_class_maps(tmp_path: Path, content: str) -> None:
    put(tmp_path / "data", "a/1.png")
    (tmp_path / "map.yaml").write_text(content)
    with pytest.raises(DataError, match="map.yaml"):
        load_images(tmp_path / "data", class_map=tmp_path / "map.yaml")
    with pytest.raises(DataError, match="absent"):
        load_images(tmp_path / "data", class_map=tmp_path / "absent.yaml")


def test_d18_d23_align_labels_keeps_names_when_classes_differ(tmp_path: Path) -> None:
    reference = load_images(put(tmp_path / "r", "a/1.png", "b/1.png", "c/1.png", "e/1.png"))
    query = load_images(put(tmp_path / "q", "b/1.png", "d/1.png", "e/1.png"))
    loose = load_images(put(tmp_path / "l", "1.png"), labeled=False)
    aligned = align_labels(reference, query, loose)
    assert {images.classes for images in aligned} == {("a", "b", "c", "d", "e")}
    for before, after in zip((reference, query, loose), aligned, strict=True):
        assert before.label_names() == after.label_names() and before.paths == after.paths
    assert aligned[1].labels_N.tolist() == [1, 3, 4] and aligned[2].labels_N.tolist() == [-1]
    assert aligned[1].counts().tolist() == [0, 1, 0, 1, 1]
    assert aligned[1].drop_empty_classes().classes == query.classes
    assert align_labels(*aligned)[0] is aligned[0]


# ---------------------------------------------------------------- the set itself


def test_select(tmp_path: Path) -> None:
    images = load_images(put(tmp_path, "a/1.png", "b/1.png", "c/1.png"))
    picked = images.select([2, 0])
    assert picked.label_names() == ("c", "a") and picked.classes == images.classes
    assert images.select(np.array([False, True, False])).label_names() == ("b",)
    assert len(images.select([])) == 0 and images.select([]).fingerprint()
    assert picked.drop_empty_classes().classes == ("a", "c") and picked.drop_empty_classes().label_names() == ("c", "a")


def test_inconsistent_sets_cannot_be_made() -> None:
    with pytest.raises(ValueError):
        ImageSet((Path("a"),), np.array([0, 0]), ("a",))
    with pytest.raises(ValueError):
        ImageSet((Path("a"),), np.array([1]), ("a",))


def test_fingerprint_follows_content_not_place(tmp_path: Path) -> None:
    names = ("a/1.png", "a/2.png", "b/1.png")
    one, two = load_images(put(tmp_path / "one", *names)), load_images(put(tmp_path / "else" / "two", *names))
    assert one.fingerprint() == two.fingerprint() == one.select([2, 0, 1]).fingerprint()
    os.utime(one.paths[0], (1, 1))
    assert one.fingerprint() == two.fingerprint()
    assert one.select([0, 1]).fingerprint() != one.fingerprint()
    relabelled = ImageSet(one.paths, np.array([0, 1, 1]), one.classes)
    assert relabelled.fingerprint() != one.fingerprint()
    one.paths[0].write_bytes(b"longer" * 100)
    assert one.fingerprint() != two.fingerprint()


# ---------------------------------------------------------------- manifests


def manifest(root: Path, text: str, name: str = "m.csv") -> Path:
    put(root, "x/1.png", "x/ü 2.png", "x/3.png")
    (root / name).write_text(text, encoding="utf-8")
    return root / name


def test_manifest_rows_in_their_order_with_split_and_group(tmp_path: Path) -> None:
    path = manifest(
        tmp_path, f'path,label,split,group\nx/3.png,b,val,g1\n"x/ü 2.png",a,train,\n{tmp_path}/x/1.png,b,train,g2\n'
    )
    images = load_images(path)
    assert [p.name for p in images.paths] == ["3.png", "ü 2.png", "1.png"]
    assert images.label_names() == ("b", "a", "b") and images.splits == ("val", "train", "train")
    assert images.groups == ("g1", "", "g2")
    train = load_images(path, split="train")
    assert train.label_names() == ("a", "b") and train.classes == ("a", "b") and train.groups == ("", "g2")
    assert load_images(path, split="val").classes == ("a", "b")  # one list for all splits of a manifest
    with pytest.raises(DataError, match="no row of split 'test'; expected train or val"):
        load_images(path, split="test")
    with pytest.raises(DataError, match="split"):
        load_images(tmp_path / "x", split="train")


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_separators_marks_and_blank_lines(tmp_path: Path, separator: str) -> None:
    text = "\ufeffpath,label\r\nx/1.png,a\r\n\r\nx/3.png,b\r\n".replace(",", separator)
    images = load_images(manifest(tmp_path, text))
    assert images.label_names() == ("a", "b") and images.groups is None and images.splits is None


def test_manifest_columns_by_other_names(tmp_path: Path) -> None:
    path = manifest(tmp_path, "file,kind,day\nx/1.png,a,mon\n")
    images = load_images(path, columns={"path": "file", "label": "kind", "group": "day"})
    assert images.label_names() == ("a",) and images.groups == ("mon",)
    with pytest.raises(DataError, match="no column 'path' among file, kind, day"):
        load_images(path)
    with pytest.raises(DataError, match="no column 'days'.*did you mean 'day'"):
        load_images(path, columns={"path": "file", "label": "kind", "group": "days"})
    with pytest.raises(DataError, match="manifest_columns"):
        load_images(path, columns={"lable": "kind"})


@pytest.mark.parametrize(
    "text, said",
    [
        ("", "empty"),
        ("path,label\n", "no rows"),
        ("path\nx/1.png\n", "no column 'label'"),
        (
            "x/1.png,a\nx/3.png,b\n",
            "its first line names an image: write a line of column names above it, such as path,label",
        ),
        ("path,label\nx/1.png,a\n,b\n", "column 'path' is empty in 1 row, first 2"),
        ("path,label\nx/1.png,\nx/3.png,\n", "column 'label' is empty in 2 rows, first 1, 2"),
        ("path,label\nx/1.png,a\nx/3.png,a,b\n", "row 2 has 3 fields"),
        ("path,label,label\nx/1.png,a,b\n", "label occurs twice"),
        ("path,label\nx/none.png,a\n", "none of its 1 files"),
        ('path,label\n"x/1.png,a\n', "cannot be read as CSV"),
    ],
)
def test_faulty_manifests_name_row_and_column(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(DataError, match=said):
        load_images(manifest(tmp_path, text))


def test_d20_missing_files_are_counted_and_shift_nothing(tmp_path: Path) -> None:
    path = manifest(tmp_path, "path,label\nx/none.png,a\nx/1.png,b\nx/gone.png,c\nx/3.png,c\n")
    notices = Notices()
    images = load_images(path, notices=notices)
    assert images.label_names() == ("b", "c") and images.classes == ("b", "c")
    assert notices.counts["missing"] == 2 and notices.names("empty-class") == ("a",)


def test_manifest_without_labels(tmp_path: Path) -> None:
    images = load_images(manifest(tmp_path, "path\nx/1.png\nx/3.png\n"), labeled=False)
    assert images.labels_N.tolist() == [-1, -1] and images.classes == ()


def test_manifest_with_class_map(tmp_path: Path) -> None:
    path = manifest(tmp_path, "path,label\nx/1.png,1\nx/3.png,2\n")
    (tmp_path / "map.yaml").write_text("1: one\n2: two\n")
    assert load_images(path, class_map=tmp_path / "map.yaml").label_names() == ("one", "two")


def test_parquet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    manifest(tmp_path, "")
    table = pyarrow.table({"path": ["x/1.png", "x/3.png"], "label": [7, 8], "group": ["g", None]})
    parquet.write_table(table, tmp_path / "m.parquet")
    images = load_images(tmp_path / "m.parquet")
    assert images.label_names() == ("7", "8") and images.groups == ("g", "")
    (tmp_path / "bad.parquet").write_bytes(b"nothing")
    with pytest.raises(DataError, match="cannot be read as Parquet"):
        load_images(tmp_path / "bad.parquet")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(UnalikeError, match=r"\[parquet\]"):
        load_images(tmp_path / "m.parquet")


# ---------------------------------------------------------------- links and names


def test_links_to_themselves_are_passed_over_by_name(tmp_path: Path) -> None:
    for name in ("a/1.png", "a/2.png", "b/1.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    for link in ("a/loop.png", "a/folder", "loop"):
        (tmp_path / link).symlink_to(Path(link).name)
    notices = Notices()
    images = load_images(tmp_path, notices=notices)
    assert len(images) == 3 and images.classes == ("a", "b")
    assert set(notices.names("broken-link")) == {"a/loop.png", "a/folder", "loop"}


def test_folders_that_are_too_deep_are_refused(tmp_path: Path) -> None:
    deep = tmp_path.joinpath(*["k"] * 150)
    deep.mkdir(parents=True)
    (deep / "1.png").touch()
    with pytest.raises(DataError, match="100 deep"):
        load_images(tmp_path, labeled=False)


def test_paths_of_another_system_are_found(tmp_path: Path) -> None:
    (tmp_path / "Möhre").mkdir()
    (tmp_path / "Möhre" / "1.png").touch()
    name = unicodedata.normalize("NFD", "Möhre")
    for path in ("Möhre\\1.png", f"{name}/1.png", f"{name}\\1.png"):
        (tmp_path / "m.csv").write_text(f"path,label\n{path},{name}\n", encoding="utf-8")
        images = load_images(tmp_path / "m.csv")
        assert images.paths == (tmp_path / "Möhre" / "1.png",) and images.classes == ("Möhre",)
    (tmp_path / "m.csv").write_text("path,label\nC:\\data\\1.png,k\n~nobodyhere/1.png,k\n")
    with pytest.raises(DataError, match="of Windows \\(backslashes\\)"):
        load_images(tmp_path / "m.csv")


@pytest.mark.parametrize("text", ["[" * 5000, "a: {b: c}", "{[a]: b}", "a: &a [*a]", "\x00", "- [a]"])
def test_odd_class_maps_are_refused_in_one_line(tmp_path: Path, text: str) -> None:
    (tmp_path / "c.yaml").write_text(text)
    with pytest.raises(DataError, match="^class map [^\n]+$"):
        ClassMap.read(tmp_path / "c.yaml")


@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        ("list.xlsx", "save the table as CSV"),
        ("film.MP4", "write frames of the video"),
        ("a.7z", "unpack it"),
        ("a.docx", ""),
    ],
)
def test_files_of_other_kinds_are_refused_with_what_to_do_with_them(tmp_path: Path, name: str, remedy: str) -> None:
    (tmp_path / name).write_bytes(b"x")
    with pytest.raises(DataError, match="unknown kind of data; expected a folder, .*") as caught:
        load_images(tmp_path / name)
    assert caught.value.remedy.startswith(remedy) and bool(caught.value.remedy) == bool(remedy)


def test_a_path_to_nothing_names_what_is_near_or_where_it_was_looked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tmp_path / "photographs", "a/1.png")
    monkeypatch.chdir(tmp_path)
    for source, remedy in (
        ("photographes", "did you mean 'photographs'?"),
        ("shop", f"looked for in {tmp_path}"),
        ("shop/train", "there is no folder shop either"),
        (tmp_path / "shop", ""),
    ):
        with pytest.raises(DataError, match="no such file or folder") as caught:
            load_images(source)
        assert caught.value.remedy == remedy
