import json
import multiprocessing
import pickle

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from tests.support import networks
from unalike.actions.explain import describe_pairs, explain_matches, explain_misses, worst_misses
from unalike.data.imageset import ImageSet
from unalike.errors import ModelError
from unalike.explanation.explainer import Explainer
from unalike.inference.loaded_model import load_model


class ColourTrunk(nn.Module):
    """Six channels: how red, green, blue, not red, ... a patch of 8 x 8 is; then the mean, as most trunks end."""

    name = "colours"

    def __init__(self) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, 6, 8, 8)
        with torch.no_grad():
            self.patch.weight.zero_()
            for channel in range(3):
                self.patch.weight[channel, channel] = 1 / 64
                self.patch.weight[channel + 3, channel] = -1 / 64
            self.patch.bias.fill_(-0.5)

    def forward(self, images_BCHW: torch.Tensor) -> torch.Tensor:
        return nn.functional.relu(self.patch(images_BCHW)).mean((2, 3))


class ColourEmbedder(nn.Module):
    def __init__(self, head: nn.Module, dim: int) -> None:
        super().__init__()
        self.trunk, self.head, self.dim = ColourTrunk(), head, dim

    def forward(self, images_BCHW: torch.Tensor) -> torch.Tensor:
        return self.head(self.trunk(images_BCHW))


def write(folder, head, dim, name="model.onnx", unit_length=False):
    from unalike.data.preprocessing import Preprocessing
    from unalike.data.view import View
    from unalike.deploy.onnx_export import build_facts, trace

    torch.manual_seed(0)
    embedder = ColourEmbedder(head, dim).eval()
    facts = build_facts(
        embedder, Preprocessing(View(64, 96, 1.0), networks.MEAN, networks.STD), unit_length=unit_length
    )
    (folder / name).write_bytes(trace(embedder, (64, 96), facts).SerializeToString())
    return folder / name


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    torch.manual_seed(1)
    return write(tmp_path_factory.mktemp("linear"), nn.Linear(6, 5), 5)


def picture(spot=None, colour=(250, 20, 20), seed=0):
    """Dull noise with, at ``spot`` (row, column of 8 x 12), a square of 16 pixels in a colour."""
    pixels = np.random.default_rng(seed).integers(90, 110, (64, 96, 3), dtype=np.uint8)
    if spot is not None:
        pixels[8 * spot[0] : 8 * spot[0] + 16, 8 * spot[1] : 8 * spot[1] + 16] = colour
    return pixels


def test_with_a_linear_head_parts_sum_to_the_score(model):
    explainer = Explainer.load(model, method="exact", precision="fp32")
    query, reference = picture((1, 2)), picture((4, 8), seed=1)
    why = explainer.explain(query, reference)
    vectors = load_model(model, runtime="onnxruntime").engine(np.stack([query, reference])).astype(np.float64)
    cosine = vectors[0] @ vectors[1] / np.linalg.norm(vectors[0]) / np.linalg.norm(vectors[1])
    assert why.method == "exact" and why.score == pytest.approx(cosine, abs=1e-5)
    for evidence in (why.query, why.reference):
        assert evidence.for_hw.shape == (8, 12)
        assert evidence.for_hw.sum() + evidence.constant == pytest.approx(why.score, abs=1e-9)
        assert evidence.against_hw.sum() + evidence.constant_against == pytest.approx(1 - why.score, abs=1e-9)


def test_a_last_step_to_unit_length_does_not_matter(tmp_path):
    torch.manual_seed(1)
    path = write(tmp_path, nn.Linear(6, 5), 5, unit_length=True)
    why = Explainer.load(path, method="exact").explain(picture((1, 2)), picture((4, 8), seed=1))
    assert why.query.for_hw.sum() + why.query.constant == pytest.approx(why.score, abs=1e-9)


@pytest.mark.parametrize("method", ["exact", "covers"])
def test_the_planted_square_has_the_most_evidence(model, tmp_path, method):
    path = write(tmp_path, nn.Identity(), 6)
    explainer = Explainer.load(path, method=method, precision="fp32")
    why = explainer.explain(picture((2, 3)), picture((5, 8), seed=1))
    for evidence, (row, column) in ((why.query, (2, 3)), (why.reference, (5, 8))):
        h, w = evidence.for_hw.shape
        y, x = np.unravel_index(evidence.for_hw.argmax(), (h, w))
        assert row - 1 <= y * 8 / h <= row + 2 and column - 1 <= x * 12 / w <= column + 2
    odd = explainer.explain(picture((1, 2), (20, 250, 20)), picture((1, 2), seed=1))  # green where the other is red
    y, x = np.unravel_index(odd.query.against_hw.argmax(), odd.query.against_hw.shape)
    h, w = odd.query.against_hw.shape
    assert 0 <= y * 8 / h <= 3 and 1 <= x * 12 / w <= 4


