"""Results name images of archives and of remote stores by their source, and what they name can be given again."""

from __future__ import annotations

import functools
import http.server
import json
import tarfile
import threading
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.flow.conftest import draw_class
from tests.support.program import unalike
from tests.unit.training.automatic.test_starting_weights import make_weights
from unalike.data.imageset import load_images
from unalike.recognition.gallery import Gallery
from unalike.runs.filenames import NOTICES_FILE
from unalike.source_names import source_name

CACHE = "the-cache"  # of a name that is found wherever it leaks
CLASSES, EACH = 6, 3
TORCH = ("--runtime", "torch")  # compiled runtimes take longer to start


def pack(folder: Path, archive: Path) -> None:
    with zipfile.ZipFile(archive, "w") as file:
        for path in sorted(folder.rglob("*.png")):
            file.write(path, path.relative_to(folder))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Archives with class folders, one broken image in ``query.zip``, and a checkpoint."""
    root = tmp_path_factory.mktemp("data")
    for part, seed in (("reference", 1), ("query", 2)):
        for number in range(CLASSES):
            draw_class(root / part / f"class {number}", number, EACH, seed)
    (root / "query/class 0/broken.png").write_bytes(b"\x89PNG\r\n\x1a\nno more")
    pack(root / "query", root / "query.zip")
    with tarfile.open(root / "reference.tar.gz", "w:gz") as file:
        file.add(root / "reference", "reference")
    make_weights("linear", root)
    return root


@pytest.fixture(autouse=True)
def in_data(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(data)
    monkeypatch.setenv("UNALIKE_CACHE", str(tmp_path / CACHE))


def run(*arguments: object) -> str:
    """Run a command; nothing that it prints names the cache, but for the line that says where an archive is unpacked."""
    process = unalike(*arguments)
    assert process.returncode == 0, process.stderr[-2000:]
    lines = [line for line in process.stderr.splitlines() if not line.startswith("unpacking ")]
    assert CACHE not in process.stdout and CACHE not in "\n".join(lines)
    return process.stdout


def files_that_name_the_cache(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and CACHE.encode() in path.read_bytes()]


SETS = [
    "dataset.val_dataset.reference=reference.tar.gz",
    "dataset.val_dataset.query=query.zip",
    "dataset.max_unreadable=0.5",
]


def test_evaluate_inference_and_embed(tmp_path: Path) -> None:
    run("evaluate", "-r", tmp_path, "evaluate.checkpoint=own.pth", *SETS)
    run(
        "inference",
        "query.zip",
        "-r",
        tmp_path,
        "inference.checkpoint=own.pth",
        SETS[0],
        SETS[2],
    )
    run("embed", "query.zip", "-m", "own.pth", "-o", tmp_path / "vectors.npz")
    rows = [json.loads(line) for line in (tmp_path / "inference/result.jsonl").read_text().splitlines()]
    assert rows[0]["path"] == "query.zip!class 0/00.png"
    assert rows[0]["neighbours"][0]["reference"].startswith("reference.tar.gz!reference/class ")
    notices = (tmp_path / "evaluate" / NOTICES_FILE).read_text()
    assert (
        "unreadable,query.zip!class 0/broken.png,damaged or cut off: the header of this PNG file cannot be read"
        in notices
    )
    with np.load(tmp_path / "vectors.npz", allow_pickle=False) as content:
        assert str(content["path"][0]) == "query.zip!class 0/00.png"
    import pyarrow.parquet as pq

    table = pq.read_table(tmp_path / "evaluate/predictions.parquet")
    assert table.column("path")[0].as_py() == "query.zip!class 0/00.png"
    assert table.column("nearest_path")[0].as_py().startswith("reference.tar.gz!reference/")
    assert files_that_name_the_cache(tmp_path) == []


def test_galleries_and_their_answers(tmp_path: Path) -> None:
    run("gallery", "build", tmp_path / "g.gallery", "reference.tar.gz", "-m", "own.pth", "--no-calibration", *TORCH)
    assert Gallery.load(tmp_path / "g.gallery").names[0] == "reference.tar.gz!reference/class 0/00.png"
    result = json.loads(run("identify", tmp_path / "g.gallery", "query.zip", "--json", *TORCH))
    assert result["answers"][0]["path"] == "query.zip!class 0/00.png"
    assert result["unreadable"][0]["path"] == "query.zip!class 0/broken.png"
    result = json.loads(run("identify", tmp_path / "g.gallery", "query.zip!class 1/02.png", "--json", *TORCH))
    assert [answer["path"] for answer in result["answers"]] == ["query.zip!class 1/02.png"]


def test_tables_of_discover_and_splits_are_read_again(tmp_path: Path) -> None:
    run("discover", "reference.tar.gz", "-m", "own.pth", "-o", tmp_path / "groups", "--table", "--groups", "4")
    table = load_images(tmp_path / "groups/groups.csv")
    assert len(table) and source_name(table.paths[0]).partition("!")[0] == str(Path.cwd() / "reference.tar.gz")
    run("train", "reference.tar.gz", "-r", tmp_path, "--automl-policy", "off", "train.num_epochs=1", "dataset.workers=1",
        "model.pretrained_model_path=own.pth", "dataset.validation.by=image")  # fmt: skip
    split = load_images(tmp_path / "train/split.csv", split="train")
    assert len(split) and split.paths[0].is_file()
    assert files_that_name_the_cache(tmp_path / "groups") == files_that_name_the_cache(tmp_path / "train") == []


def test_compare_and_inspect(tmp_path: Path) -> None:
    noise = np.random.default_rng(0)
    for number in range(12):
        (tmp_path / "good").mkdir(exist_ok=True)
        pixels = (120 + noise.normal(0, 6, (96, 96, 3))).clip(0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"good/{number:02d}.png")
    pack(tmp_path / "good", tmp_path / "good.zip")
    good, out = tmp_path / "good.zip", tmp_path / "out"
    run("inspect", "fit", good, "-o", out / "i.inspector", "--rate", "0.1")
    result = json.loads(run("inspect", "run", out / "i.inspector", good, "-o", out / "inspected", "--json"))
    assert result["answers"][0]["path"] == f"{good}!00.png"
    result = json.loads(run("compare", good, good, "-o", out / "compared", "--json", *TORCH))
    assert result["pairs"][1]["reference"] == f"{good}!01.png"
    run("compare", f"{good}!00.png", f"{good}!01.png", "-o", out / "pair", *TORCH)
    assert files_that_name_the_cache(out) == []


def test_a_missing_member_is_named() -> None:
    process = unalike("identify", "none.gallery", "query.zip!class 9/1.png")
    assert process.returncode == 1
    process = unalike("compare", "query.zip!class 9/1.png", "query.zip!class 0/00.png")
    assert process.returncode == 1 and "query.zip!class 9/1.png: no such file" in process.stderr


def test_remote_archives_and_files(data: Path, tmp_path: Path) -> None:
    """Archives are named by their address without its password, files of a remote table by theirs."""
    rows = "".join(f"query/class {n}/00.png,c{n}\n" for n in range(3))
    (data / "table.csv").write_text("path,label\n" + rows)
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(data))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        host = f"127.0.0.1:{server.server_port}"
        archive = [source_name(path) for path in load_images(f"http://me:secret@{host}/query.zip").paths]
        table = [source_name(path) for path in load_images(f"http://{host}/table.csv").paths]
        again = load_images(f"http://{host}/query.zip!class 2/00.png", labeled=False)
        run(
            "discover",
            f"http://me:secret@{host}/reference.tar.gz",
            "-m",
            "own.pth",
            "-o",
            tmp_path / "groups",
            "--table",
        )
        server.shutdown()
    assert archive[0] == f"http://***@{host}/query.zip!class 0/00.png"
    assert table == [f"http://{host}/query/class {n}/00.png" for n in range(3)]
    assert source_name(again.paths[0]) == f"http://{host}/query.zip!class 2/00.png"
    assert not [
        path for path in (tmp_path / "groups").rglob("*") if path.is_file() and b"me:secret" in path.read_bytes()
    ]
