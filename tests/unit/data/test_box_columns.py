"""Boxes are read from the columns that data sets of detection have, or it is said that they are not."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from unalike.data.box_columns import find_box_columns, find_partial_box, is_box_column
from unalike.data.imageset import load_images
from unalike.data.notices import Notices
from unalike.errors import DataError


@pytest.mark.parametrize(
    ("header", "cells", "region"),
    [
        ("x,y,width,height", "1,2,10,20", "1,2,10,20"),
        ("X,Y,Width,Height", "1,2,10,20", "1,2,10,20"),
        ("x,y,w,h", "1,2,10,20", "1,2,10,20"),
        ("xmin,ymin,xmax,ymax", "1,2,11,22", "1,2,10,20"),
        ("xmin,xmax,ymin,ymax", "1,11,2,22", "1,2,10,20"),
        ("XMin,XMax,YMin,YMax", "1,11,2,22", "1,2,10,20"),
        ("x_min,y_min,x_max,y_max", "1,2,11,22", "1,2,10,20"),
        ("x1,y1,x2,y2", "1,2,11,22", "1,2,10,20"),
        ("left,top,right,bottom", "1,2,11,22", "1,2,10,20"),
        ("bbox_x,bbox_y,bbox_width,bbox_height", "1,2,10,20", "1,2,10,20"),
        ("width,height,bbox_x,bbox_y,bbox_width,bbox_height", "640,480,1,2,10,20", "1,2,10,20"),
        ("bbox_x1,bbox_y1,bbox_x2,bbox_y2", "1,2,11,22", "1,2,10,20"),
        ("xtl,ytl,xbr,ybr", "1,2,11,22", "1,2,10,20"),
        ("startX,startY,endX,endY", "1,2,11,22", "1,2,10,20"),
        ("bb_x,bb_y,bb_w,bb_h", "1,2,10,20", "1,2,10,20"),
        ("width,height,xmin,ymin,xmax,ymax", "640,480,1,2,11,22", "1,2,10,20"),
    ],
)
def test_columns_of_detection_sets(tmp_path: Path, header: str, cells: str, region: str) -> None:
    Image.new("RGB", (64, 64)).save(tmp_path / "a.png")
    (tmp_path / "t.csv").write_text(
        f"path,label,{header}\na.png,k,{cells}\na.png,k,{','.join('' for _ in cells.split(','))}\n"
    )
    notices = Notices()
    images = load_images(tmp_path / "t.csv", notices=notices)
    assert [path.name for path in images.paths] == [f"a.png#{region}", "a.png"]
    is_usual = header.lower() == "x,y,width,height"
    assert bool(notices.counts.get("box-columns")) != is_usual and not notices.counts.get("partial-box")


@pytest.mark.parametrize(
    "header",
    ["x,y", "xmin,ymin,xmax", "x_center,y_center,width,height", "cx,cy,w,h", "bbox", "x,y,width", "bbox_xmin,ymin,xmax,ymax",
     "left,top", "x1,y1,x2,y2,x3,y3,x4,y4"],
)  # fmt: skip
def test_columns_that_are_not_read_are_said(tmp_path: Path, header: str) -> None:
    Image.new("RGB", (64, 64)).save(tmp_path / "a.png")
    (tmp_path / "t.csv").write_text(f"path,label,{header}\na.png,k,{','.join('1' for _ in header.split(','))}\n")
    notices = Notices()
    images = load_images(tmp_path / "t.csv", notices=notices)
    assert [path.name for path in images.paths] == ["a.png"]
    assert notices.counts["partial-box"] == 1


@pytest.mark.parametrize(
    "names", [["width", "height"], ["x1", "x2", "x3"], ["box", "box_width", "box_height"], ["top"], ["y"], []]
)
def test_columns_of_other_things_are_no_boxes(names: list[str]) -> None:
    assert find_box_columns(names) is None and find_partial_box(names) == ()


def test_a_faulty_box_names_its_columns(tmp_path: Path) -> None:
    Image.new("RGB", (64, 64)).save(tmp_path / "a.png")
    for cells, reason in (
        ("9,9,1,1", "no area"),
        ("1_0,2,30,40", "an underscore"),
        ("0.1,0.1,0.5,0.5", "fractions"),
        ("1,2,3,", "some of its four cells are empty"),
    ):
        (tmp_path / "t.csv").write_text(f"path,label,xmin,ymin,xmax,ymax\na.png,k,{cells}\n")
        with pytest.raises(DataError, match=f"row 1, box .*{reason}.*; expected xmin, ymin, xmax, ymax in pixels"):
            load_images(tmp_path / "t.csv", notices=Notices())


def test_the_columns_that_the_user_names_must_all_exist(tmp_path: Path) -> None:
    Image.new("RGB", (64, 64)).save(tmp_path / "a.png")
    (tmp_path / "t.csv").write_text("path,label,l,t,width,height,xmin,ymin,xmax,ymax\na.png,k,1,2,3,4,9,9,11,11\n")
    columns = {"x": "l", "y": "t"}
    assert load_images(tmp_path / "t.csv", columns=columns, notices=Notices()).paths[0].name == "a.png#1,2,3,4"
    (tmp_path / "t.csv").write_text("path,label,l,t\na.png,k,1,2\n")
    with pytest.raises(DataError, match="no column 'width'"):
        load_images(tmp_path / "t.csv", columns=columns, notices=Notices())


def test_a_name_that_may_be_a_column_of_boxes() -> None:
    assert all(map(is_box_column, ("x", "width", "h", "bbox_x", "left", "x_min", "bbox", "cx")))
    assert not any(map(is_box_column, ("site", "shelf", "box", "line", "path", "attribute_x")))
