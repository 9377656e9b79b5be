"""The command compare: two pictures of one thing, folders of them, or a table of pairs."""

import json
from typing import Annotated, Any

import typer

from unalike.cli.options import AsJson, Overwrite, Quiet, Verbose, set_verbosity

DIFFERENT = 3  # the exit code of --exit-code


def compare(
    first: Annotated[str, typer.Argument(metavar="A", help="The reference: an image or a folder; or a table of pairs (.csv).")],
    second: Annotated[str | None, typer.Argument(metavar="[B]", help="The image, or a folder of images.")] = None,
    out: Annotated[str | None, typer.Option("-o", "--out", metavar="DIR", help="Write pictures, comparison.json and report.html there.")] = None,
    align: Annotated[str, typer.Option(metavar="WORD", help="auto, none, shift, rigid, affine or homography.")] = "auto",
    lighting: Annotated[str, typer.Option(metavar="WORD", help="What light may change: local, global or none.")] = "local",
    tolerance: Annotated[int, typer.Option(metavar="PIXELS", help="So far may an edge lie off.")] = 3,
    contrast: Annotated[float, typer.Option(metavar="LEVELS", help="The least difference that counts, of 255.")] = 40.0,
    min_area: Annotated[int, typer.Option(metavar="PIXELS", help="The fewest pixels of a difference.")] = 12,
    margin: Annotated[int | None, typer.Option(metavar="PIXELS", help="Around a box; if unset, 1/64 of the shorter side.")] = None,
    mirror: Annotated[bool, typer.Option("--mirror", help="Compare a mirrored copy too.")] = False,
    rigid: Annotated[bool, typer.Option("--no-bend", help="Take out no smooth bends.")] = False,
    level: Annotated[str, typer.Option(metavar="WORD", help="What is compared: pixels, features (of a network), or both.")] = "pixels",
    model: Annotated[
        str | None, typer.Option("-m", "--model", metavar="FILE", help="Of features: a .pth, a file of export-maps, pretrained[:NAME].")
    ] = None,
    runtime: Annotated[str, typer.Option(metavar="NAME", help="Of features: auto, openvino, onnxruntime or torch.")] = "auto",
    precision: Annotated[str, typer.Option(metavar="NAME", help="Of features: auto, fp32 or bf16.")] = "auto",
    exit_code: Annotated[bool, typer.Option("--exit-code", help="Exit with 3 when a pair differs.")] = False,
    overwrite: Overwrite = False, as_json: AsJson = False, verbose: Verbose = False, quiet: Quiet = False,
) -> None:  # fmt: skip
    """Align B on A, and say and show where they differ beyond light, noise and the jitter of edges.

    Folders are paired by name; a table has the columns reference and image. Needs the extra vision (OpenCV). Pixels suit
    print, boards and drawings; features suit photographs, where depth and texture move pixels, and miss what is small.
    Examples: unalike compare approved.png seen.jpg -o found/    unalike compare golden/ tested/ --level features --json
    """
    set_verbosity(verbose, quiet)
    from unalike.actions.compare import compare_files

    result = compare_files(first, second, out=out, overwrite=overwrite, align=align, lighting=lighting, tolerance=tolerance,
                           contrast=contrast, min_area=min_area, margin=margin, mirror=mirror, flexible=not rigid,
                           level=level, model=model, runtime=runtime, precision=precision)  # fmt: skip
    if as_json:
        print(json.dumps(result, ensure_ascii=False))
    else:
        _show(result)
    if exit_code and result["different"]:
        raise typer.Exit(DIFFERENT)


def _show(result: dict[str, Any]) -> None:
    pairs = result["pairs"]
    for entry in pairs:
        print(f"{entry['name']}: {_told(entry)}" if len(pairs) > 1 else _told(entry))
        if len(pairs) > 1 or "error" in entry:
            continue
        for region in entry["regions"]:
            print(
                f"  box {' '.join(map(str, region['box']))}  score {region['score']:.3g}  {region['area']} px  {region['change']}"
            )
        lies = entry["registration"]
        if lies["quality"] is not None:
            print(f"aligned by {lies['method']}: quality {lies['quality']:.2f}, {lies['overlap']:.0%} overlap")
        for note in entry["notes"]:
            print(f"note: {note}")
    if len(pairs) > 1:
        print(f"{result['same']} the same, {result['different']} different, {result['refused']} could not be compared")
    if "report" in result:
        print(f"report: {result['report']}")


def _told(entry: dict[str, Any]) -> str:
    if "error" in entry:
        return f"not compared: {entry['error']}"
    if entry["same"]:
        return "no difference found"
    levels = [region["level"] for region in entry["regions"]]
    told = f"{len(levels)} difference{'s' if len(levels) > 1 else ''}"
    if entry["level"] == "both":
        told += f" ({levels.count('pixels')} of pixels, {levels.count('features')} of features)"
    return f"{told}, the highest score {entry['regions'][0]['score']:.3g}"
