"""Training of a candidate from what a service holds, and its comparison with the model in service."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from unalike.errors import DataError
from unalike.inference.embedding import embed_files
from unalike.learning.labeled_images import (
    DataReport,
    LabeledImage,
    drop_unreadable,
    write_training_manifest,
)
from unalike.learning.paired_result import PairedResult, compare_models
from unalike.learning.verdict import judge
from unalike.learning.withholding import SHARE, TrainingFacts, withhold
from unalike.progress import begin_step, say
from unalike.recognition.backends.protocol import Entry, GalleryBackend
from unalike.recognition.gallery_conversion import embed_references
from unalike.recognition.recognizer import Recogniser
from unalike.serve.learning.collection import Originals, collect_images
from unalike.serve.learning.gallery_models import LearningGallery, entries_of
from unalike.serve.model_files import keep_model, relative_file, training_digests, vectors_file
from unalike.serve.store.images import media_type_of
from unalike.serve.store.learning import ComparisonRecord, ModelRecord
from unalike.serve.store.records import new_id, utc_now
from unalike.storage.digests import file_sha256

RUN_FOLDER, IMAGES_FOLDER, MANIFEST = "run", "images", "training.csv"
MIN_CLASSES = 2
MAX_CHANGES = 500
_SUFFIXES = {"image/jpeg": ".jpg", "image/png": ".png", "image/gif": ".gif", "image/bmp": ".bmp", "image/tiff": ".tif",
             "image/webp": ".webp", "image/avif": ".avif", "image/heic": ".heic", "image/heif": ".heif"}  # fmt: skip


@dataclass(frozen=True)
class TrainingOptions:
    """What a training is made of.

    Attributes:
        data: class folders, an archive or a manifest of further images; None: none.
        with_service: whether the references and corrections of the service are taken.
        minutes: of the training.
        goal: ``new-classes``, ``known-classes`` or ``both``.
        share: of the images that the model in service has not seen, withheld to compare with it.
        name: what the candidate is called.
        spec: spec file of the training; minutes and goal of these options take precedence.
    """

    data: str | None = None
    with_service: bool = True
    minutes: float = 10.0
    goal: str = "both"
    share: float = SHARE
    name: str = ""
    spec: str | None = None


def check_data(
    place: LearningGallery, options: TrainingOptions, *, decode: bool = True
) -> tuple[list[LabeledImage], DataReport]:
    """The images of a training, and what is wrong with them.

    Args:
        place: the gallery.
        options: of the training.
        decode: whether each image is decoded, to find those that cannot be.

    Raises:
        DataError: there is no image.
    """
    originals = Originals(place.store)
    with place.opened() as gallery:
        entries = entries_of(gallery)
    images, report = collect_images(
        place.store, place.name, entries, originals, folder=options.data, with_service=options.with_service
    )  # fmt: skip
    if decode:
        images = drop_unreadable(images, originals.content, report, max_pixels=place.max_pixels)
    if not images:
        raise DataError(
            "no image to train on", expected="references with pictures, corrected decisions, or a folder of images"
        )
    return images, report


def train_candidate(
    place: LearningGallery, options: TrainingOptions, folder: Path, *, task: str | None = None
) -> tuple[ModelRecord, dict[str, Any]]:
    """Train a candidate; a share of the images is withheld from it.

    Args:
        place: the gallery.
        options: of the training.
        folder: of the training; the run is below it.
        task: id of the task.

    Returns:
        The model, which is in the store, and the figures of its training with what was found in the data.

    Raises:
        DataError: there are too few images.
        UnalikeError: the training fails.
    """
    from unalike.actions.train import train

    start = utc_now()
    images, report = check_data(place, options)
    with place.opened() as gallery:
        facts, enrolled = place.facts_of(place.model_in_service(gallery)), gallery.counts()
    training, withheld = withhold(images, facts, share=options.share, enrolled=enrolled)
    classes = {image.label for image in training}
    if len(classes) < MIN_CLASSES:
        raise DataError(f"images of {len(classes)} classes to train on", expected=f"at least {MIN_CLASSES} classes",
                        remedy="enroll references of further classes, or name a folder of images")  # fmt: skip
    say(
        f"training on {len(training)} images of {len(classes)} classes; {len(withheld)} images are withheld; {facts.describe()}"
    )
    try:
        manifest = _write_images(place, training, folder)
        settings = [f"automl.minutes={options.minutes:g}", f"automl.goal={options.goal}", "automl_policy=auto",
                    f"train.results_dir={folder / RUN_FOLDER}"]  # fmt: skip
        result = train(options.spec, settings, data=manifest)
        assert result.path is not None
        file = _export(result.path, manifest, folder)
    finally:
        shutil.rmtree(folder / IMAGES_FOLDER, ignore_errors=True)
    model_id = new_id()
    path = keep_model(place.folder, model_id, file, frozenset(image.sha256 for image in training))
    facts_of_model = {
        "figures": dict(result.figures), "images": len(training), "classes": len(classes), "withheld": len(withheld),
        "collected": start.isoformat(), "minutes": options.minutes, "goal": options.goal, "data": options.data,
        "with_service": options.with_service,
    }  # fmt: skip
    record = ModelRecord(
        place.name, options.name or f"trained {start:%Y-%m-%d %H:%M}", relative_file(place.folder, str(path)), file_sha256(path),
        place.open(str(path)).model_identity.network, task, facts_of_model, id=model_id,
    )  # fmt: skip
    place.store.learning.add_model(record)
    return record, {"figures": dict(result.figures), "data": report.to_dict()}


def _write_images(place: LearningGallery, images: Sequence[LabeledImage], folder: Path) -> Path:
    """Write the images of the store as files, so that no purge takes them away from a training, and the manifest."""
    target = folder / IMAGES_FOLDER
    target.mkdir(parents=True, exist_ok=True)
    rows = []
    for image in images:
        if not image.path:
            content = place.store.images.get(image.sha256)
            file = target / f"{image.sha256}{_SUFFIXES.get(media_type_of(content), '.png')}"
            file.write_bytes(content)
            image = replace(image, path=str(file))
        rows.append(image)
    return write_training_manifest(folder / MANIFEST, rows)


def _export(checkpoint: Path, manifest: Path, folder: Path) -> Path:
    from unalike.actions.export import export

    begin_step("exporting the network")
    file = folder / "export" / "model.onnx"
    settings = [f"export.checkpoint={checkpoint}", f"export.onnx_file={file}", f"export.results_dir={folder / 'export'}",
                f"dataset.train_dataset={manifest}"]  # fmt: skip
    export(None, settings)
    return file


# ---- comparison ----


def compare_candidate(place: LearningGallery, model_id: str) -> ComparisonRecord:
    """Compare a candidate with the model in service on images that neither was trained on; the result is in the store.

    Raises:
        DataError: there is no such model, or no reference with a picture.
    """
    record = place.candidate(model_id)
    with place.opened() as gallery:
        former_file, file = place.model_in_service(gallery), place.file_of(record.file)
        facts = (place.facts_of(former_file), TrainingFacts(hashes=training_digests(place.folder, record.id)))
        former, candidate = place.open(former_file, gallery), place.open(file)
        originals, entries = Originals(place.store), entries_of(gallery)
        data = record.facts.get("data")
        folder = data if isinstance(data, str) and Path(data).exists() else None
        images, report = collect_images(place.store, place.name, entries, originals, folder=folder)
        queries, left_out = choose_queries(images, facts, entries, originals)
        say(f"comparing on {len(queries)} withheld images; {facts[0].describe()}")
        result = _compare(place, (former, candidate), gallery, entries, originals, queries)
    verdict = judge(result)
    say(verdict.reason)
    values = {
        **result.to_dict(), "verdict": verdict.to_dict(), "changes": [change.to_dict() for change in result.changes[:MAX_CHANGES]],
        "counts": facts[0].describe(), "left_out": left_out | {"references without a picture": len(report.missing)},
    }  # fmt: skip
    comparison = ComparisonRecord(record.id, former.model_identity.network, values)
    place.store.learning.add_comparison(comparison)
    return comparison


def choose_queries(
    images: Sequence[LabeledImage],
    facts: tuple[TrainingFacts, TrainingFacts],
    entries: Sequence[Entry],
    originals: Originals,
) -> tuple[list[LabeledImage], dict[str, int]]:
    """The images that neither model was trained on and whose class both can name; and how many of the others there are, by reason.

    Args:
        images: one for each content.
        facts: of the model in service and of the candidate.
        entries: the references.
        originals: reads their pictures.
    """
    counts = {"seen by the model in service": 0, "seen by the candidate": 0, "class not enrolled": 0}
    unseen = []
    for image in images:
        if not facts[1].excludes(image):
            counts["seen by the candidate"] += 1
        elif not facts[0].excludes(image):
            counts["seen by the model in service"] += 1
        else:
            unseen.append(image)
    withheld = {image.sha256 for image in unseen}
    enrolled = {entry.label for entry in entries if originals.digest(entry) not in {None, *withheld}}
    queries = [image for image in unseen if image.label in enrolled]
    counts["class not enrolled"] = len(unseen) - len(queries)
    return queries, counts


def _compare(
    place: LearningGallery, recognizers: tuple[Recogniser, Recogniser], gallery: GalleryBackend, entries: Sequence[Entry],
    originals: Originals, queries: Sequence[LabeledImage],
) -> PairedResult:  # fmt: skip
    """Look up the withheld images among the references with a picture of another content, by both models."""
    withheld = {image.sha256 for image in queries}
    references = [entry for entry in entries if originals.digest(entry) not in {None, *withheld}]
    candidate = recognizers[1]
    with gallery.view() as view:
        before_RD = view.vectors([entry.id for entry in references])
    cache = place.kept_vectors(candidate.model_identity)
    after_RD = embed_references(candidate, references, originals.read, cache, max_pixels=place.max_pixels)
    cache.save(
        vectors_file(place.folder, place.name, candidate.model_identity), candidate.model_identity
    )  # a promotion needs them too
    before_QD, after_QD = (_embed(one, queries, originals, place.max_pixels) for one in recognizers)
    return compare_models(
        (before_QD, before_RD), (after_QD, after_RD), [image.label for image in queries],
        [entry.label for entry in references], [(image.sha256, image.name) for image in queries],
    )  # fmt: skip


def _embed(recognizer: Recogniser, images: Sequence[LabeledImage], originals: Originals, max_pixels: int) -> np.ndarray:
    """Vectors (Q, D) of labeled images."""
    if not images:
        return np.empty((0, recognizer.engine.dim), np.float32)
    by_key = {str(number): image for number, image in enumerate(images)}

    def view(key: str | Path, *, max_pixels: int) -> np.ndarray:
        return recognizer.view(originals.content(by_key[str(key)]), max_pixels=max_pixels)

    embedded = embed_files(
        recognizer.engine, list(by_key), view, max_unreadable=0, max_pixels=max_pixels, describe="withheld images"
    )
    return embedded.vectors_ND
