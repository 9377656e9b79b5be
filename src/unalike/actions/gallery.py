"""Galleries: enroll images, change classes, calibrate, identify."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unalike.data.decoding_fit import log_conversions
from unalike.data.imageset import load_images
from unalike.errors import DataError, ModelError, SpecError
from unalike.inference.embedding import embed_files
from unalike.inference.loaded_model import require_model_file
from unalike.inference.model_files import is_pretrained
from unalike.progress import say
from unalike.recognition.gallery import Gallery
from unalike.recognition.gallery_calibration import calibrate
from unalike.recognition.recognizer import Recogniser
from unalike.runs.filenames import GALLERY_FILE, MODEL_CARD_FILE
from unalike.source_names import source_name
from unalike.spec.nodes import check_mandatory
from unalike.storage.overwrite import refuse_unchangeable

if TYPE_CHECKING:
    from unalike.spec import Experiment
    from unalike.spec.gallery import (
        Calibrate,
        GalleryAdd,
        GalleryBuild,
        GalleryList,
        GalleryMerge,
        GalleryRemove,
        GalleryRename,
        Identify,
    )


def find_model(gallery: Gallery, path: Path, model: str | Path | None) -> Path:
    """The file of a gallery's model: ``model`` if set, else its path when the gallery was built, else beside the gallery."""
    if model is not None:
        return Path(model)
    model_file = gallery.model_identity.file
    if is_pretrained(model_file):
        return Path(model_file)
    candidates = [Path(model_file), path.parent / Path(model_file).name] if model_file else []
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    raise ModelError(
        f"the model of {path} is not at {model_file}" if model_file else f"{path} does not name its model",
        remedy="name it with -m FILE",
    )


def open_recognizer(
    path: str | Path, model: str | Path | None = None, *, runtime: str = "auto", precision: str = "auto",
    approximate: bool = False,
) -> Recogniser:  # fmt: skip
    """Load a saved gallery with its model."""
    gallery = Gallery.load(path)
    return Recogniser.load(find_model(gallery, Path(path), model), gallery, runtime, precision, approximate=approximate)


def build(experiment: Experiment, *, overwrite: bool = False) -> dict[str, Any]:
    """Enroll class folders in a new gallery, and calibrate it if there are enough images for the rate.

    Args:
        experiment: Spec whose section ``gallery_build`` holds the options.
        overwrite: Replace the file, or the results of a former run in the results folder.

    Returns:
        A description of the gallery, as plain data.
    """
    from unalike.actions.results_folder import open_results, output_file

    section = experiment.gallery_build
    with open_results("gallery_build", experiment, overwrite=overwrite) as run:
        path = output_file(
            run, experiment, "gallery_build.gallery", GALLERY_FILE, overwrite=overwrite, alternative="use gallery add"
        )
        assert section.model is not None and section.source is not None
        frozen = is_pretrained(section.model)
        model = section.model if frozen else os.path.abspath(require_model_file(section.model))
        recognizer = Recogniser.load(model, runtime=section.runtime, precision=section.precision)
        if frozen:
            say(f"model: the pretrained trunk {recognizer.model_identity.trunk}, frozen: no training has fitted it to these "
                f"classes; unalike train {section.source} does")  # fmt: skip
        recognizer.enrol(section.source)
        gallery = recognizer.gallery
        gallery.store(half=section.half)
        if section.rate is not None:
            _set_threshold(recognizer, section, experiment.is_set("gallery_build.rate"), path)
        gallery.save(path, overwrite=overwrite or section.gallery is None)  # another build may have been faster
        if run is not None:
            run.own(path)
            run.conclude(f"written: {path}", {"images": len(gallery), "classes": len(gallery.counts())})
    return describe(gallery, path)


def _set_threshold(recognizer: Recogniser, section: GalleryBuild, rate_is_set: bool, path: Path) -> None:
    """Set the threshold of a new gallery, print what it costs, and write the report beside the gallery's file."""
    from unalike.recognition.report import write_threshold_report

    try:
        calibration, trials = recognizer.set_threshold(
            section.rate if rate_is_set else None, section.max_refused, rule=section.rule
        )
    except DataError as error:
        say(f"not calibrated, every image will get the nearest class's name: {error}")
        return
    if calibration.provisional:
        say(f"not calibrated: {calibration.needs}; a provisional threshold is set: {calibration}")
    else:
        say(f"calibrated: {calibration}")
    if not calibration.provisional and calibration.figures.get("known_unknown", 0.0) > section.max_refused:
        say(f"more known images than {section.max_refused:.0%} are called unknown at this rate: train the network, enroll more "
            "references of each class, or allow a higher --rate")  # fmt: skip
    report = write_threshold_report(path.with_name(f"{path.stem}_report.html"), calibration, trials)
    say(f"report: {report}")


