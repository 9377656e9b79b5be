"""The command improve: old data and corrections of a service become a candidate, which is compared and promoted."""

from typing import Any

from unalike.cli.output import print_json, print_line
from unalike.cli.section_options import Flag, Option, section_command
from unalike.cli.serve_store import actor_name, require_store
from unalike.cli.shared_options import AsJson
from unalike.spec.improve import Improve


@section_command(
    "improve",
    arguments={"data": "DATA"},
    options={
        "folder": Option((), "DIR"),
        "store": Option((), "URL"),
        "images": Option((), "URL"),
        "gallery": Option(("-g", "--gallery"), "NAME"),
        "model": Option(("-m", "--model"), "FILE"),
        "training_spec": Option((), "FILE"),
        "candidate": Option((), "ID"),
        "source": Option((), "DIR"),
    },
    flags=(Flag("--no-service", "with_service", False, "Train on DATA alone."),),
    section=Improve,
)
def improve(settings: Improve, as_json: AsJson = False) -> None:
    """Train a candidate on old data, references and corrections of a service; promote it where it is not worse than the model in service.

    Both are compared on images that neither was trained on: promoted is a candidate whose paired difference of R@1 is at least 0
    and whose 95 % interval begins at -1 point or above. The service may be running; it takes the model over within a second.

    Examples: unalike improve photos/ --folder runs/serve --minutes 30   |   unalike improve --roll-back
    """
    require_store()
    from unalike.serve.learning.improvement import improve as run

    answer = run(settings, actor=actor_name())
    if as_json:
        print_json(answer)
        return
    for line in _lines(answer):
        print_line(line)


def _lines(answer: dict[str, Any]) -> list[str]:
    promotion, comparison = answer.get("promotion"), answer.get("comparison")
    lines = []
    if comparison is not None:
        lines.append(
            f"{answer['model']['name']} ({answer['model']['id']}): {comparison['result']['verdict']['reason']}"
        )
    if promotion is not None:
        lines.append(
            f"the gallery {promotion['gallery']} is served with {promotion['file']}; before: {promotion['former']}"
        )
    return lines
