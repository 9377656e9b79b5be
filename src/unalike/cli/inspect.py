"""The commands inspect fit, inspect learn and inspect run."""

from typing import Annotated, Any

import typer

from unalike.cli.next_steps import suggest
from unalike.cli.output import print_line, show_result
from unalike.cli.section_options import Flag, Option, section_command
from unalike.cli.shared_options import EXIT_NO, AsJson, Overwrite
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

    result = run_fit(experiment, overwrite=overwrite)
    show_result(result, as_json)
    if not as_json:
        suggest("inspect_fit", path=result["inspector"])


@inspect.command(short_help="Teach an inspector further good images, without those of the fit.")
@section_command(
    "inspect_learn",
    arguments={"inspector": "INSPECTOR", "images": "IMAGE..."},
    options={"output": Option(("-o", "--out"), "FILE"), "parts": Option(("--part",), "REGEX")},
)
def learn(experiment: Experiment, overwrite: Overwrite = False, as_json: AsJson = False) -> None:
    """Learn further images of good parts, such as false alarms: an inspector with their patches and a new threshold.

    Example: unalike inspect learn part.inspector confirmed/ -o part2.inspector
    """
    from unalike.actions.inspect import learn as run_learn

    result = run_learn(experiment, overwrite=overwrite)
    show_result(result, as_json)
    if not as_json:
        suggest("inspect_learn", path=result["inspector"])


@inspect.command(short_help="Inspect images: score, decision, anomaly map, boxes.")
@section_command(
    "inspect_run",
    arguments={"inspector": "INSPECTOR", "images": "IMAGE..."},
    options={"results_dir": Option(("-o", "--out"), "DIR"), "good": Option((), "NAME"), "truth": Option((), "DIR")},
)
def run(
    experiment: Experiment,
    exit_code: Annotated[
        bool, typer.Option("--exit-code", help="Exit with 3 when an image is defective or cannot be read.")
    ] = False,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Inspect images; with --good or --truth also measure how well that went.

    Examples: unalike inspect run part.inspector new/ -o runs/inspect   |   unalike inspect run part.inspector a.jpg --exit-code
    """
    from unalike.actions.inspect import inspect as run_inspection
    from unalike.inspection.result import DEFECTIVE

    result = run_inspection(experiment, overwrite=overwrite)
    if as_json:
        show_result(result, True)
    else:
        _print_inspections(result)
    if exit_code and (result["unreadable"] or any(answer["decision"] == DEFECTIVE for answer in result["answers"])):
        raise typer.Exit(EXIT_NO)


def _print_inspections(result: dict[str, Any]) -> None:
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