def test_parts_of_a_nonlinear_network_are_occluded(tmp_path, capsys):
    path = write(tmp_path, nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 4)), 4)
    with pytest.raises(ModelError, match="not linear"):
        Explainer.load(path, method="exact")
    explainer = Explainer.load(path)
    assert "explaining by occlusion" in capsys.readouterr().err
    assert explainer.explain(picture((2, 3)), picture((2, 3), seed=1)).method == "covers"
    with pytest.raises(ModelError, match="did you mean 'exact'"):
        Explainer.load(path, method="exakt")


def sets(tmp_path, labels=(0, 1)):
    spots = {"red": (1, 2), "blue": (4, 7)}
    paths = []
    for number, (name, spot) in enumerate(spots.items()):
        colour = (250, 20, 20) if name == "red" else (20, 20, 250)
        Image.fromarray(picture(spot, colour, seed=number)).save(tmp_path / f"{name}.png")
        paths.append(tmp_path / f"{name}.png")
    return ImageSet(tuple(paths), np.array(labels), ("blue", "red"), source="x")


def test_what_inference_leaves(model, tmp_path):
    images = sets(tmp_path, (1, 0))
    page = explain_matches(tmp_path / "explain", load_model(model), images, images, np.array([0, 1]))
    lines = [json.loads(line) for line in (tmp_path / "explain/explain.jsonl").read_text().splitlines()]
    assert [line["reference_label"] for line in lines] == ["red", "blue"]
    why = lines[0]["why"]
    assert np.sum(why["query"]["for"]) + why["query"]["constant"] == pytest.approx(why["score"], abs=1e-4)
    assert (tmp_path / "explain" / lines[0]["picture"]).is_file()
    text = page.page.read_text()
    assert (
        "sum exactly to the score" in text and text.count("<img") == 12 and "http" not in text.replace("http-equiv", "")
    )


def test_misses_are_the_worst_ones_with_their_right_reference(model, tmp_path):
    query = np.array([[1, 0], [0.8, 0.6], [0, 1], [0.6, 0.8]])
    reference = np.array([[1, 0.1], [0.1, 1]])
    found = worst_misses(query, np.array([1, 1, 0, 1]), reference, np.array([0, 1]), 10, same=False)
    assert found[0] == (0, 0, 1) and {one[0] for one in found} == {0, 1, 2}
    assert worst_misses(query, np.array([1, 1, 0, 1]), reference, np.array([0, 1]), 1, same=False) == found[:1]
    assert worst_misses(query, np.array([5, 5, 5, 5]), reference, np.array([0, 1]), 9, same=False) == []
    images = sets(tmp_path)
    vectors = np.eye(2)
    explained = explain_misses(
        tmp_path / "misses", load_model(model), images, vectors, images, vectors[::-1].copy(), 5, same=False
    )
    assert (
        explained is not None
        and len(explained.rows) == len((tmp_path / "misses/misses.jsonl").read_text().splitlines()) == 4
    )
    assert explain_misses(tmp_path / "none", load_model(model), images, vectors, images, vectors, 5, same=False) is None


def test_it_goes_to_other_processes_by_fork_and_by_pickle(model):
    explainer = Explainer.load(model, method="exact", precision="fp32")
    query, reference = picture((1, 2)), picture((4, 8), seed=1)
    expected = explainer.explain(query, reference)
    copies = [pickle.loads(pickle.dumps(explainer)).explain(query, reference)]
    with multiprocessing.get_context("fork").Pool(1) as pool:
        copies.append(pool.apply_async(explainer.explain, (query, reference)).get(timeout=60))
        pool.close()
        pool.join()  # not by SIGTERM, for which coverage has a handler
    for copy in copies:
        assert copy.score == pytest.approx(expected.score)


def test_the_page_says_how_many_pairs_are_of_one_class():
    assert describe_pairs([("a", "a"), ("a", "b"), ("b", "b"), ("", "")]) == (
        "Of 3 pairs of an image and a reference, 2 show one class."
    )
    assert describe_pairs([("", "")]).startswith("1 image beside the nearest reference")
