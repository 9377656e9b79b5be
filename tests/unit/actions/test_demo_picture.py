"""The picture of answers shows each query beside its nearest reference, and marks wrong classes."""

import json

import numpy as np
import pytest
from PIL import Image

from unalike.actions import demo_picture


@pytest.fixture
def lines(tmp_path):
    rows = []
    for number, (truth, answer) in enumerate((("mug", "mug"), ("cup", "mug"), ("bowl", "b" * 80))):
        path, reference = tmp_path / truth / f"{number}.png", tmp_path / f"reference {number}.png"
        path.parent.mkdir()
        Image.new("RGB", (20, 20), (0, 255, 0)).save(path)
        Image.new("RGB", (20, 20), (255, 0, 255)).save(reference)
        neighbor = {"reference": str(reference), "label": answer, "score": 0.5}
        rows.append({"path": str(path), "neighbours": [neighbor]})
    return rows


def test_pairs_are_framed_by_whether_the_answer_is_right(lines):
    sheet = np.asarray(demo_picture.draw_answers(lines))
    width = 2 * demo_picture.SIDE + 2 * demo_picture.GAP
    for number, color in enumerate((demo_picture.RIGHT, demo_picture.WRONG, demo_picture.WRONG)):
        x, y = demo_picture.GAP + number * width, demo_picture.LINE
        assert tuple(sheet[y, x]) == color
        middle = y + demo_picture.SIDE // 2
        assert tuple(sheet[middle, x + 20]) == (0, 255, 0)
        assert tuple(sheet[middle, x + demo_picture.SIDE + 10]) == (255, 0, 255)


def test_the_file_holds_pairs_from_the_whole_list(lines, tmp_path, monkeypatch):
    seen = []
    draw = demo_picture.draw_answers
    monkeypatch.setattr(demo_picture, "draw_answers", lambda chosen: seen.extend(chosen) or draw(chosen))
    many = [{**lines[number % 3], "number": number} for number in range(40)]
    (tmp_path / "result.jsonl").write_text("".join(json.dumps(line) + "\n" for line in many))
    path = demo_picture.write_answers(tmp_path / "answers.png", tmp_path / "result.jsonl")
    assert Image.open(path).format == "PNG"
    assert len(seen) == demo_picture.PAIRS and seen[-1]["number"] > 30


def test_names_of_several_lines_are_drawn_in_one(lines):
    """Pillow measures no text of several lines."""
    lines[0]["neighbours"][0]["label"] = "mug\n\x1b[2Jmug"
    assert demo_picture.draw_answers(lines).size == demo_picture.draw_answers(lines[1:] + lines[:1]).size
