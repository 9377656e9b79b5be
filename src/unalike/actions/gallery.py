"""Galleries: enroll images, change classes, calibrate, identify."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unalike.data.class_names import check_class_name, check_new_class_name, find_similar_names, normalize_class_name
from unalike.data.decoding_fit import log_conversions
from unalike.data.imageset import load_images
from unalike.data.notices import Notices
from unalike.errors import DataError, ModelError, SpecError
from unalike.inference.embedding import embed_files
from unalike.inference.loaded_model import require_model_file
from unalike.inference.model_files import is_pretrained
from unalike.progress import say
from unalike.recognition.attributes import (
    check_columns,
    check_names,
    missing_values,
    parse_attributes,
    parse_where,
)
from unalike.recognition.backends.address import check_new, copy_gallery, edit_gallery, open_gallery, save_gallery
from unalike.recognition.backends.database_address import display_address, is_database
from unalike.recognition.backends.protocol import GalleryBackend, GalleryView
from unalike.recognition.decision import GalleryCalibration
from unalike.recognition.gallery import Gallery
from unalike.recognition.gallery_calibration import calibrate, check_settings
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
        GalleryCopy,
        GalleryList,
        GalleryMerge,
        GalleryRemove,
        GalleryRename,
        Identify,
    )


def find_model(gallery: GalleryBackend, address: str | Path, model: str | Path | None) -> Path:
    """The file of a gallery's model: ``model`` if set, else its path when the gallery was built, else beside the gallery."""
    if model is not None:
        return Path(model)
    model_file = gallery.model_identity.file
    if is_pretrained(model_file):
        return Path(model_file)
    candidates = [Path(model_file)] if model_file else []
    if model_file and not is_database(address):
        candidates.append(Path(address).parent / Path(model_file).name)
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    name = display_address(address)
    raise ModelError(
        f"the model of {name} is not at {model_file}" if model_file else f"{name} does not name its model",
        remedy="name it with -m FILE",
    )


def open_recognizer(
    address: str | Path, model: str | Path | None = None, *, runtime: str = "auto", precision: str = "auto",
    approximate: bool = False,
) -> Recogniser:  # fmt: skip
    """Open a gallery (a file, or the address of one in a database) with its model."""
    gallery = open_gallery(address)
    return Recogniser.load(find_model(gallery, address, model), gallery, runtime, precision, approximate=approximate)


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
        address: str | Path
        if section.gallery is not None and is_database(section.gallery):
            address = section.gallery
            check_new(address, overwrite=overwrite)
        else:
            address = output_file(
                run,
                experiment,
                "gallery_build.gallery",
                GALLERY_FILE,
                overwrite=overwrite,
                alternative="use gallery add",
            )
        assert section.model is not None and section.source is not None
        frozen = is_pretrained(section.model)
        model = section.model if frozen else os.path.abspath(require_model_file(section.model))
        # A mistyped name is told before a network is loaded.
        attributes, columns = parse_attributes(section.attributes), check_columns(section.attribute_columns)
        load_images(section.source, notices=Notices(), further=columns)
        recognizer = Recogniser.load(model, runtime=section.runtime, precision=section.precision)
        if frozen:
            say(f"model: the pretrained trunk {recognizer.model_identity.trunk}, frozen: no training has fitted it to these "
                f"classes; unalike train {shlex.quote(str(section.source))} does")  # fmt: skip
        recognizer.enrol(section.source, attributes=attributes, attribute_columns=columns)
        gallery = recognizer.gallery
        assert isinstance(gallery, Gallery)
        gallery.store(half=section.half)
        if section.rate is not None:
            report = address if isinstance(address, Path) else None if run is None else run.dir / GALLERY_FILE
            _set_threshold(recognizer, section, experiment.is_set("gallery_build.rate"), report)
        save_gallery(
            gallery, address, overwrite=overwrite or section.gallery is None
        )  # another build may have been faster
        if run is not None:
            if isinstance(address, Path):
                run.own(address)
            figures = {"images": len(gallery), "classes": len(gallery.counts())}
            run.conclude(f"written: {display_address(address)}", figures)
    return describe(gallery, address)


def _set_threshold(recognizer: Recogniser, section: GalleryBuild, rate_is_set: bool, path: Path | None) -> None:
    """Set the threshold of a new gallery, print what it costs, and write the report beside its file, if there is one."""
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
    if path is None:
        return
    report = write_threshold_report(path.with_name(f"{path.stem}_report.html"), calibration, trials)
    say(f"report: {report}")


