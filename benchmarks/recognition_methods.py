"""Recognition methods that `suite_recognition.py` compares, on one split of a set: on frozen features, and trained.

Shape letters: M images to train on, N reference images, Q queries, F features, R rank of the references' features, C classes.
"""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from data_sets import RecognitionSet
from unlabeled import score_queries

import unalike
from unalike.data.imageset import ImageSet
from unalike.data.notices import Notices
from unalike.data.view import View
from unalike.errors import DataError, missing_extra
from unalike.numerics.normalization import l2_normalize
from unalike.spec import load_spec
from unalike.storage.csv_file import write_csv
from unalike.training.heads.features import compute_features

INNER_FOLDS = 3
EXPONENTS, LEAST_EXPONENT, LARGEST_EXPONENT = (
    (-5, -4, -3, -2, -1),
    -9,
    4,
)  # of C = 10 ** exponent: the first ones, and the limits


@dataclass(frozen=True)
class Task:
    """Features and labels of one split of a set; labels are indices into one list of classes, groups are series.

    Attributes:
        fit_MF: Features (M, F) of the images to train on.
        reference_NF: Features (N, F) of the references.
        query_QF: Features (Q, F) of the queries.
    """

    fit_MF: np.ndarray
    fit_label_M: np.ndarray
    fit_group_M: np.ndarray
    reference_NF: np.ndarray
    reference_label_N: np.ndarray
    reference_group_N: np.ndarray
    query_QF: np.ndarray
    query_label_Q: np.ndarray
    query_group_Q: np.ndarray


@dataclass(frozen=True)
class Outcome:
    """Result of a method.

    Attributes:
        hit_Q: Whether each query was named right (Q,).
        precision_Q: Its average precision at R (Q,); None for classifiers, which order no references.
        details: What the method chose.
    """

    hit_Q: np.ndarray
    precision_Q: np.ndarray | None = None
    details: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Budget:
    """Time and seed of methods that train, and the folder for what they write."""

    minutes: float
    seed: int
    folder: Path


def embed_frozen(images: ImageSet, backbone: str) -> np.ndarray:
    """Features of the frozen trunk, (N, F), from the cache by content where they are there."""
    spec = load_spec("train", None, {"model.backbone": backbone})
    features = compute_features(backbone, images, View.from_spec(spec), Notices(), spec)
    if len(features.kept_N) != len(images):
        raise DataError(f"{len(images) - len(features.kept_N)} images cannot be read", remedy="download the set again")
    return features.vectors_NF


def load_task(data_set: RecognitionSet, split: str, backbone: str) -> Task:
    """Compute the features of the images of a split, and of those to train on.

    Args:
        data_set: Set of images.
        split: ``development`` or ``report``.
        backbone: Name of the trunk.
    """
    lookup = getattr(data_set, split)
    parts = (data_set.fit, lookup.reference, lookup.query)
    classes = sorted(set().union(*(part.classes for part in parts)))
    code = {label: number for number, label in enumerate(classes)}
    arrays: list[np.ndarray] = []
    for part in parts:
        is_fit = part is data_set.fit and bool(arrays)
        labels = np.array([code[label] for label in part.label_names()], np.int64)
        arrays += [arrays[0] if is_fit else embed_frozen(part, backbone), labels, np.array(part.groups)]
    return Task(*arrays)


# ---- methods on frozen features ----


def search_nearest(task: Task) -> Outcome:
    """Nearest reference by cosine: what the package answers with a frozen trunk."""
    return Outcome(*score_queries(task.reference_NF, task.query_QF, (task.reference_label_N, task.query_label_Q)))


def classify_by_lda(task: Task) -> Outcome:
    """The class whose mean is nearest by Mahalanobis distance; priors are equal.

    The covariance within classes, shrunk as Ledoit and Wolf propose, is that of the images to train on.
    """
    from sklearn.covariance import ledoit_wolf

    within_MF, query_QF = l2_normalize(task.fit_MF).astype(float), l2_normalize(task.query_QF).astype(float)
    for label in np.unique(task.fit_label_M):
        own = task.fit_label_M == label
        within_MF[own] -= within_MF[own].mean(axis=0)
    precision_FF = np.linalg.inv(ledoit_wolf(within_MF, assume_centered=True)[0])
    reference_NF, labels = l2_normalize(task.reference_NF), np.unique(task.reference_label_N)
    mean_CF = np.array([reference_NF[task.reference_label_N == label].mean(axis=0) for label in labels])
    weight_CF = mean_CF @ precision_FF
    score_QC = query_QF @ weight_CF.T - 0.5 * np.sum(weight_CF * mean_CF, axis=1)
    return Outcome((labels[np.argmax(score_QC, axis=1)] == task.query_label_Q).astype(float))


