"""What more time could buy after fine-tuning: larger images, averaged weights, views of references, two networks joined.

    python benchmarks/more_time.py --data DIR [--sets NAME,...] [--cache DIR] [--out DIR] [--backbone tf_efficientnet_lite0]
        [--second BACKBONE] [--images 4000] [--seed 1]

Development splits of the recognition sets of `suite.py`. For each set the work is fixed, not the time: scenes (or classes) are held
out as automatic training does it, and one network is fine-tuned on the rest from its fitted head, for as many epochs as show about
``--images`` images. All candidates come from this one training. The base is what automatic training delivers after it: the last
weights interpolated with the pretrained ones, and a head in closed form (the one that is taken without a comparison).

    larger N        the same network at 256, 288 and 336 px in place of 224, the head fitted there
    averaged        the mean of the weights after each epoch of the last third, in place of the last ones
    references ...  the mean of the vectors of a reference and its mirror image, or of two further crops; queries as they are
    mirrored        the same of queries too
    with frozen     beside the frozen trunk: features side by side under one head, or vectors of two heads side by side
    two sizes       vectors at 224 and 288 px side by side
    with second     beside a second fine-tuned network (``--second``), as with the frozen one

Each candidate is evaluated twice: on the held-out scenes, by which it would be chosen (head fitted to the rest), and on the
queries of the development split (head fitted to all images to train on, as is delivered). Writes OUT/more_time.jsonl, a line a set
and candidate with n and paired 95 % intervals over the base, and prints for each candidate and rule of choice the mean gain, the mean
rank beside the base, and the sets that are significantly higher or lower. Rules: ``score`` takes the highest mean of R@1 and MAP@R on
held-out scenes, ``clear`` only what is significantly better there; the candidates of one kind, and all of them.

Shape letters: N images, F features, D dimensions.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from data_sets import RecognitionSet
from recognition_methods import embed_frozen, write_manifest
from suite import load_suite
from suite_recognition import choose_groups, format_interval, in_percent
from unlabeled import score_queries

import unalike
from unalike.data.imageset import ImageSet
from unalike.data.notices import Notices
from unalike.data.preprocessing import Preprocessing
from unalike.metrics.intervals import difference_interval, mean_interval
from unalike.model.backbones import Trunk
from unalike.model.checkpoint import load_embedder, read_checkpoint
from unalike.model.frozen_trunk import build_frozen_trunk
from unalike.numerics.normalization import l2_normalize
from unalike.runs.filenames import PERIODIC_CHECKPOINTS
from unalike.spec import load_spec
from unalike.training.automatic.holdout import Split, draw_holdout, holdout_splits, splits_that_count
from unalike.training.automatic.holdout_result import HoldoutResult, evaluate_embeddings
from unalike.training.automatic.scenes import assign_scenes
from unalike.training.heads.config import HeadConfig
from unalike.training.heads.head_search import HeadSearchSpace
from unalike.training.heads.interpolation import embed_with_trunk, interpolate_weights
from unalike.training.heads.trained import fit_head

SETS = "grocery-by-scene,coins,tile-patches,marks,emoji-by-class,flags"
SIZES, CLOSER = {"256": 256, "288": 288, "336": 336}, 1.4  # pixels; resize ratio of the closer crop
TRAINED_SHARE, LEAST_EPOCHS, MOST_EPOCHS = 0.7, 3, 20
METRICS = ("R@1", "MAP@R")
Weights = Mapping[str, torch.Tensor]


@dataclass(frozen=True)
class Pool:
    """The images of a development split in one list, those to train on first.

    Attributes:
        images: all images.
        fit_N: rows to train on.
        reference_N: rows of the references.
        query_N: rows of the queries.
        series_N: series of each image.
        goal: a key of ``holdout.GOALS``.
    """

    images: ImageSet
    fit_N: np.ndarray
    reference_N: np.ndarray
    query_N: np.ndarray
    series_N: np.ndarray
    goal: str

    @classmethod
    def create(cls, data_set: RecognitionSet) -> Pool:
        """Join the parts of a set; as `unalike train` on a folder, without their series."""
        fit, lookup = data_set.fit, data_set.development
        is_known = lookup.reference is fit
        parts = [fit, lookup.query] if is_known else [fit, lookup.reference, lookup.query]
        classes = tuple(sorted(set().union(*(part.classes for part in parts))))
        labels_N = np.array([classes.index(label) for part in parts for label in part.label_names()])
        images = ImageSet(tuple(path for part in parts for path in part.paths), labels_N, classes)
        ends = np.cumsum([len(part) for part in parts])
        rows = np.split(np.arange(ends[-1]), ends[:-1])
        series_N = np.array([name for part in parts for name in part.groups or ()])
        return cls(images, rows[0], rows[0] if is_known else rows[1], rows[-1], series_N,
                   "known-classes" if is_known else "new-classes")  # fmt: skip


@dataclass(frozen=True)
class Candidate:
    """A way to use the features of the trained networks.

    Attributes:
        kind: candidates of one kind are alternatives.
        cost: passes for a query, one being that of the base.
        members: for each head the names of its features: those of queries, then further views of references.
        mirrors_queries: whether queries are the mean over the views too.
        fits_views: whether heads are fitted to all views.
    """

    kind: str
    cost: float
    members: tuple[tuple[str, ...], ...]
    mirrors_queries: bool = False
    fits_views: bool = False


BASE = "base"
CANDIDATES = {
    BASE: Candidate(BASE, 1, (("own",),)),
    "frozen trunk": Candidate("frozen", 1, (("frozen",),)),
    **{f"larger {name}": Candidate("size", (side / 224) ** 2, ((name,),)) for name, side in SIZES.items()},
    "averaged": Candidate("weights", 1, (("epochs",),)),
    "references mirrored": Candidate("references", 1, (("own", "mirror"),)),
    "references mirrored, fitted to both": Candidate("references", 1, (("own", "mirror"),), fits_views=True),
    "references of three crops": Candidate("references", 1, (("own", "whole", "closer"),)),
    "mirrored": Candidate("queries", 2, (("own", "mirror"),), mirrors_queries=True),
    "with frozen, one head": Candidate("networks", 2, (("own+frozen",),)),
    "with frozen, two heads": Candidate("networks", 2, (("own",), ("frozen",))),
    "two sizes": Candidate("networks", 1 + SIZES["288"] ** 2 / 224**2, (("own",), ("288",))),
    "second alone": Candidate("second", 1, (("second",),)),
    "with second, one head": Candidate("second", 2, (("own+second",),)),
    "with second, two heads": Candidate("second", 2, (("own",), ("second",))),
}
Features = Mapping[str, np.ndarray]


# ---- training and features ----


def fine_tune(
    pool: Pool, fit_N: np.ndarray, config: HeadConfig, backbone: str, folder: Path, options: argparse.Namespace
) -> None:
    """Fine-tune from the fitted head with a checkpoint an epoch; a finished training is kept."""
    if (folder / "finished").exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    train = write_manifest(pool.images.select(fit_N), folder / "fit.csv")
    epochs = int(np.clip(round(options.images / len(fit_N)), LEAST_EPOCHS, MOST_EPOCHS))
    unalike.train({
        "results_dir": str(folder / "run"), "automl_policy": "off", "model": {"backbone": backbone, "head": "rooted"},
        "dataset": {"train_dataset": str(train), "validation": {"by": "none"}},
        "train": {"recipe": "unalike", "seed": options.seed, "num_epochs": epochs, "warm_start": True, "checkpoint_interval": 1,
                  "finish": {"enabled": False, "residual": config.residual, "shrinkage": config.shrinkage}},
    }, overwrite=True)  # fmt: skip
    (folder / "finished").touch()


def load_weights(folder: Path) -> tuple[dict[str, Weights], Preprocessing, Trunk]:
    """Weights of the network by name (last ones, mean over the last third of the epochs), its images and a trunk."""
    files = sorted((folder / "run" / "train").glob(PERIODIC_CHECKPOINTS))
    embedder, meta = load_embedder(files[-1])
    last_third = [read_checkpoint(file)["model"] for file in files[-max(2, round(len(files) / 3)) :]]
    weights = {"own": last_third[-1], "epochs": average_weights(last_third)}
    return weights, Preprocessing.from_facts(meta["facts"]), embedder.trunk


def average_weights(weights: Sequence[Weights]) -> dict[str, torch.Tensor]:
    """The mean of each tensor; of whole numbers the last one."""
    return {
        name: torch.stack([one[name] for one in weights]).mean(dim=0) if last.is_floating_point() else last
        for name, last in weights[-1].items()
    }


def compute_all_features(pool: Pool, folder: Path, backbone: str, *, variants: bool) -> dict[str, np.ndarray]:
    """Features (N, F) of all images by name; with ``variants`` those of the candidates too, else ``own`` alone."""
    weights, preprocessing, trunk = load_weights(folder)
    view, dataset = preprocessing.view, load_spec("train", None, {}).dataset
    initial = build_frozen_trunk(backbone, preprocessing.input_size).trunk

    def blend(name: str) -> Trunk:
        state = {key.removeprefix("trunk."): value for key, value in weights[name].items() if key.startswith("trunk.")}
        trunk.load_state_dict(state)
        return interpolate_weights(trunk, initial.state_dict(), TRAINED_SHARE)

    def embed(name: str, network: Trunk, *, mirrored: bool = False, **changes: float) -> np.ndarray:
        file = folder / f"features-{name}.npy"
        if not file.exists():
            own = replace(preprocessing, view=replace(view, **changes))
            embedded = embed_with_trunk(network, pool.images, own, dataset=dataset, notices=Notices(), describe=name, mirrored=mirrored)  # fmt: skip
            assert len(embedded.kept_N) == len(pool.images) * (1 + mirrored), "unreadable images"
            np.save(file, embedded.vectors_ND)
        features: np.ndarray = np.load(file)
        return features

    own = blend("own")
    if not variants:
        return {"own": embed("own", own, mirrored=True)[: len(pool.images)]}
    features = dict(zip(("own", "mirror"), np.split(embed("own", own, mirrored=True), 2), strict=True))
    features |= {name: embed(name, own, height=side, width=side) for name, side in SIZES.items()}
    features |= {"whole": embed("whole", own, resize_ratio=1.0), "closer": embed("closer", own, resize_ratio=CLOSER)}
    return features | {"epochs": embed("epochs", blend("epochs")), "frozen": embed("frozen", initial)}


def join_features(features: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Add features of two networks side by side, each of length 1."""
    pairs = [("own", other) for other in ("frozen", "second") if other in features]
    return features | {f"{a}+{b}": np.hstack([l2_normalize(features[a]), l2_normalize(features[b])]) for a, b in pairs}


