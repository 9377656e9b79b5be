"""Learning without labels: each image its own class where it is like no other, a discovered group where there are several.

Read ``train_unlabelled`` first. Groups are found in the frozen trunk's features (``measure.grouping``); a head is fitted to
how nearest neighbours differ; then the trunk is fine-tuned to tell the groups apart, each image that is in none standing for
itself with its augmented views (instance discrimination: Wu et al., 2018), and halfway the groups are found anew in the
features that were learnt. What is delivered is chosen without a label: on groups that nothing was fitted to, one part of a
group asks, seen through augmentation, and the other parts must answer. Names of files and folders are never looked at: images
are put in the order of their content.
Shape letters: N images, F features, D dimensions.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from unalike.data.from_spec import TrainingSets, load_unlabeled_images
from unalike.data.imageset import ImageSet
from unalike.data.notices import Notices
from unalike.data.preprocessing import Preprocessing
from unalike.data.view import View
from unalike.discovery.clustering import Grouping, group_images, neighbour_whitening
from unalike.errors import DataError, TrainingError, redact
from unalike.inference.embedding import embed_files
from unalike.inference.engine_selection import create_engine, move_to_gpu
from unalike.metrics.knn import unit
from unalike.model.checkpoint import load_embedder, write_checkpoint
from unalike.model.embedder import EmbedderConfig, build_embedder, create_embedder
from unalike.model.frozen import build_frozen_trunk
from unalike.progress import say
from unalike.runs.filenames import (
    BEST_CHECKPOINT,
    EXPERIMENT_FILE,
    LATEST_CHECKPOINT,
    NOTICES_FILE,
    UNLABELED_FILE,
    fine_tuning_folder,
)
from unalike.runs.stage import stage
from unalike.runs.subrun import Part
from unalike.spec import load_spec, settle
from unalike.storage.atomic import copy_file, write_text
from unalike.training.automatic.augmented_view import VariedView
from unalike.training.automatic.holdout import Held, Round, Verdict, held_rounds, judge, scenes
from unalike.training.automatic.pipeline import DEFAULT_MINUTES, Clock
from unalike.training.automatic.throughput import LEVELS, plan
from unalike.training.heads.discriminant import Discriminant, rooted
from unalike.training.heads.features import Features, trunk_features
from unalike.training.heads.warm_start import fitted_start
from unalike.training.loop import History
from unalike.training.losses import initialize_proxies
from unalike.training.recipe import settle_backbone, settle_normalization, settle_precision, settle_training
from unalike.training.trainer import TrainingResult, checkpoint_facts, train_embedder

GROUPS, ASKING, PLAN = "groups.npz", "asking.npz", "fine_tuning.yaml"  # finished stages, for --resume
FROZEN, FINE_TUNED = "frozen trunk", "fine-tuned on discovered groups"
HELD_SHARE, FEWEST_IN_GROUP, FEWEST_GROUPS = 0.2, 4, 4  # of the images; a held group's images; held groups
CLOSING_SHARE = 0.1
FEWEST_FOR_TWO_ROUNDS = 6  # epochs
MEANING = (
    "share of images, seen through augmentation, whose nearest image from another part of the heap is of the same discovered "
    "group; groups that nothing was fitted to. The groups come from the frozen trunk's features, so this is no accuracy on "
    "classes of yours: it ranks what was tried"
)


@dataclass(frozen=True)
class Candidate:
    """Something that could be delivered; ``head`` is None for the trunk as it came and for a trained network."""

    name: str
    verdict: Verdict | None
    score: float
    head: Discriminant | None = None


@dataclass(frozen=True)
class Learnt:
    """What learning without labels leaves."""

    checkpoint: Path
    spec: Any
    outcome: TrainingResult
    chosen: str
    figures: Mapping[str, float]
    record: Mapping[str, Any]


def train_unlabelled(spec: Any, run: Any, *, start: float) -> Learnt:
    """Learn from images alone for as long as the spec allows; ``start`` (``time.monotonic``) is when the action began.

    Raises the errors of training, and DataError for fewer than two images.
    """
    clock = Clock(spec.automl.minutes or DEFAULT_MINUTES, start)
    say(f"learning without labels: {clock.seconds / 60:g} minutes (--minutes N changes that)")
    seed, notices = max(spec.train.seed, 0), Notices()
    # At once: a run that is killed leaves them, and --overwrite must not.
    run.own(run.dir / GROUPS, run.dir / ASKING, run.dir / PLAN)
    images = by_content(load_unlabeled_images(spec, notices))
    if len(images) < 2:
        raise DataError(f"{len(images)} image to learn from", expected="at least two; some hundred to gain by it")
    settle_backbone(spec)
    view = replace(View.from_spec(spec), height=spec.model.input_height, width=spec.model.input_width)
    features = trunk_features(spec.model.backbone, images, view, notices, spec)
    images = images.select(features.kept_N)
    found = stage_of_groups(run, run.dir / GROUPS, "groups", features.vectors_NF, seed)
    say(f"{len(images)} images: {found.count} discovered groups, {int((found.group_N < 0).sum())} images in none")
    images = as_classes(images, found)
    yardstick = Yardstick.make(images, features, found, spec, run, seed)
    candidates = _judged_heads(yardstick, features.vectors_NF, seed)
    best = max(candidates, key=lambda c: c.score)
    checkpoint, delivered = _deliver_head(best, spec, run, images, features, seed)
    outcome = TrainingResult(
        checkpoint, {}, None, {}, History(), TrainingSets(images, None, None, "none", False), None, features.facts
    )
    tuned = _fine_tuned(spec, run, images, yardstick, best, features, clock, seed)
    if tuned is not None:
        candidates.append(yardstick.judge_network(FINE_TUNED, tuned[0].checkpoint))
        best = max(candidates, key=lambda c: c.score)
        if best.name == FINE_TUNED:
            outcome, delivered = tuned
            checkpoint = _deliver_tuned(outcome.checkpoint, run)
            run.write_experiment(delivered)
    notices.say()
    notices.write(run.dir / NOTICES_FILE)
    record = _record(spec, clock, candidates, best, yardstick, found)
    write_text(run.dir / UNLABELED_FILE, json.dumps(record, indent=2) + "\n")
    run.own(run.dir / UNLABELED_FILE)
    _say_verdict(candidates, best)
    return Learnt(checkpoint, delivered, replace(outcome, checkpoint=checkpoint), best.name,
                  _figures(best, candidates[0]), record)  # fmt: skip


def by_content(images: ImageSet) -> ImageSet:
    """The images in the order of a digest of their files, each content once: names of files and folders decide nothing."""

    def digest(path: Path) -> bytes:
        try:
            with open(path, "rb") as file:
                return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).digest()
        except OSError:
            return b"\xff" * 17  # behind all others; counted as unreadable where it is read

    digests = [digest(path) for path in images.paths]
    order = sorted(range(len(images)), key=lambda i: digests[i])
    first = [i for n, i in enumerate(order) if not n or len(digests[i]) == 17 or digests[i] != digests[order[n - 1]]]
    if len(first) < len(images):
        say(f"{len(images) - len(first)} exact copies are left out")
    return images.select(first)


def as_classes(images: ImageSet, found: Grouping) -> ImageSet:
    """The images with their groups as classes; each image of no group is a class of its own."""
    alone = np.flatnonzero(found.group_N < 0)
    labels_N = found.group_N.copy()
    labels_N[alone] = found.count + np.arange(len(alone))
    digits = len(str(len(labels_N)))
    names = [f"group {n + 1:0{digits}d}" for n in range(found.count)] + [
        f"image {n + 1:0{digits}d}" for n in range(len(alone))
    ]
    return replace(images, labels_N=labels_N, classes=tuple(names))


# ---- judging without labels ----


@dataclass(frozen=True)
class Yardstick:
    """Groups that nothing is fitted to, and how a candidate is measured on them.

    ``fit_N``: the images that may be learnt from. ``rounds``: in each, one part of every held group asks and the others
    answer. ``queries_NF``: the frozen features of the asking images, seen through augmentation (rows of the others are 0).
    """

    images: ImageSet
    vectors_NF: np.ndarray
    queries_NF: np.ndarray
    fit_N: np.ndarray
    rounds: Sequence[Round]
    varied: VariedView
    spec: Any

    @classmethod
    def make(cls, images: ImageSet, features: Features, found: Grouping, spec: Any, run: Any, seed: int) -> Yardstick:
        """Hold groups out whole; where there are too few, nothing is held out and nothing can be judged."""
        held_N = _held_images(found, seed)
        varied = VariedView(images.paths, features.view, seed)
        queries_NF = np.zeros_like(features.vectors_NF)
        rounds: list[Round] = []
        if held_N.any():
            parts = [str(part) for part in found.part_N.tolist()]
            scene_N = scenes(features.vectors_NF, images.labels_N, groups=parts, seed=seed)
            rounds = _rounds_of(images.labels_N, scene_N, held_N)
        if not rounds:
            held_N[:] = False
        else:
            rows = _asking(rounds)

            def asked() -> dict[str, np.ndarray]:
                trunk = build_frozen_trunk(features.backbone, features.preprocessing.input_size)
                vectors = _embedded(trunk, features.preprocessing, images, rows, varied, spec)
                return {"vectors": vectors}

            made_of = features.vectors_NF.tobytes() + rows.tobytes() + str(seed).encode()
            queries_NF[rows] = stage(run, run.dir / ASKING, "augmented images to judge by", made_of, asked)["vectors"]
        return cls(images, features.vectors_NF, queries_NF, np.flatnonzero(~held_N), rounds, varied, spec)

    def judge(
        self, name: str, vectors_of: Callable[[np.ndarray], np.ndarray], head: Discriminant | None = None
    ) -> Candidate:
        """A head on the frozen features."""
        return self._judged(name, vectors_of(self.queries_NF), vectors_of(self.vectors_NF), head)

    def judge_network(self, name: str, checkpoint: Path) -> Candidate:
        """A trained network; only what the rounds need is embedded."""
        embedder, meta = load_embedder(checkpoint)
        preprocessing, asking = Preprocessing.from_facts(meta["facts"]), _asking(self.rounds)
        answering = np.unique(np.concatenate([r.reference_N for r in self.rounds]))
        sides = []
        for rows, seen in ((asking, self.varied), (answering, preprocessing.view)):
            vectors_ND = np.zeros((len(self.images), embedder.dim), np.float32)
            vectors_ND[rows] = _embedded(embedder, preprocessing, self.images, rows, seen, self.spec)
            sides.append(vectors_ND)
        return self._judged(name, sides[0], sides[1], None)

    def _judged(
        self, name: str, query_ND: np.ndarray, reference_ND: np.ndarray, head: Discriminant | None
    ) -> Candidate:
        if not self.rounds:
            return Candidate(name, None, 0.0, head)
        verdict = judge(
            self.rounds, self.images.labels_N, lambda _, r: (query_ND[r.query_N], reference_ND[r.reference_N])
        )
        return Candidate(name, verdict, verdict.score("new-classes"), head)


def _rounds_of(labels_N: np.ndarray, scene_N: np.ndarray, held_N: np.ndarray) -> list[Round]:
    try:
        return held_rounds(labels_N, scene_N, Held(held_N, np.zeros_like(held_N)), among_all=False)
    except DataError:  # every held group is one series of like pictures: nothing in it could ask the rest
        return []


def _held_images(found: Grouping, seed: int) -> np.ndarray:
    """A mask of the images of groups drawn to be held out, about HELD_SHARE of all; none where too few groups are there."""
    large_G = np.flatnonzero(found.sizes() >= FEWEST_IN_GROUP)
    if len(large_G) < 2 * FEWEST_GROUPS:
        return np.zeros(len(found.group_N), bool)
    order_G = np.random.default_rng([seed, 31]).permutation(large_G)
    enough = int(np.searchsorted(np.cumsum(found.sizes()[order_G]), HELD_SHARE * len(found.group_N))) + 1
    return np.isin(found.group_N, order_G[: max(FEWEST_GROUPS, min(enough, len(order_G) // 2))])


def _asking(rounds: Sequence[Round]) -> np.ndarray:
    return np.unique(np.concatenate([r.query_N for r in rounds]))


def _embedded(
    network: Any, preprocessing: Preprocessing, images: ImageSet, rows: np.ndarray, seen: Any, spec: Any
) -> np.ndarray:
    """Vectors of these images, through ``seen`` (the view, or a varied one)."""
    move_to_gpu(network, "auto")
    engine = create_engine(network, preprocessing, images=len(rows))
    done = embed_files(engine, [images.paths[i] for i in rows.tolist()], seen, workers=spec.dataset.workers,
                       max_unreadable=0.0, max_pixels=spec.dataset.max_pixels, describe="judging")  # fmt: skip
    return done.vectors_ND


def _judged_heads(yardstick: Yardstick, vectors_NF: np.ndarray, seed: int) -> list[Candidate]:
    """The trunk as it came, and whitening by neighbours on the features and on their square roots."""
    candidates = [yardstick.judge(FROZEN, lambda x: x)]
    if not yardstick.rounds:
        say("too few groups to hold some out: what else could be learnt cannot be judged, so it is not tried")
        return candidates
    for root in (False, True):
        head = fit_head(vectors_NF[yardstick.fit_N], root=root, seed=seed)
        name = "whitened by neighbours" + (", square root" if root else "")
        candidates.append(yardstick.judge(name, head, head))
    return candidates


def fit_head(features_NF: np.ndarray, *, root: bool, seed: int, dim: int | None = None) -> Discriminant:
    """Whitening by neighbours as a head; ``dim`` keeps the directions in which the images differ most."""
    x_NF = rooted(features_NF) if root else features_NF
    found = neighbour_whitening(x_NF, seed=seed)
    matrix_FD, offset_D = found.matrix_FD, found.offset_D
    if dim is not None and dim < matrix_FD.shape[1]:
        white_NF = found(x_NF).astype(np.float64)
        _, axes_FF = np.linalg.eigh(white_NF.T @ white_NF)
        axes_FD = axes_FF[:, ::-1][:, :dim].astype(np.float32)
        matrix_FD, offset_D = matrix_FD @ axes_FD, offset_D @ axes_FD
    return Discriminant(matrix_FD, offset_D, root)


# ---- what is delivered ----


def _deliver_head(
    best: Candidate, spec: Any, run: Any, images: ImageSet, features: Features, seed: int
) -> tuple[Path, Any]:
    """The trunk with the chosen head, fitted to all images now; the trunk's own features where no head was better."""
    width = features.vectors_NF.shape[1]
    asked = _dim(spec)
    head = best.head
    if head is not None:
        head = fit_head(features.vectors_NF, root=head.rooted, seed=seed, dim=asked)
    settled = spec.model_copy(deep=True)
    settle(
        settled, "model.feat_dim", min(width, asked or width) if head is None else head.matrix_FD.shape[1], best.name
    )
    settle(settled, "model.head", "linear" if head is None else head.kind, best.name)
    settle_normalization(settled, features.facts)
    embedder = create_embedder(EmbedderConfig.from_spec(settled.model), pretrained="true")
    linear = embedder.head.linear
    assert isinstance(linear, torch.nn.Linear)
    with torch.no_grad():
        weight = torch.eye(width)[: linear.out_features] if head is None else torch.from_numpy(head.matrix_FD.T.copy())
        linear.weight.copy_(weight)
        linear.bias.copy_(torch.zeros(linear.out_features) if head is None else torch.from_numpy(-head.offset_D))
    payload = {
        "model": embedder.state_dict(), "spec": settled.to_dict(), "classes": list(images.classes), "epoch": 0, "step": 0,
        "metrics": {}, "facts": checkpoint_facts(settled, features.facts, f"learnt without labels: {best.name}"),
    }  # fmt: skip
    run.write_experiment(settled)
    return write_checkpoint(run.dir / BEST_CHECKPOINT, payload), settled