def add(settings: GalleryAdd) -> dict[str, Any]:
    """Enroll more images: class folders, or images of one class where the section ``gallery_add`` has a label.

    Returns:
        A description of the gallery, as plain data.
    """
    check_mandatory("gallery_add", settings)
    address, source = str(settings.gallery), str(settings.source)
    label = None if settings.label is None else check_class_name(settings.label)
    attributes, columns = parse_attributes(settings.attributes), check_columns(settings.attribute_columns)
    _refuse_unchangeable(address)
    # A mistyped name is told before a network is loaded.
    load_images(source, labeled=label is None, notices=Notices(), further=columns)
    recognizer = open_recognizer(address, settings.model, runtime=settings.runtime, precision=settings.precision)
    if label is not None and label not in recognizer.gallery.counts():
        check_new_class_name(label)
    references = recognizer.embed_references(source, attributes, columns, label=label)

    def enroll(gallery: GalleryBackend) -> None:
        gallery.model_identity.check_compatible(recognizer.model_identity)  # it may be another one by now
        gallery.model_identity = gallery.model_identity.with_decoding(
            gallery.model_identity.decoding.completed(recognizer.view.decoding)
        )
        _say_similar(references[1], gallery)
        gallery.enrol(*references)

    return change(address, enroll)


def _say_similar(labels: Sequence[str], gallery: GalleryBackend) -> None:
    """Name new classes that differ from classes of the gallery in case, blanks or invisible characters alone."""
    classes = gallery.counts()
    new = [label for label in dict.fromkeys(labels) if normalize_class_name(label) not in classes]
    for group in find_similar_names(new, classes):
        say(
            f"classes whose names look alike stay separate: {' and '.join(map(repr, group))}; unalike gallery merge makes them one"
        )


def _refuse_unchangeable(address: str) -> None:
    """Raise an error where a gallery's file cannot be written, before the work of the change; a server says so itself."""
    if not is_database(address):
        refuse_unchangeable(address)


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
    new = check_new_class_name(settings.new)
    return change(str(settings.gallery), lambda gallery: gallery.rename(str(settings.label), new))


def merge(settings: GalleryMerge) -> dict[str, Any]:
    """Merge the classes that the section ``gallery_merge`` names; returns a description of the gallery."""
    check_mandatory("gallery_merge", settings)
    into = str(settings.into)

    def merge_classes(gallery: GalleryBackend) -> None:
        if into not in gallery.counts():
            check_new_class_name(into)
        gallery.merge(settings.labels or (), into)

    return change(str(settings.gallery), merge_classes)


def copy(settings: GalleryCopy, *, overwrite: bool = False) -> dict[str, Any]:
    """Copy the gallery that the section ``gallery_copy`` names.

    Args:
        settings: The section.
        overwrite: Replace the gallery at the target.

    Returns:
        A description of the copy, as plain data.
    """
    check_mandatory("gallery_copy", settings)
    target = str(settings.target)
    gallery = copy_gallery(str(settings.gallery), target, overwrite=overwrite)
    return describe(gallery, target)


def load_gallery(settings: GalleryList) -> GalleryBackend:
    """Open the gallery that the section ``gallery_list`` names."""
    check_mandatory("gallery_list", settings)
    return open_gallery(str(settings.gallery), verify=settings.verify)


def change(address: str | Path, function: Callable[[GalleryBackend], object]) -> dict[str, Any]:
    """Change a gallery by ``function`` in one durable step, while other changes of it wait."""
    with edit_gallery(address) as gallery:
        function(gallery)
        calibration, stale, description = gallery.calibration, gallery.stale, describe(gallery, address)
    _warn(calibration, stale)
    return description


def warn_if_uncalibrated(gallery: GalleryBackend) -> None:
    """Print a line if the gallery is not calibrated, or has changed since."""
    with gallery.view() as view:
        _warn(view.calibration, view.stale)


def _warn(calibration: GalleryCalibration | None, stale: str) -> None:
    if calibration is None:
        say(
            "the gallery is not calibrated: every image gets the nearest class's name; see unalike calibrate", once=True
        )
    elif stale:
        say(f"the gallery changed: {stale}; run unalike calibrate again", once=True)
    elif calibration.provisional:
        say(f"the gallery's threshold is provisional: {calibration.needs}", once=True)


def describe(gallery: GalleryBackend, address: str | Path) -> dict[str, Any]:
    """Describe a gallery as plain data."""
    with gallery.view() as view:
        calibration = view.calibration
        return {
            "gallery": display_address(address),
            "images": view.size[0],
            "classes": view.counts(),
            "attributes": view.attributes(),
            "dim": view.dim,
            "half": gallery.half,
            "model": view.model_identity.file,
            "calibration": None if calibration is None else calibration.to_dict(),
            "stale": view.stale,
        }


def _say_unused_options(settings: Calibrate) -> None:
    """Say which options of a calibration do nothing with the others that were given."""
    from unalike.spec.gallery import Calibrate

    defaults = Calibrate()
    unused: list[tuple[str, str]] = []
    if settings.rule != "vote":
        unused.append(("k", "neighbors vote with --by vote alone"))
    if settings.images is None:
        unused += [(name, "no network runs without --images") for name in ("model", "runtime", "precision")]
    for name, reason in unused:
        if getattr(settings, name) != getattr(defaults, name):
            say(f"not used: {name}; {reason}")


