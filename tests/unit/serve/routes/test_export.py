"""Export of a gallery: a ZIP file that every tool opens, with folders of classes and a table; hostile names; what was not kept."""

from __future__ import annotations

import csv
import io
import json
import zipfile
from pathlib import Path

import numpy as np

from tests.support.serving import files, picture, run, running
from unalike.data.imageset import load_images
from unalike.recognition.backends.protocol import Entry
from unalike.serve.routes.export import MAX_FOLDER, TABLE, name_columns, name_folders, zip_references
from unalike.serve.store.images import ImageStore
from unalike.serve.store.references import reference_name

HOSTILE = ["../up", "C:\\x", "a/b", "CON", "con.txt", ".", "..", " x ", "tail.", "=1+1", "\u202egnp", "W" * 400, "\u00fc" * 300,
           "Red", "red", "RED", "50%", "50%25", "a\u0301", "\u00e1", 'quote"\nline']  # fmt: skip


def test_folders_are_safe_and_different_for_every_class() -> None:
    folders = name_folders([*HOSTILE, *HOSTILE])
    names = list(folders.values())
    assert list(folders) == HOSTILE and len({name.casefold() for name in names}) == len(names)
    for name in names:
        assert 0 < len(name.encode()) <= MAX_FOLDER and not set(name) & set('/\\:*?"<>|\n\u202e'), name
        assert name not in (".", "..") and name.strip(". ") == name and name.lower() not in ("con", "con.txt")
    assert folders["a/b"] == "a%2Fb" and folders["Red"] == "Red" and folders["50%"] == "50%25"


def test_the_file_has_every_reference_and_its_picture(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as it:
            sent = {
                label: [picture((9, 9, number)), picture((8, number, 8))]
                for number, label in enumerate(("a/b", "<b>", "Red"))
            }
            for label, contents in sent.items():
                await it.client.post("/v1/references", files=files(*contents), data={"label": label})
            response = await it.client.get("/v1/export")
            assert response.headers["content-type"] == "application/zip"
            assert response.headers["content-disposition"] == 'attachment; filename="colors.zip"'
            with zipfile.ZipFile(io.BytesIO(response.content)) as file:
                assert file.testzip() is None
                rows = list(csv.DictReader(io.StringIO(file.read(TABLE).decode(), newline="")))
                references = (await it.client.get("/v1/references")).json()["references"]
                assert [(row["label"], int(row["id"]), row["name"]) for row in rows] == [
                    (entry["label"], entry["id"], entry["name"]) for entry in references
                ]
                assert {row["label"] for row in rows if not row["path"]} == {"red", "green", "blue"}, (
                    "enrolled without a picture"
                )
                for label, contents in sent.items():
                    assert [file.read(row["path"]) for row in rows if row["label"] == label] == contents
                assert sorted(file.namelist()) == sorted([TABLE, *(row["path"] for row in rows if row["path"])])
                assert all(row["path"].endswith(".png") for row in rows if row["path"])
            again = await it.client.get("/v1/galleries/colors/export")
            assert again.content == response.content
            assert (await it.client.get("/v1/export?x=1")).status_code == 422
            assert (await it.client.get("/v1/galleries/none/export")).status_code == 404

    run(scenario())


def test_attributes_and_names_go_into_the_table_from_which_a_gallery_is_built_again(tmp_path: Path) -> None:
    """Formulas are no formulas for a spreadsheet, and columns that mean something in a table are named otherwise."""

    async def scenario() -> None:
        async with running(tmp_path, filled=False) as it:
            given = [{"site": "=1+1", "split": "test"}, {"left": "3", "path": "Zürich"}, {}]
            for number, attributes in enumerate(given):
                data = {"label": f"=cmd{number}", "attributes": json.dumps(attributes)}
                answer = await it.client.post("/v1/references", files=files(picture((9, 9, number))), data=data)
                assert answer.status_code == 201
            with zipfile.ZipFile(io.BytesIO((await it.client.get("/v1/export")).content)) as file:
                file.extractall(tmp_path / "export")
        table = (tmp_path / "export" / TABLE).read_text(encoding="utf-8")
        assert table.splitlines()[0] == "path,label,id,name,attribute_left,attribute_path,site,attribute_split"
        assert ",'=cmd0," in table and "'=1+1" in table
        columns = ["attribute_left", "attribute_path", "site", "attribute_split"]
        images = load_images(tmp_path / "export" / TABLE, further=columns)
        assert images.classes == ("=cmd0", "=cmd1", "=cmd2")
        assert images.cells == (("", "", "=1+1", "test"), ("3", "Zürich", "", ""), ("", "", "", ""))

    run(scenario())


def test_columns_of_attributes_are_different() -> None:
    assert name_columns(["label", "attribute_label", "site", "bbox_x"]) == {
        "attribute_label": "attribute_attribute_label", "bbox_x": "attribute_bbox_x", "label": "attribute_label", "site": "site",
    }  # fmt: skip


def test_an_empty_gallery_is_a_table_without_rows(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path, filled=False) as it:
            with zipfile.ZipFile(io.BytesIO((await it.client.get("/v1/export")).content)) as file:
                assert file.namelist() == [TABLE] and file.read(TABLE) == b"path,label,id,name\r\n"

    run(scenario())


def test_a_picture_that_is_gone_has_no_path_and_one_picture_is_in_memory(tmp_path: Path) -> None:
    images = ImageStore(tmp_path)
    content = np.random.default_rng(0).bytes(300_000)
    kept, gone = images.put(content), "0" * 64
    entries = [Entry(number, "x", reference_name(kept, str(number))) for number in range(5)]
    pieces = list(zip_references([*entries, Entry(5, "x", reference_name(gone, "t"))], images))
    assert len(pieces) >= 6 and max(map(len, pieces)) < 310_000
    with zipfile.ZipFile(io.BytesIO(b"".join(pieces))) as file:
        assert file.testzip() is None and file.read("x/3.image") == content
        assert file.read(TABLE).decode().splitlines()[-1].startswith(",x,5,sha256:")
