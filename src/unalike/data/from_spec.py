"""The image sets of a spec: train, reference and query, read or split off as its ``dataset`` section says."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from unalike.data.class_names import find_similar_names
from unalike.data.imageset import ImageSet, align_labels, load_images
from unalike.data.notices import Notices
from unalike.data.splits import (
    MIN_CLASSES_TO_DIVIDE,
    count_teaching_classes,
    count_torn_groups,
    has_divisible_groups,
    split_images,
    split_reference_query,
    write_manifest,
)
from unalike.errors import DataError, SpecError
from unalike.progress import say
from unalike.sanitize import redact

if TYPE_CHECKING:
    from unalike.spec import Experiment


@dataclass(frozen=True)
class TrainingSets:
    """The image sets of a training.

    Attributes:
        train: Images to train on.
        reference, query: Images to validate with; None without validation.
        validation: Where they come from, in words.
        unseen: Whether no class of the query is trained on, so that metrics measure unseen classes.
    """

    train: ImageSet
    reference: ImageSet | None
    query: ImageSet | None
    validation: str
    unseen: bool


# Names of the query rows in a manifest's split column; the first that occurs counts. ``test`` is not among them: those rows
# are kept for `evaluate`.
QUERY_SPLITS = ("query", "val", "valid", "validation")


def load_from_spec(
    experiment: Experiment, source: str | Path, notices: Notices, *, labeled: bool = True, split: str | None = None
) -> ImageSet:
    """Load one data source by the class rules of a experiment.

    Args:
        experiment: The spec; its ``dataset.class_from``, ``class_map`` and ``manifest_columns`` count.
        source: A folder, an archive, a manifest, an image or a URI.
        notices: Receives unreadable files and so on.
        labeled: See ``load_images``.
        split: See ``load_images``.
    """
    dataset = experiment.dataset
    return load_images(
        source,
        class_from=dataset.class_from,
        class_map=dataset.class_map,
        labeled=labeled,
        notices=notices,
        columns=dataset.manifest_columns.model_dump(),
        split=split,
        for_training=source == dataset.train_dataset,
        in_place=True,
    )


def require_training_data(experiment: Experiment) -> str:
    """Return ``dataset.train_dataset``. Raises SpecError where it is not set."""
    if not experiment.dataset.train_dataset:
        what, option = (
            ("images: a folder", " --no-labels")
            if experiment.dataset.labels == "none"
            else ("a folder of class folders", "")
        )
        raise SpecError("dataset.train_dataset is not set", expected=f"{what}, an archive or a manifest",
                        remedy=f"give the folder: unalike train DIR{option}")  # fmt: skip
    return experiment.dataset.train_dataset


def load_training_sets(experiment: Experiment, notices: Notices, *, manifest: Path | None = None) -> TrainingSets:
    """Load train, reference and query; without a validation set, one is split off as ``dataset.validation`` says.

    Args:
        experiment: The spec.
        notices: Receives unreadable files and so on.
        manifest: Where an automatic split is written.

    Raises:
        DataError: No usable images, or reference and query without a common class.
        SpecError: ``dataset.train_dataset`` is not set.
    """
    dataset = experiment.dataset
    source = require_training_data(experiment)
    images = load_from_spec(experiment, source, notices)
    if len(images) == 0:
        raise DataError(f"{source} holds no images", expected="one folder a class with images in it")
    validation = dataset.val_dataset
    train = _training_rows(images)
    _refuse_one_class(train, source)
    if validation is not None and (validation.reference or validation.query):
        reference, query = load_evaluation_sets(experiment, notices, train=train)
        unseen = not set(_class_names(query)) & set(_class_names(train))
        return TrainingSets(train, reference, query, "dataset.val_dataset", unseen)
    query_rows = _split_rows(images, QUERY_SPLITS)
    if query_rows is not None:
        train_rows = np.flatnonzero(np.array(images.splits) == "train")
        reference = _split_rows(images, ("reference",)) or images.select(train_rows)
        _refuse_disjoint(reference, query_rows)
        unseen = not set(_class_names(query_rows)) & set(_class_names(train))
        return TrainingSets(train, reference, query_rows, "the manifest's split column", unseen)
    by = dataset.validation.by
    if by == "none":
        return TrainingSets(train, None, None, "none", False)
    return _split_off(train, by, dataset.validation.fraction, dataset.validation.seed, manifest)


def _refuse_one_class(images: ImageSet, source: str) -> None:
    """Raise DataError where all images are of one class: no loss, and no head, learns anything from it."""
    names = _class_names(images)
    if len(names) == 1:
        raise DataError(f"{redact(str(source))}: all images are of one class, {names[0]!r}", expected="two classes or more, one folder each",
                        remedy="add a class; without labels: dataset.labels=none; to find defects among good images of one part: "
                        "unalike inspect fit")  # fmt: skip


def has_query_rows(experiment: Experiment, notices: Notices) -> bool:
    """Return whether the training source is a manifest whose split column has query rows (``QUERY_SPLITS``).

    Args:
        experiment: The spec.
        notices: Receives unreadable files and so on.
    """
    source = experiment.dataset.train_dataset
    splits = load_from_spec(experiment, source, notices).splits if source else None
    return any(name in QUERY_SPLITS for name in splits or ())


def load_unlabeled_images(experiment: Experiment, notices: Notices) -> ImageSet:
    """Load all training images without labels, in whatever arrangement; of a manifest with splits, its ``train`` rows.

    Raises:
        DataError: No usable images.
        SpecError: ``dataset.train_dataset`` is not set.
    """
    source = require_training_data(experiment)
    return _training_rows(load_from_spec(experiment, source, notices, labeled=False))


def _class_names(images: ImageSet) -> list[str]:
    return [images.classes[i] for i in np.unique(images.labels_N) if i >= 0]


def _split_rows(images: ImageSet, names: tuple[str, ...]) -> ImageSet | None:
    """The rows of the first split of ``names`` that the manifest has, or None."""
    splits = np.array(images.splits or (), dtype=str)
    for name in names:
        if (splits == name).any():
            return images.select(np.flatnonzero(splits == name))
    return None


def _training_rows(images: ImageSet) -> ImageSet:
    """The ``train`` rows of a manifest with splits, so that nothing kept for evaluation is trained on; else all images."""
    if images.splits is None or not any(images.splits):
        return images
    rows = _split_rows(images, ("train",))
    if rows is None:
        raise DataError(f"{images.source}: no row has the split 'train'", expected="one row for each training image; found "
                        f"{', '.join(sorted(set(images.splits)))}")  # fmt: skip
    return rows.drop_empty_classes()


def _refuse_disjoint(reference: ImageSet, query: ImageSet) -> None:
    """Refuse sets without a common class before training begins instead of after the first epoch (TAO D18)."""
    if reference.paths == query.paths:
        if reference.counts().max(initial=0) < 2:
            raise DataError(f"{reference.source} holds one image a class", expected="two, as it is its own reference",
                            remedy="name a query set of other images")  # fmt: skip
    elif not set(_class_names(reference)) & set(_class_names(query)):
        similar = find_similar_names(_class_names(reference), _class_names(query))
        raise DataError(
            f"reference ({reference.source}: {', '.join(_class_names(reference)[:3])}, ...) and query ({query.source}: "
            f"{', '.join(_class_names(query)[:3])}, ...) have no class in common",
            expected="the query's classes among the reference's",
            remedy=f"their names differ in case, blanks or invisible characters: {' and '.join(map(repr, similar[0]))}"
            if similar
            else "check dataset.val_dataset and dataset.class_from",
        )


def _split_off(images: ImageSet, by: str, fraction: float, seed: int, manifest: Path | None) -> TrainingSets:
    """Split a holdout off the images (``splits.split_images``) and write the split to ``manifest``."""
    classes = len(_class_names(images))
    teaching = count_teaching_classes(images)
    if not teaching:
        say("no class has a second image: training without validation (nothing could be measured)")
        return TrainingSets(images, None, None, "none", False)
    if by == "class" and teaching < MIN_CLASSES_TO_DIVIDE:
        by = _by_of_few_classes(images, fraction, seed)
        say(
            f"{teaching} classes with two images or more are too few to hold some out: validating on held-out {by}s instead"
        )
    train, holdout = split_images(images, by=by, fraction=fraction, seed=seed)
    if by == "class":
        reference, query = split_reference_query(holdout, seed=seed)
        text = f"{len(_class_names(holdout))} of {classes} classes held out (unseen in training)"
    else:
        reference, query = train, holdout
        text = f"{len(holdout)} of {len(images)} images held out by {by}"
    if len(query) == 0 or len(reference) == 0:
        say("too few images to hold any out: training without validation")
        return TrainingSets(images, None, None, "none", False)
    say(f"validation: {text}")
    if torn := count_torn_groups(query, train, reference):
        say(f"{torn} groups have images among the queries and among what is trained on or searched, which makes the queries easier"
            + ("; dataset.validation.by=group holds out whole groups" if has_divisible_groups(images) else ""))  # fmt: skip
    if manifest is not None:
        parts = {"train": train, "val": query} | ({"reference": reference} if by == "class" else {})
        write_manifest(manifest, parts)
    return TrainingSets(train.drop_empty_classes(), reference, query, text, by == "class")


def _by_of_few_classes(images: ImageSet, fraction: float, seed: int) -> str:
    """How to hold out where no classes can be: whole groups where that is possible, else images."""
    if has_divisible_groups(images):
        with contextlib.suppress(DataError):  # every group holds all images of some class
            split_images(images, by="group", fraction=fraction, seed=seed)
            return "group"
    return "image"


def load_evaluation_sets(
    experiment: Experiment, notices: Notices, *, train: ImageSet | None = None
) -> tuple[ImageSet, ImageSet]:
    """Load reference and query of ``dataset.val_dataset`` with one list of classes.

    Without ``query``, the reference is its own query (an image is never compared with itself); without ``reference``, the
    training images are the reference. One manifest for both is divided by its split column, where it has one.

    Args:
        experiment: The spec.
        notices: Receives unreadable files and so on.
        train: The training images, where they are loaded already.

    Raises:
        DataError: A set without images, or sets without a common class.
        SpecError: ``dataset.val_dataset`` is not set.
    """
    validation, train_dataset = experiment.dataset.val_dataset, experiment.dataset.train_dataset
    if validation is None or not (validation.reference or validation.query):
        raise SpecError("dataset.val_dataset is not set", expected="reference and query, each a folder, archive or manifest",
                        remedy="set dataset.val_dataset.reference=DIR dataset.val_dataset.query=DIR")  # fmt: skip
    if validation.reference:
        reference = load_from_spec(experiment, validation.reference, notices)
    elif train is not None:
        reference = train
    elif train_dataset:
        reference = load_from_spec(experiment, train_dataset, notices)
    else:
        raise SpecError("dataset.val_dataset.reference is not set", expected="a folder, archive or manifest")
    if not validation.reference:
        say("dataset.val_dataset.reference is not set: the training images are the reference", level=2)
    if validation.query and validation.query == validation.reference:
        query = reference
    else:
        query = load_from_spec(experiment, validation.query, notices) if validation.query else reference
    for name, images in (("reference", reference), ("query", query)):
        if len(images) == 0:
            raise DataError(f"dataset.val_dataset.{name} ({images.source}) holds no images",
                            expected="one folder a class with images in it")  # fmt: skip
    if validation.query == validation.reference and reference.splits is not None and any(reference.splits):
        reference_rows = _split_rows(reference, ("reference", "train"))
        query_rows = _split_rows(reference, (*QUERY_SPLITS, "test"))
        if reference_rows is not None and query_rows is not None:
            reference, query = reference_rows, query_rows
    for group in find_similar_names({*_class_names(reference), *_class_names(query)}):
        notices.add("similar-classes", " and ".join(map(repr, sorted(group))))
    reference, query = align_labels(reference, query)
    _refuse_disjoint(reference, query)
    return reference, query