def classify_by_logistic_regression(task: Task) -> Outcome:
    """Multinomial logistic regression of scikit-learn."""
    from sklearn.linear_model import LogisticRegression

    return classify_linearly(task, lambda c: LogisticRegression(C=c, max_iter=300))


def classify_by_svm(task: Task) -> Outcome:
    """Linear support vector machines of scikit-learn, one class against the rest."""
    from sklearn.svm import LinearSVC

    return classify_linearly(task, lambda c: LinearSVC(C=c))


def classify_linearly(task: Task, build: Callable[[float], Any]) -> Outcome:
    """Fit a linear classifier of scikit-learn to the references' features, standardized as those of the images to train on.

    C is chosen by inner folds of the references; where a class has one, of the images to train on, one of each class being
    the reference.

    Args:
        task: Split of a set.
        build: Makes the classifier with this C.
    """
    x_NF, query_QF = standardize(task.fit_MF, task.reference_NF, task.query_QF)
    label_N = task.reference_label_N
    folds = inner_folds(label_N, task.reference_group_N)
    inner = (reduce_rank(x_NF, x_NF)[0], label_N)
    if not folds:
        inner = (reduce_rank(*standardize(task.fit_MF, task.fit_MF) * 2)[0], task.fit_label_M)
        folds = one_reference_folds(task.fit_label_M)
    with few_images_a_class():
        exponent, scores = choose_exponent(lambda e: score_folds(build(10.0**e), *inner, folds))
        reference_NR, query_QR = reduce_rank(x_NF, x_NF, query_QF)
        answer_Q = build(10.0**exponent).fit(reference_NR, label_N).predict(query_QR)
    details = {"log10 C": exponent, "inner R@1 by log10 C": {str(e): round(scores[e], 4) for e in sorted(scores)}}
    return Outcome((answer_Q == task.query_label_Q).astype(float), None, details)


def standardize(like_NF: np.ndarray, *features: np.ndarray) -> list[np.ndarray]:
    """Normalize the vectors' lengths; then subtract the mean of the first ones' features, and divide by their deviation."""
    like_NF = l2_normalize(like_NF).astype(float)
    deviation_F = like_NF.std(axis=0)
    deviation_F[deviation_F == 0] = 1
    return [(l2_normalize(x_NF).astype(float) - like_NF.mean(axis=0)) / deviation_F for x_NF in features]


def reduce_rank(like_NF: np.ndarray, *features: np.ndarray) -> list[np.ndarray]:
    """Coordinates (N, R) in the space that the first ones span: a linear classifier with an L2 penalty lies in it."""
    _, sizes, axes_RF = np.linalg.svd(like_NF, full_matrices=False)
    axes_RF = axes_RF[sizes > sizes[0] * 1e-9]
    return [x_NF @ axes_RF.T for x_NF in features]


