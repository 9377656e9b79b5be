"""The commands calibrate and identify, which read a gallery."""

import shlex
from typing import Annotated, Any

import typer

from unalike.cli.next_steps import suggest
from unalike.cli.output import print_json, print_line, show_result
from unalike.cli.section_options import Option, section_command
from unalike.cli.shared_options import EXIT_NO, AsJson
from unalike.progress import say
from unalike.spec.gallery import Calibrate, Identify

_OPTIONS = {"model": Option(("-m", "--model"), "FILE"), "rule": Option(("--by",), "RULE"), "k": Option(("-k",), "N")}


@section_command(
    "calibrate", arguments={"gallery": "GALLERY"}, options={**_OPTIONS, "images": Option((), "DIR")}, section=Calibrate
)
def calibrate(settings: Calibrate, as_json: AsJson = False) -> None:
    """Find where "unknown" and "ambiguous" begin, from classes left out of the gallery or images of other classes.

    Refuses a rate that the number of images cannot support. Example: unalike calibrate shop.gallery --rate 0.01
    """
    from unalike.actions.gallery import calibrate_file

    result = calibrate_file(settings)
    show_result(result, as_json)
    if not as_json:
        suggest("calibrate", path=result["gallery"])


@section_command(
    "identify",
    arguments={"gallery": "GALLERY", "images": "IMAGE..."},
    options={**_OPTIONS, "where": Option((), "NAME=VALUE", repeatable=True)},
    section=Identify,
)
def identify(
    settings: Identify,
    exit_code: Annotated[
        bool, typer.Option("--exit-code", help="Exit with 3 when an image is ambiguous, unknown or cannot be read.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Label images by a gallery.

    Examples: unalike identify shop.gallery photo.jpg   |   unalike identify shop.gallery new/ --json
    """
    from unalike.actions.gallery import identify as run

    result = run(settings)
    if as_json:
        print_json(result)
    else:
        for answer in result["answers"]:
            print_line(f"{answer['path']}: {_format_answer(answer)}")
        if any(answer["decision"] == "unknown" and answer["nearest"] for answer in result["answers"]):
            say(f"unknown: if an image shows an enrolled class, enroll it too: unalike gallery add {shlex.quote(str(result['gallery']))} IMAGE "
                "--label CLASS; a lower threshold: unalike calibrate with a higher --rate")  # fmt: skip
    if exit_code and (result["unreadable"] or any(answer["decision"] != "label" for answer in result["answers"])):
        raise typer.Exit(EXIT_NO)


def _format_answer(answer: dict[str, Any]) -> str:
    from unalike.recognition.decision import UNKNOWN

    if answer["decision"] == "label":
        return f"{answer['label']} ({answer['score']:.3f})"
    if not answer["nearest"]:
        return f"{answer['decision']} ({answer['note']})"
    second = f", then {answer['second']}" if answer["second"] is not None else ""
    below = f", below the threshold {answer['threshold']:.3f}" if answer["decision"] == UNKNOWN else ""
    return f"{answer['decision']} (nearest {answer['nearest']} {answer['score']:.3f}{below}{second})"