# ---- evaluation ----


def compute_vectors(
    candidate: Candidate, features: Features, labels_N: np.ndarray, fit_N: np.ndarray, config: HeadConfig
) -> tuple[np.ndarray, np.ndarray]:
    """Vectors (N, D) of all images as queries, and as references.

    Args:
        candidate: what is computed.
        features: features of all images by name.
        labels_N: labels of all images.
        fit_N: rows that heads are fitted to.
        config: the head.
    """
    queries, references = [], []
    for names in candidate.members:
        fitted = names if candidate.fits_views else names[:1]
        x_NF = np.concatenate([features[name][fit_N] for name in fitted])
        head = fit_head(x_NF, np.tile(labels_N[fit_N], len(fitted)), config)
        views = [l2_normalize(head(features[name])) for name in names]
        reference_ND = l2_normalize(np.sum(views, axis=0))
        queries.append(reference_ND if candidate.mirrors_queries else views[0])
        references.append(reference_ND)
    return np.hstack(queries), np.hstack(references)


def evaluate(
    candidate: Candidate, features: Features, pool: Pool, splits: Sequence[Split], config: HeadConfig
) -> tuple[HoldoutResult, tuple[np.ndarray, np.ndarray]]:
    """The result on held-out images; hits and average precisions of the split's queries."""
    labels_N = pool.images.labels_N
    query_ND, reference_ND = compute_vectors(candidate, features, labels_N, splits[0].fit_N, config)
    held_out = evaluate_embeddings(
        splits, labels_N, lambda _, s: (query_ND[s.query_N], reference_ND[s.reference_N]), with_images=True
    )
    query_ND, reference_ND = compute_vectors(candidate, features, labels_N, pool.fit_N, config)
    labels = (labels_N[pool.reference_N], labels_N[pool.query_N])
    return held_out, score_queries(reference_ND[pool.reference_N], query_ND[pool.query_N], labels)


