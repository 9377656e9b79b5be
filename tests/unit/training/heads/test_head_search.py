"""The search for a head: all closed forms at once, trained heads within a time, and which one is selected."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from tests.support.series import feature_series, holdout_result, noisy_features
from unalike.errors import SpecError
from unalike.spec import load_spec
from unalike.training.automatic.holdout import GOALS, cross_validation_splits
from unalike.training.automatic.holdout_result import HoldoutResult, evaluate_embeddings
from unalike.training.automatic.scenes import assign_scenes
from unalike.training.heads import head_search
from unalike.training.heads.config import HEAD_TRAININGS, HeadConfig, HeadTraining
from unalike.training.heads.discriminant import fit_whitening
from unalike.training.heads.head_search import (
    RESIDUALS,
    SHRINKAGES,
    HeadSearchSpace,
    HeadTrial,
    best_closed_form,
    best_score,
    evaluate_width,
    search_heads,
    search_trained_heads,
)
from unalike.training.heads.trained import fit_head, train_head


@pytest.fixture(scope="module")
def sample() -> tuple[np.ndarray, np.ndarray]:
    return noisy_features()


# ---- closed forms ----


@pytest.mark.parametrize("goal", ["known-classes", "new-classes"])
def test_trials_of_all_residuals_at_once_equal_those_of_each_head(goal: str) -> None:
    features, labels, _ = feature_series(seed=5)
    features = features + 0.8 * np.random.default_rng(0).normal(size=features.shape)
    features[0] = features.mean(axis=0)
    splits = cross_validation_splits(labels, assign_scenes(features, labels), goal)
    trials = search_heads(features, labels, splits, goal)
    assert len(trials) == 1 + 2 * len(RESIDUALS) * len(SHRINKAGES) and trials[0].name == "frozen trunk"
    for trial in (t for t in trials if t.config is None or t.config.residual in (0.0, 0.3, 1.0)):
        heads = [fit_head(features[s.fit_N], labels[s.fit_N], trial.config) for s in splits]
        single = evaluate_embeddings(
            splits, labels, lambda n, s, h=heads: (h[n](features[s.query_N]), h[n](features[s.reference_N]))
        )
        for name in ("kind_Q", "label_Q"):
            assert np.array_equal(getattr(single, name), getattr(trial.result, name))
        assert (single.hit_Q == trial.result.hit_Q).mean() > 0.99  # near ties differ in float32
        assert trial.score == pytest.approx(single.score(goal), abs=0.005)


@pytest.mark.parametrize("dim", [2, 6])
def test_the_chosen_form_is_evaluated_with_as_many_dimensions_as_are_delivered(dim: int) -> None:
    features, labels, _ = feature_series(seed=5)
    features = features + 0.8 * np.random.default_rng(0).normal(size=features.shape)
    splits = cross_validation_splits(labels, assign_scenes(features, labels), "new-classes")
    best = best_closed_form(search_heads(features, labels, splits, "new-classes"), "new-classes")
    assert best is not None and best.config is not None
    short = evaluate_width(best, features, labels, splits, "new-classes", dim)
    heads = [fit_head(features[s.fit_N], labels[s.fit_N], best.config, dim) for s in splits]
    single = evaluate_embeddings(
        splits, labels, lambda n, s: (heads[n](features[s.query_N]), heads[n](features[s.reference_N]))
    )
    assert all(head.matrix_FD.shape[1] == dim for head in heads)
    assert np.array_equal(short.result.hit_Q, single.hit_Q) and short.score == single.score("new-classes")
    assert short.config == best.config


def test_a_closed_form_without_the_square_root_must_be_significantly_better() -> None:
    def trial(sqrt: bool | None, r_at_1: float, count: int = 200) -> HeadTrial:
        hits = np.arange(count) < r_at_1 * count
        result = holdout_result(hits, hits)
        return HeadTrial(None if sqrt is None else HeadConfig(sqrt), result, result.score("known-classes"))

    frozen, with_sqrt, little, much = trial(None, 0.9), trial(True, 0.5), trial(False, 0.51), trial(False, 0.7)
    goal = "known-classes"
    assert best_closed_form([frozen, with_sqrt, little], goal) is with_sqrt
    assert best_closed_form([frozen, with_sqrt, little, much], goal) is much
    assert best_closed_form([frozen, little], goal) is little
    assert best_closed_form([frozen, trial(True, 0.4), with_sqrt], goal) is with_sqrt
    assert best_closed_form([frozen], goal) is None


def test_the_score_of_features_is_that_of_their_best_head() -> None:
    rng = np.random.default_rng(2)
    labels = np.repeat(np.arange(10), 16)
    noise = rng.normal(size=(160, 4)) @ (3 * rng.normal(size=(4, 24)))
    features = (rng.normal(size=(10, 24))[labels] + noise + 0.5 * rng.normal(size=(160, 24))).astype(np.float32)
    splits = cross_validation_splits(labels, assign_scenes(features, labels), "known-classes")
    trials = search_heads(features, labels, splits, "known-classes")
    tried = [t.score for t in trials if t.config is None or (t.config.sqrt and t.config.shrinkage == 1)]
    assert best_score(features, labels, splits, "known-classes") == max(tried) > trials[0].score


# ---- the space ----


def test_a_setting_of_the_user_is_the_only_value_tried() -> None:
    def space(*overrides: str) -> HeadSearchSpace:
        return HeadSearchSpace.from_spec(load_spec("train", overrides=overrides), classes=9)

    assert space() == HeadSearchSpace()
    for kind in ("auto", "rooted", "linear"):
        assert any(t.mlp for t in space(f"model.head={kind}").trainings) == (kind == "auto")
    assert space("train.finish.residual=0.37").residuals == (0.37,)
    assert space("train.finish.shrinkage=0.6").shrinkages == (0.6,)
    sqrt = [space(f"model.head={kind}").sqrt for kind in ("linear", "rooted", "auto")]
    assert sqrt == [(False,), (True,), (True, False)]
    no_loss = space("train.finish.loss=null")
    assert no_loss.fixed_training is None and no_loss.trainings == ()
    loss = space("train.finish.loss=ProxyAnchorLoss")
    assert loss.fixed_training is not None and not loss.trainings
    assert (loss.fixed_training.loss, loss.fixed_training.mlp) == ("ProxyAnchorLoss", False)
    both = space("train.finish.loss=MultiSimilarityLoss", "model.head=mlp")
    assert both.fixed_training is not None and both.sqrt == (True,)
    assert (both.fixed_training.loss, both.fixed_training.mlp) == ("MultiSimilarityLoss", True)
    assert 0.0 in space("model.feat_dim=8").residuals and 0.0 not in space("model.feat_dim=9").residuals
    with pytest.raises(SpecError, match="model.feat_dim is 9.*at most 8"):
        space("model.feat_dim=9", "train.finish.residual=0")
    mlp = space("model.head=mlp").fixed_training
    assert mlp is not None and mlp.mlp
    assert space("model.head=mlp", "train.finish.loss=null").fixed_training == mlp


# ---- trained heads ----


def test_every_training_is_tried_and_its_head_can_be_fitted_again(
    sample: tuple[np.ndarray, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    features, labels = sample
    splits = cross_validation_splits(labels, assign_scenes(features, labels), "both")
    config = HeadConfig(True, 0.3, 2.0)
    best = next(t for t in search_heads(features, labels, splits, "both") if t.config == config)
    trials = search_trained_heads(best, features, labels, splits, "both", seconds=600)
    assert [t.config for t in trials] == [replace(config, training=training) for training in HEAD_TRAININGS]
    assert [t.name for t in trials] == [f"{best.name}, trained with {training.name}" for training in HEAD_TRAININGS]
    assert best.name == "discriminant head, residual 0.3, shrinkage x 2, square root"
    fitted = fit_head(features, labels, replace(config, training=HEAD_TRAININGS[0]))
    closed_form = fit_whitening(features, labels, sqrt=True, shrinkage=2.0).head(0.3)
    trained = train_head(closed_form, features, labels, HEAD_TRAININGS[0])
    np.testing.assert_array_equal(fitted.matrix_FD, trained.matrix_FD)
    assert search_trained_heads(best, features, labels, splits, "both", seconds=0) == []
    clock = iter(range(10**6))
    monkeypatch.setattr(head_search.time, "monotonic", lambda: float(next(clock)))
    in_time = search_trained_heads(best, features, labels, splits, "both", seconds=3 * len(splits))
    assert len(in_time) < len(HEAD_TRAININGS)


def test_an_mlp_is_tried_only_with_the_square_root(sample: tuple[np.ndarray, np.ndarray]) -> None:
    splits = cross_validation_splits(sample[1], assign_scenes(*sample), "both")
    without = search_heads(*sample, splits, "both", space=HeadSearchSpace(sqrt=(False,)))[1]
    trials = search_trained_heads(without, *sample, splits, "both", seconds=600)
    assert [t.config and t.config.training for t in trials] == [t for t in HEAD_TRAININGS if not t.mlp]


def trial(result: HoldoutResult, goal: str, training: HeadTraining | None = None) -> HeadTrial:
    return HeadTrial(HeadConfig(training=training), result, result.score(goal))


def result_of(r_at_1: float, map_at_r: float, kind: str = "known") -> HoldoutResult:
    """200 queries with these metrics."""
    return holdout_result(np.arange(200) < 200 * r_at_1, np.full(200, map_at_r), kind)


def test_a_trained_head_must_have_a_significantly_higher_r_at_1() -> None:
    goal = "known-classes"
    closed_form = trial(result_of(0.5, 0.4), goal)
    better = trial(result_of(0.6, 0.4), goal, HEAD_TRAININGS[0])
    lower_r_at_1 = trial(result_of(0.45, 0.9), goal, HEAD_TRAININGS[0])
    insignificant = trial(result_of(0.505, 0.9), goal, HEAD_TRAININGS[0])
    lower_map = trial(result_of(0.6, 0.39), goal, HEAD_TRAININGS[0])
    assert lower_r_at_1.score > better.score > closed_form.score
    assert better.beats(closed_form, goal)
    assert not any(t.beats(closed_form, goal) for t in (lower_r_at_1, insignificant, lower_map, closed_form))


def test_both_kinds_count_where_the_goal_is_both() -> None:
    def join(new: HoldoutResult, known: HoldoutResult) -> HoldoutResult:
        names = ("kind_Q", "hit_Q", "precision_Q", "label_Q")
        return HoldoutResult(*(np.concatenate([getattr(r, name) for r in (new, known)]) for name in names))

    closed_form = join(result_of(0.5, 0.5, "new"), result_of(0.5, 0.5))
    other = join(result_of(0.4, 0.5, "new"), result_of(0.9, 0.5))
    assert trial(other, "known-classes").beats(trial(closed_form, "known-classes"), "known-classes")
    assert trial(other, "both").score > trial(closed_form, "both").score
    assert not trial(other, "both").beats(trial(closed_form, "both"), "both")


@pytest.mark.parametrize(("split_seconds", "hard_seconds", "trials"), [(1.0, 100.0, 3), (1.0, 9.0, 2), (1.0, 3.0, 0)])
def test_heads_that_would_not_be_finished_are_given_up_by_the_time_of_a_split(
    monkeypatch: pytest.MonkeyPatch, split_seconds: float, hard_seconds: float, trials: int
) -> None:
    """Three splits a second each for one value of ``sqrt``, and four fits afterwards."""
    now, rank = [0.0], head_search._rank_by_config

    def slow(*arguments: object) -> object:
        now[0] += split_seconds
        return rank(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(head_search, "time", SimpleNamespace(monotonic=lambda: now[0]))
    monkeypatch.setattr(head_search, "_rank_by_config", slow)
    features, labels, _ = feature_series(seed=5)
    splits = cross_validation_splits(labels, assign_scenes(features, labels), "new-classes")[-3:]
    space = HeadSearchSpace(residuals=(0.5,), shrinkages=(1.0,))
    if trials:
        results = search_heads(features, labels, splits, "new-classes", space=space, hard_seconds=hard_seconds)
        assert len(results) == trials and now[0] <= hard_seconds - 4 * split_seconds
    else:
        with pytest.raises(head_search.TooSlow) as caught:
            search_heads(features, labels, splits, "new-classes", space=space, hard_seconds=hard_seconds)
        assert caught.value.baseline.config is None and now[0] == split_seconds


def test_a_head_that_is_not_compared_suits_the_goal_and_keeps_what_the_user_set() -> None:
    space = HeadSearchSpace()
    assert space.uncompared_head("known-classes") == HeadConfig(sqrt=True, residual=0.0, shrinkage=2.0)
    assert space.uncompared_head("new-classes") == HeadConfig(sqrt=True, residual=0.5, shrinkage=4.0)
    assert space.uncompared_head("both") == HeadConfig(sqrt=True, residual=0.5, shrinkage=1.0)
    # Set by the user, or left out because model.feat_dim is larger than the number of classes allows.
    assert HeadSearchSpace(shrinkages=(1.5,)).uncompared_head("new-classes").shrinkage == 1.5
    assert HeadSearchSpace(residuals=(0.7,)).uncompared_head("known-classes").residual == 0.7
    assert HeadSearchSpace(residuals=RESIDUALS[1:]).uncompared_head("known-classes").residual == 0.1
    assert HeadSearchSpace(sqrt=(False,)).uncompared_head("new-classes").sqrt is False


def test_no_goal_lacks_a_head_that_is_not_compared() -> None:
    space = HeadSearchSpace()
    for goal in GOALS:
        head = space.uncompared_head(goal)
        assert head.residual in space.residuals and head.shrinkage in space.shrinkages
