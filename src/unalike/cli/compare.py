"""The command compare: two images of one thing, folders of them, or a table of pairs."""

from typing import Annotated, Any

import typer

from unalike.cli.output import print_json, print_line
from unalike.cli.section_options import Flag, Option, section_command
from unalike.cli.shared_options import EXIT_NO, AsJson, Overwrite
from unalike.spec import Experiment

# Exit code of --exit-code besides EXIT_NO. Of several pairs the worst counts: one that could not be compared is incomplete.
EXIT_INCOMPLETE = 4


@section_command(
    "compare",
    arguments={"reference": "A", "image": "B"},
    options={"results_dir": Option(("-o", "--out"), "DIR"), "model": Option(("-m", "--model"), "FILE")},
    flags=(Flag("--no-bend", "flexible", False, "Correct no smooth deformations."),),
)
def compare(
    experiment: Experiment,
    exit_code: Annotated[
        bool,
        typer.Option(
            "--exit-code", help="Exit with 3 when a pair differs, else with 4 when one is incomplete or refused."
        ),
    ] = False,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Align B with A and show where they differ beyond lighting, noise and the jitter of edges.

    Folders are paired by name; a table has the columns reference and image. Needs the extra vision (OpenCV). Pixels suit
    print, boards and drawings; features suit photographs, where depth and texture move pixels, and miss what is small.
    Examples: unalike compare approved.png photo.jpg -o differences/    unalike compare golden/ tested/ --level features --json
    """
    from unalike.actions.compare import compare as run

    result = run(experiment, overwrite=overwrite)
    if as_json:
        print_json(result)
    else:
        _print(result)
    if exit_code and result["different"]:
        raise typer.Exit(EXIT_NO)
    if exit_code and (result["incomplete"] or result["refused"]):
        raise typer.Exit(EXIT_INCOMPLETE)


def _print(result: dict[str, Any]) -> None:
    pairs = result["pairs"]
    for entry in pairs:
        print_line(f"{entry['name']}: {_summary(entry)}" if len(pairs) > 1 else _summary(entry))
        if len(pairs) > 1 or "error" in entry:
            continue
        for region in entry["regions"]:
            box = " ".join(map(str, region["box"]))
            print_line(f"  box {box}  score {region['score']:.3g}  {region['area']} px  {region['change']}")
        if entry["uncovered_reference"] or entry["uncovered_image"]:
            shares = [entry["coverage_reference"] or 0.0, entry["coverage_image"] or 0.0]
            print_line(f"coverage: {shares[0]:.0%} of the reference, {shares[1]:.0%} of the image")
        registration = entry["registration"]
        if registration["quality"] is not None:
            quality, overlap = registration["quality"], registration["overlap"]
            print_line(f"aligned by {registration['method']}: quality {quality:.2f}, {overlap:.0%} overlap")
        if entry["compared_as"]:
            print_line(entry["compared_as"])
        for note in entry["notes"]:
            print_line(f"note: {note}")
    for text in dict.fromkeys(entry.get("not_looked_for") for entry in pairs):
        if text:
            print_line(f"not looked for: {text}")
    if len(pairs) > 1:
        print_line(
            f"{result['same']} the same, {result['different']} different, {result['incomplete']} incomplete, "
            f"{result['refused']} could not be compared"
        )
    if "report" in result:
        print_line(f"report: {result['report']}")


def _summary(entry: dict[str, Any]) -> str:
    if "error" in entry:
        return f"not compared: {entry['error']}"
    if entry["same"]:
        return "no difference found"
    levels = [region["level"] for region in entry["regions"]]
    if not levels:
        return f"{entry['answer']}: {'; '.join(entry['reasons'])}"
    text = f"{len(levels)} difference{'s' if len(levels) > 1 else ''}"
    if entry["level"] == "both":
        text += f" ({levels.count('pixels')} of pixels, {levels.count('features')} of features)"
    others = "".join(f"; {reason}" for reason in entry["reasons"][1:])
    return f"{text}, the highest score {entry['regions'][0]['score']:.3g}{others}"
