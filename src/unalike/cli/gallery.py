"""The commands gallery build, add, remove, rename, merge and list."""

from typing import Annotated, Any

import typer

from unalike.cli.output import print_line, show_result
from unalike.cli.section_options import Flag, Option, section_command
from unalike.cli.shared_options import AsJson, Overwrite, Quiet, Verbose, set_verbosity
from unalike.errors import SpecError
from unalike.spec import Experiment

GalleryFile = Annotated[str, typer.Argument(metavar="GALLERY", help="The gallery's file.")]
Model = Annotated[
    str | None,
    typer.Option("-m", "--model", metavar="FILE", help="A .onnx or .pth model; if unset, the gallery's own."),
]
Runtime = Annotated[str, typer.Option(metavar="NAME", help="auto, torch, onnxruntime or openvino.")]
Precision = Annotated[str, typer.Option(metavar="NAME", help="auto, fp32, bf16 or fp16.")]

gallery = typer.Typer(
    rich_markup_mode=None, help="Manage reference images in one file: add and remove classes without training."
)


@gallery.command(short_help="Enroll class folders in a new gallery.")
@section_command(
    "gallery_build",
    arguments={"gallery": "GALLERY", "source": "DIR"},
    options={
        "model": Option(("-m", "--model"), "FILE"),
        "rule": Option(("--by",), "RULE"),
    },
    flags=(Flag("--no-calibration", "rate", None, "Do not calibrate: the answer is always the nearest class."),),
)
def build(experiment: Experiment, overwrite: Overwrite = False, as_json: AsJson = False) -> None:
    """Enroll class folders in a new gallery, and calibrate "unknown" where the images can support it."""
    from unalike.actions.gallery import build as run

    _print_summary(run(experiment, overwrite=overwrite), as_json)


@gallery.command(short_help="Enroll more images.")
def add(
    path: GalleryFile,
    source: Annotated[str, typer.Argument(metavar="DIR|IMAGE", help="Class folders; with --label any images.")],
    label: Annotated[str | None, typer.Option(metavar="NAME", help="Class of all the images.")] = None,
    model: Model = None, runtime: Runtime = "auto", precision: Precision = "auto",
    as_json: AsJson = False, verbose: Verbose = False, quiet: Quiet = False,
) -> None:  # fmt: skip
    """Enroll more images of known or new classes, without training."""
    set_verbosity(verbose, quiet)
    from unalike.actions.gallery import add as run

    _print_summary(run(path, source, model, label=label, runtime=runtime, precision=precision), as_json)


@gallery.command(short_help="Remove classes or single images.")
def remove(
    path: GalleryFile,
    labels: Annotated[list[str] | None, typer.Argument(metavar="[CLASS]...", help="Classes to remove.")] = None,
    image: Annotated[list[str] | None, typer.Option(metavar="NAME", help="A single image, by the path under which it was enrolled.")] = None,
    as_json: AsJson = False, verbose: Verbose = False, quiet: Quiet = False,
) -> None:  # fmt: skip
    """Remove classes, or single images by the path under which they were enrolled."""
    set_verbosity(verbose, quiet)
    if not labels and not image:
        raise SpecError("remove without a class or --image", expected="unalike gallery remove GALLERY CLASS...")
    from unalike.actions.gallery import change

    _print_summary(change(path, lambda gallery: gallery.remove(labels or (), image or ())), as_json)


@gallery.command(short_help="Rename a class.")
def rename(
    path: GalleryFile,
    label: Annotated[str, typer.Argument(metavar="CLASS")],
    new: Annotated[str, typer.Argument(metavar="NEW")],
    as_json: AsJson = False, verbose: Verbose = False, quiet: Quiet = False,
) -> None:  # fmt: skip
    """Rename a class."""
    set_verbosity(verbose, quiet)
    from unalike.actions.gallery import change

    _print_summary(change(path, lambda gallery: gallery.rename(label, new)), as_json)


@gallery.command(short_help="Merge classes.")
def merge(
    path: GalleryFile,
    labels: Annotated[list[str], typer.Argument(metavar="CLASS...", help="Classes to merge.")],
    into: Annotated[str, typer.Option(metavar="NAME", help="The merged class, new or existing.")],
    as_json: AsJson = False, verbose: Verbose = False, quiet: Quiet = False,
) -> None:  # fmt: skip
    """Merge several classes into one."""
    set_verbosity(verbose, quiet)
    from unalike.actions.gallery import change

    _print_summary(change(path, lambda gallery: gallery.merge(labels, into)), as_json)


@gallery.command("list", short_help="List the classes of a gallery.")
def list_gallery(
    path: GalleryFile,
    verify: Annotated[bool, typer.Option("--verify", help="Read the complete file and verify its checksums.")] = False,
    as_json: AsJson = False, verbose: Verbose = False, quiet: Quiet = False,
) -> None:  # fmt: skip
    """List the classes of a gallery with their numbers of images, and its calibration."""
    set_verbosity(verbose, quiet)
    from unalike.actions.gallery import describe
    from unalike.recognition.gallery import Gallery

    opened = Gallery.load(path, verify=verify)
    description = describe(opened, path)
    if not as_json:
        for label, count in description["classes"].items():
            print_line(f"{label}: {count}")
        if opened.calibration is not None:
            print_line(f"calibrated: {opened.calibration}")
    _print_summary(description, as_json)


def _print_summary(description: dict[str, Any], as_json: bool) -> None:
    if as_json:
        show_result(description, True)
        return
    print_line(f"{description['gallery']}: {description['images']} images of {len(description['classes'])} classes")
