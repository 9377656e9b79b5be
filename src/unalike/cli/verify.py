"""The command that holds pictures against approved assets: verify."""

import json
from typing import Annotated, Any

import typer

from unalike.cli.options import AsJson, Overwrite, Quiet, Verbose, set_verbosity, show_result


def verify(
    images: Annotated[list[str] | None, typer.Argument(metavar="[IMAGE]...", help="Pictures, or folders of them.")] = None,
    reference: Annotated[
        str, typer.Option("--reference", metavar="ASSETS", help="A folder of approved assets, or a file that --save wrote.")
    ] = "",
    asset: Annotated[str | None, typer.Option(metavar="NAME", help="The asset that each picture should show.")] = None,
    save: Annotated[str | None, typer.Option(metavar="FILE", help="Keep assets and calibration in one file.")] = None,
    out: Annotated[str | None, typer.Option("-o", "--out", metavar="DIR", help="Pictures, verdicts.jsonl, report.html.")] = None,
    rate: Annotated[float | None, typer.Option(help="Share of altered pictures that may pass as the same; 0.01 if unset.")] = None,
    trials: Annotated[int | None, typer.Option(min=1, help="Tampered copies of each asset to calibrate with.")] = None,
    kinds: Annotated[str | None, typer.Option(metavar="A,B", help="Kinds of tampering to calibrate with; all if unset.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="The same seed draws the same trials.")] = 0,
    model: Annotated[str | None, typer.Option("-m", "--model", metavar="FILE", help="What finds assets; if unset, a trunk as it came.")] = None,
    runtime: Annotated[str, typer.Option(metavar="NAME", help="auto, onnxruntime, openvino, torch.")] = "auto",
    precision: Annotated[str, typer.Option(metavar="NAME", help="auto, fp32, bf16, fp16 or int8.")] = "auto",
    strict: Annotated[bool, typer.Option("--strict", help="Exit with 3 unless every picture is the same.")] = False,
    overwrite: Overwrite = False, as_json: AsJson = False, verbose: Verbose = False, quiet: Quiet = False,
) -> None:  # fmt: skip
    """Say of each picture whether it shows an approved asset unaltered: same, altered, different, not in the set.

    Examples: unalike verify --reference assets/ --save brand.set   |   unalike verify --reference brand.set photo.jpg -o out/
    """
    set_verbosity(verbose, quiet)
    from unalike.actions.verify import all_same
    from unalike.actions.verify import verify as act
    from unalike.errors import SpecError

    if not reference:
        raise SpecError("--reference is not set", expected="a folder of approved assets, or a file that --save wrote")
    told = act(
        reference, images or (), model, asset=asset, save=save, out=out, rate=rate, trials=trials,
        kinds=[word.strip() for word in kinds.split(",") if word.strip()] if kinds is not None else None, seed=seed,
        runtime=runtime, precision=precision, overwrite=overwrite,
    )  # fmt: skip
    if as_json:
        print(json.dumps(told, ensure_ascii=True))
    elif told["verdicts"]:
        for verdict in told["verdicts"]:
            print(_line(verdict))
    else:
        show_result({"reference": told["reference"], "assets": told["assets"], "saved": told["saved"]}, False)
    if strict and not all_same(told):
        raise typer.Exit(3)


def _line(verdict: dict[str, Any]) -> str:
    from unalike.verification.result import format_result

    return f"{verdict['path']}: {format_result(verdict)}"
