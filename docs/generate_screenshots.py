"""Take the screenshots of docs/reports.md and docs/workbench.md: all pages, or those that are named; see ``make screenshots``.

Reports are taken narrow and wide, pages of the workbench in light and dark too. They show drawn images
(tests/support/report_pages.py and workbench_pages.py).
"""

from __future__ import annotations

import io
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

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


def take(browser: Any, address: str, name: str, schemes: Sequence[str] = ("light",)) -> None:
    """Write the pictures of one page."""
    for scheme in schemes:
        for width, most in SIZES:
            tab = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
            tab.goto(address, wait_until="networkidle")
            picture = Image.open(io.BytesIO(tab.screenshot(full_page=True))).convert("RGB")
            tab.close()
            picture = picture.crop((0, 0, picture.width, min(picture.height, most)))
            suffix = "" if len(schemes) == 1 else f"-{scheme}"
            (PICTURES / f"{name}-{width}{suffix}.jpg").write_bytes(encode(picture))


def main(names: list[str]) -> int:
    """Write the pictures of these pages, of all without a name; 1 without a browser."""
    sys.path.insert(0, str(DOCS.parent))
    from playwright.sync_api import sync_playwright

    from tests.support.chromium import find_chromium
    from tests.support.report_pages import PAGES as REPORTS
    from tests.support.workbench_pages import PAGES, shown_workbench

    chromium = find_chromium()
    if chromium is None:
        print("no Chromium on the PATH and none in CHROMIUM", file=sys.stderr)
        return 1
    PICTURES.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright, tempfile.TemporaryDirectory() as folder:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        for name in REPORTS:
            if not names or name in names:
                take(browser, REPORTS[name](Path(folder) / name).path.resolve().as_uri(), name)
        workbench_names = [name for name in PAGES if not names or f"workbench-{name}" in names]
        if workbench_names:
            Path(folder, "workbench").mkdir()
            with shown_workbench(Path(folder, "workbench")) as service:
                for name in workbench_names:
                    take(browser, service.address + PAGES[name], f"workbench-{name}", ("light", "dark"))
        browser.close()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