def add(settings: GalleryAdd) -> dict[str, Any]:
    """Enroll more images: class folders, or images of one class where the section ``gallery_add`` has a label.

    Returns:
        A description of the gallery, as plain data.
    """
    check_mandatory("gallery_add", settings)
    path, source, label = str(settings.gallery), str(settings.source), settings.label
    refuse_unchangeable(path)
    recognizer = open_recognizer(path, settings.model, runtime=settings.runtime, precision=settings.precision)
    if label is None:
        vectors_ND, labels, names = recognizer.embed_folder(source, "enrolling")
    else:
        images = load_images(source, labeled=False)
        recognizer.fit_decoding(images.paths)
        embedded = embed_files(recognizer.engine, images.paths, recognizer.view, describe="enrolling")
        vectors_ND, names = embedded.vectors_ND, [source_name(images.paths[i]) for i in embedded.kept_N]
        labels = [label] * len(names)
        if embedded.failures:
            say(f"{len(embedded.failures)} unreadable images were skipped, the first: {embedded.failures[0][1]}")

    def enroll(gallery: Gallery) -> None:
        gallery.model_identity.check_compatible(recognizer.model_identity)  # it may be another one by now
        gallery.model_identity = gallery.model_identity.with_decoding(
            gallery.model_identity.decoding.completed(recognizer.view.decoding)
        )
        gallery.enrol(vectors_ND, labels, names)

    return change(path, enroll)


def remove(settings: GalleryRemove) -> dict[str, Any]:
    """Remove classes, and single images by the path under which they were enrolled.

    Args:
        settings: The section ``gallery_remove`` of a spec.

    Returns:
        A description of the gallery, as plain data.

    Raises:
        SpecError: Neither classes nor images are named.
    """
    check_mandatory("gallery_remove", settings)
    labels, names = settings.labels or (), settings.names or ()
    if not labels and not names:
        raise SpecError("remove without a class or --image", expected="unalike gallery remove GALLERY CLASS...")
    return change(str(settings.gallery), lambda gallery: gallery.remove(labels, names))


def rename(settings: GalleryRename) -> dict[str, Any]:
    """Rename the class that the section ``gallery_rename`` names; returns a description of the gallery."""
    check_mandatory("gallery_rename", settings)
    return change(str(settings.gallery), lambda gallery: gallery.rename(str(settings.label), str(settings.new)))


def merge(settings: GalleryMerge) -> dict[str, Any]:
    """Merge the classes that the section ``gallery_merge`` names; returns a description of the gallery."""
    check_mandatory("gallery_merge", settings)
    return change(str(settings.gallery), lambda gallery: gallery.merge(settings.labels or (), str(settings.into)))


def load_gallery(settings: GalleryList) -> Gallery:
    """Load the gallery that the section ``gallery_list`` names."""
    check_mandatory("gallery_list", settings)
    return Gallery.load(str(settings.gallery), verify=settings.verify)


def change(path: str | Path, function: Callable[[Gallery], object]) -> dict[str, Any]:
    """Load a gallery, change it by ``function`` and save it under the same path, while other changes of it wait."""
    with Gallery.edit(path) as gallery:
        function(gallery)
    warn_if_uncalibrated(gallery)
    return describe(gallery, path)


def warn_if_uncalibrated(gallery: Gallery) -> None:
    """Print a line if the gallery is not calibrated, or has changed since."""
    if gallery.calibration is None:
        say(
            "the gallery is not calibrated: every image gets the nearest class's name; see unalike calibrate", once=True
        )
    elif gallery.stale:
        say(f"the gallery changed: {gallery.stale}; run unalike calibrate again", once=True)
    elif gallery.calibration.provisional:
        say(f"the gallery's threshold is provisional: {gallery.calibration.needs}", once=True)


def describe(gallery: Gallery, path: str | Path) -> dict[str, Any]:
    """Describe a gallery as plain data."""
    return {
        "gallery": str(path),
        "images": len(gallery),
        "classes": gallery.counts(),
        "dim": gallery.dim,
        "half": gallery.half,
        "model": gallery.model_identity.file,
        "calibration": None if gallery.calibration is None else gallery.calibration.to_dict(),
        "stale": gallery.stale,
    }


