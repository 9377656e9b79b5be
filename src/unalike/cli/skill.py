"""The commands skill install and skill show: instructions for agents."""

from typing import Annotated

import typer

from unalike.cli.output import print_line, print_lines, show_result
from unalike.cli.shared_options import AsJson, Quiet, Verbose, set_verbosity

skill_app = typer.Typer(rich_markup_mode=None, help="Install or print the skill, instructions for agents.")


@skill_app.command(short_help="Install the skill into a folder of skills.")
def install(
    directory: Annotated[str, typer.Argument(metavar="DIR", help="Folder of skills; the skill is written to DIR/unalike.")],
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an installed skill.")] = False,
    as_json: AsJson = False, verbose: Verbose = False, quiet: Quiet = False,
) -> None:  # fmt: skip
    """Write SKILL.md, references/ and schemas/ to DIR/unalike."""
    set_verbosity(verbose, quiet)
    from unalike.actions.skill import install

    show_result({"skill": str(install(directory, overwrite=overwrite))}, as_json)


@skill_app.command(short_help="Print SKILL.md.")
def show() -> None:
    """Print SKILL.md, with the folder of this installation's references and schemas in the last line."""
    from unalike.actions.skill import FOLDER, SKILL

    print_lines((FOLDER / SKILL).read_text(encoding="utf-8").rstrip())
    print_line("")
    print_line(f"This skill's folder: {FOLDER}")