def _deliver_tuned(checkpoint: Path, run: Any) -> Path:
    target: Path = run.dir / BEST_CHECKPOINT
    copy_file(checkpoint, target)
    return target


# ---- fine-tuning ----


def _fine_tuned(
    spec: Any, run: Any, images: ImageSet, yardstick: Yardstick, best: Candidate, features: Features, clock: Clock,
    seed: int,
) -> tuple[TrainingResult, Any] | None:  # fmt: skip
    """Rounds of fine-tuning from the best head on, groups found anew between them; None where the time is too short."""
    if not yardstick.rounds:
        return None
    train = images.select(yardstick.fit_N).drop_empty_classes()
    passing = len(train) / features.rate  # seconds to embed all of them once more
    seconds = clock.left - max(CLOSING_SHARE * clock.seconds, passing) - passing
    fitted_NF = features.vectors_NF[yardstick.fit_N]
    head = fit_head(fitted_NF, root=best.head is not None and best.head.rooted, seed=seed, dim=_dim(spec))
    if run.resuming and (run.dir / PLAN).is_file():  # the plan holds: another would be another training
        tuned: Any = load_spec("train", str(run.dir / PLAN))
    else:
        tuned = _planned(spec, train, features, seconds, head)
        if tuned is not None:
            write_text(run.dir / PLAN, redact(tuned.to_yaml()))
    if tuned is None:
        say("the time that is left is too short to fine-tune; more --minutes would allow it")
        return None
    epochs = tuned.train.num_epochs
    shares = [epochs // 2, epochs - epochs // 2] if epochs >= FEWEST_FOR_TWO_ROUNDS else [epochs]
    begin = fitted_start(head, fitted_NF, train.labels_N)
    outcome: TrainingResult | None = None
    for number, count in enumerate(shares, start=1):
        if outcome is not None:
            train, begin = _regrouped(train, outcome.checkpoint, spec, run, seed)
        say(f"fine-tuning, round {number} of {len(shares)}: {count} epochs of {len(train)} images")
        outcome = _round(tuned, count, run, run.dir / fine_tuning_folder(number), train, begin)
        if outcome is None:
            return None
    assert outcome is not None
    return outcome, tuned


def _dim(spec: Any) -> int | None:
    return spec.model.feat_dim if spec.is_set("model.feat_dim") else None


def _round(spec: Any, epochs: int, run: Any, folder: Path, train: ImageSet, begin: Any) -> TrainingResult | None:
    part = Part(run, folder)
    earlier = folder / EXPERIMENT_FILE
    resume = run.resuming and earlier.exists() and any(folder.glob(LATEST_CHECKPOINT))
    if resume:  # its plan holds: another number of epochs would be another training
        round_spec = load_spec("train", str(earlier))
    else:
        round_spec = spec.model_copy(deep=True)
        round_spec.train.num_epochs = round_spec.train.validation_interval = epochs
    sets = TrainingSets(train, None, None, f"learnt without labels: {FINE_TUNED}", False)
    try:
        return train_embedder(round_spec, part, resume=resume, sets=sets, begin=begin, finish=False)
    except TrainingError as error:
        say(f"fine-tuning failed and is left out: {error}")
        return None


def _planned(spec: Any, train: ImageSet, features: Features, seconds: float, head: Discriminant) -> Any | None:
    """The user's spec with the head to begin with and what fits into the time, where they said nothing."""
    tuned = spec.model_copy(deep=True)
    settle(tuned, "model.feat_dim", head.matrix_FD.shape[1], "fine-tuning begins with the fitted head")
    tuned.model.head = head.kind
    settle(tuned, "train.head_epochs", 0, "fine-tuning begins with the fitted head")
    tuned.mark_set(["train.head_epochs"])  # or the recipe would settle it again
    if not spec.is_set("train.recipe"):
        tuned.train.recipe = "unalike"
    settle_precision(tuned)
    embedder = build_embedder(tuned)
    cuda = torch.cuda.is_available() and spec.train.num_gpus > 0
    settle_training(tuned, facts=embedder.trunk.facts, stages=len(embedder.trunk.stages()), classes=len(train.classes),
                    images=len(train), cuda=cuda, quiet=True)  # fmt: skip
    tuned.automl_policy = "off"
    if spec.is_set("train.num_epochs"):
        return tuned
    for level in LEVELS:
        fits = plan(embedder, tuned, level, images=len(train), seconds=seconds, embeds=features.rate)
        if fits.epochs < level.wanted:
            continue
        sides = dict(zip(("dataset.train_height", "dataset.train_width"), fits.side, strict=True))
        for path, value in {"train.num_epochs": fits.epochs, "train.frozen_stages": fits.frozen, **sides}.items():
            settle(tuned, path, value, f"what fits into the time at {fits.rate:.0f} images/s")
            tuned.mark_set([path])
        return tuned
    return None


def _regrouped(train: ImageSet, checkpoint: Path, spec: Any, run: Any, seed: int) -> tuple[ImageSet, Any]:
    """The same images with groups found anew in what the network has learnt so far, and what goes on from it."""
    embedder, meta = load_embedder(checkpoint)
    weights = {name: tensor.clone() for name, tensor in embedder.state_dict().items()}
    preprocessing = Preprocessing.from_facts(meta["facts"])
    rows = np.arange(len(train))

    def learnt() -> dict[str, np.ndarray]:
        return {"vectors": _embedded(embedder, preprocessing, train, rows, preprocessing.view, spec)}

    folder = checkpoint.parent
    vectors_ND = stage(run, folder / "learnt.npz", "what was learnt", checkpoint.read_bytes(), learnt)["vectors"]
    found = stage_of_groups(run, folder / GROUPS, "groups found anew", vectors_ND, seed)
    if found.count >= 2:
        say(f"groups found anew: {found.count}, {int((found.group_N < 0).sum())} images in none")
        train = as_classes(train, found)
    unit_ND = unit(vectors_ND)
    means_CD = unit(np.stack([unit_ND[train.labels_N == label].mean(axis=0) for label in np.unique(train.labels_N)]))

    def begin(network: Any, objective: torch.nn.Module) -> None:
        network.load_state_dict(weights)
        initialize_proxies(objective, means_CD)

    return train, begin


# ---- what is said ----


def _record(
    spec: Any, clock: Clock, candidates: Sequence[Candidate], best: Candidate, yardstick: Yardstick, found: Grouping
) -> dict[str, Any]:
    base = candidates[0].verdict

    def row(c: Candidate) -> dict[str, Any]:
        if c.verdict is None or base is None:
            return {"name": c.name, "score": None, "figures": {}, "gain_over_frozen": {}}
        return {"name": c.name, "score": c.score, **c.verdict.beside(base)}

    return {
        "format_version": 1, "minutes": clock.seconds / 60, "spent_minutes": round(clock.spent / 60, 2),
        "goal": "no labels", "trunk": spec.model.backbone, "meaning": MEANING,
        "judged_on": {"new": sum(len(r.query_N) for r in yardstick.rounds)}, "fitted_to_images": len(yardstick.fit_N),
        "groups": found.count, "images_in_no_group": int((found.group_N < 0).sum()),
        "agreement": None if np.isnan(found.agreement) else found.agreement,
        "candidates": [row(c) for c in candidates], "chosen": best.name,
    }  # fmt: skip


def _say_verdict(candidates: Sequence[Candidate], best: Candidate) -> None:
    for c in candidates:
        if c.verdict is not None:
            text = ", ".join(f"{name} {value}" for name, value in c.verdict.figures()["new"].items())
            say(f"{'-> ' if c is best else '   '}{c.name}: held-out groups: {text}")
    if candidates[0].verdict is not None:
        say(f"({MEANING})")
    if best is candidates[0]:
        say("nothing that was tried beats the frozen trunk as it came: that is what you get")


def _figures(best: Candidate, base: Candidate) -> dict[str, float]:
    found: dict[str, float] = {}
    if best.verdict is None or base.verdict is None:
        return found
    for name, value in best.verdict.figures()["new"].items():
        found[f"discovered groups {name}"] = value.value
        found[f"discovered groups {name} frozen"] = base.verdict.figures()["new"][name].value
    return found


def stage_of_groups(run: Any, path: Path, what: str, vectors_ND: np.ndarray, seed: int) -> Grouping:
    """The groups of these vectors."""

    def make() -> dict[str, np.ndarray]:
        return {name: np.asarray(value) for name, value in vars(group_images(vectors_ND, seed=seed)).items()}

    return Grouping.of(stage(run, path, what, vectors_ND.tobytes() + str(seed).encode(), make))
