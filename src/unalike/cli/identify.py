"""The commands calibrate and identify, which read a gallery."""

from typing import Any

from unalike.cli.output import print_json, print_line, show_result
from unalike.cli.section_options import Option, section_command
from unalike.cli.shared_options import AsJson
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

    show_result(calibrate_file(settings), as_json)


@section_command("identify", arguments={"gallery": "GALLERY", "images": "IMAGE..."}, options=_OPTIONS, section=Identify)
def identify(settings: Identify, as_json: AsJson = False) -> None:
    """Label images by a gallery. Example: unalike identify shop.gallery photo.jpg --json"""
    from unalike.actions.gallery import identify as run

    result = run(settings)
    if as_json:
        print_json(result)
        return
    for answer in result["answers"]:
        print_line(f"{answer['path']}: {_format_answer(answer)}")


def _format_answer(answer: dict[str, Any]) -> str:
    if answer["decision"] == "label":
        return f"{answer['label']} ({answer['score']:.3f})"
    second = f", then {answer['second']}" if answer["second"] is not None else ""
    return f"{answer['decision']} (nearest {answer['nearest']} {answer['score']:.3f}{second})"
