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
from unalike.report.html import FIRST_ROWS, LargeImages, Report, ReportImage, thumbnail_uri
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
    report = Report(EVIL, EVIL).sentence(EVIL).sentence(EVIL)
    report.figures([(EVIL, interval, EVIL), ("n", 12), ("none", None)], note=EVIL)
    report.comparison([(EVIL, interval, Interval(0.9, 0.85, 0.95), Interval(0.2, 0.1, 0.3), EVIL)], before=EVIL)
    report.comparison([("same", interval, Interval(0.7, math.nan, math.nan), Interval(0.0, -0.1, 0.1))])
    report.curves(
        "Learning", {EVIL: {EVIL: [(0, 1.0), (1, float("nan")), (2, 0.5)]}, "flat": {"one": [(1, 1)]}, "no": {}}
    )
    report.gallery(
        EVIL, [(ReportImage(image, EVIL), [ReportImage(image, EVIL, 0.91, True, EVIL), ReportImage(image, "b", 0.5, False)])],
        columns=(EVIL, EVIL), score=EVIL,
    )  # fmt: skip
    report.gallery("Misses", [], note=EVIL)
    report.gallery("link", [(ReportImage(image, EVIL), [])], link=("a b/'<x>\".html", EVIL))
    report.image_pairs(
        EVIL, [(ReportImage(image, EVIL), ReportImage(image, EVIL), EVIL)], note=EVIL, columns=(EVIL, EVIL)
    )
    report.large_images(EVIL, [LargeImages(EVIL, EVIL, [(EVIL, b"jpeg")], True, EVIL)], note=EVIL)
    places_N2, labels_N, ringed_N = np.eye(3)[:, :2], np.array([0, 0, 1]), np.array([True, False, False])
    report.scatter(EVIL, ScatterPlot.from_points(places_N2, labels_N, [EVIL, "<b>"], [EVIL] * 3, ringed_N), note=EVIL)
    report.table(EVIL, [{"class": EVIL, "n": 3, "share": 0.25, "left": None}] * 4, max_rows=3, folded=True, stack=True)
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
    assert ">✗ wrong<" in text and text.count(">✓ ") == 2, "a mark and a word, not color alone"


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


def test_rows_after_the_first_and_technical_sections_are_folded():
    tile = ReportImage(np.zeros((4, 4, 3), np.uint8), "tile")
    text = Report("t").gallery("g", [(tile, [tile])] * (FIRST_ROWS + 2)).table("Heads", [{"a": 1}], folded=True).html()
    shown, more, heads = text.split("<details")
    assert (
        shown.count('<div class="row">') == FIRST_ROWS
        and more.count('<div class="row">') == 2
        and "2 more</summary>" in more
    )
    assert "<summary><h2>Heads</h2></summary>" in heads and heads.index("<table") < heads.index("</details>")


def test_the_columns_of_a_gallery_are_headed_and_its_scores_have_a_name():
    tile = ReportImage(np.zeros((4, 4, 3), np.uint8), "tile", 0.5)
    text = (
        Report("t")
        .gallery("g", [(tile, [tile, tile, tile])], columns=("query", "taken for", "others"), score="score")
        .html()
    )
    assert re.findall(r'class="role">([^<]+)', text) == ["query", "taken for", "others", "others"]
    assert text.count("<small>score 0.500</small>") == 4


def test_every_image_has_an_address_of_its_own_by_which_it_is_enlarged():
    tile = ReportImage(np.zeros((4, 4, 3), np.uint8), "tile")
    report = Report("t").gallery("g", [(tile, [tile])]).image_pairs("p", [(tile, tile, "")])
    text = report.large_images("l", [LargeImages("a", "", [("b", b"jpeg")])]).html()
    assert re.findall(r'class="zoom" id="(p\d)" href="#\1"', text) == [f"p{n}" for n in range(1, 6)]
    assert (
        re.findall(r'<figure id="(f\d)"', text)
        == re.findall(r'class="close" href="#(f\d)"', text)
        == [f"f{n}" for n in range(1, 6)]
    )


def test_images_after_the_first_of_a_page_are_small(monkeypatch):
    monkeypatch.setattr("unalike.report.html.LARGE_IMAGES", 1)
    noise = ReportImage(np.random.default_rng(0).integers(0, 255, (400, 400, 3), dtype=np.uint8), "")
    first, second = re.findall(r'src="(data:[^"]+)', Report("t").gallery("g", [(noise, [noise])]).html())
    assert len(first) > 4 * len(second)


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
