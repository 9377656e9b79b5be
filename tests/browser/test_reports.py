"""Reports in a browser, narrow and wide, light and dark: nothing is cut off, nothing violates WCAG 2.1 AA, nothing is loaded."""

from __future__ import annotations

import numpy as np
import pytest

from tests.browser.view import SHAPES, view_page
from tests.support.drawings import shapes
from unalike.metrics.intervals import Interval
from unalike.report.html import LargeImages, Report, ReportImage
from unalike.report.plots import ScatterPlot

LONG = "a_class_name_without_any_space_that_is_longer_than_a_telephone_is_wide_" * 2


def report_of_every_section() -> Report:
    """A report with every kind of section, with names as long as they come."""
    report = (
        Report("Every section", f"a folder: /{LONG}").sentence("Of 100 images, 88 get the right name.").sentence(LONG)
    )
    image, share = ReportImage(shapes(), LONG, 0.9), Interval(0.7, 0.6, 0.8)
    wrong, right = ReportImage(shapes(1), LONG, 0.8, False), ReportImage(shapes(2), "b", 0.7, True, "good")
    report.figures([("R@1", share, "322 queries, 14 classes"), (LONG, LONG), ("n", 3)], note=LONG)
    report.comparison([("R@1", share, Interval(0.9, 0.85, 0.95), Interval(0.2, 0.1, 0.3), "322 queries"),
                       ("few", share, share, Interval(0.0, -0.9, 0.9, 2.0)),
                       ("less", share, share, Interval(-0.2, -0.3, -0.1))], before="frozen trunk", after=LONG)  # fmt: skip
    report.gallery("Misses", [(image, [wrong, right])] * 8, columns=("query", "taken for", "right"), note=LONG)
    report.gallery("Hits", [(image, [right] * 9)], link=("more.html", "All"))
    report.gallery("Nothing", [])
    report.image_pairs("Pairs", [(image, right, LONG)] * 3, columns=("one", "another"))
    report.large_images("Large", [LargeImages(LONG, LONG, [(LONG, jpeg()), ("b", jpeg())], False, "different")])
    lines = {f"line {n}": [(x, n + x) for x in range(5)] for n in range(7)}
    report.curves("Curves", {"training loss": lines, "nothing": {}}, x_name="epoch")
    labels_N = np.arange(300) % 64
    places_N2 = np.random.default_rng(0).normal(size=(64, 2))[labels_N] * 4 + np.random.default_rng(1).normal(
        size=(300, 2)
    )
    report.scatter(
        "Map",
        ScatterPlot.from_points(places_N2, labels_N, [f"class {n}" for n in range(64)], ["p"] * 300, labels_N == 3),
    )
    row = {"class": LONG, **{f"column {n}": 0.5 for n in range(9)}, "why": LONG}
    report.table("Table", [row] * 4, max_rows=3).table("Folded", [row], folded=True)
    return report.table("Stacked", [{"name": LONG, "R@1": 0.5, "why": LONG * 2}] * 2, stack=True)


def jpeg() -> bytes:
    """A JPEG file."""
    import io

    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(shapes()).save(file, "JPEG")
    return file.getvalue()


@pytest.mark.parametrize(("width", "scheme"), SHAPES)
def test_every_section_is_shown_whole_and_follows_wcag(browser, tmp_path, width, scheme):
    view = view_page(browser, report_of_every_section().write(tmp_path / "report.html"), width, scheme)
    assert not view.faults(), "\n".join(view.faults())


def test_an_image_is_enlarged_and_closed_again_without_a_script(browser, tmp_path):
    page = browser.new_page(viewport={"width": 390, "height": 800})
    page.goto(report_of_every_section().write(tmp_path / "report.html").as_uri())
    small = page.locator("#p1 img").bounding_box()
    page.locator("#p1").click()
    large = page.locator("#p1 img").bounding_box()
    assert large["width"] > 2 * small["width"] and large["height"] <= 800 and page.locator("#p1 + .close").is_visible()
    page.locator("#p1 + .close").click()
    assert page.locator("#p1 img").bounding_box()["width"] == small["width"]
    assert not page.locator("#p1 + .close").is_visible()
    page.close()


@pytest.mark.parametrize(
    ("html", "fault"),
    [
        ("<div style='width:600px'>wide</div>", "sideways"),
        ("<p style='color:#bbb;background:#fff'>pale</p>", "color-contrast"),
        ("<img src='data:image/gif;base64,R0lGODlhAQABAAAAACw='>", "image-alt"),
        ("<img alt='a' src='http://127.0.0.1:9/a.png'>", "127.0.0.1"),
        ("<script>console.error('oh')</script>", "oh"),
    ],
)
def test_faults_of_a_page_are_found(browser, tmp_path, html, fault):
    path = tmp_path / "page.html"
    path.write_text(f"<!doctype html><html lang=en><title>t</title><main><h1>t</h1><p>t</p>{html}</main></html>")
    assert any(fault in found for found in view_page(browser, path, 390, "light").faults())
