"""The command discover: unlabeled images are grouped into folders of similar ones."""

from typing import Annotated

import typer

from unalike.cli.next_steps import suggest
from unalike.cli.output import show_result
from unalike.cli.section_options import Flag, Option, section_command
from unalike.cli.shared_options import AsJson
from unalike.spec import Experiment


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
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Use the folder of a run that did not finish.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Group unlabeled images into folders of similar ones, to be looked at, corrected by moving files, and trained on.

    Example: unalike discover heap/ -o sorted/   then   unalike train sorted/
    """
    from unalike.actions.discover import run_discovery

    result = run_discovery(experiment, overwrite=overwrite)
    show_result(result, as_json)
    if not as_json:
        suggest("discover", path=result.results_dir)
