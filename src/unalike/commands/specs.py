"""Commands that look before anything runs: default_specs, schema, check."""

from pathlib import Path
from typing import Annotated

import typer

from ..errors import SpecError, UnalikeError, closest
from .words import AsJson, Quiet, SpecFile, Verbose, app, set_voice, show_result, split_words


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
    from .. import api
    from ..spec import ACTIONS

    if action not in ACTIONS:
        raise SpecError(f"no action {action!r}", remedy=closest(action, ACTIONS) or f"one of {', '.join(ACTIONS)}")
    text = api.default_specs(action, out)
    print(out or text.rstrip())


@app.command(short_help="Write an action's JSON Schema and template into the package.")
def schema(
    action: Annotated[str, typer.Argument(metavar="ACTION")] = "train",
    out: Annotated[
        str | None, typer.Option("-o", "--out", metavar="DIR", help="Another place than the installed package.")
    ] = None,
    verbose: Verbose = False, quiet: Quiet = False,
) -> None:  # fmt: skip
    """Write <action>.schema.json and spec_template_<action>.yaml."""
    set_voice(verbose, quiet)
    from ..spec.schema import package_files, write_schemas

    written = [name for name in package_files() if name.endswith(".schema.json")]
    known = [Path(name).name.removesuffix(".schema.json") for name in written]
    if action not in known:
        raise SpecError(f"schema of {action!r}", expected=f"one of {', '.join(known)}", remedy=closest(action, known))
    for path in write_schemas(out):
        print(path)


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
    from .. import api

    result = api.check(target or spec, overrides)
    if as_json:
        show_result(result.to_dict(), as_json)
    else:
        show_result({"found": result.figures}, as_json)
        for fault in result.faults:
            print(f"fault: {fault}")
    if not result.ok:
        count = len(result.faults)
        raise UnalikeError(f"{count} fault{'s' if count > 1 else ''}", remedy="each stands above in one line")
