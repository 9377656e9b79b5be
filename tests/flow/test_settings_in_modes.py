"""No setting vanishes: each leaf that a mode of an action does not read is one that the program names as not used.

What is read is recorded while tiny runs go through each mode; writing experiment.yaml, validation and the spec's own modules do
not count.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

from tests.support.spec_reads import leaves, recorded_reads
from unalike.actions.unused_settings import AUTOMATIC, PLAIN, SEARCH, UNLABELED, UNUSED, is_unused
from unalike.cli import run_command
from unalike.spec.experiment import Experiment

TRAINING = ("model_name", "results_dir", "automl", "wandb", "train", "model", "dataset")
TINY = ["model.input_height=32", "model.input_width=32", "dataset.workers=1", "train.num_epochs=1"]
SCRATCH = ["model.backbone=test_resnet", "model.pretrained=false"]
CHANNELS = {"model.input_channels"}  # refused unless it is 3


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root, draws = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    for part, count in (("train", 6), ("query", 2)):
        for label in range(8):
            (root / part / f"class {label}").mkdir(parents=True)
            for number in range(count):
                pixels = draws.integers(0, 80, (40, 40, 3)).astype(np.uint8)
                pixels[..., label % 3] += 20 * label
                Image.fromarray(pixels).save(root / part / f"class {label}" / f"{number}.png")
    return root


@pytest.fixture(scope="module")
def model(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("model")
    run("train", photos / "train", "-r", out, *TINY, *SCRATCH, "--automl-policy", "off")
    return out / "train" / "ml_model_best.pth"


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNALIKE_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


def run(*words: object) -> None:
    assert run_command([str(word) for word in words]) == 0, words


def unread(tops: Sequence[str], *lines: Sequence[object]) -> set[str]:
    """The leaves below ``tops`` that none of these command lines reads."""
    with recorded_reads() as reads:
        for words in lines:
            run(*words)
    return {path for path, _ in leaves(Experiment) if path.partition(".")[0] in tops and path not in reads}


def test_plain_training(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wandb = ModuleType("wandb")
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    wandb.init = lambda **_: FakeRun()  # type: ignore[attr-defined]
    plainly = ["--automl-policy", "off", *TINY, *SCRATCH]
    tao = ["train.recipe=tao", f"dataset.val_dataset.reference={photos / 'train'}", "train.checkpointer.enable_topk=true",
           f"dataset.val_dataset.query={photos / 'query'}", "dataset.gaussian_blur.enabled=true"]  # fmt: skip
    ours = ["wandb.enable=true", "train.ema.enabled=true", "train.finish.enabled=true"]
    left = unread(
        TRAINING,
        ("train", photos / "train", "-r", tmp_path / "a", *plainly, *tao),
        ("train", photos / "train", "-r", tmp_path / "b", *plainly, *ours),
    )
    # Partial weights are allowed where weights are named.
    assert left <= {*UNUSED[PLAIN].fields, *CHANNELS, "model.allow_partial_weights"}
    assert left >= set(UNUSED[PLAIN].fields)


class FakeRun:
    """A run of Weights & Biases that goes nowhere."""

    def log(self, *_: object, **__: object) -> None:
        pass

    def finish(self) -> None:
        pass


@pytest.mark.slow
@pytest.mark.parametrize("mode", [AUTOMATIC, UNLABELED])
def test_training_in_a_time_budget(mode: str, photos: Path, tmp_path: Path) -> None:
    options = ["model.input_height=64", "model.input_width=64", "dataset.workers=1", "train.num_epochs=1", "--minutes", "2",
               "train.checkpointer.enable_topk=true", f"dataset.val_dataset.query={photos / 'query'}",
               f"dataset.val_dataset.reference={photos / 'train'}", "train.ema.enabled=true"]  # fmt: skip
    labels = ["dataset.labels=none"] if mode == UNLABELED else []
    left = unread(TRAINING, ("train", photos / "train", "-r", tmp_path, *options, *labels))
    # Of losses that were not chosen, of blur that the recipe switches off, and of what was not enabled.
    conditional = {
        "train.optim.triplet_loss_margin", "train.optim.miner_function_margin", "train.smooth_loss",
        "dataset.gaussian_blur.kernel", "dataset.gaussian_blur.sigma", "model.allow_partial_weights",
        *(f"wandb.{name}" for name in type(Experiment().wandb).model_fields),
    }  # fmt: skip
    trained = {path for path, _ in leaves(Experiment) if path.startswith(("train.", "dataset."))}
    allowed = {*UNUSED[mode].fields, *CHANNELS, *conditional}
    # Without labels these pictures form too few groups to hold some out, and nothing is fine-tuned.
    assert left <= (allowed | trained if mode == UNLABELED else allowed)
    assert left >= set(UNUSED[mode].fields) - {"automl.cluster", "automl.trials"}


@pytest.mark.slow
def test_a_search(photos: Path, tmp_path: Path) -> None:
    left = unread(TRAINING, ("train", photos / "train", "-r", tmp_path, *TINY, *SCRATCH, "--trials", "2",
                             "automl.algorithm=random", f"dataset.val_dataset.query={photos / 'query'}"))  # fmt: skip
    assert left == {*UNUSED[SEARCH].fields, "automl.address"}  # the address is refused without cluster: ray


def test_actions_on_a_model(photos: Path, model: Path, tmp_path: Path) -> None:
    data = [f"dataset.val_dataset.reference={photos / 'train'}", f"dataset.val_dataset.query={photos / 'query'}"]
    query = f"inference.input_path={photos / 'query'}"
    for action, words in (
        ("evaluate", data),
        ("inference", [*data, query]),
        ("export", [f"dataset.train_dataset={photos / 'train'}"]),
        ("quantize", [photos / "train", *data]),
        ("engine", [photos / "train", *data, "gen_engine.data_type=INT8"]),
    ):
        section = {"engine": "gen_engine"}.get(action, action)
        tops = ("model_name", "results_dir", "automl_policy", "automl", "wandb", "train", "model", "dataset", section)
        left = unread(tops, (action, model, "-r", tmp_path / action, *words)) - CHANNELS
        assert {path for path in left if not is_unused(path, section)} <= OTHER_DATA.get(action, set()), action
        # What is said to be unused is: paths are read to compare them with outputs, and the model's name for its card.
        named = {path for path, _ in leaves(Experiment) if path.partition(".")[0] in tops and is_unused(path, section)}
        assert named - left <= PATHS, action


PATHS = {"model.pretrained_model_path", "model.pretrained_trunk_path", "model.pretrained_embedder_path",
         "dataset.train_dataset", "dataset.val_dataset.query"}  # fmt: skip
# Its images are a check of the written graph alone, decoded by the model's rule, which a spec that sets another contradicts.
OTHER_DATA: dict[str, set[str]] = {
    "export": {"dataset.decoding.version", "dataset.decoding.range", "dataset.decoding.ground",
               "dataset.val_dataset.reference", "dataset.val_dataset.query", "dataset.max_pixels", "dataset.class_map"},
}  # fmt: skip


Lines = Callable[[Path, Path, Path], list[tuple[str, Sequence[object]]]]


def standalone(photos: Path, model: Path, out: Path) -> list[tuple[str, Sequence[object]]]:
    one, two = photos / "query/class 0/0.png", photos / "query/class 0/1.png"
    gallery = out / "a.gallery"
    return [
        ("compare", ("compare", one, two, "-o", out / "c")),
        ("discover", ("discover", photos / "train", "-o", out / "d", "-m", model)),
        ("gallery_build", ("gallery", "build", gallery, photos / "train", "-m", model)),
        ("gallery_add", ("gallery", "add", gallery, photos / "query")),
        ("gallery_list", ("gallery", "list", gallery)),
        ("calibrate", ("calibrate", gallery, "--rate", "0.7", "--wrong", "0.5")),
        ("identify", ("identify", gallery, one)),
        ("gallery_rename", ("gallery", "rename", gallery, "class 0", "x")),
        ("gallery_merge", ("gallery", "merge", gallery, "class 1", "class 2", "--into", "y")),
        ("gallery_copy", ("gallery", "copy", gallery, out / "copy.gallery")),
        ("gallery_remove", ("gallery", "remove", gallery, "class 3")),
        ("embed", ("embed", photos / "query", "-m", model, "-o", out / "v.npz")),
    ]


def test_actions_with_a_section_of_their_own(photos: Path, model: Path, tmp_path: Path) -> None:
    for action, words in standalone(photos, model, tmp_path):
        assert not unread((action,), words), action
