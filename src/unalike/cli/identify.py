"""The commands calibrate and identify, which read a gallery."""

from typing import Annotated, Any

import typer

from unalike.cli.options import AsJson, Quiet, Verbose, set_verbosity, show_result
from unalike.cli.output import print_json, print_line

GalleryFile = Annotated[str, typer.Argument(metavar="GALLERY", help="The gallery's file.")]
Model = Annotated[
    str | None,
    typer.Option("-m", "--model", metavar="FILE", help="A .onnx or .pth model; if unset, the gallery's own."),
]
Runtime = Annotated[str, typer.Option(metavar="NAME", help="auto, torch, onnxruntime or openvino.")]
Precision = Annotated[str, typer.Option(metavar="NAME", help="auto, fp32, bf16 or fp16.")]
Rate = Annotated[float, typer.Option(metavar="SHARE", help="Of unknown images at most this share is taken for known.")]
Rule = Annotated[str, typer.Option("--by", metavar="RULE", help="Label by nearest, prototype or vote.")]


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
    set_verbosity(verbose, quiet)
    from unalike.actions.gallery import calibrate_file

    result = calibrate_file(path, rate, images=images, model=model, runtime=runtime, precision=precision, wrong=wrong,
                            trials_from=trials_from, rule=by, k=k, confidence=confidence, seed=seed)  # fmt: skip
    show_result(result, as_json)


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
    set_verbosity(verbose, quiet)
    from unalike.actions.gallery import identify as act

    result = act(path, images, model, k=k, label_by=by, runtime=runtime, precision=precision, approximate=approximate)
    if as_json:
        print_json(result)
        return
    for answer in result["answers"]:
        print_line(_line(answer))


def _line(answer: dict[str, Any]) -> str:
    nearest = f"{answer['nearest']} {answer['score']:.3f}"
    second = f", then {answer['second']}" if answer["second"] is not None else ""
    told = answer["label"] if answer["decision"] == "label" else f"{answer['decision']} (nearest {nearest}{second})"
    return f"{answer['path']}: {told}" + (f" ({answer['score']:.3f})" if answer["decision"] == "label" else "")
