"""The commands inspect fit and inspect run."""

import typer

from unalike.cli.output import print_line, show_result
from unalike.cli.section_options import Flag, Option, section_command
from unalike.cli.shared_options import AsJson, Overwrite
from unalike.spec import Experiment

inspect = typer.Typer(rich_markup_mode=None, help="Find defects after fitting to images of good parts alone.")


@inspect.command(short_help="Fit an inspector to a folder of good images.")
@section_command(
    "inspect_fit",
    arguments={"good": "GOOD"},
    options={
        "inspector": Option(("-o", "--out"), "FILE"),
        "model": Option(("-m", "--model"), "FILE"),
        "size": Option((), "HxW"),
        "stages": Option((), "S,S"),
        "parts": Option(("--part",), "REGEX"),
        "synthetic_defects": Option(("--synthetic-defects", "--flaws")),
        "defects": Option((), "DIR"),
        "masks": Option((), "DIR"),
    },
    flags=(Flag("--no-threshold", "rate", None, "Set no threshold: scores and anomaly maps alone."),),
)
def fit(experiment: Experiment, overwrite: Overwrite = False, as_json: AsJson = False) -> None:
    """Fit an inspector to images of good parts. The threshold follows from the good images, at the given false-alarm rate.

    Example: unalike inspect fit good/ -o part.inspector --rate 0.01
    """
    from unalike.actions.inspect import fit as run_fit

    show_result(run_fit(experiment, overwrite=overwrite), as_json)


@inspect.command(short_help="Inspect images: score, decision, anomaly map, boxes.")
@section_command(
    "inspect_run",
    arguments={"inspector": "INSPECTOR", "images": "IMAGE..."},
    options={"results_dir": Option(("-o", "--out"), "DIR"), "good": Option((), "NAME"), "truth": Option((), "DIR")},
)
def run(experiment: Experiment, overwrite: Overwrite = False, as_json: AsJson = False) -> None:
    """Inspect images; with --good or --truth also measure how well that went.

    Example: unalike inspect run part.inspector new/ -o runs/inspect
    """
    from unalike.actions.inspect import inspect as run_inspection

    result = run_inspection(experiment, overwrite=overwrite)
    if as_json:
        show_result(result, True)
        return
    for answer in result["answers"]:
        regions = answer["spots"]
        boxes = ", ".join(str(region["box"]) for region in regions[:3]) + (" ..." if len(regions) > 3 else "")
        print_line(
            f"{answer['path']}: {answer['decision']} ({answer['score']:.3f})" + (f" at {boxes}" if boxes else "")
        )
    if result["measured"]:
        by_kind = {f"image_auroc of {kind}": value for kind, value in result["measured"]["by_kind"].items()}
        show_result({name: value for name, value in result["measured"].items() if name != "by_kind"} | by_kind, False)
    if result.get("report"):
        print_line(f"report: {result['report']}")
