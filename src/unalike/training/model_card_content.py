"""Content of the model card that training writes: data, weights, license, training and validation."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unalike.metrics.files import write_rows
from unalike.metrics.summary import summarize
from unalike.report.model_card_format import card_markdown
from unalike.runs.environment import versions
from unalike.runs.filenames import MODEL_CARD_FILE, MODEL_CARD_PAGE, PER_CLASS_FILE
from unalike.sanitize import redact
from unalike.storage.atomic import write_text
from unalike.training.automatic.holdout_result import KIND_NAMES, describe_counts

if TYPE_CHECKING:
    from unalike.spec import Experiment
    from unalike.training.trainer import TrainingResult


# Numbers of images in a record, where the time budget did not suffice for all.
SAMPLE_KEYS = ("images_available", "images_used", "images_fine_tuned_on")


def write_model_card(
    folder: Path, experiment: Experiment, result: TrainingResult, *, record: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Write ``model_card.json`` and ``model_card.md`` into the run's folder.

    Args:
        folder: the run's folder.
        experiment: the spec of the model.
        result: the result of the training.
        record: content of ``automatic.json`` after automatic training; its metrics then are the card's validation.

    Returns:
        The content of the card.
    """
    facts = result.facts
    metrics: dict[str, Any] = {}
    if result.ranking is not None and result.sets.reference is not None:
        metrics = summarize(
            result.ranking, result.sets.reference.classes, n=experiment.evaluate.bootstrap,
            confidence=experiment.evaluate.confidence, unseen_classes=result.sets.unseen,
        )  # fmt: skip
        rows = metrics.pop("per_class", None)
        if rows and experiment.train.report_accuracy_per_class:
            write_rows(folder / PER_CLASS_FILE, rows)
    train = result.sets.train
    card = {
        "format_version": 1,
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "name": experiment.model_name,
        "checkpoint": result.checkpoint.name,
        "trunk": {"name": experiment.model.backbone, "weights": facts.source, "pretrained": facts.pretrained,
                  "licence": facts.license},
        "vector": {"dim": experiment.model.feat_dim, "distance": "squared L2 of unit vectors"},
        "view": {"height": experiment.model.input_height, "width": experiment.model.input_width, **experiment.dataset.view.model_dump()},
        "data": {"source": redact(str(experiment.dataset.train_dataset)), "images": len(train), "classes": len(train.classes),
                 "fingerprint": train.fingerprint()},
        "training": _training(experiment, result, record),
        "validation": {"made_of": result.sets.validation, "classes_unseen_in_training": result.sets.unseen,
                       "note": "chosen as the best of all validations, so slightly optimistic", "metrics": metrics},
        "class_names": list(train.classes),
        "versions": versions(),
    }  # fmt: skip
    if record is not None:
        card |= _selection(record)
    write_text(folder / MODEL_CARD_FILE, json.dumps(card, indent=2, ensure_ascii=False, default=str) + "\n")
    write_text(folder / MODEL_CARD_PAGE, card_markdown(card))
    return card


def _training(experiment: Experiment, result: TrainingResult, record: Mapping[str, Any] | None) -> dict[str, Any]:
    """Describe how the weights were trained; loss and epochs are left out where nothing was trained by steps."""
    if record is not None and not result.history.steps:
        return {"recipe": experiment.train.recipe, "head": record["chosen"], "seed": experiment.train.seed}
    if not (experiment.train.train_trunk or experiment.train.train_embedder):
        loss = experiment.train.finish.loss
        head = "fitted in closed form" + (f", then trained with {loss}" if loss else "")
        return {"recipe": experiment.train.recipe, "head": head, "seed": experiment.train.seed}
    return {"recipe": experiment.train.recipe, "loss": experiment.train.loss.name, "epochs": experiment.train.num_epochs,
            "best_epoch": result.best_epoch, "seed": experiment.train.seed}  # fmt: skip


def _selection(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parts of a card that differ after automatic training: how the model was selected, and on which images."""
    names = KIND_NAMES
    choice = next(c for c in record["candidates"] if c["name"] == record["chosen"])
    counts = "; ".join(f"{names.get(kind, kind)}: {describe_counts(row)}" for kind, row in
                       record.get("evaluation", {}).get("counts", {}).items()) or ", ".join(
        f"{n} queries of {names.get(kind, kind)}" for kind, n in sorted(record["judged_on"].items()))  # fmt: skip
    figures = {
        f"{names.get(kind, kind)}, {name}": value
        for kind, row in choice["figures"].items()
        for name, value in row.items()
    }
    made_of = f"held-out images ({counts})" if counts else record["estimate"]
    note = "the best of all candidates, so slightly optimistic" if counts else "nothing was measured"
    note = "; ".join(text for text in (choice.get("statement", ""), record.get("not_tested", ""), note) if text)
    weights = record.get("weights") or {}  # of the user's own: what they were trained on is not known
    note += f"; {weights['note']}" if weights else ""
    unseen = "new" in record["judged_on"] and not weights.get("shared_classes")
    return {
        "automatic": {"chosen": record["chosen"], "chosen_by": record.get("chosen_by", "rule"), "goal": record["goal"], "minutes": record["spent_minutes"],
                      **{key: record[key] for key in SAMPLE_KEYS if key in record},
                      "instead_of": [c["name"] for c in record["candidates"] if c is not choice]},
        "validation": {"made_of": made_of, "classes_unseen_in_training": unseen,
                       "note": note, "metrics": {"micro": figures}},
    }  # fmt: skip