def inner_folds(label_N: np.ndarray, group_N: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """Folds by series where each class has at least ``INNER_FOLDS``, else by image; none where a class has one image."""
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

    fewest = min(len(np.unique(group_N[label_N == label])) for label in np.unique(label_N))
    smallest = int(np.bincount(label_N)[np.unique(label_N)].min())
    if smallest < 2:
        return []
    if fewest >= INNER_FOLDS:
        splitter = StratifiedGroupKFold(INNER_FOLDS, shuffle=True, random_state=0)
        folds = list(splitter.split(label_N, label_N, group_N))
    else:
        splitter = StratifiedKFold(min(INNER_FOLDS, smallest), shuffle=True, random_state=0)
        folds = list(splitter.split(label_N, label_N))
    return [(fit, query[np.isin(label_N[query], label_N[fit])]) for fit, query in folds]


def one_reference_folds(label_M: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """Folds in which one image of each class, drawn by seed, is fitted to and the others are asked."""
    folds = []
    for seed in range(INNER_FOLDS):
        order_M = np.random.default_rng(seed).permutation(len(label_M))
        fit = order_M[np.unique(label_M[order_M], return_index=True)[1]]
        folds.append((fit, np.setdiff1d(order_M, fit)))
    return folds


def score_folds(
    classifier: Any, x_NR: np.ndarray, label_N: np.ndarray, folds: Sequence[tuple[np.ndarray, np.ndarray]]
) -> float:
    """Share of the folds' queries that are named right."""
    hits = [classifier.fit(x_NR[fit], label_N[fit]).predict(x_NR[query]) == label_N[query] for fit, query in folds]
    return float(np.mean(np.concatenate(hits)))


def choose_exponent(score: Callable[[int], float]) -> tuple[int, dict[int, float]]:
    """The exponent with the highest score, of equal ones that in the middle; beyond an end that is best more are tried.

    Args:
        score: Gives the score of an exponent.

    Returns:
        The exponent, and every score by exponent.
    """
    scores = {exponent: score(exponent) for exponent in EXPONENTS}
    while True:
        best = sorted(e for e in scores if scores[e] >= max(scores.values()) - 1e-12)
        choice = best[(len(best) - 1) // 2]
        beyond = choice - 1 if choice == min(scores) else choice + 1
        if min(scores) < choice < max(scores) or not LEAST_EXPONENT <= beyond <= LARGEST_EXPONENT:
            return choice, scores
        scores[beyond] = score(beyond)


@contextmanager
def few_images_a_class() -> Iterator[None]:
    """Without scikit-learn's warnings that classes are many, or that a solver for a large C stopped at its limit."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The number of unique classes", UserWarning)
        warnings.filterwarnings("ignore", ".*(failed to converge|TOTAL NO. OF ITERATIONS)")
        yield


FROZEN_METHODS: dict[str, Callable[[Task], Outcome]] = {
    "nearest": search_nearest, "lda": classify_by_lda, "logistic": classify_by_logistic_regression, "svm": classify_by_svm,
}  # fmt: skip


# ---- methods that train ----


def write_manifest(images: ImageSet, file: Path) -> Path:
    """Write a manifest of the images."""
    rows = zip(images.paths, images.label_names(), strict=True)
    write_csv(file, [[str(path.absolute()), label] for path, label in rows], ["path", "label"])
    return file


def train_automatically(data_set: RecognitionSet, split: str, budget: Budget) -> Outcome:
    """Train as `unalike train` does, from a cold cache, and embed references and queries."""
    lookup, folder = getattr(data_set, split), budget.folder
    goal = "known-classes" if lookup.reference is data_set.fit else "new-classes"
    train = write_manifest(data_set.fit, folder / "fit.csv")
    spec = {"results_dir": str(folder / "run"), "dataset": {"train_dataset": str(train)}, "train": {"seed": budget.seed},
            "automl_policy": "auto", "automl": {"minutes": budget.minutes, "goal": goal}}  # fmt: skip
    before = os.environ.get("UNALIKE_CACHE")
    os.environ["UNALIKE_CACHE"] = str(folder / "cache")
    try:
        result = unalike.train(spec, overwrite=True)
    finally:
        if before is None:
            del os.environ["UNALIKE_CACHE"]
        else:
            os.environ["UNALIKE_CACHE"] = before
    vectors = []
    for role in ("reference", "query"):
        manifest = write_manifest(getattr(lookup, role), folder / f"{role}.csv")
        unalike.embed(manifest, folder / f"{role}.npz", checkpoint=result.path)
        with np.load(folder / f"{role}.npz") as content:
            vectors.append(content["vectors"])
    record = json.loads((result.results_dir / "automatic.json").read_text(encoding="utf-8"))
    classes = lookup.reference.classes
    query_label_Q = np.array([classes.index(label) for label in lookup.query.label_names()])
    return Outcome(*score_queries(*vectors, (lookup.reference.labels_N, query_label_Q)),
                   {key: record[key] for key in ("trunk", "chosen", "spent_minutes")})  # fmt: skip


def train_with_pml(data_set: RecognitionSet, split: str, budget: Budget) -> Outcome:
    """Train with a plain script (`automatic.peer`)."""
    try:
        import pytorch_metric_learning  # noqa: F401
    except ImportError as error:
        raise missing_extra("pytorch-metric-learning", "train", "training with it") from error
    import automatic

    lookup = getattr(data_set, split)
    if any("#" in path.name for path in data_set.fit.paths):
        raise DataError(f"{data_set.name} consists of regions of images", expected="whole images, which the script reads",
                        remedy="leave `pml` or the set out")  # fmt: skip
    parts = {"train": data_set.fit, "reference": lookup.reference, "val": lookup.query}
    paths = {name: write_manifest(part, budget.folder / f"{name}.csv") for name, part in parts.items()}
    automatic.peer(budget.minutes, budget.seed, paths, budget.folder)
    name = f"peer-{budget.minutes}-{budget.seed}/read-{budget.minutes}.npz"
    with np.load(budget.folder / name) as content:
        return Outcome(content["hit"], content["precision"], {"trunk": automatic.TRUNK})


TRAINED_METHODS: dict[str, Callable[[RecognitionSet, str, Budget], Outcome]] = {
    "automatic": train_automatically, "pml": train_with_pml,
}  # fmt: skip
METHODS = (*FROZEN_METHODS, *TRAINED_METHODS)