def choose(results: Mapping[str, HoldoutResult], goal: str) -> dict[str, str]:
    """What each rule takes, of each kind of candidates that needs one pass a query, and of all."""
    kinds = {
        kind: [n for n in results if CANDIDATES[n].kind == kind]
        for kind in ("size", "weights", "references", "networks")
    }
    kinds["all"] = [n for n in results if CANDIDATES[n].kind in kinds]
    base, chosen = results[BASE], {}
    for kind, names in kinds.items():
        clear = [name for name in names if results[name].significantly_better(base, goal)]
        for rule, those in (("score", names), ("clear", clear)):
            chosen[f"{rule} of {kind}"] = max([BASE, *those], key=lambda name: results[name].score(goal))
    return chosen


def measure_set(data_set: RecognitionSet, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Fine-tune, evaluate all candidates, and return a line for each, and for each rule."""
    pool, folder = Pool.create(data_set), options.out / data_set.name
    fit = pool.images.select(pool.fit_N)
    scene_N = assign_scenes(embed_frozen(fit, options.backbone), fit.labels_N, seed=options.seed)
    holdout = draw_holdout(fit.labels_N, scene_N, pool.goal, seed=options.seed)
    splits = splits_that_count(holdout_splits(fit.labels_N, scene_N, holdout, search_all=True), pool.goal)
    config = HeadSearchSpace().uncompared_head(pool.goal)
    fine_tune(pool, holdout.fit_N, config, options.backbone, folder, options)
    features = compute_all_features(pool, folder, options.backbone, variants=True)
    if options.second:
        second = folder.with_name(f"{data_set.name}-{options.second}")
        fine_tune(pool, holdout.fit_N, config, options.second, second, options)
        features["second"] = compute_all_features(pool, second, options.second, variants=False)["own"]
    features = join_features(features)
    names = [n for n, c in CANDIDATES.items() if all(name in features for member in c.members for name in member)]
    results = {n: evaluate(CANDIDATES[n], features, pool, splits, config) for n in names}
    kind, group_Q = choose_groups(pool.images.labels_N[pool.query_N], pool.series_N[pool.query_N])
    facts = {"set": data_set.name, "goal": pool.goal, "queries": len(pool.query_N), "intervals over": kind, "seed": options.seed,
             "images fine-tuned on": len(holdout.fit_N), "head": config.name}  # fmt: skip
    base = results[BASE]
    rows = [{**facts, "candidate": n, "cost": round(CANDIDATES[n].cost, 2), "development": compare(results[n][1], base[1], group_Q),
             "held out": compare_held_out(results[n][0], base[0])} for n in names]  # fmt: skip
    chosen = choose({n: held_out for n, (held_out, _) in results.items()}, pool.goal)
    return rows + [{**facts, "rule": rule, "chosen": n, "development": compare(results[n][1], base[1], group_Q)}
                   for rule, n in chosen.items()]  # fmt: skip


def compare(
    own: tuple[np.ndarray, np.ndarray], base: tuple[np.ndarray, np.ndarray], group_Q: np.ndarray
) -> dict[str, Any]:
    """R@1 and MAP@R with intervals, and paired gains over the base, in percent."""
    return {
        name: {"value": in_percent(mean_interval(own_Q, group_Q)), "gain": in_percent(difference_interval(base_Q, own_Q, group_Q))}
        for name, own_Q, base_Q in zip(METRICS, own, base, strict=True)
    }  # fmt: skip


def compare_held_out(own: HoldoutResult, base: HoldoutResult) -> dict[str, Any]:
    """Figures on held-out images by kind of query, with counts and paired gains over the base."""
    gains, counts = own.gain_over(base), own.counts()
    return {kind: {"queries": counts[kind]["queries"], **{
        name: {"value": in_percent(value), "gain": in_percent(gains[kind][name])} for name, value in metrics.items()}}
        for kind, metrics in own.metrics().items()}  # fmt: skip


# ---- summary ----


def summarize(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """A line a candidate and a rule over all sets: mean gains, mean rank beside the base, sets significantly higher or lower.

    Args:
        rows: the lines of all sets.
    """
    lines = []
    names = dict.fromkeys(row.get("candidate") or row["rule"] for row in rows)
    for name in [name for name in names if name != BASE]:
        own = [row for row in rows if (row.get("candidate") or row["rule"]) == name]
        gains = {metric: [row["development"][metric]["gain"] for row in own] for metric in METRICS}
        clear: dict[str, list[str]] = {"higher": [], "lower": []}
        for metric, values in gains.items():
            for row, gain in zip(own, values, strict=True):
                if not gain.get("too_few") and gain["low"] is not None:
                    clear["higher"] += [f"{row['set']} {metric}"] if gain["low"] > 0 else []
                    clear["lower"] += [f"{row['set']} {metric}"] if gain["high"] < 0 else []
        ranks = [1.5 - 0.5 * np.sign(round(gain["value"], 6)) for gain in gains["R@1"]]
        means = ", ".join(f"{metric} {np.mean([g['value'] for g in values]):+.2f}" for metric, values in gains.items())
        text = "; ".join(f"{word}: {', '.join(sets) or 'none'}" for word, sets in clear.items())
        lines.append(f"{name}: {means} over {len(own)} sets, rank {np.mean(ranks):.2f} beside {3 - np.mean(ranks):.2f} of the base; {text}")  # fmt: skip
    return lines


def print_set(rows: Sequence[Mapping[str, Any]]) -> None:
    """Print the figures of a set, a line a candidate."""
    print(f"{rows[0]['set']}: {rows[0]['queries']} queries, intervals over {rows[0]['intervals over']}")
    for row in rows:
        development = row["development"]
        texts = [f"{metric} {development[metric]['value']['value']:.1f}, {format_interval(development[metric]['gain'], '+')}"
                 for metric in METRICS]  # fmt: skip
        for kind, figures in row.get("held out", {}).items():
            texts.append(f"held out ({kind}, {figures['queries']}) "
                         + ", ".join(f"{m} {figures[m]['value']['value']:.1f} {format_interval(figures[m]['gain'], '+')}" for m in METRICS))  # fmt: skip
        name = row.get("candidate") or f"{row['rule']} -> {row['chosen']}"
        print(f"  {name}: {'; '.join(texts)}", flush=True)


def main() -> None:
    """Measure the sets that OUT/more_time.jsonl does not hold, and print what all of them say."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="folder of the sources")
    parser.add_argument("--cache", type=Path, default=Path("runs/suite"), help="folder for rendered images")
    parser.add_argument("--sets", default=SETS, help="comma-separated")
    parser.add_argument("--out", type=Path, default=Path("runs/more_time"))
    parser.add_argument("--backbone", default="tf_efficientnet_lite0")
    parser.add_argument("--second", help="a second backbone, fine-tuned for as many images")
    parser.add_argument("--images", type=int, default=4000, help="images that a training shows, about")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    if options.data is None:
        print("skipped: no data (give --data DIR)")
        return
    data_sets, missing = load_suite(options.data, options.cache, options.sets.split(","))
    for name, reason in missing.items():
        print(f"{name}: left out, {reason}")
    options.out.mkdir(parents=True, exist_ok=True)
    file = options.out / "more_time.jsonl"
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()] if file.exists() else []
    for name, data_set in data_sets.items():
        if isinstance(data_set, RecognitionSet) and name not in {row["set"] for row in rows}:
            own = measure_set(data_set, options)
            rows += own
            with file.open("a", encoding="utf-8") as stream:
                stream.writelines(json.dumps(row) + "\n" for row in own)
        print_set([row for row in rows if row["set"] == name])
    print(*summarize(rows), sep="\n")


if __name__ == "__main__":
    main()
