"""The commands default-specs, schema, keys and check, which run no action."""

from pathlib import Path
from typing import Annotated

import typer

from unalike.cli.next_steps import suggest
from unalike.cli.output import print_line, print_lines, show_result
from unalike.cli.shared_options import AsJson, Quiet, SpecFile, Verbose, parse_arguments, set_verbosity
from unalike.errors import SpecError, UnalikeError, closest
from unalike.spec.actions import ACTIONS, action_of, command_of


def default_specs(
    arguments: Annotated[
        list[str] | None, typer.Argument(metavar="[ACTION] [results_dir=DIR]", help="The action; train if unset.")
    ] = None,
    out: Annotated[str | None, typer.Option("-o", "--out", metavar="FILE", help="File; standard output if unset.")] = None,
    verbose: Verbose = False, quiet: Quiet = False,
) -> None:  # fmt: skip
    """Write the commented default spec of an action."""
    set_verbosity(verbose, quiet)
    action, overrides = parse_arguments(arguments)
    action = action_of(action or "train")
    for override in overrides:
        key, _, value = override.partition("=")
        if key != "results_dir" or out:
            raise SpecError(f"{override!r} for default_specs", expected="[ACTION] and results_dir=DIR or -o FILE")
        out = str(Path(value) / f"spec_template_{action}.yaml")
    from unalike.actions import spec_template

    if action not in ACTIONS:
        raise SpecError(f"no action {action!r}", remedy=closest(action, ACTIONS) or f"one of {', '.join(ACTIONS)}")
    text = spec_template.default_specs(action, out)
    print_lines(out or text.rstrip())
    if out:
        suggest("default_specs", command=command_of(action), path=out)


def schema(
    action: Annotated[str | None, typer.Argument(metavar="[ACTION]", help="The action; all actions if unset.")] = None,
    out: Annotated[
        str | None,
        typer.Option("-o", "--out", metavar="FILE|DIR", help="File of the schema, or folder of all files; the package if unset."),
    ] = None,
    verbose: Verbose = False, quiet: Quiet = False,
) -> None:  # fmt: skip
    """Print the JSON Schema (2020-12) of an action; without one, write schemas/ and references/ of the skill.

    Examples: unalike schema train -o train.schema.json   |   unalike schema -o skill/
    """
    set_verbosity(verbose, quiet)
    if action is None:
        from unalike.actions.skill import write_package
        from unalike.storage.overwrite import refuse_address

        if out is not None:
            refuse_address(out, SpecError)
        for path in write_package(out):
            print_line(path)
        return
    action = action_of(action)
    if action not in ACTIONS:
        raise SpecError(
            f"schema of {action!r}", expected=f"one of {', '.join(ACTIONS)}", remedy=closest(action, ACTIONS)
        )
    from unalike.spec.schema import schema_text
    from unalike.storage.atomic import write_text
    from unalike.storage.overwrite import refuse_existing

    if out is None:
        print_lines(schema_text(action))
        return
    refuse_existing(out, error=SpecError)
    write_text(Path(out), schema_text(action))
    print_line(out)


def keys(
    word: Annotated[
        str | None, typer.Argument(metavar="[WORD]", help="A part of a key or of its description; all keys if unset.")
    ] = None,
    action: Annotated[
        str | None, typer.Option("--action", metavar="ACTION", help="Keys of this action's spec alone.")
    ] = None,
    as_json: AsJson = False, verbose: Verbose = False, quiet: Quiet = False,
) -> None:  # fmt: skip
    """List the keys that specs and overrides (key=value) take: default, expected values, description.

    Examples: unalike keys margin   |   unalike keys learning --action train
    """
    set_verbosity(verbose, quiet)
    from unalike.spec.fields import declared_fields, fields_of, matching_keys

    name = action_of(action) if action else None
    if name is not None and name not in ACTIONS:
        raise SpecError(f"no action {action!r}", remedy=closest(name, ACTIONS) or f"one of {', '.join(ACTIONS)}")
    fields = declared_fields() if name is None else fields_of(name)
    matches = matching_keys(fields, word or "")
    if not matches:
        raise SpecError(f"no key matches {word!r}", remedy=closest(str(word), fields) or "unalike keys lists all")
    if as_json:
        show_result(matches, as_json)
        return
    for key, facts in matches.items():
        print_line(f"{key}={facts['default']}  ({facts['expected']})")
        print_line(f"    {facts['help']}")


def check(
    arguments: Annotated[
        list[str] | None, typer.Argument(metavar="SPEC|DIR [KEY=VALUE]...", help="A spec file or a data folder.")
    ] = None,
    spec: SpecFile = None, as_json: AsJson = False, verbose: Verbose = False, quiet: Quiet = False,
) -> None:  # fmt: skip
    """Validate a spec or a data folder, with the weights, extras and devices that a run would need."""
    set_verbosity(verbose, quiet)
    target, overrides = parse_arguments(arguments)
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
            print_line(f"fault: {fault}")
        if result.ok and spec is None and target is not None and Path(target).is_dir():
            suggest("check", data=target)
    if not result.ok:
        count = len(result.faults)
        raise UnalikeError(f"{count} fault{'s' if count > 1 else ''}", remedy="see the lines above")
