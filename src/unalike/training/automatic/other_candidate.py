"""Deliver another candidate of a finished automatic training, with its own figures, report and specs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unalike.data.from_spec import load_training_sets
from unalike.data.notices import Notices
from unalike.data.view import View
from unalike.errors import DataError, RunError, SpecError
from unalike.model.checkpoint import load_embedder
from unalike.progress import say
from unalike.runs.filenames import AUTOMATIC_FILE, EXPERIMENT_FILE, SAMPLE_FILE, candidate_folder
from unalike.runs.stage import load_stage
from unalike.spec import load_spec
from unalike.storage.atomic import write_text
from unalike.training.automatic.candidate_files import deliver, load_result
from unalike.training.automatic.holdout_result import KIND_NAMES
from unalike.training.heads.features import compute_features
from unalike.training.history import History
from unalike.training.report import write_automatic_report
from unalike.training.trainer import TrainingResult

if TYPE_CHECKING:
    from unalike.runs.run import Run
    from unalike.spec import Experiment


@dataclass(frozen=True)
class TakenCandidate:
    """The delivered candidate.

    Attributes:
        checkpoint: the delivered model.
        spec: its resolved spec.
        training: for the model card.
        figures: its metrics by name.
        record: the content of ``automatic.json``.
    """

    checkpoint: Path
    spec: Experiment
    training: TrainingResult
    figures: Mapping[str, float]
    record: Mapping[str, Any]


def read_record(folder: Path) -> dict[str, Any]:
    """Read the record of a finished automatic training.

    Args:
        folder: the run's folder.

    Raises:
        RunError: there is none, or it names no candidates that were kept.
    """
    path = folder / AUTOMATIC_FILE
    try:
        record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RunError(f"{path} cannot be read", expected="the results folder of a finished automatic training",
                       remedy="name it with --results-dir; an interrupted one ends with --resume") from error  # fmt: skip
    if not all("folder" in candidate for candidate in record.get("candidates", ())):
        raise RunError(f"{path}: the candidates were not kept", expected="a training that measured its candidates",
                       remedy="train again with --overwrite")  # fmt: skip
    return record


def find_candidate(record: Mapping[str, Any], name: str) -> int:
    """Return the number of a candidate by its number, its name, or a part of its name that no other has.

    Args:
        record: content of ``automatic.json``.
        name: what the user asked for.

    Raises:
        SpecError: no candidate, or several.
    """
    names = [candidate["name"] for candidate in record["candidates"]]
    if name.isdecimal() and int(name) < len(names):
        return int(name)
    exact = [n for n, candidate_name in enumerate(names) if candidate_name.casefold() == name.strip().casefold()]
    partly = exact or [
        n for n, candidate_name in enumerate(names) if name.strip().casefold() in candidate_name.casefold()
    ]
    if len(partly) == 1 and name.strip():
        return partly[0]
    close = get_close_matches(name, names, 1, 0.6)
    choices = "; ".join(f"{n}: {candidate_name}" for n, candidate_name in enumerate(names))
    raise SpecError(f"--take {name!r} names {'several candidates' if partly and name.strip() else 'no candidate'}",
                    expected=f"a number, or a name or part of it, of {choices}",
                    remedy=f"--take {close[0]!r}" if close else "--take NUMBER")  # fmt: skip


def take_candidate(run: Run, record: dict[str, Any], number: int) -> TakenCandidate:
    """Deliver a candidate: its checkpoint, specs, record and report replace those of the one that was delivered.

    Args:
        run: the finished run.
        record: its content of ``automatic.json``; it is changed.
        number: the candidate.

    Raises:
        RunError: files of the candidate are missing.
        DataError: the training images changed since.
    """
    folder, candidate = run.dir / candidate_folder(number), record["candidates"][number]
    result = load_result(folder)
    spec = load_spec("train", str(folder / EXPERIMENT_FILE))
    frozen = load_spec("train", str(run.dir / candidate_folder(0) / EXPERIMENT_FILE))
    notices = Notices()
    sets = load_training_sets(frozen.with_values({"dataset.validation.by": "none"}), notices)
    if (run.dir / SAMPLE_FILE).is_file():
        sample = load_stage(run, run.dir / SAMPLE_FILE, "sample of the images", sets.train.fingerprint().encode())
        if sample is not None:
            sets = replace(sets, train=sets.train.select(sample["rows"]))
    view = replace(View.from_spec(frozen), height=frozen.model.input_height, width=frozen.model.input_width)
    features = compute_features(frozen.model.backbone, sets.train, view, notices, frozen)
    images = sets.train.select(features.kept_N)
    if images.fingerprint() != record["images"]:
        raise DataError(f"{sets.train.source}: the images are not those of the training", expected="the same images, by which "
                        "the candidates were measured", remedy="train again with --overwrite")  # fmt: skip
    checkpoint, spec = deliver(run, number, spec)
    record |= {"chosen": candidate["name"], "chosen_by": "user"}
    write_text(run.dir / AUTOMATIC_FILE, json.dumps(record, indent=2) + "\n")
    run.own(run.dir / AUTOMATIC_FILE)
    run.own(*write_automatic_report(run.dir, spec, record, History(), images, features.vectors_NF, result))
    say(f"delivered at your request: {candidate['name']}")
    if candidate["statement"]:
        say(candidate["statement"])
    facts = load_embedder(checkpoint)[0].trunk.facts
    training = TrainingResult(checkpoint, {}, None, {}, History(), replace(sets, train=images), None, facts)
    return TakenCandidate(checkpoint, spec, training, _figures(record, candidate), record)


def _figures(record: Mapping[str, Any], candidate: Mapping[str, Any]) -> dict[str, float]:
    """The candidate's metrics by name, with those of the frozen trunk."""
    figures: dict[str, float] = {}
    for kind, row in candidate["figures"].items():
        for name, value in row.items():
            figures[f"{KIND_NAMES[kind]} {name}"] = value["value"]
            figures[f"{KIND_NAMES[kind]} {name} frozen"] = record["candidates"][0]["figures"][kind][name]["value"]
    return figures
