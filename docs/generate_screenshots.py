"""Take the screenshots of docs/reports.md: every kind of page, or those that are named, narrow and wide; see ``make screenshots``.

The pages are those that the tests in a browser open, from drawn images (tests/support/report_pages.py).
"""

from __future__ import annotations

import io
import sys
import tempfile
from pathlib import Path

from PIL import Image

DOCS = Path(__file__).resolve().parent
PICTURES = DOCS / "pictures" / "pages"
# Width of the window and the most of a page's height that is shown, in pixels; the most bytes of a picture.
SIZES = ((390, 1700), (1440, 1500))
MAX_BYTES = 150_000


def encode(picture: Image.Image, limit: int = MAX_BYTES) -> bytes:
    """A JPEG file of at most ``limit`` bytes, of the best quality that this allows."""
    for quality in range(82, 20, -8):
        file = io.BytesIO()
        picture.save(file, "JPEG", quality=quality, optimize=True, progressive=True)
        if file.tell() <= limit:
            break
    return file.getvalue()


def main(names: list[str]) -> int:
    """Write the pictures of these pages, of all without a name; 1 without a browser."""
    sys.path.insert(0, str(DOCS.parent))
    from playwright.sync_api import sync_playwright

    from tests.support.chromium import find_chromium
    from tests.support.report_pages import PAGES

    chromium = find_chromium()
    if chromium is None:
        print("no Chromium on the PATH and none in CHROMIUM", file=sys.stderr)
        return 1
    PICTURES.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright, tempfile.TemporaryDirectory() as folder:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        for name in names or PAGES:
            address = PAGES[name](Path(folder) / name).path.resolve().as_uri()
            for width, most in SIZES:
                tab = browser.new_page(viewport={"width": width, "height": 900}, color_scheme="light")
                tab.goto(address)
                picture = Image.open(io.BytesIO(tab.screenshot(full_page=True))).convert("RGB")
                tab.close()
                picture = picture.crop((0, 0, picture.width, min(picture.height, most)))
                (PICTURES / f"{name}-{width}.jpg").write_bytes(encode(picture))
        browser.close()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