def _say_unused_options(settings: Calibrate) -> None:
    """Say which options of a calibration do nothing with the others that were given."""
    from unalike.spec.gallery import Calibrate

    defaults, unused = Calibrate(), []
    if settings.rule != "vote":
        unused.append(("k", "neighbors vote with --by vote alone"))
    if settings.images is None:
        unused += [(name, "no network runs without --images") for name in ("model", "runtime", "precision")]
    for name, reason in unused:
        if getattr(settings, name) != getattr(defaults, name):
            say(f"not used: {name}; {reason}")


def calibrate_file(settings: Calibrate) -> dict[str, Any]:
    """Calibrate a saved gallery, save it, and write a model card beside it; without further images no network runs.

    Args:
        settings: The section ``calibrate`` of a spec.

    Returns:
        The gallery, its calibration and the model card, as plain data.

    Raises:
        DataError: The data cannot support the rate.
    """
    from unalike.report.model_card_format import add_section

    check_mandatory("calibrate", settings)
    path = Path(str(settings.gallery))
    refuse_unchangeable(path)
    _say_unused_options(settings)
    options = settings.model_dump(include={"wrong", "trials_from", "rule", "k", "confidence", "seed"})
    if settings.images is None:
        gallery = Gallery.load(path)
        calibration = calibrate(gallery, settings.rate, **options)
    else:
        recognizer = open_recognizer(path, settings.model, runtime=settings.runtime, precision=settings.precision)
        gallery, calibration = recognizer.gallery, recognizer.calibrate(settings.rate, settings.images, **options)
    with Gallery.edit(path) as current:
        # Images that others enrolled meanwhile stay; the calibration then counts as out of date.
        if not current.snapshot.continues(gallery.snapshot):
            raise DataError(
                f"{path} was replaced by another gallery while it was calibrated", remedy="calibrate it again"
            )
        current.calibration = calibration
        current.model_identity = current.model_identity.with_decoding(gallery.model_identity.decoding)
    warn_if_uncalibrated(current)
    content = {"gallery": path.name, "images": len(gallery), "enrolled classes": len(gallery.classes)}
    model = gallery.model_identity.file
    source = Path(model).parent / MODEL_CARD_FILE if model and not is_pretrained(model) else None
    add_section(path.parent, "unknown", content | calibration.to_dict(), source=source, stem=f"{path.stem}_card")
    say(str(calibration))
    card = path.parent / f"{path.stem}_card.json"
    return {"gallery": str(path), "calibration": calibration.to_dict(), "card": str(card)}


def identify(settings: Identify) -> dict[str, Any]:
    """Label every image of files and folders by a saved gallery.

    Args:
        settings: The section ``identify`` of a spec.

    Returns:
        ``answers``, one an image; ``unreadable`` files with reasons; ``index``, the recall of an approximate search, or None.

    Raises:
        DataError: There are no images.
    """
    check_mandatory("identify", settings)
    recognizer = open_recognizer(str(settings.gallery), settings.model, runtime=settings.runtime,
                                 precision=settings.precision, approximate=settings.approximate)  # fmt: skip
    warn_if_uncalibrated(recognizer.gallery)
    paths = [p for source in settings.images or () for p in load_images(source, labeled=False).paths]
    if not paths:
        raise DataError("no images", expected="image files, or folders of images")
    log_conversions(paths, recognizer.view.decoding)
    embedded = embed_files(recognizer.engine, paths, recognizer.view, max_unreadable=1.0, describe="identifying")
    if embedded.failures:
        say(f"{len(embedded.failures)} unreadable images, the first: {embedded.failures[0][1]}")
    index = None if recognizer.index is None else recognizer.index.to_dict()
    if index is not None:
        say(f"approximate search finds {index['recall']:.1%} of the {index['neighbours']} nearest, measured on "
            f"{index['trials']} enrolled images")  # fmt: skip
    answers = recognizer.identify_vectors(embedded.vectors_ND, settings.k, settings.rule)
    return {
        "gallery": str(settings.gallery),
        "engine": recognizer.engine.describe(),
        "index": index,
        "answers": [
            {"path": source_name(paths[i]), **answer.to_dict()}
            for i, answer in zip(embedded.kept_N.tolist(), answers, strict=True)
        ],
        "unreadable": [{"path": name, "reason": reason} for name, reason in embedded.failures],
    }
