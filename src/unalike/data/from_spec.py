"""The image sets that an action works on, from the spec: train, reference, query."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from unalike.data.imageset import ImageSet, align_labels, load_images
from unalike.data.notices import Notices
from unalike.data.splits import split_images, split_reference_query, write_manifest
from unalike.errors import DataError, SpecError
from unalike.progress import say


@dataclass(frozen=True)
class TrainingSets:
    """What training uses; ``validation`` says in words where reference and query come from.

    ``unseen``: the query classes take no part in training, so that figures speak of classes never seen.
    """

    train: ImageSet
    reference: ImageSet | None
    query: ImageSet | None
    validation: str
    unseen: bool


# What a manifest's split column may call the rows to measure on; the first that it holds counts. ``test`` is not among
# them: those rows are kept for `evaluate`.
QUERY_SPLITS = ("query", "val", "valid", "validation")


def load_from_spec(
    spec: Any, source: str | Path, notices: Notices, *, labeled: bool = True, split: str | None = None
) -> ImageSet:
    """One data field of a spec, read by the spec's one rule for classes."""
    dataset = spec.dataset
    return load_images(
        source,
        class_from=dataset.class_from,
        class_map=dataset.class_map,
        labeled=labeled,
        notices=notices,
        columns=dataset.manifest_columns.model_dump(),
        split=split,
    )


def load_training_sets(spec: Any, notices: Notices, *, manifest: Path | None = None) -> TrainingSets:
    """Train, reference and query; where no validation set is named, one is split off by ``dataset.validation``.

    An automatic split is written to ``manifest``. Raises DataError, SpecError.
    """
    dataset = spec.dataset
    if not dataset.train_dataset:
        raise SpecError("dataset.train_dataset is not set", expected="a folder of class folders, an archive or a manifest",
                        remedy="give the folder: unalike train DIR")  # fmt: skip
    whole = load_from_spec(spec, dataset.train_dataset, notices)
    if len(whole) == 0:
        raise DataError(f"{dataset.train_dataset} holds no images", expected="one folder a class with images in it")
    named = dataset.val_dataset
    kept = _training_rows(whole)
    if named is not None and (named.reference or named.query):
        reference, query = load_evaluation_sets(spec, notices, train=kept)
        unseen = not set(_present(query)) & set(_present(kept))
        return TrainingSets(kept, reference, query, "dataset.val_dataset", unseen)
    held = _rows(whole, QUERY_SPLITS)
    if held is not None:
        reference = _rows(whole, ("reference",)) or whole.select(np.flatnonzero(np.array(whole.splits) == "train"))
        _refuse_disjoint(reference, held)
        unseen = not set(_present(held)) & set(_present(kept))
        return TrainingSets(kept, reference, held, "the manifest's split column", unseen)
    whole = kept
    by = dataset.validation.by
    if by == "none":
        return TrainingSets(whole, None, None, "none", False)
    return _automatic(whole, by, dataset.validation.fraction, dataset.validation.seed, manifest)


def load_unlabeled_images(spec: Any, notices: Notices) -> ImageSet:
    """All training images in whatever arrangement, without labels; a manifest's ``train`` rows where it has splits.

    Raises DataError, SpecError.
    """
    source = spec.dataset.train_dataset
    if not source:
        raise SpecError("dataset.train_dataset is not set", expected="images: a folder, an archive or a manifest",
                        remedy="give the folder: unalike train DIR --no-labels")  # fmt: skip
    return _training_rows(load_from_spec(spec, source, notices, labeled=False))


def _present(images: ImageSet) -> list[str]:
    return [images.classes[i] for i in np.unique(images.labels_N) if i >= 0]


def _rows(images: ImageSet, names: tuple[str, ...]) -> ImageSet | None:
    """The rows of the first split in ``names`` that a manifest holds, or None."""
    splits = np.array(images.splits or (), dtype=str)
    for name in names:
        if (splits == name).any():
            return images.select(np.flatnonzero(splits == name))
    return None


