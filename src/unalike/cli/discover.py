"""discover: a heap of images into folders of like ones."""

from typing import Annotated

import typer

from unalike.cli.options import AsJson, Quiet, Verbose, set_verbosity, show_result
from unalike.errors import SpecError


def discover(
    source: Annotated[str, typer.Argument(metavar="DIR", help="Images: a folder, an archive, a manifest.")],
    out: Annotated[
        str | None, typer.Option("-o", "--out", metavar="DIR", help="A new folder; if unset, DIR-groups here.")
    ] = None,
    model: Annotated[
        str | None, typer.Option("-m", "--model", metavar="FILE", help="A .onnx, .xml or .pth; if unset, a trunk as it came.")
    ] = None,
    groups: Annotated[
        int | None, typer.Option(metavar="N", help="About how many groups; if unset, as many as the images tell apart.")
    ] = None,
    link: Annotated[bool, typer.Option("--link", help="Links to your images in place of copies.")] = False,
    table: Annotated[bool, typer.Option("--table", help="Write groups.csv and the report alone, no images.")] = False,
    runtime: Annotated[str, typer.Option(metavar="NAME", help="auto, torch, onnxruntime, openvino.")] = "auto",
    precision: Annotated[str, typer.Option(metavar="NAME", help="auto, fp32, bf16, fp16 or int8.")] = "auto",
    seed: Annotated[int, typer.Option(min=0, help="The same seed finds the same groups.")] = 0,
    as_json: AsJson = False, verbose: Verbose = False, quiet: Quiet = False,
) -> None:  # fmt: skip
    """Group unlabelled images into folders of like ones, to be looked at, corrected by moving files, and trained on.

    Example: unalike discover heap/ -o sorted/   then   unalike train sorted/
    """
    set_verbosity(verbose, quiet)
    if link and table:
        raise SpecError("--link and --table together", remedy="choose one")
    import unalike

    kind = "link" if link else "table" if table else "copy"
    result = unalike.discover(
        source, out, model=model, groups=groups, kind=kind, runtime=runtime, precision=precision, seed=seed
    )
    show_result(result, as_json)
