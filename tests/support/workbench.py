"""A service in a process of its own, over a small network and a gallery of drawn marks, for tests of its pages in a browser."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from PIL import Image

from tests.support.marks import mark
from tests.support.networks import write_model
from unalike.recognition.gallery import Gallery
from unalike.recognition.recognizer import Recogniser
from unalike.serve.store import open_store

PATIENCE_S = 120
# Class names that a page must show as text: markup, quotes, an override of the direction, a long word.
MARKUP = "<img src=x onerror=alert(1)>\"'&"
BIDI = "photo\u202egnp.exe"
NAMES = ("anchor", MARKUP, BIDI, "w" * 120)


def mark_picture(number: int, turn: float = 0.0) -> bytes:
    """A PNG of mark ``number``, turned by degrees."""
    image = Image.fromarray(mark(number).composite((255, 255, 255))).resize((160, 160))
    stream = io.BytesIO()
    image.rotate(turn, fillcolor=(255, 255, 255)).save(stream, "PNG")
    return stream.getvalue()


def noise_picture(seed: int = 0) -> bytes:
    """A PNG of colored noise, which is near to no mark."""
    stream = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (96, 96, 3), dtype=np.uint8)).save(stream, "PNG")
    return stream.getvalue()


class Workbench:
    """The service; it can be stopped and started again on the same folder and port.

    Attributes:
        address: where it answers.
        folder: holds gallery, store and log.
        secret: of a key with the role admin, or empty.
    """

    def __init__(
        self, folder: Path, *, with_key: bool = False, names: tuple[str, ...] = NAMES, options: tuple[str, ...] = ()
    ) -> None:
        self.folder, self.address, self.secret, self.options = folder, "", "", options
        self._process: subprocess.Popen[str] | None = None
        recognizer = Recogniser.load(write_model(folder), runtime="onnxruntime")
        recognizer.gallery.save(folder / "marks.gallery")
        with open_store(None, folder / "serve") as store:
            if with_key:
                self.secret = store.keys.add("chief", "admin")[1]
        self.start()
        for number, name in enumerate(names):
            turns = [("image", (f"{turn}.png", mark_picture(number, turn), "image/png")) for turn in (0, 8, -8)]
            self.call("POST", "/v1/references", files=turns, data={"label": name if name != BIDI else "photo"})
        if BIDI in names:
            self._rename("photo", BIDI)

    def _rename(self, label: str, new: str) -> None:
        """Rename a class in the gallery's file, as the name of a folder may have it; the service takes no such new name."""
        with Gallery.load(self.folder / "marks.gallery").change() as gallery:
            gallery.rename(label, new)
        end = time.monotonic() + PATIENCE_S
        while new not in self.counts():
            assert time.monotonic() < end, "the service takes over the change"
            time.sleep(0.05)

    def start(self) -> None:
        """Start it, and wait until it answers."""
        port = self.address.rpartition(":")[2] or "0"
        words = ["serve", "-g", f"marks={self.folder / 'marks.gallery'}", "--folder", str(self.folder / "serve"), "--port", port,
                 "--runtime", "onnxruntime", *self.options]  # fmt: skip
        with open(self.folder / "log.txt", "a") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "unalike", *words], stdout=subprocess.PIPE, stderr=log, text=True,
                env={**os.environ, "OMP_NUM_THREADS": "1"},
            )  # fmt: skip
        assert self._process.stdout is not None
        self.address = self._process.stdout.readline().strip()
        assert self.address.startswith("http"), (self.folder / "log.txt").read_text()

    def stop(self) -> None:
        """Stop it by SIGTERM."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            self._process.wait(PATIENCE_S)
            assert self._process.stdout is not None
            self._process.stdout.close()

    def kill(self) -> None:
        """Kill it, as ``kill -9`` does."""
        assert self._process is not None and self._process.stdout is not None
        self._process.kill()
        self._process.wait(PATIENCE_S)
        self._process.stdout.close()

    def restart(self) -> None:
        """Stop it and start it again."""
        self.stop()
        self.start()

    def call(self, method: str, path: str, **options: Any) -> Any:
        """The JSON of an answer of the API."""
        headers = {"Authorization": f"Bearer {self.secret}"} if self.secret else {}
        response = httpx.request(method, self.address + path, headers=headers, timeout=PATIENCE_S, **options)
        assert response.is_success, response.text
        return response.json()

    def counts(self) -> dict[str, int]:
        """Number of references of each class."""
        return {entry["label"]: entry["images"] for entry in self.call("GET", "/v1/classes")["classes"]}


@contextmanager
def workbench(folder: Path, **options: Any) -> Iterator[Workbench]:
    """A running service, which is stopped at the end."""
    service = Workbench(folder, **options)
    try:
        yield service
    finally:
        service.stop()
