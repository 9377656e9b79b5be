"""The actions on a model: train, evaluate, inference, export, engines; and the demo."""

from collections.abc import Mapping
from typing import Annotated

import typer

import unalike
from unalike.cli.next_steps import suggest
from unalike.cli.output import show_result
from unalike.cli.positionals import model_argument, refuse_models, refuse_nothing, split_arguments
from unalike.cli.section_options import Option, section_command
from unalike.cli.shared_options import (
    Arguments,
    AsJson,
    Download,
    ModelArguments,
    Offline,
    OutputFile,
    Overwrite,
    Query,
    Quiet,
    Reference,
    ResultsDir,
    Resume,
    SpecFile,
    Verbose,
    flag_overrides,
    refuse_empty,
    set_downloads,
    set_verbosity,
)
from unalike.spec.demo import Demo

Address = Annotated[
    str | None, typer.Option(metavar="TEXT", help="Address of the Ray cluster; else one is started on this machine.")
]
REFERENCE_FIELD, QUERY_FIELD = "dataset.val_dataset.reference", "dataset.val_dataset.query"


def run_action(
    action: str, arguments: list[str] | None, spec: str | None, results_dir: str | None, *,
    resume: bool = False, overwrite: bool = False, policy: str | None = None, minutes: float | None = None,
    trials: int | None = None, fields: Mapping[str, str | None] | None = None, take: str | None = None,
    download: bool = False, offline: bool = False, as_json: bool = False, verbose: bool = False, quiet: bool = False,
) -> None:  # fmt: skip
    """Run a model action with the options of its command (``fields``: those that set a field), and print the result."""
    set_verbosity(verbose, quiet)
    set_downloads(download, offline)
    data, overrides = split_arguments(action, arguments)
    fields_by_name = fields or {}
    refuse_empty({"an argument": data, "--spec": spec, "--results-dir": results_dir, **fields_by_name})
    refuse_models({"--reference": fields_by_name.get(REFERENCE_FIELD), "--query": fields_by_name.get(QUERY_FIELD)})
    if action != "train" and data is not None and any(fields_by_name.values()) and model_argument(arguments) is None:
        refuse_nothing(data)
    overrides = flag_overrides(action, overrides, results_dir, policy, minutes=minutes, trials=trials, fields=fields)
    perform = getattr(unalike, {"inference": "infer"}.get(action, action))
    options = {} if take is None else {"take": take}
    result = perform(spec, overrides, data=data, resume=resume, overwrite=overwrite, **options)
    from unalike.runs.environment import process_rank

    if process_rank() == 0:  # of several processes (torchrun, srun) one prints
        show_result(result, as_json)
        if not as_json:
            reference = fields_by_name.get(REFERENCE_FIELD)
            following = "" if action == "evaluate" and _evaluates_vectors(reference or data) else action
            suggest(following, folder=result.results_dir, path=result.path, data=data or fields_by_name.get(QUERY_FIELD),
                    reference=reference, model=model_argument(arguments))  # fmt: skip


def _evaluates_vectors(reference: str | None) -> bool:
    """Whether a reference is a folder of vectors, from which no gallery is built."""
    from unalike.runs.vector_folder import is_vector_folder

    return reference is not None and is_vector_folder(reference)


def train(
    arguments: Arguments = None, spec: SpecFile = None, results_dir: ResultsDir = None, resume: Resume = False,
    overwrite: Overwrite = False,
    automl_policy: Annotated[
        str | None, typer.Option(metavar="auto|off", help="Search for the best hyperparameters, or train once.")
    ] = None,
    minutes: Annotated[float | None, typer.Option(metavar="N", help="Time limit of automl, in minutes.")] = None,
    trials: Annotated[int | None, typer.Option(metavar="N", help="Largest number of trials of automl.")] = None,
    take: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Train nothing: deliver another candidate of the automatic training in the results "
                     "folder (name or number in automatic.json)."),
    ] = None,
    no_labels: Annotated[
        bool, typer.Option("--no-labels", help="Train without labels; folders have no meaning.")
    ] = False,
    cluster: Annotated[
        str | None, typer.Option(metavar="local|ray", help="Who starts the processes: nobody but you, or Ray: train.cluster.")
    ] = None,
    address: Address = None,
    workers: Annotated[
        int | None, typer.Option(metavar="N", help="Processes on the Ray cluster; else one a GPU, or one a machine.")
    ] = None,
    download: Download = False, offline: Offline = False, as_json: AsJson = False, verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:  # fmt: skip
    """Train an embedding on a folder of images, one folder a class; with --no-labels in any arrangement.

    Examples: unalike train photographs/   |   ml_recog train -e spec.yaml train.num_epochs=20   |
    unalike train photographs/ --cluster ray --workers 8 -r /shared/run
    """
    arguments = [*(arguments or ()), *(["dataset.labels=none"] if no_labels else []), *_field("train.workers", workers)]
    run_action("train", arguments, spec, results_dir, resume=resume, overwrite=overwrite, policy=automl_policy,
         minutes=minutes, trials=trials, take=take, download=download,
         offline=offline, as_json=as_json, verbose=verbose, quiet=quiet,
         fields={"train.cluster": cluster, "train.address": address})  # fmt: skip