def _training_rows(whole: ImageSet) -> ImageSet:
    """A manifest's ``train`` rows, so that nothing kept for measuring is learnt; everything where there is no split."""
    if whole.splits is None or not any(whole.splits):
        return whole
    rows = _rows(whole, ("train",))
    if rows is None:
        raise DataError(f"{whole.source}: no row has the split 'train'", expected="a row a training image; found "
                        f"{', '.join(sorted(set(whole.splits)))}")  # fmt: skip
    return rows.drop_empty_classes()


def _refuse_disjoint(reference: ImageSet, query: ImageSet) -> None:
    """Found before hours of training instead of after the first epoch (TAO D18)."""
    if reference.paths == query.paths:
        if reference.counts().max(initial=0) < 2:
            raise DataError(f"{reference.source} holds one image a class", expected="two, as it is its own reference",
                            remedy="name a query set of other images")  # fmt: skip
    elif not set(_present(reference)) & set(_present(query)):
        raise DataError(
            f"reference ({reference.source}: {', '.join(_present(reference)[:3])}, ...) and query ({query.source}: "
            f"{', '.join(_present(query)[:3])}, ...) have no class in common",
            expected="the query's classes among the reference's",
            remedy="check dataset.val_dataset and dataset.class_from",
        )


def _automatic(whole: ImageSet, by: str, fraction: float, seed: int, manifest: Path | None) -> TrainingSets:
    classes = len(_present(whole))
    if by == "class" and classes < 4:
        say(f"{classes} classes are too few to hold some out: validating on held-out images instead")
        by = "image"
    train, held = split_images(whole, by=by, fraction=fraction, seed=seed)
    if by == "class":
        reference, query = split_reference_query(held, seed=seed)
        text = f"{len(_present(held))} of {classes} classes held out (unseen in training)"
    else:
        reference, query = train, held
        text = f"{len(held)} of {len(whole)} images held out by {by}"
    if len(query) == 0 or len(reference) == 0:
        say("too few images to hold any out: training without validation")
        return TrainingSets(whole, None, None, "none", False)
    say(f"validation: {text}")
    if manifest is not None:
        parts = {"train": train, "val": query} | ({"reference": reference} if by == "class" else {})
        write_manifest(manifest, parts)
    return TrainingSets(train.drop_empty_classes(), reference, query, text, by == "class")


def load_evaluation_sets(spec: Any, notices: Notices, *, train: ImageSet | None = None) -> tuple[ImageSet, ImageSet]:
    """Reference and query of ``dataset.val_dataset`` under one class list.

    Without ``query`` the reference is its own query (an image never finds itself); without ``reference`` the training
    images serve. One manifest for both that has a split column is taken apart by it.
    """
    named = spec.dataset.val_dataset
    if named is None or not (named.reference or named.query):
        raise SpecError("dataset.val_dataset is not set", expected="reference and query, each a folder, archive or manifest",
                        remedy="set dataset.val_dataset.reference=DIR dataset.val_dataset.query=DIR")  # fmt: skip
    if named.reference:
        reference = load_from_spec(spec, named.reference, notices)
    elif train is not None or spec.dataset.train_dataset:
        reference = train if train is not None else load_from_spec(spec, spec.dataset.train_dataset, notices)
        say("dataset.val_dataset.reference is not set: the training images are the reference", level=2)
    else:
        raise SpecError("dataset.val_dataset.reference is not set", expected="a folder, archive or manifest")
    if named.query and named.query == named.reference:
        query = reference
    else:
        query = load_from_spec(spec, named.query, notices) if named.query else reference
    for name, images in (("reference", reference), ("query", query)):
        if len(images) == 0:
            raise DataError(f"dataset.val_dataset.{name} ({images.source}) holds no images",
                            expected="one folder a class with images in it")  # fmt: skip
    if named.query == named.reference and reference.splits is not None and any(reference.splits):
        first, second = _rows(reference, ("reference", "train")), _rows(reference, (*QUERY_SPLITS, "test"))
        if first is not None and second is not None:
            reference, query = first, second
    reference, query = align_labels(reference, query)
    _refuse_disjoint(reference, query)
    return reference, query
