"""Manifests: columns by their names, repeated rows, splits, and what is said about them. More stands in test_imageset.py."""

from __future__ import annotations

from pathlib import Path

import pytest

from unalike.data.imageset import load_images
from unalike.data.notices import Notices
from unalike.errors import DataError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("a.png", "b.png", "c.png"):
        (tmp_path / name).touch()
    return tmp_path


def write(folder: Path, *lines: str) -> Path:
    (folder / "t.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder / "t.csv"


@pytest.mark.parametrize("header", ["Path,Label", "PATH,LABEL", "path\u200b,\ufefflabel", " path , Label "])
def test_columns_are_recognized_in_any_case(folder: Path, header: str) -> None:
    images = load_images(write(folder, header, "a.png,k", "b.png,k"), notices=Notices())
    assert images.label_names() == ("k", "k")


def test_the_exact_name_wins_and_two_alike_are_refused(folder: Path) -> None:
    assert load_images(write(folder, "path,label,Label", "a.png,k,z"), notices=Notices()).classes == ("k",)
    with pytest.raises(DataError, match="column label occurs twice, as 'Label' and 'LABEL'"):
        load_images(write(folder, "path,Label,LABEL", "a.png,k,z"), notices=Notices())


def test_splits_are_recognized_in_any_case(folder: Path) -> None:
    path = write(folder, "path,label,split", "a.png,k,Train", "b.png,k,VAL", "c.png,k,Fold1")
    assert load_images(path, notices=Notices()).splits == ("train", "val", "Fold1")
    assert len(load_images(path, split="TRAIN", notices=Notices())) == 1


def test_equal_rows_are_one_image(folder: Path) -> None:
    notices = Notices()
    path = write(folder, "path,label", "a.png,k", "b.png,k", "a.png,k", "./a.png,k")
    assert [file.name for file in load_images(path, notices=notices).paths] == ["a.png", "b.png"]
    assert notices.counts["repeated-row"] == 1
    notices = Notices()
    boxes = write(folder, "path,label,x,y,width,height", "a.png,k,1,1,5,5", "a.png,k,2,2,5,5", "a.png,k,1,1,5,5")
    assert len(load_images(boxes, notices=notices)) == 2 and notices.counts["repeated-row"] == 1


def test_an_image_under_two_labels_or_in_two_splits_is_said(folder: Path) -> None:
    notices = Notices()
    path = write(
        folder, "path,label,split", "a.png,k,train", "a.png,l,train", "b.png,k,train", "b.png,k,test", "c.png,l,train"
    )
    images = load_images(path, notices=notices)
    assert len(images) == 5
    assert list(notices) == [
        ("several-labels", str(folder / "a.png"), "'k' and 'l'"),
        ("several-splits", str(folder / "b.png"), "'train' and 'test'"),
    ]
    notices = Notices()
    assert len(load_images(path, labeled=False, notices=notices)) == 4  # labels do not count where none are read
    assert "several-labels" not in notices.counts


def test_addresses_of_files_of_this_machine_are_read(folder: Path) -> None:
    (folder / "d e").mkdir()
    (folder / "d e" / "f.png").touch()
    path = write(folder, "path,label", f"file://{folder}/a.png,k", f"file://localhost{folder}/d%20e/f.png,k")
    assert load_images(path, notices=Notices()).paths == (folder / "a.png", folder / "d e" / "f.png")
    assert load_images(f"file://{path}", notices=Notices()).classes == ("k",)
    with pytest.raises(DataError, match=f"first {folder}/gone.png"):
        load_images(write(folder, "path,label", f"file://{folder}/gone.png,k"), notices=Notices())


def test_missing_files_that_exist_in_another_case_are_named(folder: Path) -> None:
    notices = Notices()
    load_images(write(folder, "path,label", "A.PNG,k", "b.png,k", "gone.png,k"), notices=notices)
    if "missing" in notices.counts and notices.counts["missing"] == 1:
        pytest.skip("this file system does not tell case apart")
    assert [row for row in notices if row[0] == "missing"] == [
        ("missing", str(folder / "A.PNG"), f"there is {folder / 'a.png'}: upper and lower case, or invisible characters, differ"), ("missing", str(folder / "gone.png"), ""),
    ]  # fmt: skip
    with pytest.raises(DataError, match="there is .*a.png: upper and lower case"):
        load_images(write(folder, "path,label", "A.PNG,k"), notices=Notices())


@pytest.mark.parametrize("quoted", ["'a.png'", "“a.png”", "‘a.png’"])
def test_quotation_marks_that_are_no_quoting_are_named(folder: Path, quoted: str) -> None:
    with pytest.raises(DataError, match="quotation marks around them"):
        load_images(write(folder, "path,label", f"{quoted},k"), notices=Notices())


@pytest.mark.parametrize(
    ("cell", "reason"),
    [("a%20b.png", "there is {}/a b.png"), ("a.jpg", "there is {}/a.png"), ("a", "there is {}/a.png"), ("sub", "a folder"),
     ("dead.png", "a link to nothing"), ("a.png\u200b", "there is {}/a.png: upper"), ("SUB\\C.PNG", "there is {}/sub/c.png: upper")],
)  # fmt: skip
def test_missing_files_say_what_is_there(folder: Path, cell: str, reason: str) -> None:
    (folder / "a b.png").touch()
    (folder / "sub").mkdir()
    (folder / "sub" / "c.png").touch()
    (folder / "dead.png").symlink_to("nowhere.png")
    notices = Notices()
    load_images(write(folder, "path,label", f"{cell},k", "b.png,k"), notices=notices)
    assert next(detail for kind, _, detail in notices if kind == "missing").startswith(reason.format(folder))


def test_an_address_of_another_machine_names_its_row(folder: Path) -> None:
    with pytest.raises(DataError, match="t.csv: row 2: file://server/x.png: an address of the machine server"):
        load_images(write(folder, "path,label", "a.png,k", "file://server/x.png,k"), notices=Notices())


@pytest.mark.parametrize("label", ["#N/A", "#REF!", "#WERT!"])
def test_errors_of_formulas_are_no_labels(folder: Path, label: str) -> None:
    with pytest.raises(DataError, match="row 1: .*the error of a formula"):
        load_images(write(folder, "path,label", f"a.png,{label}"), notices=Notices())


def test_labels_like_missing_values_and_images_in_two_groups_are_said(folder: Path) -> None:
    notices = Notices()
    load_images(write(folder, "path,label,group", "a.png,nan,1", "a.png,nan,2", "b.png,k,1"), notices=notices)
    assert notices.names("missing-values") == ("nan",) and notices.counts["several-groups"] == 1


@pytest.mark.parametrize("header", ["path label", "path^label"])
def test_an_unknown_separator_is_told(folder: Path, header: str) -> None:
    with pytest.raises(DataError, match="separate the columns by comma"):
        load_images(write(folder, header, "a.png k"), notices=Notices())


def test_a_label_in_a_column_y_is_no_box(folder: Path) -> None:
    path = write(folder, "path,x,y,width,height", "a.png,1,k,30,40")
    images = load_images(path, columns={"label": "y"}, notices=Notices())
    assert images.classes == ("k",) and images.paths == (folder / "a.png",)


def test_further_columns_are_read_where_they_are_asked_for(folder: Path) -> None:
    path = write(folder, "path,label,Site,line", "a.png,k,x,1", "a.png,k,x,1", "none.png,k,z,3", "b.png,k,,2")
    images = load_images(path, notices=Notices(), further=["site", "line"])
    assert images.cells == (("x", "1"), ("", "2")) and images.select([1]).cells == (("", "2"),)
    assert load_images(path, notices=Notices()).cells is None
    with pytest.raises(DataError, match="no column 'sight' among path, label, Site"):
        load_images(path, notices=Notices(), further=["sight"])
    with pytest.raises(DataError, match="asked for the columns site"):
        load_images(folder, labeled=False, notices=Notices(), further=["site"])
