"""Faults while files are written: kills, a full disk, writers and readers at one moment, files copied over in place.

A few rounds of each; with the mark ``slow`` there are many.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.support import networks
from unalike.cli import run_command
from unalike.recognition.gallery import Gallery
from unalike.recognition.recognizer import Recogniser

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals and limits of POSIX")

PROLOGUE = """
import os, sys, resource
import numpy as np
from unalike.errors import UnalikeError
from unalike.recognition.gallery import Gallery
path = sys.argv[1]
"""
EDITOR = (
    PROLOGUE
    + """
number = 0
while True:
    with Gallery.edit(path) as gallery:
        gallery.enrol(np.full((1, 64), 1.0 + number), [f"{sys.argv[2]} {number}"])
    print(number, flush=True)
    number += 1
"""
)
READER = (
    PROLOGUE
    + """
from pathlib import Path
while not Path(path + ".stop").exists():
    gallery = Gallery.load(path, verify=True)
    assert gallery.search(np.ones((2, 64)), 3).scores_QK.shape == (2, 3)
    assert len(gallery.names) == len(gallery) == len(gallery.labels)
"""
)
LIMITED = (
    PROLOGUE
    + """
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), resource.RLIM_INFINITY))
try:
    with Gallery.edit(path) as gallery:
        gallery.enrol(np.ones((100, 64)), ["new"] * 100)
except UnalikeError as error:
    print(error)
    sys.exit(7)
"""
)
COPIED_OVER = (
    PROLOGUE
    + """
gallery, queries, answers = Gallery.load(path), np.random.default_rng(9).normal(size=(4, 64)), 0
versions = [Gallery.load(name) for name in sys.argv[2:]]
expected = [version.search(queries, 5) for version in versions]
print("ready", flush=True)
from pathlib import Path
while not Path(path + ".stop").exists():
    try:
        result = gallery.search(queries, 5)
    except UnalikeError as error:
        assert "overwritten" in str(error), error
        try:
            gallery.reload()
        except UnalikeError:
            pass  # half copied
        continue
    answers += 1
    assert any(np.array_equal(result.scores_QK, e.scores_QK) and result.labels_QK == e.labels_QK for e in expected)
assert answers
"""
)


def run(code: str, *words: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, words)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def make(path: Path, count: int = 2000, seed: int = 0) -> Path:
    gallery = Gallery(64)
    vectors_ND = np.random.default_rng(seed).normal(size=(count, 64))
    gallery.enrol(vectors_ND, [f"c{i % 20} of {seed}" for i in range(count)], [f"{i}.jpg" for i in range(count)])
    return gallery.save(path)


TERMINATED = (
    PROLOGUE
    + """
from pathlib import Path
from unalike import cli
from unalike.cli.signals import end_in_order
kind, path = sys.argv[2], Path(path)
if kind in ("gallery", "journal"):
    def save(number):
        with Gallery.edit(path) as gallery:
            gallery.enrol(np.full((1, 64), 1.0 + number), [f"new {number}"])
            if kind == "gallery":
                gallery.store(half=number % 2 == 0)
elif kind == "checkpoint":
    import torch
    from unalike.model.checkpoint import write_checkpoint
    def save(number):
        write_checkpoint(path, {"state": {"w": torch.full((200_000,), float(number))}})
elif kind == "inspector":
    from tests.support.inspected_parts import fitted_inspector
    inspector = fitted_inspector()
    def save(number):
        inspector.save(path)
else:
    from unalike.recognition.model_identity import ModelIdentity
    from unalike.verification.approved_set import ApprovedSet
    from tests.support.marks import mark
    gallery = Gallery(64, ModelIdentity(np.ones(64, np.float32)))
    gallery.enrol(np.ones((8, 64)), ["m"] * 8)
    approved = ApprovedSet((mark(0),), gallery, None, b"x" * 2_000_000)
    def save(number):
        approved.save(path)

def save_again_and_again(**unused):
    save(0)
    print("ready", flush=True)
    for number in range(1, 10**6):
        save(number)