def calibrate_file(settings: Calibrate) -> dict[str, Any]:
    """Calibrate a gallery and keep that; without further images no network runs. A model card is written beside a file.

    Args:
        settings: The section ``calibrate`` of a spec.

    Returns:
        The gallery, its calibration and the model card (None for a database), as plain data.

    Raises:
        DataError: The data cannot support the rate.
    """
    check_mandatory("calibrate", settings)
    address = str(settings.gallery)
    _refuse_unchangeable(address)
    _say_unused_options(settings)
    options = settings.model_dump(include={"wrong", "trials_from", "rule", "k", "confidence", "seed"})
    check_settings(settings.rate, **options)
    if settings.images is None:
        gallery = open_gallery(address)
        with gallery.view() as before:
            calibration = calibrate(gallery, settings.rate, **options)
    else:
        recognizer = open_recognizer(address, settings.model, runtime=settings.runtime, precision=settings.precision)
        gallery = recognizer.gallery
        with gallery.view() as before:
            images = recognizer.embed_folder(settings.images, "calibrating")[:2]
            calibration = calibrate(gallery, settings.rate, images=images, **options)
    with edit_gallery(address) as current:
        # Images that others enrolled meanwhile stay; the calibration then counts as out of date.
        with current.view() as view:
            if not view.continues(before):
                raise DataError(
                    f"{display_address(address)} was replaced by another gallery while it was calibrated",
                    remedy="calibrate it again",
                )
        current.calibration = calibration
        current.model_identity = current.model_identity.with_decoding(gallery.model_identity.decoding)
        stale = current.stale
    _warn(calibration, stale)
    say(str(calibration))
    card = None if is_database(address) else _write_card(Path(address), before, calibration)
    return {"gallery": display_address(address), "calibration": calibration.to_dict(), "card": card}


def _write_card(path: Path, view: GalleryView, calibration: GalleryCalibration) -> str:
    """Add the calibration to the model card beside a gallery's file; the card's path."""
    from unalike.report.model_card_format import add_section

    content = {"gallery": path.name, "images": view.size[0], "enrolled classes": view.size[1]}
    model = view.model_identity.file
    source = Path(model).parent / MODEL_CARD_FILE if model and not is_pretrained(model) else None
    add_section(path.parent, "unknown", content | calibration.to_dict(), source=source, stem=f"{path.stem}_card")
    return str(path.parent / f"{path.stem}_card.json")


def identify(settings: Identify) -> dict[str, Any]:
    """Label every image of files and folders by a saved gallery.

    Args:
        settings: The section ``identify`` of a spec.

    Returns:
        ``answers``, one an image; ``unreadable`` files with reasons; ``index``, the recall of an approximate search, or None.

    Raises:
        DataError: There are no images, or no reference has an attribute of the filter.
    """
    check_mandatory("identify", settings)
    where = parse_where(settings.where)
    # A mistyped name is told before a network is loaded.
    paths = [p for source in settings.images or () for p in load_images(source, labeled=False).paths]
    if not paths:
        raise DataError("no images", expected="image files, or folders of images")
    recognizer = open_recognizer(str(settings.gallery), settings.model, runtime=settings.runtime,
                                 precision=settings.precision, approximate=settings.approximate)  # fmt: skip
    warn_if_uncalibrated(recognizer.gallery)
    if where:  # before images are embedded
        counts = recognizer.gallery.attributes()
        check_names(where, counts)
        for sentence in missing_values(where, counts):
            say(sentence)
    log_conversions(paths, recognizer.view.decoding)
    embedded = embed_files(recognizer.engine, paths, recognizer.view, max_unreadable=1.0, describe="identifying")
    if embedded.failures:
        say(f"{len(embedded.failures)} unreadable images, the first: {embedded.failures[0][1]}")
    index = None if recognizer.index is None or where is not None else recognizer.index.to_dict()
    if recognizer.index is not None and where is not None:
        say("a filtered search is exact: the index is not used")
    if index is not None:
        low, high = index.get("recall_interval", (None, None))
        interval = "" if low is None else f" ({low:.1%} to {high:.1%} with 95% confidence)"
        say(f"approximate search finds {index['recall']:.1%} of the {index['neighbours']} nearest{interval}, measured on "
            f"{index['trials']} enrolled images")  # fmt: skip
    answers = recognizer.identify_vectors(embedded.vectors_ND, settings.k, settings.rule, where)
    return {
        "gallery": display_address(str(settings.gallery)),
        "engine": recognizer.engine.describe(),
        "index": index,
        "answers": [
            {"path": source_name(paths[i]), **answer.to_dict()}
            for i, answer in zip(embedded.kept_N.tolist(), answers, strict=True)
        ],
        "unreadable": [{"path": name, "reason": reason} for name, reason in embedded.failures],
    }
