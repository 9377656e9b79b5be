"""Commands that look before anything runs: default_specs, schema, check; and skill."""

from pathlib import Path
from typing import Annotated

import typer

from unalike.cli.options import AsJson, Quiet, SpecFile, Verbose, app, set_voice, show_result, split_words
from unalike.errors import SpecError, UnalikeError, closest

skill_app = typer.Typer(rich_markup_mode=None, no_args_is_help=True, help="What an agent reads to drive this tool.")
app.add_typer(skill_app, name="skill", short_help="The skill that an agent reads: install, show.")


@app.command("default_specs", short_help="Write a commented spec with every default.")
def default_specs(
    words: Annotated[
        list[str] | None, typer.Argument(metavar="[ACTION] [results_dir=DIR]", help="The action; train if unnamed.")
    ] = None,
    out: Annotated[str | None, typer.Option("-o", "--out", metavar="FILE", help="File; standard output if unset.")] = None,
    verbose: Verbose = False, quiet: Quiet = False,
) -> None:  # fmt: skip
    """Write the commented default spec of an action."""
    set_voice(verbose, quiet)
    action, overrides = split_words(words)
    action = action or "train"
    for word in overrides:
        key, _, value = word.partition("=")
        if key != "results_dir" or out:
            raise SpecError(f"{word!r} for default_specs", expected="[ACTION] and results_dir=DIR or -o FILE")
        out = str(Path(value) / f"spec_template_{action}.yaml")
    from unalike.actions import specs
    from unalike.spec import ACTIONS

    if action not in ACTIONS:
        raise SpecError(f"no action {action!r}", remedy=closest(action, ACTIONS) or f"one of {', '.join(ACTIONS)}")
    text = specs.default_specs(action, out)
    print(out or text.rstrip())


@app.command(short_help="Print an action's JSON Schema, or write all schemas and templates.")
def schema(
    action: Annotated[str | None, typer.Argument(metavar="[ACTION]", help="Print its schema; all files if unnamed.")] = None,
    out: Annotated[
        str | None,
        typer.Option("-o", "--out", metavar="FILE|DIR", help="File of the schema, or folder of all files; the package if unset."),
    ] = None,
    verbose: Verbose = False, quiet: Quiet = False,
) -> None:  # fmt: skip
    """Print the JSON Schema (2020-12) of an action; without one, write schemas/ and references/ of the skill.

    Examples: unalike schema train -o train.schema.json   |   unalike schema -o skill/
    """
    set_voice(verbose, quiet)
    from unalike.spec.fields import ACTIONS

    if action is None:
        from unalike.actions.skill import write_package

        for path in write_package(out):
            print(path)
        return
    if action not in ACTIONS:
        raise SpecError(
            f"schema of {action!r}", expected=f"one of {', '.join(ACTIONS)}", remedy=closest(action, ACTIONS)
        )
    from unalike.spec.schema import schema_text
    from unalike.storage.atomic import write_text

    if out is None:
        print(schema_text(action), end="")
        return
    write_text(Path(out), schema_text(action))
    print(out)


@app.command(short_help="Validate a spec or a folder, weights, extras and devices without training.")
def check(
    words: Annotated[
        list[str] | None, typer.Argument(metavar="SPEC|DIR [KEY=VALUE]...", help="A spec file or a data folder.")
    ] = None,
    spec: SpecFile = None, as_json: AsJson = False, verbose: Verbose = False, quiet: Quiet = False,
) -> None:  # fmt: skip
    """Validate a spec or a data folder, and what a run would need, without training."""
    set_voice(verbose, quiet)
    target, overrides = split_words(words)
    if (target is None) == (spec is None):
        raise SpecError("check without a spec or a folder" if target is None else "check with two things to check",
                        expected="unalike check SPEC.yaml, or unalike check DIR")  # fmt: skip
    import unalike

    result = unalike.check(target or spec, overrides)
    if as_json:
        show_result(result.to_dict(), as_json)
    else:
        show_result({"found": result.figures}, as_json)
        for fault in result.faults:
            print(f"fault: {fault}")
    if not result.ok:
        count = len(result.faults)
        raise UnalikeError(f"{count} fault{'s' if count > 1 else ''}", remedy="each stands above in one line")


@skill_app.command(short_help="Put the skill into a folder of skills.")
def install(
    directory: Annotated[str, typer.Argument(metavar="DIR", help="A folder of skills; this one becomes DIR/unalike.")],
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the skill that is there.")] = False,
    as_json: AsJson = False, verbose: Verbose = False, quiet: Quiet = False,
) -> None:  # fmt: skip
    """Write SKILL.md, references/ and schemas/ to DIR/unalike."""
    set_voice(verbose, quiet)
    from unalike.actions.skill import install

    show_result({"skill": str(install(directory, overwrite=overwrite))}, as_json)


@skill_app.command(short_help="Print SKILL.md.")
def show() -> None:
    """Print SKILL.md, with the folder of this installation's references and schemas in the last line."""
    from unalike.actions.skill import FOLDER, SKILL

    print((FOLDER / SKILL).read_text(encoding="utf-8").rstrip())
    print(f"\nThis skill's folder: {FOLDER}")