cli.app = save_again_and_again
end_in_order()
sys.exit(cli.run_command(["train"]))
"""
)


def open_saved(kind: str, path: Path) -> None:
    if kind in ("gallery", "journal"):
        assert len(Gallery.load(path, verify=True)) >= 2000
    elif kind == "checkpoint":
        from unalike.model.weight_files import read_content

        values = read_content(path)["state"]["w"]
        assert len(values) == 200_000 and values.min() == values.max()
    elif kind == "inspector":
        from unalike.inspection.inspector import Inspector

        assert Inspector.load(path).threshold is not None
    else:
        from unalike.verification.approved_set import ApprovedSet

        assert ApprovedSet.load(path).names


@pytest.mark.parametrize(
    ("kind", "kills"),
    [
        *((kind, 2) for kind in ("gallery", "journal", "checkpoint", "set")),
        *(
            pytest.param(kind, 25, marks=pytest.mark.slow)
            for kind in ("gallery", "journal", "checkpoint", "inspector", "set")
        ),
    ],
)
def test_a_term_in_mid_save_leaves_a_complete_file_and_no_other(tmp_path, kind, kills):
    path, draws = tmp_path / "g", random.Random(kills)
    if kind in ("gallery", "journal"):
        make(path)
    for _ in range(kills):
        writer = run(TERMINATED, path, kind)
        assert writer.stdout.readline() == "ready\n", writer.communicate()[1]
        time.sleep(draws.uniform(0, 0.2))
        writer.send_signal(signal.SIGTERM)
        message = writer.communicate(timeout=120)[1]
        assert (writer.returncode, message.splitlines()[-1]) == (143, "error: stopped by SIGTERM")
        open_saved(kind, path)
    assert os.listdir(tmp_path) == ["g"]


@pytest.mark.parametrize("kills", [3, pytest.param(25, marks=pytest.mark.slow)])
def test_what_was_acknowledged_before_a_kill_is_there(tmp_path, kills):
    path, draws, acknowledged = make(tmp_path / "g"), random.Random(0), set()
    for number in range(kills):
        editors = [run(EDITOR, path, f"{number} {name}") for name in "ab"]
        for editor in editors:
            editor.stdout.readline()
        time.sleep(draws.uniform(0, 0.2))
        for editor in editors:
            editor.send_signal(signal.SIGKILL)
        for name, editor in zip("ab", editors, strict=True):
            lines = 1 + len(editor.communicate()[0].splitlines())
            acknowledged |= {f"{number} {name} {line}" for line in range(lines)}
        assert acknowledged <= set(Gallery.load(path, verify=True).classes)
    with Gallery.edit(path) as gallery:
        gallery.enrol(np.ones((1, 64)), ["last"])
    assert os.listdir(tmp_path) == ["g"]  # no half file of a killed process


@pytest.mark.parametrize("seconds", [1.5, pytest.param(30, marks=pytest.mark.slow)])
def test_readers_beside_writers_find_complete_galleries(tmp_path, seconds):
    path = make(tmp_path / "g")
    readers, editors = [run(READER, path) for _ in range(2)], [run(EDITOR, path, name) for name in "ab"]
    for editor in editors:
        editor.stdout.readline()
    time.sleep(seconds)
    Path(f"{path}.stop").touch()
    for reader in readers:
        assert reader.wait(timeout=60) == 0, reader.communicate()[1][-2000:]
    for editor in editors:
        editor.kill()
        editor.communicate()


@pytest.mark.parametrize("step", [200_000, pytest.param(16381, marks=pytest.mark.slow)])
def test_a_full_disk_is_one_line_and_leaves_the_old_gallery(tmp_path, step):
    path = make(tmp_path / "g")
    content = path.read_bytes()
    for limit in range(0, len(content), step):
        full = run(LIMITED, path, limit)
        message = full.communicate()[0]
        assert full.returncode == 7 and message.count("\n") == 1 and "cannot be written: File too large" in message
        assert path.read_bytes() == content and os.listdir(tmp_path) == ["g"]


@pytest.mark.parametrize("copies", [20, pytest.param(500, marks=pytest.mark.slow)])
def test_a_service_lives_through_files_that_are_copied_over_its_gallery(tmp_path, copies):
    versions = [make(tmp_path / "one"), make(tmp_path / "two", 300, 1), make(tmp_path / "three", 2000, 2)]
    live = tmp_path / "live"
    live.write_bytes(versions[0].read_bytes())
    service = run(COPIED_OVER, live, *versions)
    service.stdout.readline()
    for number in range(copies):
        subprocess.run(["cp", versions[number % 3], live], check=True)
        time.sleep(0.01)
    Path(f"{live}.stop").touch()
    assert service.wait(timeout=60) == 0, service.communicate()[1][-2000:]


@pytest.mark.parametrize("processes", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_commands_at_one_moment_lose_nothing(tmp_path, processes):
    """add, rename, remove and merge on one gallery."""
    model, folder = networks.write_model(tmp_path), tmp_path / "images"
    for number in range(6):
        (folder / f"k{number}").mkdir(parents=True)
        for image in range(2):
            pixels_HWC = networks.pictures(1, seed=10 * number + image)[0]
            Image.fromarray(pixels_HWC).save(folder / f"k{number}" / f"{image}.png")
    recognizer = Recogniser.load(model, precision="fp32")
    recognizer.enrol(folder)
    path = recognizer.gallery.save(tmp_path / "g")
    commands = [
        *(["add", path, folder / f"k{number}", "--label", f"new{number}", "-m", model] for number in range(3)),
        ["rename", path, "k0", "renamed"], ["remove", path, "k1"], ["merge", path, "k2", "k3", "--into", "k3"],
    ]  # fmt: skip
    if not processes:  # the same functions, in threads of this process
        with ThreadPoolExecutor(6) as pool:
            assert list(pool.map(lambda words: run_command(["gallery", *map(str, words)]), commands)) == [0] * 6
    else:
        program = [sys.executable, "-m", "unalike", "gallery"]
        started = [
            subprocess.Popen([*program, *map(str, words)], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
            for words in commands
        ]
        for process in started:
            assert process.wait(timeout=120) == 0, process.communicate()[1]
    assert Gallery.load(path, verify=True).counts() == {
        "renamed": 2, "k3": 4, "k4": 2, "k5": 2, "new0": 2, "new1": 2, "new2": 2,
    }  # fmt: skip
