import math
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import unalike.report
from unalike.errors import RunError
from unalike.metrics.intervals import Interval
from unalike.report.html import Report, ReportImage, thumbnail_uri
from unalike.report.plots import ScatterPlot

TEMPLATES = Path(unalike.report.__file__).parent / "templates"
EVIL = "<script>alert('x')</script>\" & Müller\n{{ 7 * 7 }} {% raw %} {# \udcff"


class Balance(HTMLParser):
    """Open and closed tags, without the void ones."""

    def __init__(self):
        super().__init__()
        self.stack: list[str] = []
        self.texts: list[str] = []

    def handle_data(self, data):
        self.texts.append(data)

    def handle_starttag(self, tag, attrs):
        assert tag != "script" and not any(name.startswith("on") for name, _ in attrs)
        self.texts += [value for _, value in attrs]
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
    report.gallery(
        EVIL, [(ReportImage(image, EVIL), [ReportImage(image, EVIL, 0.91, True), ReportImage(image, "b", 0.5, False)])]
    )
    report.gallery("Misses", [], note=EVIL)
    report.gallery("link", [(ReportImage(image, EVIL), [])], link=("a b/'<x>\".html", EVIL))
    report.image_pairs(EVIL, [(ReportImage(image, EVIL), ReportImage(image, EVIL), EVIL)], note=EVIL)
    report.large_images(EVIL, [(EVIL, EVIL, [(EVIL, b"jpeg")])], note=EVIL)
    places_N2, labels_N, ringed_N = np.eye(3)[:, :2], np.array([0, 0, 1]), np.array([True, False, False])
    report.scatter(EVIL, ScatterPlot.from_points(places_N2, labels_N, [EVIL, "<b>"], [EVIL] * 3, ringed_N), note=EVIL)
    report.table(EVIL, [{"class": EVIL, "n": 3, "share": 0.25, "left": None}] * 4, max_rows=3)
    return report.table("nothing", [])


def test_one_self_contained_file(tmp_path):
    path = tmp_path / "picture ü.png"
    Image.new("RGB", (300, 80), "red").save(path)
    written = whole_report(path).write(tmp_path / "deep" / "report.html")
    text = written.read_text(encoding="utf-8", errors="surrogateescape")
    assert not re.search(r"(src|href)=.?(http|//|/|\.)", text) and "url(" not in text
    parser = Balance()
    parser.feed(text)
    assert parser.stack == []
    for words in ("higher", "no clear difference", "0.600 to 0.800", "None.", "1 more rows", "No values."):
        assert words in text
    assert text.count('class=" correct"') == 1 and text.count('class=" wrong"') == 1


def test_hostile_texts_are_escaped_in_every_kind_of_section(tmp_path):
    path = tmp_path / "<img src=x onerror=alert(1)>'.png"
    Image.new("RGB", (30, 80), "red").save(path)
    report = whole_report(path)
    templates = {file.name for file in TEMPLATES.iterdir() if file.suffix == ".j2"}
    shared = {"page.html.j2", "report.html.j2", "image.html.j2"}
    assert {section["template"] for section in report._sections} == templates - shared, "the sample has every section"
    text = report.html()
    assert "<script" not in text and "<img src=x" not in text
    parser = Balance()
    parser.feed(text)
    # The parser reads every text back as it was given: neither executed nor escaped twice.
    evil = [shown for shown in parser.texts if "script" in shown or "7 * 7" in shown]
    assert len(evil) > 40 and all(EVIL in shown or shown == f"{EVIL[:23]}…" for shown in evil)
    assert f"{path.parent.name}/{path.name}" in parser.texts and "a%20b/%27%3Cx%3E%22.html" in parser.texts


def test_jinja2_is_imported_when_a_page_is_written():
    code = "import sys; import unalike.report.html, unalike.report.evaluation; assert 'jinja2' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_thumbnails_are_small_and_never_fail(tmp_path):
    noise = np.random.default_rng(0).integers(0, 255, (900, 1200, 3), dtype=np.uint8)
    assert len(thumbnail_uri(noise)) < 20_000
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"no picture")
    for picture in (Image.new("RGBA", (9, 9)), np.zeros((4, 4), np.uint8), broken, tmp_path / "absent.png"):
        assert thumbnail_uri(picture).startswith("data:image/jpeg;base64,")


def test_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError):
        Report("t").write(tmp_path / "file" / "report.html")
