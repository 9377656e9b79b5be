"""What automatic training could deliver, judged on images that none of it was fitted to, and which of it is the best.

Shape letters: N images, D dimensions of the vector.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from unalike.data.imageset import ImageSet
from unalike.data.notices import Notices
from unalike.data.preprocessing import Preprocessing
from unalike.inference.embedding import Embeddings
from unalike.model.checkpoint import load_embedder
from unalike.model.embedder import Embedder
from unalike.model.frozen import build_frozen_trunk
from unalike.progress import say
from unalike.training.automatic.holdout import Round, Verdict
from unalike.training.heads.features import Features
from unalike.training.heads.interpolation import blended, finished, trunk_vectors
from unalike.training.heads.search import FROZEN, judge_raw
from unalike.training.heads.trained import Form, fitted_head
from unalike.training.trainer import TrainingResult

FINE_TUNED, BLENDED = "fine-tuned", "fine-tuned, blended, head fitted anew"


@dataclass(frozen=True)
class Trained:
    """A fine-tuned trunk, as it ended or blended, with its features of all images; of their mirror images too where a head
    is to be fitted to both, after the others."""

    trunk: Any
    features: Embeddings
    mirrored: bool = False

    @property
    def images(self) -> int:
        """Rows of the features that are images as they are."""
        return len(self.features.kept_N) // (2 if self.mirrored else 1)


@dataclass(frozen=True)
class Candidate:
    """Something that could be delivered: how it is called, and what it was judged to be worth."""

    name: str
    verdict: Verdict
    score: float
    form: Form | None = None  # what fits the head again, where it is a fitted one
    vectors_ND: Any = None  # of all images, right in the rows that were judged
    tuned: Trained | None = None  # of the fine-tuned ones


def judged_heads(
    forms: Sequence[Form | None],
    features: Features,
    labels_N: np.ndarray,
    fit_N: np.ndarray,
    held: Sequence[Round],
    goal: str,
) -> list[Candidate]:
    """The frozen trunk (None) and heads on it, fitted to what may be fitted and judged on what was held out."""
    found = []
    for form in forms:
        vectors = features.vectors_NF
        if form is not None:
            vectors = fitted_head(*features.both(fit_N, labels_N), form)(vectors)
        verdict = judge_raw(vectors, labels_N, held)
        found.append(Candidate(form.name if form else FROZEN, verdict, verdict.score(goal), form, vectors))
    return found


def judged_networks(
    tuned: TrainingResult, spec: Any, form: Form | None, images: ImageSet, fit_N: np.ndarray, held: Sequence[Round], goal: str,
    notices: Notices,
) -> list[Candidate]:  # fmt: skip
    """The fine-tuned network on what was held out, as it ended and, for a form, blended with a head of it fitted anew."""
    embedder, meta = load_embedder(tuned.checkpoint)
    labels_N, preprocessing = images.labels_N, Preprocessing.from_facts(meta["facts"])

    def seen(trunk: Any, *, mirrored: bool = False) -> Trained:
        done = trunk_vectors(trunk, images, preprocessing, dataset=spec.dataset, notices=notices, describe="judging",
                             mirrored=mirrored)  # fmt: skip
        return Trained(trunk, done, mirrored)

    def judged(name: str, network: Embedder, of: Trained, form: Form | None) -> Candidate:
        vectors_ND = np.zeros((len(images), network.dim), np.float32)
        own = slice(of.images)
        with torch.inference_mode():
            vectors_ND[of.features.kept_N[own]] = network.head(torch.from_numpy(of.features.vectors_ND[own])).numpy()
        verdict = judge_raw(vectors_ND, labels_N, held)
        return Candidate(name, verdict, verdict.score(goal), form, vectors_ND, of)

    found = [judged(FINE_TUNED, embedder, seen(embedder.trunk), None)]
    if not spec.train.finish.enabled or form is None:
        return found
    began = build_frozen_trunk(spec.model.backbone, preprocessing.input_size).trunk.state_dict()
    mixed = blended(embedder.trunk, began, spec.train.finish.trained_share)
    of = seen(mixed, mirrored=spec.train.finish.mirrored)
    network = fitted_network(of, images, fit_N, form, spec)
    if network is not None:
        found.append(judged(BLENDED, network, of, form))
    return found


def fitted_network(of: Trained, images: ImageSet, rows: np.ndarray, form: Form, spec: Any) -> Embedder | None:
    """The trunk with a head of this form fitted to these rows of the images; None, said, where none can be."""
    use = np.isin(of.features.kept_N, rows)
    done = replace(of.features, vectors_ND=of.features.vectors_ND[use], kept_N=of.features.kept_N[use])
    dim = spec.model.feat_dim if spec.is_set("model.feat_dim") else None
    return finished(of.trunk, done, images.labels_N, form, dim)


def best_of(candidates: Sequence[Candidate], goal: str) -> Candidate:
    """The one of the highest score; but the network as it ended only where it is clearly better than blended.

    On photographs of elsewhere the blended one was better each time (docs/experiments/new-classes.md); what is held
    out is few classes or scenes, and
    near to what was learnt.
    """
    best = max(candidates, key=lambda c: c.score)
    mixed = next((c for c in candidates if c.name == BLENDED), None)
    if best.name != FINE_TUNED or mixed is None or best.verdict.clearly_above(mixed.verdict, goal):
        return best
    return max((c for c in candidates if c is not best), key=lambda c: c.score)


def say_verdict(candidates: Sequence[Candidate], best: Candidate) -> None:
    """A line for each, the first of them the frozen trunk as it came."""
    for c in candidates:
        text = "; ".join(f"{kind} classes: " + ", ".join(f"{name} {value}" for name, value in figures.items())
                         for kind, figures in c.verdict.figures().items())  # fmt: skip
        say(f"{'-> ' if c is best else '   '}{c.name}: {text}")
    if best is candidates[0]:
        say("nothing that was tried beats the frozen trunk as it came: that is what you get")


def figures_of(best: Candidate, base: Candidate) -> dict[str, float]:
    """The best one's figures by name, those of the frozen trunk beside them."""
    found = {}
    for kind, figures in best.verdict.figures().items():
        for name, value in figures.items():
            found[f"{kind} classes {name}"] = value.value
            found[f"{kind} classes {name} frozen"] = base.verdict.figures()[kind][name].value
    return found
