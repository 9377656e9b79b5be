"""Regions of images have names that stand wherever a path may stand."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from PIL import Image

from unalike.data import pillow, regions
from unalike.data.decode import decode, decoded_once, upright_size
from unalike.data.imageset import load_images
from unalike.data.regions import Box, ContentDigests, group_by_file, image_file, parse_box, region_name, split_region
from unalike.data.splits import write_manifest
from unalike.errors import DataError, UnreadableImage


def test_names_and_back(tmp_path: Path) -> None:
    name = region_name(tmp_path / "a#1.jpg", Box(1, 2, 30, 40))
    assert str(name).endswith("a#1.jpg#1,2,30,40")
    assert split_region(name) == (str(tmp_path / "a#1.jpg"), Box(1, 2, 30, 40))
    assert image_file("b.jpg") == "b.jpg" and split_region("b.jpg#1,2,3") == ("b.jpg#1,2,3", None)
    name.touch()  # a file that has such a name
    assert split_region(name) == (str(name), None)


@pytest.mark.parametrize(
    ("cells", "box"),
    [(("1", "2", "3", "4"), Box(1, 2, 3, 4)), (("1.4", "2.6", "3.2", "4"), Box(1, 3, 4, 4)), (("", "", "", ""), None),
     (("-5", "0", "15", "10"), Box(0, 0, 10, 10)), (("1,5", "0", "10", "10"), Box(2, 0, 10, 10))],
)  # fmt: skip
def test_boxes_of_cells(cells: tuple[str, str, str, str], box: Box | None) -> None:
    assert parse_box(cells) == box


@pytest.mark.parametrize(
    ("cells", "message"),
    [(("1", "", "3", "4"), "some of its four cells are empty"), (("a", "2", "3", "4"), "float"), (("1", "2", "0", "4"), "no area"), (("1", "2", "-3", "4"), "no area"),
     (("-9", "0", "5", "5"), "no area"), (("0.1", "0.2", "0.3", "0.4"), "fractions"), (("nan", "0", "1", "1"), "no pixel"),
     (("inf", "0", "1", "1"), "no pixel"), (("0", "0", "1e300", "1"), "no pixel")],
)  # fmt: skip
def test_cells_that_are_no_box(cells: tuple[str, str, str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_box(cells)


def manifest(folder: Path, text: str) -> Path:
    for name in ("a.png", "b.png"):
        (folder / name).touch()
    (folder / "m.csv").write_text(text)
    return folder / "m.csv"


def test_a_manifest_with_boxes_is_a_row_an_object(tmp_path: Path) -> None:
    path = manifest(tmp_path, "path,label,x,y,width,height\na.png,k,0,0,10,10\na.png,l,10,0,10,10\nb.png,k,,,,\n")
    images = load_images(path)
    assert [str(p.relative_to(tmp_path)) for p in images.paths] == ["a.png#0,0,10,10", "a.png#10,0,10,10", "b.png"]
    assert images.groups == (str(tmp_path / "a.png"), str(tmp_path / "a.png"), str(tmp_path / "b.png"))
    assert images.label_names() == ("k", "l", "k") and len(images.fingerprint()) == 64


def test_groups_of_the_user_stay_and_sizes_are_no_boxes(tmp_path: Path) -> None:
    path = manifest(tmp_path, "path,label,group,x,y,width,height\na.png,k,g,0,0,10,10\nb.png,k,h,0,0,5,5\n")
    assert load_images(path).groups == ("g", "h")
    path = manifest(tmp_path, "path,label,width,height\na.png,k,640,480\nb.png,k,640,480\n")
    images = load_images(path)
    assert [p.name for p in images.paths] == ["a.png", "b.png"] and images.groups is None


def test_columns_of_boxes_by_other_names(tmp_path: Path) -> None:
    path = manifest(tmp_path, "path,label,left,top,w,h\na.png,k,1,2,3,4\nb.png,k,1,2,3,4\n")
    columns = {"x": "left", "y": "top", "width": "w", "height": "h"}
    assert load_images(path, columns=columns).paths[0].name == "a.png#1,2,3,4"
    with pytest.raises(DataError, match="no column 'wide'"):
        load_images(path, columns={**columns, "width": "wide"})


def test_a_box_that_is_none_names_its_row(tmp_path: Path) -> None:
    path = manifest(tmp_path, "path,label,x,y,width,height\na.png,k,0,0,10,10\na.png,k,0.1,0.1,0.5,0.5\n")
    with pytest.raises(
        DataError, match="row 2, box 0.1, 0.1, 0.5, 0.5: fractions.*expected x, y, width, height in pixels"
    ):
        load_images(path)


def test_a_region_is_a_source_of_one_image(tmp_path: Path) -> None:
    manifest(tmp_path, "")
    images = load_images(tmp_path / "a.png#0,0,10,10", labeled=False)
    assert [p.name for p in images.paths] == ["a.png#0,0,10,10"]


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    """Four squares of 20 pixels, red, lime, blue and white, whose file says that it is turned by 90 degrees."""
    image = Image.new("RGB", (40, 40))
    for i, color in enumerate(("red", "lime", "blue", "white")):
        image.paste(color, (20 * (i % 2), 20 * (i // 2), 20 * (i % 2) + 20, 20 * (i // 2) + 20))
    image.save(tmp_path / "a.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    image.save(tmp_path / "turned.jpg", exif=exif, quality=95, subsampling=0)
    return tmp_path / "a.png"


def test_a_region_is_decoded_as_a_crop_of_the_upright_image(picture: Path) -> None:
    whole = decode(picture)
    assert (decode(region_name(picture, Box(15, 5, 20, 30))) == whole[5:35, 15:35]).all()
    assert upright_size(region_name(picture, Box(15, 5, 20, 30))) == (30, 20)
    assert decode(f"{picture}#30,30,100,100").shape == (10, 10, 3) and upright_size(f"{picture}#30,30,100,100") == (
        10,
        10,
    )
    turned = picture.with_name("turned.jpg")
    assert (decode(f"{turned}#20,0,20,20", min_size=(4, 4)) == decode(turned)[:20, 20:]).all()
    assert abs(decode(f"{turned}#20,0,20,20").mean(axis=(0, 1)) - (255, 0, 0)).max() < 5
    for read in (decode, upright_size):
        with pytest.raises(UnreadableImage, match="a.png#40,0,5,5: its box lies outside of the image of 40 x 40"):
            read(f"{picture}#40,0,5,5")
        with pytest.raises(UnreadableImage, match="none.png"):
            read(picture.with_name("none.png#0,0,5,5"))


def test_digests_differ_by_the_box(picture: Path) -> None:
    content_digest = ContentDigests()
    digests = {content_digest(path) for path in (picture, f"{picture}#0,0,5,5", f"{picture}#0,0,5,6")}
    assert len(digests) == 3 and None not in digests
    assert content_digest(picture.with_name("none.png")) is None
    assert content_digest(picture) == hashlib.blake2b(picture.read_bytes(), digest_size=16).digest()


def test_a_split_of_regions_is_written_and_read_again(picture: Path) -> None:
    text = "path,label,x,y,width,height\n" + "".join(f"a.png,k{i % 4},{i},{i},20,20\n" for i in range(16))
    (picture.parent / "m.csv").write_text(text)
    images = load_images(picture.parent / "m.csv")
    write_manifest(picture.parent / "split.csv", {"train": images})
    again = load_images(picture.parent / "split.csv")
    assert again.paths == images.paths and again.label_names() == images.label_names() and again.groups == images.groups


def test_a_file_is_decoded_once_in_a_context(picture: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    real = pillow.open_file
    monkeypatch.setattr(pillow, "open_file", lambda file: (opened.append(str(file)), real(file))[1])
    other = picture.with_name("turned.jpg")
    with decoded_once():
        inside = [decode(f"{path}#{x},0,9,9") for path in (picture, other) for x in range(20)]
    assert opened == [str(picture), str(other)]
    apart = [decode(f"{path}#{x},0,9,9") for path in (picture, other) for x in range(20)]
    assert len(opened) == 42 and all((a == b).all() for a, b in zip(inside, apart, strict=True))
    with decoded_once():
        for _ in range(3):
            with pytest.raises(UnreadableImage, match="none.png"):
                decode(picture.with_name("none.png#0,0,5,5"))
    assert len(opened) == 43


def test_regions_of_one_file_are_grouped_wherever_they_stand() -> None:
    paths = ["a#0,0,1,1", "b", "c#0,0,1,1", "a#1,0,1,1", "b", "a", "a#2,0,1,1", "c#1,0,1,1"]
    assert group_by_file(paths, 9) == [[0, 3, 6], [1], [2, 7], [4], [5]]
    assert group_by_file(paths, 2) == [[0, 3], [1], [2, 7], [4], [5], [6]]


def test_digests_of_regions_read_their_file_once(picture: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    real = regions.open_image_file
    monkeypatch.setattr(regions, "open_image_file", lambda file: (opened.append(file), real(file))[1])
    digest_of = ContentDigests()
    assert len({digest_of(f"{picture}#0,0,{n},5") for n in range(1, 20)}) == 19 and opened == [str(picture)]
    assert digest_of(f"{picture}#0,0,1,5") == ContentDigests()(f"{picture}#0,0,1,5")
