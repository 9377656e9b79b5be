"""The actions on a model: train, evaluate, inference, export, engines; and the demo."""

from typing import Annotated

import typer

import unalike
from unalike.cli.options import (
    Arguments,
    AsJson,
    Overwrite,
    Quiet,
    ResultsDir,
    Resume,
    SpecFile,
    Verbose,
    flag_overrides,
    parse_arguments,
    set_verbosity,
    show_result,
)


def act(
    action: str, arguments: list[str] | None, spec: str | None, results_dir: str | None, *,
    resume: bool = False, overwrite: bool = False, policy: str | None = None, minutes: float | None = None,
    trials: int | None = None, as_json: bool = False, verbose: bool = False, quiet: bool = False,
) -> None:  # fmt: skip
    set_verbosity(verbose, quiet)
    data, overrides = parse_arguments(arguments)
    overrides = flag_overrides(action, overrides, results_dir, policy, minutes=minutes, trials=trials)
    perform = getattr(unalike, {"inference": "infer"}.get(action, action))
    result = perform(spec, overrides, data=data, resume=resume, overwrite=overwrite)
    from unalike.runs.environment import process_rank

    if process_rank() == 0:  # of several processes (torchrun, srun) one has the word
        show_result(result, as_json)


def train(
    arguments: Arguments = None, spec: SpecFile = None, results_dir: ResultsDir = None, resume: Resume = False,
    overwrite: Overwrite = False,
    automl_policy: Annotated[
        str | None, typer.Option(metavar="auto|off", help="Search for the best training, or train plainly.")
    ] = None,
    minutes: Annotated[float | None, typer.Option(metavar="N", help="Time that automl may spend.")] = None,
    trials: Annotated[int | None, typer.Option(metavar="N", help="Trainings that automl may try.")] = None,
    no_labels: Annotated[
        bool, typer.Option("--no-labels", help="Learn from the images alone; folders may be any.")
    ] = False,
    as_json: AsJson = False, verbose: Verbose = False, quiet: Quiet = False,
) -> None:  # fmt: skip
    """Train an embedding on a folder of images, one folder a class; with --no-labels in any arrangement.

    Examples: unalike train photographs/   |   ml_recog train -e spec.yaml train.num_epochs=20
    """
    if no_labels:
        arguments = [*(arguments or []), "dataset.labels=none"]
    act("train", arguments, spec, results_dir, resume=resume, overwrite=overwrite, policy=automl_policy,
         minutes=minutes, trials=trials, as_json=as_json, verbose=verbose, quiet=quiet)  # fmt: skip


def evaluate(
    arguments: Arguments = None, spec: SpecFile = None, results_dir: ResultsDir = None, overwrite: Overwrite = False,
    as_json: AsJson = False, verbose: Verbose = False, quiet: Quiet = False,
) -> None:  # fmt: skip
    """Measure a trained embedding: how often is the nearest reference of the query's class?

    Example: unalike evaluate -e spec.yaml evaluate.checkpoint=results/train/ml_model_best.pth
    """
    act("evaluate", arguments, spec, results_dir, overwrite=overwrite, as_json=as_json, verbose=verbose, quiet=quiet)


def inference(
    arguments: Arguments = None, spec: SpecFile = None, results_dir: ResultsDir = None, overwrite: Overwrite = False,
    explain: Annotated[bool, typer.Option("--explain", help="Show why each image matched: pictures, JSON, HTML.")] = False,
    as_json: AsJson = False, verbose: Verbose = False, quiet: Quiet = False,
) -> None:  # fmt: skip
    """Name the nearest reference classes of an image, a folder or class folders.

    Example: unalike inference new/ -e spec.yaml inference.checkpoint=results/train/ml_model_best.pth
    """
    arguments = [*(arguments or ()), *(["inference.explain=true"] if explain else [])]
    act("inference", arguments, spec, results_dir, overwrite=overwrite, as_json=as_json, verbose=verbose, quiet=quiet)


def export(
    arguments: Arguments = None, spec: SpecFile = None, results_dir: ResultsDir = None, overwrite: Overwrite = False,
    as_json: AsJson = False, verbose: Verbose = False, quiet: Quiet = False,
) -> None:  # fmt: skip
    """Write a trained embedding as ONNX; done only when its vectors equal the network's.

    Example: unalike export -e spec.yaml export.checkpoint=results/train/ml_model_best.pth
    """
    act("export", arguments, spec, results_dir, overwrite=overwrite, as_json=as_json, verbose=verbose, quiet=quiet)


def demo(
    out: Annotated[str, typer.Option("-o", "--out", metavar="DIR", help="Where runs and report go.")] = "runs/demo",
    keep: Annotated[str | None, typer.Option(metavar="DIR", help="Leave the rendered images there, as folders.")] = None,
    brands: Annotated[int, typer.Option(min=2, help="Brands to train on.")] = 200,
    unseen: Annotated[int, typer.Option(min=2, help="Other brands, to be recognized.")] = 120,
    epochs: Annotated[int | None, typer.Option(min=1, help="Epochs; if unset, what fits five minutes.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="The same seed draws the same images.")] = 0,
    overwrite: Overwrite = False, as_json: AsJson = False, verbose: Verbose = False, quiet: Quiet = False,
) -> None:  # fmt: skip
    """Render brand marks as a camera would meet them, train on some, recognize others, and write report.html."""
    set_verbosity(verbose, quiet)
    from unalike.actions.demo import run_demo

    result = run_demo(out, keep=keep, brands=brands, unseen=unseen, epochs=epochs, seed=seed, overwrite=overwrite)
    show_result(result, as_json)
