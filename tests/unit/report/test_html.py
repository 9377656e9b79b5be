import math
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from unalike.errors import RunError
from unalike.metrics.intervals import Interval
from unalike.report.html import Report, Tile, thumbnail

EVIL = "<script>alert('x')</script>\" & Müller"


class Balance(HTMLParser):
    """Open and closed tags, without the void ones."""

    def __init__(self):
        super().__init__()
        self.stack = []

    def handle_starttag(self, tag, attrs):
        if tag not in ("meta", "img", "br"):
            self.stack.append(tag)

    def handle_startendtag(self, tag, attrs):
        pass

    def handle_endtag(self, tag):
        assert self.stack.pop() == tag


def whole_report(image):
    interval = Interval(0.7, 0.6, 0.8)
    report = Report(EVIL, EVIL)
    report.figures([(EVIL, interval), ("n", 12), ("none", None)], note=EVIL)
    report.comparison([(EVIL, interval, Interval(0.9, 0.85, 0.95), Interval(0.2, 0.1, 0.3))], before=EVIL)
    report.comparison([("same", interval, Interval(0.7, math.nan, math.nan), Interval(0.0, -0.1, 0.1))])
    report.curves(
        "Learning", {EVIL: {EVIL: [(0, 1.0), (1, float("nan")), (2, 0.5)]}, "flat": {"one": [(1, 1)]}, "no": {}}
    )
    report.gallery(EVIL, [(Tile(image, EVIL), [Tile(image, EVIL, 0.91, True), Tile(image, "b", 0.5, False)])])
    report.gallery("Misses", [])
    report.table(EVIL, [{"class": EVIL, "n": 3, "share": 0.25, "left": None}] * 4, most=3)
    return report.table("nothing", [])


def test_one_self_contained_file_with_everything_escaped(tmp_path):
    path = tmp_path / "picture ü.png"
    Image.new("RGB", (300, 80), "red").save(path)
    text = whole_report(path).write(tmp_path / "deep" / "report.html").read_text(encoding="utf-8")
    assert "<script" not in text and "&lt;script&gt;" in text
    assert not re.search(r"(src|href)=.?(http|//|/|\.)", text) and "url(" not in text
    parser = Balance()
    parser.feed(text)
    assert parser.stack == []
    for words in ("higher", "not told apart", "0.600 to 0.800", "None.", "1 more rows", "No values."):
        assert words in text
    assert text.count("class=' hit'") == 1 and text.count("class=' miss'") == 1


def test_thumbnails_are_small_and_never_fail(tmp_path):
    noise = np.random.default_rng(0).integers(0, 255, (900, 1200, 3), dtype=np.uint8)
    assert len(thumbnail(noise)) < 20_000
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"no picture")
    for picture in (Image.new("RGBA", (9, 9)), np.zeros((4, 4), np.uint8), broken, tmp_path / "absent.png"):
        assert thumbnail(picture).startswith("data:image/jpeg;base64,")


def test_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError):
        Report("t").write(tmp_path / "file" / "report.html")
