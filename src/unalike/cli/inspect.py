"""Inspection: fit on good images, run on others."""

from pathlib import Path
from typing import Annotated, Any

import typer

from unalike.cli.options import (
    AsJson,
    Overwrite,
    Quiet,
    Verbose,
    parse_size,
    parse_stages,
    set_verbosity,
    show_result,
)

inspect = typer.Typer(rich_markup_mode=None, help="Defects, learnt from good images alone: whether, and where.")

Runtime = Annotated[str, typer.Option(metavar="NAME", help="auto, openvino or onnxruntime.")]
Threads = Annotated[int | None, typer.Option(min=1, help="CPU cores that the network may use.")]
Search = Annotated[str | None, typer.Option(metavar="NAME", help="exact, or ann (faiss, extra ann).")]


@inspect.command(short_help="Learn from a folder of good images.")
def fit(
    good: Annotated[str, typer.Argument(metavar="GOOD", help="Images of good parts: a folder, an archive, a manifest.")],
    output: Annotated[str, typer.Option("-o", "--out", metavar="FILE", help="The inspector's file.")],
    model: Annotated[
        str, typer.Option("-m", "--model", metavar="FILE", help="A .pth, a file of export-maps, or pretrained[:NAME].")
    ] = "pretrained",
    size: Annotated[str | None, typer.Option(metavar="HxW", help="Of the network; if unset, the model's own.")] = None,
    stages: Annotated[
        str, typer.Option(metavar="S,S", help="Strides or names of its maps; middle: 16, auto: 8,16.")
    ] = "middle",
    how: Annotated[
        str, typer.Option("--fit", metavar="WORD", help="scale (tiles, one scale for all), whole, or auto.")
    ] = "auto",
    scale: Annotated[float | None, typer.Option(metavar="F", help="At which scale images are looked at.")] = None,
    light: Annotated[str, typer.Option(metavar="WORD", help="as-is, or even: each image's median made the same.")] = "as-is",
    rate: Annotated[float, typer.Option(metavar="SHARE", help="Of good images, at most this share is called defective.")] = 0.01,
    no_threshold: Annotated[bool, typer.Option("--no-threshold", help="Scores and heat alone.")] = False,
    defects: Annotated[str | None, typer.Option(metavar="DIR", help="A few defective images, where there are any.")] = None,
    masks: Annotated[str | None, typer.Option(metavar="DIR", help="Their masks.")] = None,
    part: Annotated[
        str | None,
        typer.Option(metavar="REGEX", help="What in a path names the part, where several good images show the same."),
    ] = None,
    memory: Annotated[int | None, typer.Option(min=1, metavar="N", help="Patches that are remembered.")] = None,
    border: Annotated[
        float | None,
        typer.Option(min=0, metavar="PX", help="How far from the picture's border a patch lies counts, up to this distance."),
    ] = None,
    flaws: Annotated[
        int | None, typer.Option(min=0, metavar="N", help="Pictures with made-up flaws to learn from, such as 500.")
    ] = None,
    fixture: Annotated[
        float, typer.Option(min=0, metavar="SHARE", help="Parts always lie alike, to this share of the longer side.")
    ] = 0.0,
    search: Search = None,
    runtime: Runtime = "auto",
    precision: Annotated[str, typer.Option(metavar="NAME", help="fp32, bf16 or auto.")] = "fp32",
    threads: Threads = None,
    seed: Annotated[int, typer.Option(min=0, help="Of sampling and folds.")] = 0,
    overwrite: Overwrite = False, as_json: AsJson = False, verbose: Verbose = False, quiet: Quiet = False,
) -> None:  # fmt: skip
    """Learn what good parts look like. The threshold comes from the good images alone, at the stated false-alarm rate.

    Example: unalike inspect fit good/ -o part.inspector --rate 0.01
    """
    set_verbosity(verbose, quiet)
    from unalike.actions.inspect import fit as act
    from unalike.inspection.anomaly_model import AnomalyModelConfig

    chosen: dict[str, Any] = {"memory": memory, "border": border, "synthetic_defects": flaws, "search": search}
    if memory is not None:
        chosen["patches"] = max(memory, AnomalyModelConfig.patches)
    config = AnomalyModelConfig(
        fixture=fixture, seed=seed, **{key: value for key, value in chosen.items() if value is not None}
    )
    told = act(
        good, output, config=config, overwrite=overwrite, model=model, size=parse_size(size), stages=parse_stages(stages),
        fit=how, scale=scale, light=light, rate=None if no_threshold else rate, defects=defects or (),
        masks=masks, parts=part, runtime=runtime, precision=precision, threads=threads,
    )  # fmt: skip
    show_result(told, as_json)


@inspect.command(short_help="Inspect images: score, decision, heat map, boxes.")
def run(
    path: Annotated[str, typer.Argument(metavar="INSPECTOR", help="A file that inspect fit wrote.")],
    images: Annotated[list[str], typer.Argument(metavar="IMAGE...", help="Images, or folders of images.")],
    output: Annotated[
        str | None, typer.Option("-o", "--out", metavar="DIR", help="For result.json, overlays and report.html.")
    ] = None,
    overlays: Annotated[str, typer.Option(metavar="WORD", help="Of which images: all, defective or none.")] = "defective",
    good: Annotated[
        str | None, typer.Option(metavar="NAME", help="The truth: images in folders of this name are good, others not.")
    ] = None,
    truth: Annotated[str | None, typer.Option(metavar="DIR", help="Masks: DIR/FOLDER/NAME.png or NAME_mask.png.")] = None,
    search: Search = None, runtime: Runtime = "auto",
    precision: Annotated[str, typer.Option(metavar="NAME", help="auto: as it was fitted; fp32 or bf16.")] = "auto",
    threads: Threads = None,
    overwrite: Overwrite = False, as_json: AsJson = False, verbose: Verbose = False, quiet: Quiet = False,
) -> None:  # fmt: skip
    """Inspect images; with --good or --truth also say how well that went.

    Example: unalike inspect run part.inspector new/ -o runs/inspect
    """
    set_verbosity(verbose, quiet)
    from unalike.actions.inspect import Truth
    from unalike.actions.inspect import run as act

    known = None if good is None and truth is None else Truth(good or "good", Path(truth) if truth else None)
    told = act(
        path, images, output, truth=known, overlays=overlays, overwrite=overwrite, runtime=runtime,
        precision=precision, threads=threads, search=search,
    )  # fmt: skip
    if as_json:
        show_result(told, True)
        return
    for one in told["answers"]:
        boxes = ", ".join(str(spot["box"]) for spot in one["spots"][:3]) + (" ..." if len(one["spots"]) > 3 else "")
        print(f"{one['path']}: {one['decision']} ({one['score']:.3f})" + (f" at {boxes}" if boxes else ""))
    if told["measured"]:
        show_result(told["measured"], False)
    if told.get("report"):
        print(f"report: {told['report']}")
