"""The model card: what a recogniser was made from, how it was measured, under which licence; JSON and Markdown."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unalike.data.whole import write_text
from unalike.errors import redact
from unalike.measure.artefacts import write_rows
from unalike.measure.summary import summarise
from unalike.run import versions

if TYPE_CHECKING:
    from unalike.learn.training import Outcome


def write_card(folder: Path, spec: Any, outcome: Outcome, *, judged: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Write ``model_card.json`` and ``model_card.md`` into the run's folder and give the content back.

    ``judged``: what automatic training found out (``automatic.json``); then that is the card's validation.
    """
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
    write_text(folder / "model_card.json", json.dumps(card, indent=2, ensure_ascii=False, default=str) + "\n")
    write_text(folder / "model_card.md", _markdown(card))
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


# What the card of a training run shows line by line; its metrics and class names have a form of their own or none.
SHOWN = ("trunk", "vector", "view", "data", "training")
APART = (*SHOWN, "format_version", "name", "made", "checkpoint", "validation", "class_names", "versions")


def _markdown(card: dict[str, Any]) -> str:
    lines = [f"# Recogniser {card.get('name') or card.get('checkpoint', '')}".rstrip(), ""]
    lines += [f"Made {card['made']}; checkpoint {card['checkpoint']}.", ""] if "checkpoint" in card else []
    for title in SHOWN:
        if title in card:
            lines += [f"## {title.capitalize()}", ""]
            lines += [f"- {key.replace('_', ' ')}: {value}" for key, value in card[title].items()] + [""]
    if "validation" in card:
        validation = card["validation"]
        lines += ["## Validation", "", f"Query against reference: {validation['made_of']}; {validation['note']}.", ""]
        micro = validation["metrics"].get("micro", {})
        lines += [f"- {name}: {_figure(value)}" for name, value in micro.items()] or ["- not measured"]
        lines.append("")
    for title, content in card.items():
        if title not in APART:
            lines += [f"## {title.capitalize()}", "", *_lines(content), ""]
    if "versions" in card:
        lines += ["## Versions", ""] + [f"- {k} {v}" for k, v in card["versions"].items()]
    return "\n".join(lines).rstrip() + "\n"


def _figure(value: Any) -> str:
    if isinstance(value, dict):
        low, high = value.get("low"), value.get("high")
        interval = f" [{low:.4f}, {high:.4f}]" if low is not None and high is not None else ""
        return f"{value.get('value'):.4f}{interval}" if value.get("value") is not None else "none"
    return f"{value:.4f}" if isinstance(value, float) else str(value)


def add_section(folder: Path, title: str, content: dict[str, Any], *, source: Path | None, stem: str) -> dict[str, Any]:
    """Write ``<stem>.json`` and ``<stem>.md`` into ``folder``: the card at ``source`` (where there is one), and a section.

    The card that is read is left as it was; a card that stands in ``folder`` under that name already is taken before it.
    """
    own = folder / f"{stem}.json"
    card: dict[str, Any] = {"format_version": 1}
    for place in (own, source):
        if place is not None and place.is_file():
            try:
                held = json.loads(place.read_text(encoding="utf-8"))
            except ValueError:
                continue  # no card of ours; nothing is lost, since it is not written to
            if isinstance(held, dict) and "format_version" in held:
                card = held
                break
    card[title] = {"made": datetime.now(UTC).isoformat(timespec="seconds"), **content}
    write_text(own, json.dumps(card, indent=2, ensure_ascii=False, default=str) + "\n")
    write_text(folder / f"{stem}.md", _markdown(card))
    return card


def _lines(content: dict[str, Any], before: str = "") -> list[str]:
    """Entries of a section, one line each; what is inside another entry bears both names."""
    lines = []
    for key, value in content.items():
        name = f"{before}{key.replace('_', ' ')}"
        entries = value if isinstance(value, list) and value and isinstance(value[0], dict) else None
        if isinstance(value, dict) and "value" in value:
            lines.append(f"- {name}: {_figure(value)}")
        elif isinstance(value, dict):
            lines += _lines(value, f"{name}, ")
        elif entries is not None:
            for entry in entries:
                (first, at), *rest = entry.items()
                lines += _lines(
                    dict(rest), f"{name} {first.replace('_', ' ')} {at:g}: " if isinstance(at, float) else f"{name} "
                )
        elif value is not None:
            lines.append(f"- {name}: {_figure(value)}")
    return lines
