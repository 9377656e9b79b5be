"""The command discover: unlabeled images are grouped into folders of similar ones; with --name the groups get class names."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from unalike.cli.next_steps import suggest
from unalike.cli.output import show_result
from unalike.cli.section_options import Flag, Option, section_command
from unalike.cli.shared_options import AsJson
from unalike.errors import SpecError
from unalike.progress import say
from unalike.sanitize import one_line
from unalike.spec import Experiment

# Of the section, what --name reads too.
FIELDS_OF_NAMING = ("source", "results_dir")


@section_command(
    "discover",
    arguments={"source": "DIR"},
    options={"results_dir": Option(("-o", "--out"), "DIR"), "model": Option(("-m", "--model"), "FILE")},
    flags=(
        Flag("--link", "kind", "link", "Write links to your images in place of copies."),
        Flag("--table", "kind", "table", "Write groups.csv and the report alone, no images."),
    ),
)
def discover(
    experiment: Experiment,
    name: Annotated[bool, typer.Option("--name", help="Name the groups: DIR is a folder that discover wrote.")] = False,
    answers: Annotated[
        str | None,
        typer.Option("--answers", metavar="FILE", help="With --name: a CSV file of answers (subject, answer); asks nothing."),
    ] = None,
    images: Annotated[
        int, typer.Option("--images", min=0, help="With --name: single images to ask for after the groups, those that tell most.")
    ] = 0,
    resume: Annotated[bool, typer.Option("--resume", help="With --name: go on with the answers in the folder.")] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Use the folder of a run that did not finish.")
    ] = False,
    as_json: AsJson = False,
) -> None:  # fmt: skip
    """Group unlabeled images into folders of similar ones, to be looked at, corrected by moving files, and trained on.

    With --name the groups of such a folder get class names, by questions on the terminal or from a table.

    Example: unalike discover heap/ -o sorted/   then   unalike train sorted/
    or: unalike discover sorted/ --name -o named/   then   unalike train named/labels.csv
    """
    if not name:
        if answers is not None or images or resume:
            raise SpecError("--answers, --images or --resume without --name", remedy="add --name, or leave them out")
        from unalike.actions.discover import run_discovery, training_source

        result = run_discovery(experiment, overwrite=overwrite)
        show_result(result, as_json)
        if not as_json:
            source = training_source(result.results_dir, experiment.discover.kind)
            suggest("discover", path=result.results_dir, source=source)
        return
    _name(experiment, answers, images, resume=resume, overwrite=overwrite, as_json=as_json)


def _name(
    experiment: Experiment, answers: str | None, images: int, *, resume: bool, overwrite: bool, as_json: bool
) -> None:
    from unalike.actions.name_groups import name_groups
    from unalike.spec.nodes import check_mandatory

    check_mandatory("discover", experiment.discover)
    unread = [field for field in type(experiment.discover).model_fields
              if field not in FIELDS_OF_NAMING and experiment.is_set(f"discover.{field}")]  # fmt: skip
    if unread or overwrite:
        raise SpecError(f"--name together with {', '.join(unread) or '--overwrite'}", expected="the folder that discover wrote, and -o DIR",
                        remedy="leave it out: the images are grouped already, and nothing is overwritten")  # fmt: skip
    folder = Path(str(experiment.discover.source))
    out = Path(experiment.discover.results_dir or f"{folder.name or 'images'}-named")
    try:
        result = name_groups(folder, out, ask=ask, answers=answers, images=images, resume=resume)
    except KeyboardInterrupt:
        say(f"the answers are in {out}; the same command with --resume goes on")
        raise
    show_result(result, as_json)
    if not as_json:
        suggest("discover_name", path=result.path)


def ask(prompt: str) -> str | None:
    """Show a prompt on standard error and read a line of standard input; None at its end."""
    while True:
        print(one_line(prompt), end=" ", file=sys.stderr, flush=True)
        try:
            line = sys.stdin.readline()
        except UnicodeDecodeError:
            say("that line is not valid in this terminal's encoding: type it again", level=0)
            continue
        return line if line else None
