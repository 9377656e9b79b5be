"""Files are opened without changing Pillow's settings for the rest of the process."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import threading
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFile, features

from tests.support.forks import code_in_child, while_another_thread_is_inside
from unalike.data import pillow
from unalike.data.decode import decode
from unalike.data.pillow import local_settings, open_file
from unalike.errors import UnreadableImage


def test_importing_and_decoding_leave_the_settings_of_the_process(tmp_path: Path) -> None:
    Image.new("RGB", (9, 9)).save(tmp_path / "a.png")
    program = (
        "import warnings, numpy; from PIL import Image, ImageFile; ImageFile.LOAD_TRUNCATED_IMAGES = True\n"
        "state = lambda: (list(warnings.filters), Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES)\n"
        "before = state(); import unalike; from unalike.data.decode import decode; from unalike.data.view import View\n"
        "assert state() == before\n"
        "decode('a.png'); View(8, 8)('a.png')\n"
        "try: decode(b'nothing')\n"
        "except unalike.UnalikeError: pass\n"
        "assert state() == before, state()"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], check=False, cwd=tmp_path, env=os.environ, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_settings_are_restored_when_the_last_thread_leaves() -> None:
    before, inside, leave = list(warnings.filters), threading.Event(), threading.Event()

    def stay() -> None:
        with local_settings():
            inside.set()
            leave.wait(10)

    thread = threading.Thread(target=stay)
    thread.start()
    inside.wait(10)
    with local_settings():
        assert len(warnings.filters) == len(before) + 1
    assert len(warnings.filters) == len(before) + 1
    leave.set()
    thread.join()
    assert list(warnings.filters) == before


@pytest.mark.parametrize("block", [local_settings(), pillow._lock], ids=["reading", "beginning to read"])
def test_a_process_that_is_forked_while_another_thread_reads_has_the_settings_of_before(block) -> None:
    filters = list(warnings.filters)

    def decodes() -> bool:
        is_restored = warnings.filters == filters and pillow._readers_inside == 0
        content = io.BytesIO()
        Image.new("RGB", (8, 8)).save(content, "PNG")
        return is_restored and decode(content.getvalue()).shape == (8, 8, 3) and warnings.filters == filters

    assert while_another_thread_is_inside(block, lambda: code_in_child(decodes)) == 0
    assert warnings.filters == filters


def test_truncated_files_are_refused_and_the_setting_comes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)).save(stream, "PNG")
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    with pytest.raises(UnreadableImage):
        decode(stream.getvalue()[:5000])
    assert ImageFile.LOAD_TRUNCATED_IMAGES


def test_only_regular_files_of_known_formats_are_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo.png")
    with pytest.raises(UnreadableImage, match=r"fifo\.png"):
        open_file(tmp_path / "fifo.png")
    with pytest.raises(UnreadableImage, match="PostScript"):
        open_file(b"%!PS-Adobe-3.0 EPSF-3.0\n" + b" " * 100)


@pytest.mark.skipif(not features.check("avif"), reason="this Pillow reads no AVIF")
def test_avif() -> None:
    stream = io.BytesIO()
    Image.new("RGB", (64, 48), (200, 40, 90)).save(stream, "AVIF", quality=95)
    pixels = decode(stream.getvalue())
    assert pixels.shape == (48, 64, 3) and np.abs(pixels.astype(int) - (200, 40, 90)).max() < 8


def test_heic_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(UnreadableImage, match=r"HEIC.*install .*\[heif\]'"):
        decode(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic")
