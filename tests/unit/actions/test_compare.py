"""The command compare, in process: one pair, folders, a table; pictures, JSON, page; mistakes are one line."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from tests.support.drawings import as_jpeg, board, shapes
from tests.support.program import status_lines
from unalike import progress
from unalike.actions.compare import find_pairs
from unalike.cli import run_command
from unalike.installation import install_command

pytest.importorskip("cv2")


@pytest.fixture(autouse=True)
def voice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "_said", set())


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``golden`` and ``tested``, four pairs: equal but for JPEG, altered, something else, and one without a partner."""
    root = tmp_path_factory.mktemp("pairs of pictures")
    for folder in ("golden/in ü", "tested/in ü"):
        (root / folder).mkdir(parents=True)
    for number in range(4):
        pixels = shapes(number)
        name = f"in ü/{number}" if number == 1 else str(number)
        Image.fromarray(pixels).save(root / "golden" / f"{name}.png")
        if number == 1:
            pixels[50:70, 100:130] = (255, 0, 255)
        if number == 3:
            continue
        other = np.repeat(board(2, 240, 320)[..., None], 3, axis=2)
        Image.fromarray(as_jpeg(other if number == 2 else pixels)).save(root / "tested" / f"{name}.jpg", quality=90)
    Image.fromarray(shapes(9)).save(root / "tested" / "lonely.png")
    (root / "tested" / ".hidden.png").write_bytes(b"no image")
    return root


