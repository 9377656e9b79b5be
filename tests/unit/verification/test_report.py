"""The report: names are escaped, and images of what is not the same are written."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from tests.support.marks import mark, render_mark
from unalike.verification.report import write_report
from unalike.verification.tampering import tamper
from unalike.verification.verifier import Verifier


def test_the_page_and_its_images(verifier: Verifier, tmp_path: Path) -> None:
    tampered = tamper(mark(1), "part-missing", np.random.default_rng(3))
    results = []
    for name, image in (("ok", render_mark(0, 1)), ("<odd>", render_mark(1, 9, tampered.layer_HW4))):
        path = tmp_path / f"{name}.png"
        Image.fromarray(image).save(path)
        results.append((path, verifier.verify(path)))
    text = write_report(tmp_path / "out", verifier.approved, results).read_text()
    assert "&lt;odd&gt;.png" in text and "<odd>" not in text and "src='http" not in text
    assert "Of 2 images, 1 shows an approved asset as it is and 1 shows an altered one." in text
    assert "✓ same" in text and "✗ altered" in text
    lines = (tmp_path / "out/verdicts.jsonl").read_text().splitlines()
    assert len(lines) == 2 and '"answer": "altered"' in lines[1]
    assert {p.name for p in (tmp_path / "out").iterdir()} == {
        "verdicts.jsonl", "report.html", "<odd>.overlay.png", "<odd>.parts.png",
    }  # fmt: skip


def test_images_of_one_name_get_a_number(verifier: Verifier, tmp_path: Path) -> None:
    image = render_mark(40, 2)  # no mark of the set
    paths = [tmp_path / folder / "photo.png" for folder in ("a", "b")]
    for path in paths:
        path.parent.mkdir()
        Image.fromarray(image).save(path)
    write_report(tmp_path / "out", verifier.approved, [(path, verifier.verify(path)) for path in paths])
    assert {path.name for path in (tmp_path / "out").glob("*.png")} == {"photo.overlay.png", "photo-2.overlay.png"}
