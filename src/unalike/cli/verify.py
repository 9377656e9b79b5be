"""The command verify: images are compared with approved assets."""

from typing import Annotated

import typer

from unalike.cli.output import print_json, print_line, show_result
from unalike.cli.section_options import Option, section_command
from unalike.cli.shared_options import EXIT_NO, AsJson, Overwrite
from unalike.spec import Experiment


@section_command(
    "verify",
    arguments={"images": "IMAGE..."},
    options={
        "reference": Option((), "ASSETS"),
        "results_dir": Option(("-o", "--out"), "DIR"),
        "asset": Option((), "NAME"),
        "box": Option((), "X,Y,W,H"),
        "save": Option((), "FILE"),
        "model": Option(("-m", "--model"), "FILE"),
    },
)
def verify(
    experiment: Experiment,
    strict: Annotated[
        bool, typer.Option("--strict", "--exit-code", help="Exit with 3 unless every image is the same.")
    ] = False,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Decide for each image whether it shows an approved asset unaltered: same, altered, different, not in the set.

    Examples: unalike verify --reference assets/ --save brand.set   |   unalike verify --reference brand.set photo.jpg -o out/
    """
    from unalike.actions.verify import all_same
    from unalike.actions.verify import verify as run
    from unalike.verification.result import format_result

    result = run(experiment, overwrite=overwrite)
    if as_json:
        print_json(result)
    elif result["verdicts"]:
        for verdict in result["verdicts"]:
            print_line(f"{verdict['path']}: {format_result(verdict)}")
    else:
        show_result({name: result[name] for name in ("reference", "assets", "saved")}, False)
    if strict and not all_same(result):
        raise typer.Exit(EXIT_NO)
