"""Rounds keep scenes and classes apart; scenes find series of alike pictures; verdicts are means over queries."""

from __future__ import annotations

import numpy as np
import pytest

from unalike.errors import DataError
from unalike.spec import load_spec
from unalike.training.automatic.holdout import (
    MAX_SCENES,
    HoldoutResult,
    assign_scenes,
    cross_validation_splits,
    draw_holdout,
    evaluate_embeddings,
    holdout_splits,
)
from unalike.training.heads.config import HeadConfig
from unalike.training.heads.search import (
    RESIDUALS,
    SHRINKAGES,
    HeadSearchSpace,
    HeadTrial,
    best_closed_form,
    best_score,
    search_heads,
)
from unalike.training.heads.trained import fit_head


def series(
    classes: int = 6, each: int = 12, per_scene: int = 3, seed: int = 0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Each class a mixture of tight series: vectors, labels, the true series."""
    draw = np.random.default_rng(seed)
    labels = np.repeat(np.arange(classes), each)
    true = np.tile(np.repeat(np.arange(each // per_scene), per_scene), classes)
    centre = {(c, s): draw.normal(size=16) for c in range(classes) for s in range(each // per_scene)}
    vectors = np.stack([centre[c, s] + 0.05 * draw.normal(size=16) for c, s in zip(labels, true, strict=True)])
    return vectors, labels, true


def test_scenes_are_the_series() -> None:
    vectors, labels, true = series()
    scene = assign_scenes(vectors, labels)
    assert scene.min() >= 0 and scene.max() < MAX_SCENES
    for c in np.unique(labels):
        rows = labels == c
        for s in np.unique(true[rows]):
            assert len(np.unique(scene[rows & (true == s)])) == 1
        assert len(np.unique(scene[rows])) == 4


def test_groups_of_the_user_go_before_the_features() -> None:
    vectors, labels, _ = series()
    groups = [f"shop {i % 2}" for i in range(len(labels))]
    scene = assign_scenes(vectors, labels, groups=groups)
    for c in np.unique(labels):
        rows = np.flatnonzero(labels == c)
        assert all((scene[i] == scene[j]) == (groups[i] == groups[j]) for i in rows for j in rows)


def test_scenes_repeat_for_a_seed_and_every_class_can_answer() -> None:
    draw = np.random.default_rng(2)
    labels = np.repeat(np.arange(5), [1, 2, 3, 4, 40])
    vectors = draw.normal(size=(50, 8))
    scene = assign_scenes(vectors, labels, seed=3)
    assert np.array_equal(scene, assign_scenes(vectors, labels, seed=3))
    assert len(np.unique(scene[labels == 0])) == 1
    assert len(np.unique(scene[labels == 1])) == 1  # two images, one scene: neither may ask for its own twin
    same = np.zeros((6, 8)) + 1.0
    assert len(np.unique(assign_scenes(same, np.zeros(6, int)))) == 1  # one picture, six times


@pytest.mark.parametrize("goal", ["new-classes", "known-classes", "both"])
def test_no_round_leaks(goal: str) -> None:
    vectors, labels, _ = series(classes=8)
    scene = assign_scenes(vectors, labels)
    rounds = cross_validation_splits(labels, scene, goal)
    assert {r.kind for r in rounds} == {"known", "new"}
    asked = []
    for r in rounds:
        assert not set(r.query_N) & set(r.reference_N) and not set(r.query_N) & set(r.fit_N)
        pairs = {(labels[i], scene[i]) for i in r.query_N} & {(labels[i], scene[i]) for i in [*r.reference_N, *r.fit_N]}
        assert not pairs  # no query meets, or was learnt beside, its own scene
        assert set(labels[r.query_N]) <= set(labels[r.reference_N])
        if r.kind == "new":
            assert not set(labels[r.fit_N]) & set(labels[r.query_N])
        else:
            asked += r.query_N.tolist()
    assert sorted(asked) == list(range(len(labels)))  # in the known rounds every image asks once


@pytest.mark.parametrize("search_all", [False, True])
def test_what_is_left_out_is_asked_among_all_that_can_answer(search_all: bool) -> None:
    vectors, labels, _ = series(classes=20)
    scene = assign_scenes(vectors, labels)
    held = draw_holdout(labels, scene, "both")
    assert held.class_N.any() and held.scene_N.any()
    asked = {"new": np.zeros(len(labels), int), "known": np.zeros(len(labels), int)}
    for r in holdout_splits(labels, scene, held, search_all=search_all):
        out = held.class_N if r.kind == "new" else held.scene_N
        assert not np.isin(r.query_N, r.reference_N).any() and out[r.query_N].all()
        assert not (held.class_N | held.scene_N)[r.fit_N].any()
        answers = np.zeros(len(labels), bool)
        answers[r.reference_N] = True
        if r.kind == "new":
            assert np.array_equal(answers & ~held.class_N, (search_all & ~(held.class_N | held.scene_N)))
            for query in r.query_N:  # its own scene does not answer, the class's others do
                own = labels == labels[query]
                assert not (answers & own & (scene == scene[query])).any()
                assert (answers & own).sum() == (own & (scene != scene[query])).sum() > 0
        asked[r.kind][r.query_N] += 1
    assert (asked["new"][held.class_N] == 1).all() and (asked["known"] == held.scene_N).all()


def test_a_verdict_is_what_a_loop_over_queries_finds() -> None:
    vectors, labels, _ = series(seed=5)
    vectors = vectors + 0.8 * np.random.default_rng(0).normal(size=vectors.shape)
    rounds = cross_validation_splits(labels, assign_scenes(vectors, labels), "both")
    verdict = evaluate_embeddings(rounds, labels, lambda _, r: (vectors[r.query_N], vectors[r.reference_N]))
    at = 0
    for r in rounds:
        for q in r.query_N:
            a, b = vectors[q] / np.linalg.norm(vectors[q]), vectors[r.reference_N]
            cosines = (b / np.linalg.norm(b, axis=1, keepdims=True)) @ a
            order = labels[r.reference_N][np.argsort(-cosines)]
            right = (labels[r.reference_N] == labels[q]).sum()
            hits = order[:right] == labels[q]
            assert verdict.hit_Q[at] == (order[0] == labels[q])
            assert verdict.precision_Q[at] == pytest.approx(
                (hits * np.cumsum(hits) / np.arange(1, right + 1)).sum() / right
            )
            at += 1
    assert at == len(verdict.hit_Q)


def test_scores_weigh_by_goal_and_gains_are_paired() -> None:
    kind = np.array(["known"] * 4 + ["new"] * 2)
    worse = HoldoutResult(kind, np.array([1, 0, 0, 0, 1, 0.0]), np.zeros(6), np.arange(6))
    better = HoldoutResult(kind, np.array([1, 1, 1, 0, 1, 1.0]), np.ones(6), np.arange(6))
    assert worse.score("known-classes") == pytest.approx(0.125)
    assert worse.score("new-classes") == pytest.approx(0.25)
    assert worse.score("both") == pytest.approx(0.1875)
    gain = better.gain_over(worse)
    assert gain["known"]["R@1"].value == pytest.approx(0.5) and gain["new"]["MAP@R"].value == pytest.approx(1.0)


def test_too_little_to_judge_is_an_error() -> None:
    labels = np.arange(5)
    with pytest.raises(DataError, match="cannot be split"):
        cross_validation_splits(labels, np.zeros(5, int), "both")


@pytest.mark.parametrize("goal", ["known-classes", "new-classes"])
def test_trials_of_all_residuals_at_once_are_those_of_each_head(goal: str) -> None:
    vectors, labels, _ = series(seed=5)
    features = vectors + 0.8 * np.random.default_rng(0).normal(size=vectors.shape)
    features[0] = features.mean(axis=0)
    rounds = cross_validation_splits(labels, assign_scenes(features, labels), goal)
    trials = search_heads(features, labels, rounds, goal)
    assert len(trials) == 1 + 2 * len(RESIDUALS) * len(SHRINKAGES) and trials[0].name == "frozen trunk"
    for trial in (t for t in trials[1:] if t.config and t.config.residual in (0.0, 0.3, 1.0)):
        form = trial.config
        assert form is not None
        made = [fit_head(features[r.fit_N], labels[r.fit_N], form) for r in rounds]
        alone = evaluate_embeddings(
            rounds, labels, lambda n, r, made=made: (made[n](features[r.query_N]), made[n](features[r.reference_N]))
        )
        for name in ("kind_Q", "label_Q"):
            assert np.array_equal(getattr(alone, name), getattr(trial.result, name))
        assert (alone.hit_Q == trial.result.hit_Q).mean() > 0.99  # in float32 a near tie may fall the other way
        assert trial.score == pytest.approx(alone.score(goal), abs=0.005)


def test_a_form_without_the_square_root_must_be_clearly_better() -> None:
    def trial(root: bool | None, right: float, count: int = 200) -> HeadTrial:
        hits = (np.arange(count) < right * count).astype(float)
        found = HoldoutResult(np.array(["known"] * count), hits, hits, np.arange(count))
        return HeadTrial(None if root is None else HeadConfig(root), found, found.score("known-classes"))

    raw, rooted, little, much = trial(None, 0.9), trial(True, 0.5), trial(False, 0.51), trial(False, 0.7)
    goal = "known-classes"
    assert (
        best_closed_form([raw, rooted, little], goal) is rooted
        and best_closed_form([raw, rooted, little, much], goal) is much
    )
    assert (
        best_closed_form([raw, little], goal) is little
        and best_closed_form([raw, trial(True, 0.4), rooted], goal) is rooted
    )
    assert best_closed_form([raw], goal) is None


def test_what_the_user_has_set_of_a_head_is_tried_alone() -> None:
    def open_of(*words: str) -> HeadSearchSpace:
        return HeadSearchSpace.from_spec(load_spec("train", overrides=words))

    assert open_of() == HeadSearchSpace()
    assert all(
        any(f.mlp for f in open_of(f"model.head={kind}").trainings) == (kind == "auto")
        for kind in ("auto", "rooted", "linear")
    )
    assert open_of("train.finish.residual=0.37").residuals == (0.37,)
    assert open_of("train.finish.shrinkage=0.6").shrinkages == (0.6,)
    assert [open_of(f"model.head={kind}").sqrt for kind in ("linear", "rooted", "auto")] == [
        (False,),
        (True,),
        (True, False),
    ]
    none = open_of("train.finish.loss=null")
    assert none.fixed_training is None and none.trainings == ()
    loss = open_of("train.finish.loss=ProxyAnchorLoss")
    assert (
        loss.fixed_training is not None
        and (loss.fixed_training.loss, loss.fixed_training.mlp) == ("ProxyAnchorLoss", False)
        and not loss.trainings
    )
    both = open_of("train.finish.loss=MultiSimilarityLoss", "model.head=mlp")
    assert both.fixed_training is not None and (both.fixed_training.loss, both.fixed_training.mlp) == (
        "MultiSimilarityLoss",
        True,
    )
    assert both.sqrt == (True,)
    alone = open_of("model.head=mlp").fixed_training
    assert (
        alone is not None and alone.mlp and open_of("model.head=mlp", "train.finish.loss=null").fixed_training == alone
    )


def test_a_trunk_is_worth_its_best_head() -> None:
    draw = np.random.default_rng(2)
    labels = np.repeat(np.arange(10), 16)
    loud = draw.normal(size=(160, 4)) @ (3 * draw.normal(size=(4, 24)))
    features = (draw.normal(size=(10, 24))[labels] + loud + 0.5 * draw.normal(size=(160, 24))).astype(np.float32)
    rounds = cross_validation_splits(labels, assign_scenes(features, labels), "known-classes")
    trials = search_heads(features, labels, rounds, "known-classes")
    best = best_score(features, labels, rounds, "known-classes")
    assert (
        best
        == max(t.score for t in trials if t.config is None or (t.config.sqrt and t.config.shrinkage == 1))
        > trials[0].score
    )
