import re

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("torch")

from unalike.data.from_spec import TrainingSets
from unalike.data.imageset import ImageSet
from unalike.metrics.retrieval import evaluate_ranking
from unalike.report.sentences import MEAN_NOTE
from unalike.spec import load_spec
from unalike.training.automatic.choice_rule import describe_expected
from unalike.training.automatic.holdout import Split
from unalike.training.automatic.holdout_result import evaluate_embeddings
from unalike.training.history import History
from unalike.training.report import write_automatic_report, write_training_report
from unalike.training.trainer import TrainingResult

CLASSES = tuple(f"part {n} <ü>" for n in range(5))


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder, rng = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    paths = tuple(folder / f"{i}.png" for i in range(60))
    for path in paths:
        Image.fromarray(rng.integers(0, 255, (8, 8, 3), dtype=np.uint8)).save(path)
    return ImageSet(paths, np.arange(60) % 5, CLASSES, source=str(folder))


def vectors(images, seed=0, noise=0.8):
    centres = np.random.default_rng(9).standard_normal((5, 12))
    return centres[images.labels_N] + noise * np.random.default_rng(seed).standard_normal((len(images), 12))


def history():
    steps = [{"epoch": s // 50, "step": s, "train_loss": 1 / s, "trunk_base_lr": 1e-3, "embedder_base_lr": 2e-3}
             for s in range(1, 1001)]  # fmt: skip
    validations = [{"epoch": e, "step": 50 * e, "val Precision at Rank 1": 0.5 + e / 100, "val Mean Average Precision": 0.4}
                   for e in range(20)]  # fmt: skip
    return History(steps, validations)


def page(folder):
    text = (folder / "report.html").read_text(encoding="utf-8")
    assert "<script" not in text and "part 1 <ü>" not in text
    return text


def spec():
    return load_spec("train", {"dataset": {"train_dataset": "shop/train"}, "train": {"num_epochs": 20}})


def test_plain_training_shows_its_curves_and_what_its_best_validation_saw(images, tmp_path):
    query, reference = images.select(np.arange(20)), images.select(np.arange(20, 60))
    seen = (query, vectors(query, 1)), (reference, vectors(reference, 2))
    ranking = evaluate_ranking(seen[0][1], query.labels_N, seen[1][1], reference.labels_N)
    sets = TrainingSets(reference, reference, query, "the test's own", False)
    outcome = TrainingResult(tmp_path / "a.pth", {}, 12, {}, history(), sets, ranking, None, seen)
    files = write_training_report(tmp_path, spec(), outcome)
    assert [f.name for f in files] == ["report.html", "suspected_labels.csv", "near_duplicates.csv"]
    text = page(tmp_path)
    for phrase in ("training loss", "learning rate", "validation", "epoch 13, the best", "Misses", "Embedding map",
                  "the test&#39;s own", "Near-duplicates", "40 images of 5 classes"):  # fmt: skip
        assert phrase in text
    assert text.count("<polyline") == 5
    longest = max(text.split('points="')[1:], key=lambda part: len(part.split('"')[0])).split('"')[0]
    assert len(longest.split()) <= 300, "a curve is thinned"


def test_without_validation_the_page_has_no_metrics(images, tmp_path):
    sets = TrainingSets(images, None, None, "none", False)
    files = write_training_report(
        tmp_path, spec(), TrainingResult(tmp_path / "a.pth", {}, None, {}, history(), sets, None, None)
    )
    assert [f.name for f in files] == ["report.html"]
    assert "was not measured" in page(tmp_path) and "Misses" not in page(tmp_path)


def test_automatic_training_shows_all_candidates_and_suspects_labels_by_the_frozen_trunk(images, tmp_path):
    wrong = images.labels_N.copy()
    wrong[8] = (wrong[8] + 2) % 5
    frozen = vectors(images, 3)
    images = ImageSet(images.paths, wrong, CLASSES)
    figure = {"value": 0.7, "low": 0.6, "high": 0.8}
    figures = {kind: {"R@1": figure, "MAP@R": figure} for kind in ("new", "known")}
    heads = [{"name": "a head trained with one loss", "score": 0.61}]
    counts = {kind: {"queries": 12, "images": 12, "classes": 5} for kind in ("known", "new")}
    record = {"minutes": 10.0, "spent_minutes": 9.5, "chosen": "fine-tuned", "heads": heads, "rule": "the higher R@1",
              "not_tested": "", "evaluation": {"method": "one hold-out", "counts": counts, "meaning": dict.fromkeys(counts, "m")},
              "candidates": [
        {"name": name, "figures": figures, "gain_over_frozen": figures, "reason": "", "statement": ""}
        for name in ("frozen trunk", "fine-tuned")
    ]}  # fmt: skip
    everything = np.arange(60)
    splits = [Split("known", everything[12:], everything[12:], everything[:12]),
              Split("new", everything[30:], everything[40:60], everything[30:40])]  # fmt: skip

    def result_of(vectors_ND, splits):
        return evaluate_embeddings(
            splits, wrong, lambda _, split: (vectors_ND[split.query_N], vectors_ND[split.reference_N]), with_images=True
        )

    write_automatic_report(tmp_path, spec(), record, history(), images, frozen, result_of(vectors(images, 4), splits))
    text = page(tmp_path)
    assert "images of known things" not in text.split("<h1>")[0] and text.count('<p class="lead') == 3
    assert "Measured with 12 images of 5 classes (known classes) and 12 images of 5 classes (new classes)" in text
    assert "Of 100 images of new things, 70 get the right name (between 56 and 83)." in text
    assert "0.600 to 0.800" in text and MEAN_NOTE in text, "the interval of the mean, by its name"
    for phrase in ("9.5 of 10", "Compared with the frozen trunk", "Candidates", "Heads on frozen features", "a head trained with one loss", "Fine-tuning", "Misses (known classes, 12 queries, 5 classes)",
                  "Misses (new classes, 12 queries, 5 classes)", "frozen trunk&#39;s vectors"):  # fmt: skip
        assert phrase in text
    assert str(images.paths[8]) in (tmp_path / "suspected_labels.csv").read_text(encoding="utf-8").splitlines()[1]
    record["chosen"] = "frozen trunk"
    write_automatic_report(tmp_path, spec(), record, History(), images, frozen, result_of(frozen, splits))
    assert "Compared with the frozen trunk" not in page(tmp_path) and "Fine-tuning" not in page(tmp_path)


@pytest.mark.parametrize("per_class", [4, 12])
def test_sentences_and_the_statement_of_a_page_have_one_range_for_a_hundred_new_images(images, tmp_path, per_class):
    """Few classes: the interval of the mean is another one, and stands on the page as that."""
    few = images.select(np.flatnonzero(np.arange(60) < 5 * per_class))
    everything = np.arange(len(few))
    is_query = everything % 10 < 5
    splits = [
        Split(kind, everything[~is_query], everything[is_query], everything[~is_query]) for kind in ("known", "same")
    ]
    noise = {"known": 1.6, "same": 1.2}

    def vectors_of(number, split):
        vectors_ND = vectors(few, 4, noise[split.kind])
        return vectors_ND[split.query_N], vectors_ND[split.reference_N]

    result = evaluate_embeddings(splits, few.labels_N, vectors_of, with_images=True).with_series(everything)
    statement = describe_expected(result)
    figures = {kind: {name: value.to_dict() for name, value in row.items()} for kind, row in result.metrics().items()}
    record = {"minutes": 10.0, "spent_minutes": 9.5, "chosen": "frozen trunk", "heads": [], "rule": "", "not_tested": "",
              "evaluation": {"method": "one hold-out", "counts": result.counts(), "meaning": dict.fromkeys(figures, "m")},
              "candidates": [{"name": "frozen trunk", "figures": figures, "reason": "", "statement": statement}]}  # fmt: skip
    write_automatic_report(tmp_path, spec(), record, History(), few, vectors(few, 4), result)
    text = page(tmp_path)
    ranges = re.findall(r"Of 100 new images of known things,[^.]* \(between (\d+) and (\d+)\)", text)
    stated = re.findall(r"R@1 on 100 new images of these classes: ([\d.]+) to ([\d.]+);", text)
    assert len(stated) == 1 and len(ranges) == 2, statement
    low, high = (round(100 * float(bound)) for bound in stated[0])
    assert (low, high) == (int(ranges[0][0]), int(ranges[1][1]))
    assert low / 100 < figures["known"]["R@1"]["low"] - 0.01, "not the interval of the mean"
