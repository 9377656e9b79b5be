"""The model card: what a recogniser was made from, how it was measured, under which licence; JSON and Markdown."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unalike.measure.artefacts import write_rows
from unalike.measure.summary import summarise
from unalike.run import versions, write_text

if TYPE_CHECKING:
    from unalike.learn.training import Outcome


def write_card(folder: Path, spec: Any, outcome: Outcome) -> dict[str, Any]:
    """Write ``model_card.json`` and ``model_card.md`` into the run's folder and give the content back."""
    facts = outcome.facts
    metrics: dict[str, Any] = {}
    if outcome.ranking is not None and outcome.sets.reference is not None:
        metrics = summarise(
            outcome.ranking, outcome.sets.reference.classes, n=spec.evaluate.bootstrap,
            confidence=spec.evaluate.confidence, seed=spec.evaluate.seed, unseen_classes=outcome.sets.unseen,
        )  # fmt: skip
        rows = metrics.pop("per_class", None)
        if rows and spec.train.report_accuracy_per_class:
            write_rows(folder / "per_class.csv", rows)
    train = outcome.sets.train
    card = {
        "format_version": 1,
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "name": spec.model_name,
        "checkpoint": outcome.checkpoint.name,
        "trunk": {"name": spec.model.backbone, "weights": facts.source, "pretrained": facts.pretrained,
                  "licence": facts.licence},
        "vector": {"dim": spec.model.feat_dim, "distance": "squared L2 of unit vectors"},
        "view": {"height": spec.model.input_height, "width": spec.model.input_width, **spec.dataset.view.model_dump()},
        "data": {"source": str(spec.dataset.train_dataset), "images": len(train), "classes": len(train.classes),
                 "fingerprint": train.fingerprint()},
        "training": {"recipe": spec.train.recipe, "loss": spec.train.loss.name, "epochs": spec.train.num_epochs,
                     "best_epoch": outcome.best_epoch, "seed": spec.train.seed},
        "validation": {"made_of": outcome.sets.validation, "classes_unseen_in_training": outcome.sets.unseen,
                       "note": "chosen as the best of all validations, so slightly optimistic", "metrics": metrics},
        "class_names": list(train.classes),
        "versions": versions(),
    }  # fmt: skip
    write_text(folder / "model_card.json", json.dumps(card, indent=2, ensure_ascii=False, default=str) + "\n")
    write_text(folder / "model_card.md", _markdown(card))
    return card


def _markdown(card: dict[str, Any]) -> str:
    lines = [
        f"# Recogniser {card['name'] or card['checkpoint']}",
        "",
        f"Made {card['made']}; checkpoint {card['checkpoint']}.",
        "",
    ]
    for title in ("trunk", "vector", "view", "data", "training"):
        lines += [f"## {title.capitalize()}", ""]
        lines += [f"- {key.replace('_', ' ')}: {value}" for key, value in card[title].items()] + [""]
    validation = card["validation"]
    lines += ["## Validation", "", f"Query against reference: {validation['made_of']}; {validation['note']}.", ""]
    micro = validation["metrics"].get("micro", {})
    for name, value in micro.items():
        lines.append(f"- {name}: {_figure(value)}")
    if not micro:
        lines.append("- not measured")
    return "\n".join([*lines, "", "## Versions", ""] + [f"- {k} {v}" for k, v in card["versions"].items()]) + "\n"


def _figure(value: Any) -> str:
    if isinstance(value, dict):
        low, high = value.get("low"), value.get("high")
        interval = f" [{low:.4f}, {high:.4f}]" if low is not None and high is not None else ""
        return f"{value.get('value'):.4f}{interval}" if value.get("value") is not None else "none"
    return f"{value:.4f}" if isinstance(value, float) else str(value)
