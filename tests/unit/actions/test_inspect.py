"""The actions inspect fit and inspect run: files in, an inspector, results, overlays and a report out."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from tests.support.inspected_parts import (
    CONFIG,
    GOOD_PARTS,
    draw_part,
    fitted_inspector,
    map_model,
    map_network,
    write_images,
)
from unalike.actions.inspect import fit as fit_file
from unalike.actions.inspect import inspect, learn
from unalike.actions.spec_resolution import spec_with
from unalike.errors import DataError, RunError, SpecError
from unalike.inspection.inspector import Inspector


def test_fit_run_and_measure(tmp_path):
    good = write_images(tmp_path / "train", GOOD_PARTS)
    content, _ = map_network()
    (tmp_path / "maps.onnx").write_bytes(content)
    fitted = spec_with("inspect_fit", good=good, inspector=tmp_path / "p.inspector", model=tmp_path / "maps.onnx", rate=0.05,
                       threads=1, patches=1500, memory=300, folds=3, synthetic_defects=60)  # fmt: skip
    summary = fit_file(fitted)
    assert summary["images"] == 24 and summary["alarm"]["images"] == 24 and summary["bytes"] > 1000
    with pytest.raises(RunError, match="exists"):
        fit_file(fitted)
    test = tmp_path / "test"
    write_images(test / "good", [draw_part(600 + n) for n in range(4)])
    places = [(30, 40), (50, 10), (20, 25)]
    write_images(test / "scratch", [draw_part(700 + n, place) for n, place in enumerate(places)], "{:02d}.jpg")
    for n, (y, x) in enumerate(places):
        mask = np.zeros((64, 64), np.uint8)
        mask[y : y + 5, x : x + 12] = 255
        write_images(tmp_path / "masks" / "scratch", [mask], f"{n:02d}_mask.png")
    (test / "scratch" / "broken.png").write_bytes(b"x")
    options = {"inspector": tmp_path / "p.inspector", "results_dir": tmp_path / "out"}
    result = inspect(spec_with("inspect_run", images=[test], truth=tmp_path / "masks", overlays="all", **options))
    assert result["images"] == 7 and len(result["unreadable"]) == 1
    measured = result["measured"]
    assert measured["image_auroc"] == 1.0 and measured["masks"] == 3 and measured["pixel_auroc"] > 0.9
    assert measured["by_kind"] == {"scratch": 1.0} and 0 < measured["pro"] <= 1 and measured["found"]["value"] == 1.0
    saved = json.loads((tmp_path / "out" / "result.json").read_text())
    assert [len(answer["spots"]) > 0 for answer in saved["answers"]].count(True) >= 3
    page = (tmp_path / "out" / "report.html").read_text()
    assert (
        "image AUROC" in page and page.count("data:image/jpeg") == 14 and "http" not in page.replace("http-equiv", "")
    )
    assert (
        "Of 3 defective images, 3 are found; 3 images are too few to say" in page
        and "Measured with 3 defective images and 4 good ones; ranges are for so many new images" in page
    )
    assert page.count("✗ defective") == [answer["decision"] for answer in saved["answers"]].count("defective") > 2
    overlay = Image.open(tmp_path / "out" / saved["answers"][-1]["overlay"])
    assert overlay.size == (64, 64)
    with pytest.raises(RunError, match="not empty"):
        inspect(spec_with("inspect_run", images=[test], **options))
    with pytest.raises(DataError, match="some of both"):
        inspect(spec_with("inspect_run", inspector=tmp_path / "p.inspector", images=[test / "good"], good="good"))


def test_a_run_without_a_defective_image_writes_its_folder(tmp_path):
    fitted_inspector().save(tmp_path / "p.inspector")
    Image.fromarray(GOOD_PARTS[0]).save(tmp_path / "good.png")
    options = {"inspector": tmp_path / "p.inspector", "images": [tmp_path / "good.png"]}
    summary = inspect(spec_with("inspect_run", results_dir=tmp_path / "out", overlays="none", **options))
    assert json.loads((tmp_path / "out" / "result.json").read_text())["images"] == summary["images"] == 1
    with pytest.raises(RunError, match="is a file"):
        inspect(spec_with("inspect_run", results_dir=tmp_path / "good.png", **options))


def test_an_inspector_that_learned_is_another_file(tmp_path, capsys, monkeypatch):
    fitted = Inspector.fit(GOOD_PARTS, model=map_model(), rate=0.05, config=replace(CONFIG, synthetic_defects=0))
    path = fitted.save(tmp_path / "p.inspector")
    content = path.read_bytes()
    images = [(draw_part(500 + number) * 0.6).astype(np.uint8) for number in range(5)]
    new = write_images(tmp_path / "new", images)
    options = {"inspector": path, "images": [new], "threads": 1}
    summary = learn(spec_with("inspect_learn", output=tmp_path / "q.inspector", **options))
    assert (summary["defective_before"], summary["defective_after"]) == (5, 0) and summary["learned"] == 5
    assert summary["images"] == summary["alarm"]["images"] == 29 and summary["unlike"] == []
    assert summary["former_threshold"] == fitted.threshold.threshold and "good_scores" not in summary
    assert "good images); set by the score of" in capsys.readouterr().err
    assert path.read_bytes() == content  # the inspector that learned stays
    result = inspect(spec_with("inspect_run", inspector=tmp_path / "q.inspector", images=[new]))
    assert result["defective"] == 0
    with pytest.raises(RunError, match="exists"):
        learn(spec_with("inspect_learn", output=tmp_path / "q.inspector", **options))
    with pytest.raises(RunError, match="inspect_learn.inspector too"):
        learn(spec_with("inspect_learn", output=path, **options), overwrite=True)
    with pytest.raises(SpecError, match="inspect_learn.output is not set"):
        learn(spec_with("inspect_learn", **options))
    # A write that is cut off leaves the file as it was, and nothing beside it.
    former, names = (tmp_path / "q.inspector").read_bytes(), sorted(tmp_path.iterdir())
    write_images(tmp_path / "more", [draw_part(900, (30, 40))])

    def cut_off(*_, **__):
        raise OSError("no space left")

    with monkeypatch.context() as patch:
        patch.setattr("unalike.storage.blockfile._write_block", cut_off)
        with pytest.raises(DataError, match="q.inspector cannot be written: no space"):
            learn(spec_with("inspect_learn", output=tmp_path / "q.inspector", inspector=path, images=[tmp_path / "more"]), overwrite=True)  # fmt: skip
    assert (tmp_path / "q.inspector").read_bytes() == former
    assert sorted(tmp_path.iterdir()) == sorted([*names, tmp_path / "more"])
    said = capsys.readouterr().err
    learn(spec_with("inspect_learn", output=tmp_path / "r.inspector", inspector=path, images=[tmp_path / "more"]))
    said = capsys.readouterr().err
    assert f"perhaps defective: {tmp_path / 'more' / '00.png'}; if so, teach {path} again without it" in said
    assert (
        "of further images like the 1 learned, 100.0% false alarms are expected" in said
        and "1 of 1 when each is left out" in said
    )
    Inspector.fit(GOOD_PARTS[:4], model=map_model(), rate=None).save(tmp_path / "s.inspector")
    summary = learn(
        spec_with("inspect_learn", output=tmp_path / "t.inspector", inspector=tmp_path / "s.inspector", images=[new])
    )
    assert summary["alarm"] is None and summary["images"] == 9 and "defective_before" not in summary


@pytest.mark.parametrize(("options", "unused"), [
    ({"rate": None, "defects": "d", "masks": "m", "folds": 3}, "defects, masks, folds; without"),
    ({"masks": "m", "rate": 0.1}, "masks; masks are"),
    ({"fit": "whole", "scale": 0.5}, "scale; whole images"), ({"rate": 0.1, "defects": "d", "masks": "m", "scale": 0.5}, ""),
])  # fmt: skip
def test_options_of_a_fit_without_effect_are_said(tmp_path, capsys, options, unused):
    with pytest.raises(DataError):  # there is no such folder
        fit_file(spec_with("inspect_fit", good=tmp_path / "none", inspector=tmp_path / "p.inspector", **options))
    said = capsys.readouterr().err
    assert f"not used: {unused}" in said if unused else "not used" not in said


def test_overlays_without_a_results_folder_are_said_to_be_unused(tmp_path, capsys):
    inspector = fitted_inspector()
    inspector.save(tmp_path / "p.inspector")
    images = write_images(tmp_path / "test", [draw_part(800)])
    inspect(spec_with("inspect_run", inspector=tmp_path / "p.inspector", images=[images], overlays="all"))
    assert "not used: overlays" in capsys.readouterr().err