def told(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    code = run_command(["compare", *map(str, words)])
    out, err = capsys.readouterr()
    return code, out, err


def test_one_pair(place: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    a, b = place / "golden" / "in ü" / "1.png", place / "tested" / "in ü" / "1.jpg"
    code, out, err = told(capsys, a, b)
    assert code == 0 and not err
    assert re.search(r"^1 difference, the highest score [\d.]+\n  box \d+ \d+ \d+ \d+  score", out)
    assert re.search(r"aligned by ecc: quality (0\.9\d|1\.00), 100% overlap", out)
    out_dir = tmp_path / "found"
    code, out, _ = told(capsys, a, b, "-o", out_dir, "--json", "--exit-code")
    answer = json.loads(out)
    assert code == 3 and (answer["same"], answer["different"], answer["refused"]) == (0, 1, 0)
    (pair,) = answer["pairs"]
    assert np.abs(np.subtract(pair["regions"][0]["extent"], (100, 50, 130, 70))).max() <= 5
    assert json.loads((out_dir / "comparison.json").read_text("utf-8")) == {"format_version": 1, **answer}
    assert set(pair["pictures"]) == {"boxes", "overlay", "heat", "reference"}
    for path in pair["pictures"].values():
        assert Image.open(path).size == (320, 240)
    code, _, err = told(capsys, a, b, "-o", out_dir)
    assert code == 1 and "is not empty" in err and err.count("\n") == 1
    assert told(capsys, a, b, "-o", out_dir, "--overwrite")[0] == 0


def test_the_answers_and_their_exit_codes(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    Image.fromarray(shapes(5)).save(tmp_path / "a.png")
    image = Image.open(tmp_path / "a.png")
    image.crop((0, 0, 320, 150)).save(tmp_path / "cut.png")
    image.rotate(10, Image.Resampling.BICUBIC, fillcolor="white").save(tmp_path / "rotated.png")
    told_cut = told(capsys, tmp_path / "a.png", tmp_path / "cut.png", "--exit-code", "-o", tmp_path / "out", "--json")
    (pair,) = json.loads(told_cut[1])["pairs"]
    assert told_cut[0] == 3 and pair["answer"] == "different" and not pair["same"] and not pair["regions"]
    assert pair["coverage_image"] == 1 and pair["coverage_reference"] == pytest.approx(150 / 240, abs=0.01)
    assert np.abs(np.subtract(pair["uncovered_reference"], [(0, 150, 320, 240)])).max() <= 2
    assert Image.open(pair["pictures"]["missing"]).size == (320, 240)
    assert "hatched where the image shows nothing" in (tmp_path / "out" / "report.html").read_text("utf-8")
    code, out, _ = told(capsys, tmp_path / "a.png", tmp_path / "rotated.png", "--exit-code")
    assert code == 4 and out.startswith("incomplete: nothing differs, but only 9") and "\ncoverage: 9" in out
    assert told(capsys, tmp_path / "a.png", tmp_path / "rotated.png", "--exit-code", "--min-compared", "0.9")[0] == 0
    code, out, _ = told(capsys, tmp_path / "a.png", tmp_path / "a.png", "--ignore-boxes", "0,0,320,240", "--exit-code")
    assert code == 4
    code, _, err = told(capsys, tmp_path / "a.png", tmp_path / "cut.png", "--ignore-boxes", "0,0,330,40;1,2,3,4")
    assert code == 1 and "ignored box 0,0,330,40" in err
    assert told(capsys, tmp_path / "a.png", tmp_path / "cut.png", "--ignore-boxes", "0,0,330")[0] == 2


def test_a_run_is_left_in_the_folder(place: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """From a spec file, overrides and options: the record, the resolved spec and the end of the run."""
    a, b, out = place / "golden" / "0.png", place / "tested" / "0.jpg", tmp_path / "found"
    spec = tmp_path / "spec.yaml"
    spec.write_text(
        yaml.safe_dump({"compare": {"reference": str(a), "image": str(b), "tolerance": 2, "contrast": 50.0}})
    )
    assert (
        told(capsys, "-e", spec, "compare.contrast=60", f"results_dir={tmp_path / 'root'}", "--min-area", "9")[0] == 0
    )
    folder = tmp_path / "root" / "compare"
    resolved = yaml.safe_load((folder / "experiment.yaml").read_text("utf-8"))
    assert set(resolved) == {"results_dir", "compare"}
    section = resolved["compare"]
    assert (section["tolerance"], section["contrast"], section["min_area"]) == (2, 60.0, 9)
    assert status_lines(folder)[-1]["status"] == "SUCCESS"
    record = json.loads((folder / "run.json").read_text("utf-8"))
    assert (record["action"], record["exit"]) == ("compare", 0) and "comparison.json" in record["files"]
    again = tmp_path / "again"
    assert told(capsys, "-e", folder / "experiment.yaml", "-o", again)[0] == 0
    # A run that failed leaves nothing but its record, and its folder is used again.
    assert told(capsys, a, place / "none.png", "-o", out)[0] == 1
    assert status_lines(out)[-1]["status"] == "FAILURE" and "no such file" in status_lines(out)[-1]["message"]
    assert told(capsys, a, b, "-o", out)[0] == 0
    assert [line["status"] for line in status_lines(out)] == ["STARTED", "SUCCESS"]
    (again / "run.json").write_text(json.dumps({"tool": "unalike", "action": "train"}))
    code, _, err = told(capsys, a, b, "-o", again, "--overwrite")
    assert code == 1 and "holds a run of train" in err


def test_folders(place: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    code, out, err = told(capsys, place / "golden", place / "tested", "-o", tmp_path / "found")
    assert code == 0 and "1 the same, 1 different, 0 incomplete, 1 could not be compared" in out
    assert "2 images without a partner were skipped: 3, lonely" in err
    assert "0: no difference found\n" in out and "in ü/1: 1 difference" in out and "2: not compared" in out
    assert (tmp_path / "found" / "in ü" / "1_overlay.jpg").is_file()
    page = (tmp_path / "found" / "report.html").read_text("utf-8")
    assert page.count("data:image/jpeg;base64,") == 8 and "in ü/1" in page and "cannot be aligned" in page
    assert not re.search(r"(src|href)=\"?(http|/|\.)", page)  # self-contained
    assert not list((tmp_path / "found").rglob("*.partial"))


def test_one_reference_and_a_folder_and_a_table(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = told(capsys, place / "golden" / "0.png", place / "tested", "--json")
    answer = json.loads(out)
    assert code == 0 and [entry["name"] for entry in answer["pairs"]] == ["0", "2", "in ü/1", "lonely"]
    assert (answer["same"], answer["refused"]) == (1, 3)
    table = place / "pairs.csv"
    table.write_text(
        "reference,image\ngolden/0.png,tested/0.jpg\ngolden/in ü/1.png,tested/0.jpg\ngolden/0.png,none.jpg\n", "utf-8"
    )
    assert [pair.name for pair in find_pairs(table)] == ["tested/0", "tested/0-3", "none"]
    code, out, _ = told(capsys, table, "--json")
    answer = json.loads(out)
    assert code == 0 and (answer["same"], answer["refused"]) == (1, 2) and "no such file" in answer["pairs"][2]["error"]


def test_mistakes_are_one_line(place: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    golden, image = place / "golden", place / "golden" / "0.png"
    empty = tmp_path / "empty"
    empty.mkdir()
    bad = tmp_path / "bad.csv"
    bad.write_text("a,b\n1,2\n")
    blank = tmp_path / "blank.csv"
    blank.write_text("reference,image\n1,\n")
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"nothing")
    for words, code, said in (
        ((image, tmp_path / "none.png"), 1, "no such file or folder"),
        ((image,), 1, "unalike compare REFERENCE IMAGE"),
        ((golden, image), 1, "the reference first"),
        ((image, empty), 1, "no images"),
        ((golden, place / "tested" / "in ü"), 1, "PAIRS.csv"),
        ((bad,), 1, "columns a, b"),
        ((blank,), 1, "row 1: a field is empty"),
        ((tmp_path / "none.csv",), 1, "no such file"),
        ((image, broken), 1, "not an image of a known format"),
        ((image, place / "tested" / "2.jpg"), 1, "cannot be aligned"),
        ((image, image, "--align", "rigit"), 2, "rigid"),
        ((image, image, "--tolerance", "99"), 2, "found 99, expected a whole number >= 0 and <= 32"),
        ((image, image, "--tolerance", "x"), 2, "--tolerance"),
        ((image, image, "compare.tolerance=many"), 2, "compare.tolerance: found 'many'"),
        ((image, image, image), 2, "unexpected argument"),
        ((), 2, "compare.reference is not set"),
        ((image, image, "-o", image), 1, "is a file"),
    ):
        got, out, err = told(capsys, *words)
        lines = [line for line in err.splitlines() if line.startswith("error:")]
        assert got == code and len(lines) == 1 and said in lines[0] and not out, (words, err)


def test_without_opencv_the_extra_is_named(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "cv2", None)
    code, _, err = told(capsys, place / "golden" / "0.png", place / "tested" / "0.jpg")
    assert code == 1 and install_command("vision") in err and err.count("\n") == 1
