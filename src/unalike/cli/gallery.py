"""Commands around a gallery: build, add, remove, rename, merge, list; calibrate; identify."""

import json
from typing import Annotated, Any

import typer

from unalike.cli.options import AsJson, Overwrite, Quiet, Verbose, app, set_voice, show_result
from unalike.errors import SpecError

gallery = typer.Typer(
    rich_markup_mode=None, help="Reference images in one file: add and remove classes without training."
)
app.add_typer(
    gallery, name="gallery", short_help="Reference images in one file: build, add, remove, rename, merge, list."
)

GalleryFile = Annotated[str, typer.Argument(metavar="GALLERY", help="The gallery's file.")]
Model = Annotated[
    str | None,
    typer.Option("-m", "--model", metavar="FILE", help="A .onnx or .pth model; if unset, the gallery's own."),
]
Runtime = Annotated[str, typer.Option(metavar="NAME", help="auto, torch, onnxruntime or openvino.")]
Precision = Annotated[str, typer.Option(metavar="NAME", help="auto, fp32, bf16 or fp16.")]
Rate = Annotated[float, typer.Option(metavar="SHARE", help="Of unknown images at most this share is taken for known.")]
Rule = Annotated[str, typer.Option("--by", metavar="RULE", help="Label by nearest, prototype or vote.")]


@gallery.command(short_help="Enrol class folders into a new gallery.")
def build(
    path: GalleryFile,
    source: Annotated[str, typer.Argument(metavar="DIR", help="One folder a class; or an archive, a manifest.")],
    model: Annotated[str, typer.Option("-m", "--model", metavar="FILE", help="A .onnx or .pth model.")],
    rate: Rate = 0.01, by: Rule = "nearest",
    no_calibration: Annotated[bool, typer.Option("--no-calibration", help="Always answer the nearest class.")] = False,
    half: Annotated[bool, typer.Option("--half", help="Keep vectors in half precision.")] = False,
    runtime: Runtime = "auto", precision: Precision = "auto", overwrite: Overwrite = False,
    as_json: AsJson = False, verbose: Verbose = False, quiet: Quiet = False,
) -> None:  # fmt: skip
    """Enrol class folders into a new gallery, and calibrate "unknown" where the images can support it."""
    set_voice(verbose, quiet)
    from unalike.actions.gallery import build as act

    _show(act(path, source, model, half=half, rate=None if no_calibration else rate, rule=by, runtime=runtime,
              precision=precision, overwrite=overwrite), as_json)  # fmt: skip


@gallery.command(short_help="Enrol more images.")
def add(
    path: GalleryFile,
    source: Annotated[str, typer.Argument(metavar="DIR|IMAGE", help="Class folders; with --label any images.")],
    label: Annotated[str | None, typer.Option(metavar="NAME", help="The class of all of them.")] = None,
    model: Model = None, runtime: Runtime = "auto", precision: Precision = "auto",
    as_json: AsJson = False, verbose: Verbose = False, quiet: Quiet = False,
) -> None:  # fmt: skip
    """Enrol more images of known or new classes; nothing is trained."""
    set_voice(verbose, quiet)
    from unalike.actions.gallery import add as act

    _show(act(path, source, model, label=label, runtime=runtime, precision=precision), as_json)


@gallery.command(short_help="Strike classes or single images.")
def remove(
    path: GalleryFile,
    labels: Annotated[list[str] | None, typer.Argument(metavar="[CLASS]...", help="Classes to strike.")] = None,
    image: Annotated[list[str] | None, typer.Option(metavar="NAME", help="A single image, as it was enrolled.")] = None,
    as_json: AsJson = False, verbose: Verbose = False, quiet: Quiet = False,
) -> None:  # fmt: skip
    """Strike whole classes, or single images by the path under which they were enrolled."""
    set_voice(verbose, quiet)
    if not labels and not image:
        raise SpecError("remove without a class or --image", expected="unalike gallery remove GALLERY CLASS...")
    from unalike.actions.gallery import change

    _show(change(path, lambda held: held.remove(labels or (), image or ())), as_json)


@gallery.command(short_help="Give a class another name.")
def rename(
    path: GalleryFile,
    label: Annotated[str, typer.Argument(metavar="CLASS")],
    new: Annotated[str, typer.Argument(metavar="NEW")],
    as_json: AsJson = False, verbose: Verbose = False, quiet: Quiet = False,
) -> None:  # fmt: skip
    """Give a class another name."""
    set_voice(verbose, quiet)
    from unalike.actions.gallery import change

    _show(change(path, lambda held: held.rename(label, new)), as_json)