def _field(path: str, value: int | None) -> list[str]:
    """The override of an option that sets a number; none where it is not given."""
    return [] if value is None else [f"{path}={value}"]


def evaluate(
    arguments: ModelArguments = None, reference: Reference = None, query: Query = None, spec: SpecFile = None,
    results_dir: ResultsDir = None, overwrite: Overwrite = False,
    cluster: Annotated[
        str | None, typer.Option(metavar="local|ray", help="Who ranks: this machine, or a Ray cluster: evaluate.cluster.")
    ] = None,
    address: Address = None,
    workers: Annotated[
        int | None, typer.Option(metavar="N", help="Tasks of the Ray cluster at a time; else one a core.")
    ] = None,
    download: Download = False, offline: Offline = False,
    as_json: AsJson = False, verbose: Verbose = False, quiet: Quiet = False,
) -> None:  # fmt: skip
    """Measure how often the nearest reference of a query is of its class.

    Folders of vectors that `unalike embed --labeled` wrote stand in place of images; no model is given then.

    Examples: unalike evaluate runs/latest --reference shop/reference --query shop/query   |
    unalike evaluate -e spec.yaml evaluate.checkpoint=results/train/ml_model_best.pth   |
    unalike evaluate --reference vectors/reference --query vectors/query --cluster ray
    """
    arguments = [*(arguments or ()), *_field("evaluate.workers", workers)]
    run_action(
        "evaluate", arguments, spec, results_dir, overwrite=overwrite, download=download, offline=offline,
        as_json=as_json, verbose=verbose, quiet=quiet,
        fields={
            REFERENCE_FIELD: reference, QUERY_FIELD: query, "evaluate.cluster": cluster, "evaluate.address": address,
        },
    )  # fmt: skip


def inference(
    arguments: ModelArguments = None, reference: Reference = None, spec: SpecFile = None, results_dir: ResultsDir = None,
    overwrite: Overwrite = False,
    explain: Annotated[bool, typer.Option("--explain", help="Write an explanation of each match: images, JSON, HTML.")] = False,
    download: Download = False, offline: Offline = False, as_json: AsJson = False, verbose: Verbose = False, quiet: Quiet = False,
) -> None:  # fmt: skip
    """Find the nearest reference classes of an image, a folder or class folders.

    Examples: unalike inference runs/latest new/ --reference shop/reference   |
    unalike inference new/ -e spec.yaml inference.checkpoint=results/train/ml_model_best.pth
    """
    arguments = [*(arguments or ()), *(["inference.explain=true"] if explain else [])]
    run_action(
        "inference", arguments, spec, results_dir, overwrite=overwrite, download=download, offline=offline,
        as_json=as_json, verbose=verbose, quiet=quiet,
        fields={REFERENCE_FIELD: reference},
    )  # fmt: skip


def export(
    arguments: ModelArguments = None, output: OutputFile = None, spec: SpecFile = None, results_dir: ResultsDir = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False, verbose: Verbose = False, quiet: Quiet = False,
) -> None:  # fmt: skip
    """Write a trained embedding as ONNX, only if its vectors equal the network's.

    Examples: unalike export runs/latest -o model.onnx   |
    unalike export -e spec.yaml export.checkpoint=results/train/ml_model_best.pth
    """
    run_action(
        "export", arguments, spec, results_dir, overwrite=overwrite, as_json=as_json, verbose=verbose, quiet=quiet,
        fields={"export.onnx_file": output},
    )  # fmt: skip


@section_command(
    "demo",
    arguments={},
    options={"out": Option(("-o", "--out"), "DIR"), "keep": Option((), "DIR")},
    section=Demo,
)
def demo(settings: Demo, overwrite: Overwrite = False, as_json: AsJson = False) -> None:
    """Render brand marks as in photographs, train on some brands, recognize others, and write report.html."""
    from unalike.actions.demo import run_demo

    result = run_demo(settings, overwrite=overwrite)
    show_result(result, as_json)
    if not as_json:
        suggest("demo", images=result.images, model=result.checkpoint)
