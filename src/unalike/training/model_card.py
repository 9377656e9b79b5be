"""The model card of a training: what the model was made from, how it was measured, under which licence."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unalike.errors import redact
from unalike.metrics.files import write_rows
from unalike.metrics.summary import summarize
from unalike.report.model_card import card_markdown
from unalike.runs.environment import versions
from unalike.runs.filenames import MODEL_CARD_FILE, MODEL_CARD_PAGE, PER_CLASS_FILE
from unalike.storage.atomic import write_text

if TYPE_CHECKING:
    from unalike.training.trainer import TrainingResult


def write_model_card(
    folder: Path, spec: Any, outcome: TrainingResult, *, judged: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Write ``model_card.json`` and ``model_card.md`` into the run's folder and give the content back.

    ``judged``: what automatic training found out (``automatic.json``); then that is the card's validation.
    """
    facts = outcome.facts
    metrics: dict[str, Any] = {}
    if outcome.ranking is not None and outcome.sets.reference is not None:
        metrics = summarize(
            outcome.ranking, outcome.sets.reference.classes, n=spec.evaluate.bootstrap,
            confidence=spec.evaluate.confidence, seed=spec.evaluate.seed, unseen_classes=outcome.sets.unseen,
        )  # fmt: skip
        rows = metrics.pop("per_class", None)
        if rows and spec.train.report_accuracy_per_class:
            write_rows(folder / PER_CLASS_FILE, rows)
    train = outcome.sets.train
    card = {
        "format_version": 1,
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "name": spec.model_name,
        "checkpoint": outcome.checkpoint.name,
        "trunk": {"name": spec.model.backbone, "weights": facts.source, "pretrained": facts.pretrained,
                  "licence": facts.license},
        "vector": {"dim": spec.model.feat_dim, "distance": "squared L2 of unit vectors"},
        "view": {"height": spec.model.input_height, "width": spec.model.input_width, **spec.dataset.view.model_dump()},
        "data": {"source": redact(str(spec.dataset.train_dataset)), "images": len(train), "classes": len(train.classes),
                 "fingerprint": train.fingerprint()},
        "training": _training(spec, outcome, judged),
        "validation": {"made_of": outcome.sets.validation, "classes_unseen_in_training": outcome.sets.unseen,
                       "note": "chosen as the best of all validations, so slightly optimistic", "metrics": metrics},
        "class_names": list(train.classes),
        "versions": versions(),
    }  # fmt: skip
    if judged is not None:
        card |= _judged(judged)
    write_text(folder / MODEL_CARD_FILE, json.dumps(card, indent=2, ensure_ascii=False, default=str) + "\n")
    write_text(folder / MODEL_CARD_PAGE, card_markdown(card))
    return card


def _training(spec: Any, outcome: Any, judged: Mapping[str, Any] | None) -> dict[str, Any]:
    """How the weights came about; loss and epochs say nothing where nothing was learnt by steps."""
    if judged is not None and not outcome.history.steps:
        return {"recipe": spec.train.recipe, "head": judged["chosen"], "seed": spec.train.seed}
    if not (spec.train.train_trunk or spec.train.train_embedder):
        by = f", trained on by {spec.train.finish.loss}" if spec.train.finish.loss else ""
        return {"recipe": spec.train.recipe, "head": f"fitted in closed form{by}", "seed": spec.train.seed}
    return {"recipe": spec.train.recipe, "loss": spec.train.loss.name, "epochs": spec.train.num_epochs,
            "best_epoch": outcome.best_epoch, "seed": spec.train.seed}  # fmt: skip


def _judged(record: Mapping[str, Any]) -> dict[str, Any]:
    """The parts of a card that automatic training knows better: how it chose, and on what."""
    chosen = next(c for c in record["candidates"] if c["name"] == record["chosen"])
    counts = ", ".join(f"{n} queries of {kind} classes" for kind, n in sorted(record["judged_on"].items()))
    figures = {
        f"{kind} classes, {name}": value for kind, row in chosen["figures"].items() for name, value in row.items()
    }
    return {
        "automatic": {"chosen": record["chosen"], "goal": record["goal"], "minutes": record["spent_minutes"],
                      "instead_of": [c["name"] for c in record["candidates"] if c is not chosen]},
        "validation": {"made_of": f"classes and scenes left out whole ({counts})", "classes_unseen_in_training": True,
                       "note": "the best of what was tried on them, so slightly optimistic", "metrics": {"micro": figures}},
    }  # fmt: skip
