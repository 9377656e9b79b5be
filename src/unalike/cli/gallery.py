"""The commands gallery build, add, remove, rename, merge, copy and list."""

from typing import Any

import typer

from unalike.cli.next_steps import suggest
from unalike.cli.output import print_line, show_result
from unalike.cli.section_options import Flag, Option, section_command
from unalike.cli.shared_options import AsJson, Overwrite
from unalike.spec import Experiment
from unalike.spec.gallery import GalleryAdd, GalleryCopy, GalleryList, GalleryMerge, GalleryRemove, GalleryRename

_NETWORK = {"model": Option(("-m", "--model"), "FILE")}
_ATTRIBUTES = {
    "attributes": Option(("--attribute",), "NAME=VALUE", repeatable=True),
    "attribute_columns": Option(("--attributes",), "A,B"),
}

MAX_VALUES = 20  # of an attribute that are listed

gallery = typer.Typer(
    rich_markup_mode=None,
    help="Manage reference images, in one file or in a database: add and remove classes without training.",
)


@gallery.command(short_help="Enroll class folders in a new gallery.")
@section_command(
    "gallery_build",
    arguments={"gallery": "GALLERY", "source": "DIR"},
    options={**_NETWORK, **_ATTRIBUTES, "rule": Option(("--by",), "RULE")},
    flags=(Flag("--no-calibration", "rate", None, "Do not calibrate: the answer is always the nearest class."),),
)
def build(experiment: Experiment, overwrite: Overwrite = False, as_json: AsJson = False) -> None:
    """Enroll class folders in a new gallery, and calibrate "unknown" where the images can support it."""
    from unalike.actions.gallery import build as run

    _print_summary(run(experiment, overwrite=overwrite), as_json, "gallery_build")


@gallery.command(short_help="Enroll more images.")
@section_command(
    "gallery_add",
    arguments={"gallery": "GALLERY", "source": "DIR|IMAGE"},
    options={**_NETWORK, **_ATTRIBUTES, "label": Option((), "NAME")},
    section=GalleryAdd,
)
def add(settings: GalleryAdd, as_json: AsJson = False) -> None:
    """Enroll more images of known or new classes, without training.

    Example: unalike gallery add shop.gallery berlin/ --attribute site=berlin
    """
    from unalike.actions.gallery import add as run

    _print_summary(run(settings), as_json, "gallery_add")


@gallery.command(short_help="Remove classes or single images.")
@section_command(
    "gallery_remove",
    arguments={"gallery": "GALLERY", "labels": "CLASS..."},
    options={"names": Option(("--image",), "NAME", repeatable=True)},
    section=GalleryRemove,
    names=True,
)
def remove(settings: GalleryRemove, as_json: AsJson = False) -> None:
    """Remove classes, or single images by the path under which they were enrolled."""
    from unalike.actions.gallery import remove as run

    _print_summary(run(settings), as_json, "gallery_remove")


@gallery.command(short_help="Rename a class.")
@section_command(
    "gallery_rename",
    arguments={"gallery": "GALLERY", "label": "CLASS", "new": "NEW"},
    section=GalleryRename,
    names=True,
)
def rename(settings: GalleryRename, as_json: AsJson = False) -> None:
    """Rename a class."""
    from unalike.actions.gallery import rename as run

    _print_summary(run(settings), as_json, "gallery_rename")


@gallery.command(short_help="Merge classes.")
@section_command(
    "gallery_merge",
    arguments={"gallery": "GALLERY", "labels": "CLASS..."},
    options={"into": Option((), "NAME")},
    section=GalleryMerge,
    names=True,
)
def merge(settings: GalleryMerge, as_json: AsJson = False) -> None:
    """Merge several classes into one."""
    from unalike.actions.gallery import merge as run

    _print_summary(run(settings), as_json, "gallery_merge")


@gallery.command(short_help="Copy a gallery, into a file or a database.")
@section_command(
    "gallery_copy",
    arguments={"gallery": "GALLERY", "target": "TARGET"},
    section=GalleryCopy,
    names=True,
)
def copy(settings: GalleryCopy, overwrite: Overwrite = False, as_json: AsJson = False) -> None:
    """Copy a gallery with its calibration, ids and network, from a file or a database to another one.

    A copy into a database that was interrupted goes on where it ended when the command is run again.

    Example: unalike gallery copy shop.gallery "postgresql://host/shop?gallery=shop"
    """
    from unalike.actions.gallery import copy as run

    _print_summary(run(settings, overwrite=overwrite), as_json, "gallery_copy")


@gallery.command("list", short_help="List the classes of a gallery.")
@section_command("gallery_list", arguments={"gallery": "GALLERY"}, section=GalleryList)
def list_gallery(settings: GalleryList, as_json: AsJson = False) -> None:
    """List the classes of a gallery with their numbers of images, the attributes of its references, and its calibration."""
    from unalike.actions.gallery import describe, load_gallery

    content = load_gallery(settings)
    description = describe(content, str(settings.gallery))
    if not as_json:
        for label, count in description["classes"].items():
            print_line(f"{label}: {count}")
        for name, values in description["attributes"].items():
            print_line(f"{name}: {_format_values(values)}")
        if content.calibration is not None:
            state = "provisional" if content.calibration.provisional else "calibrated"
            print_line(f"{state}: {content.calibration}")
    _print_summary(description, as_json, "gallery_list")


def _format_values(values: dict[str, int]) -> str:
    rest = len(values) - MAX_VALUES
    parts = [f"{value} ({count})" for value, count in list(values.items())[:MAX_VALUES]]
    return ", ".join([*parts, *([f"and {rest} more"] if rest > 0 else [])])


def _print_summary(description: dict[str, Any], as_json: bool, action: str) -> None:
    if as_json:
        show_result(description, True)
        return
    print_line(f"{description['gallery']}: {description['images']} images of {len(description['classes'])} classes")
    suggest(action, path=description["gallery"])