@gallery.command(short_help="Make one class of several.")
def merge(
    path: GalleryFile,
    labels: Annotated[list[str], typer.Argument(metavar="CLASS...", help="Classes to merge.")],
    into: Annotated[str, typer.Option(metavar="NAME", help="The class that they become, new or there already.")],
    as_json: AsJson = False, verbose: Verbose = False, quiet: Quiet = False,
) -> None:  # fmt: skip
    """Make one class of several."""
    set_voice(verbose, quiet)
    from unalike.actions.gallery import change

    _show(change(path, lambda held: held.merge(labels, into)), as_json)


@gallery.command("list", short_help="Say what a gallery holds.")
def list_gallery(
    path: GalleryFile,
    verify: Annotated[bool, typer.Option("--verify", help="Read the whole file and check it.")] = False,
    as_json: AsJson = False, verbose: Verbose = False, quiet: Quiet = False,
) -> None:  # fmt: skip
    """Say what a gallery holds, a line a class, and how it was calibrated."""
    set_voice(verbose, quiet)
    from unalike.actions.gallery import described
    from unalike.recognition.gallery import Gallery

    held = Gallery.load(path, verify=verify)
    told = described(held, path)
    if not as_json:
        for label, count in told["classes"].items():
            print(f"{label}: {count}")
        if held.calibration is not None:
            print(f"calibrated: {held.calibration}")
    _show(told, as_json)


@app.command("calibrate", short_help='Let a gallery answer "unknown", at a stated share of false matches.')
def calibrate(
    path: GalleryFile, rate: Rate = 0.01,
    wrong: Annotated[
        float | None, typer.Option(metavar="SHARE", help="Of known images at most this share gets a wrong name; if unset, as --rate.")
    ] = None,
    images: Annotated[
        str | None, typer.Option(metavar="DIR", help="Class folders; classes not in the gallery are the unknown ones.")
    ] = None,
    trials_from: Annotated[str, typer.Option(metavar="WORD", help="auto, gallery, images or both.")] = "auto",
    by: Rule = "nearest",
    k: Annotated[int, typer.Option("-k", min=1, help="Neighbours that vote.")] = 10,
    confidence: Annotated[float, typer.Option(metavar="SHARE", help="Of the interval.")] = 0.95,
    seed: Annotated[int, typer.Option(min=0, help="Of the sample of trials in a large gallery.")] = 0,
    model: Model = None, runtime: Runtime = "auto", precision: Precision = "auto",
    as_json: AsJson = False, verbose: Verbose = False, quiet: Quiet = False,
) -> None:  # fmt: skip
    """Find where "unknown" and "ambiguous" begin, from classes held out of the gallery or images of other classes.

    Refuses a rate that the number of images cannot support. Example: unalike calibrate shop.gallery --rate 0.01
    """
    set_voice(verbose, quiet)
    from unalike.actions.gallery import calibrate_file

    result = calibrate_file(path, rate, images=images, model=model, runtime=runtime, precision=precision, wrong=wrong,
                            trials_from=trials_from, rule=by, k=k, confidence=confidence, seed=seed)  # fmt: skip
    show_result(result, as_json)


@app.command("identify", short_help="Name images by a gallery: label, ambiguous or unknown.")
def identify(
    path: GalleryFile,
    images: Annotated[list[str], typer.Argument(metavar="IMAGE...", help="Images, or folders of images.")],
    k: Annotated[int, typer.Option("-k", min=1, help="Neighbours that are shown.")] = 3,
    by: Annotated[str | None, typer.Option("--by", metavar="RULE", help="Another rule than the calibration's.")] = None,
    approximate: Annotated[bool, typer.Option("--approximate", help="Search through faiss (extra ann).")] = False,
    model: Model = None, runtime: Runtime = "auto", precision: Precision = "auto",
    as_json: AsJson = False, verbose: Verbose = False, quiet: Quiet = False,
) -> None:  # fmt: skip
    """Name images by a gallery. Example: unalike identify shop.gallery photo.jpg --json"""
    set_voice(verbose, quiet)
    from unalike.actions.gallery import identify as act

    result = act(path, images, model, k=k, label_by=by, runtime=runtime, precision=precision, approximate=approximate)
    if as_json:
        print(json.dumps(result, ensure_ascii=True))
        return
    for answer in result["answers"]:
        print(_line(answer))


def _line(answer: dict[str, Any]) -> str:
    nearest = f"{answer['nearest']} {answer['score']:.3f}"
    second = f", then {answer['second']}" if answer["second"] is not None else ""
    told = answer["label"] if answer["decision"] == "label" else f"{answer['decision']} (nearest {nearest}{second})"
    return f"{answer['path']}: {told}" + (f" ({answer['score']:.3f})" if answer["decision"] == "label" else "")


def _show(told: dict[str, Any], as_json: bool) -> None:
    if as_json:
        show_result(told, True)
        return
    print(f"{told['gallery']}: {told['images']} images of {len(told['classes'])} classes")
