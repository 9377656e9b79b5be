from dataclasses import replace

import numpy as np
import pytest

from unalike.errors import DataError, SpecError
from unalike.numerics.nearest_neighbors import EXCLUDED
from unalike.numerics.normalization import l2_normalize
from unalike.recognition.calibration_trials import (
    SECOND_WEIGHTS,
    KnownTrials,
    UnknownTrials,
    balanced_sample,
    collect_trials,
)
from unalike.recognition.decision import GalleryCalibration, score_of
from unalike.recognition.gallery import Gallery
from unalike.recognition.gallery_calibration import (
    calibrate,
    check_settings,
    cross_validated_false_matches,
    effective_trials,
    find_margin,
    find_threshold,
    threshold_at_share,
)
from unalike.recognition.ranking import DEPTH, TEMPERATURE, rank_classes


def look_alikes(classes, images, seed=0, dim=16, noise=0.5):
    """Vectors of classes around random centres, and their labels."""
    draws = np.random.default_rng(seed)
    centres = draws.normal(size=(classes, dim))
    vectors = centres.repeat(images, axis=0) + noise * draws.normal(size=(classes * images, dim))
    return l2_normalize(vectors), [f"c{i // images}" for i in range(classes * images)]


def enrolled(classes=12, images=6, **settings):
    vectors, labels = look_alikes(classes, images, **settings)
    gallery = Gallery(vectors.shape[1])
    gallery.enrol(vectors, labels)
    return gallery


# ---- the three rules, against loops ----


def rank_slowly(vectors, codes, query, rule, k, own=None, without=None):
    """(class, score, second class, margin) with the definitions written out."""
    kept = [i for i in range(len(vectors)) if i != own and codes[i] != without]
    if rule == "prototype":
        table = {}
        for c in {codes[i] for i in kept}:
            total = np.sum([vectors[i] for i in kept if codes[i] == c], axis=0)
            table[c] = (float(total @ query / np.linalg.norm(total)),) * 2
    else:
        near = sorted(kept, key=lambda i: -float(vectors[i] @ query))
        near = near[:k] if rule == "vote" else near
        weights = {i: np.exp(float(vectors[i] @ query) / TEMPERATURE) for i in near}
        table = {}
        for c in {codes[i] for i in near}:
            best = max(float(vectors[i] @ query) for i in near if codes[i] == c)
            vote = sum(weights[i] for i in near if codes[i] == c) / sum(weights.values())
            table[c] = (vote if rule == "vote" else best, best)
    order = sorted(table, key=lambda c: -table[c][0])
    margin = table[order[0]][0] - table[order[1]][0] if len(order) > 1 else np.inf
    return order[0], table[order[0]][1], order[1] if len(order) > 1 else -1, margin


@pytest.mark.parametrize("rule", ["nearest", "prototype", "vote"])
@pytest.mark.parametrize("hidden", [None, "own", "class"])
def test_rules_equal_their_definitions(rule, hidden):
    # Classes of 60 and of 1: more than DEPTH neighbors of one class, and a class that is gone without its own image.
    draws = np.random.default_rng(4)
    codes = np.r_[np.repeat(0, 60), np.repeat(1, 25), np.repeat(2, 3), 3]
    centres = draws.normal(size=(4, 6))
    vectors = l2_normalize(centres[codes] + 0.4 * draws.normal(size=(len(codes), 6)))
    gallery = Gallery(6)
    gallery.enrol(vectors, [f"c{code}" for code in codes])
    rows = np.r_[0 : len(codes) : 7, len(codes) - 1]
    queries = vectors[rows] if hidden else l2_normalize(draws.normal(size=(len(rows), 6)))
    settings = {"own": {"exclude_row_Q": rows}, "class": {"exclude_class_Q": codes[rows]}}.get(hidden, {})
    ranked = rank_classes(gallery.snapshot, queries, rule, 9, **settings)
    assert DEPTH < 60
    for q, row in enumerate(rows):
        own, without = (row if hidden == "own" else None), (codes[row] if hidden == "class" else None)
        code, score, second, margin = rank_slowly(vectors, codes, queries[q], rule, 9, own, without)
        assert (ranked.code_Q[q], ranked.second_Q[q]) == (code, second)
        assert ranked.score_Q[q] == pytest.approx(score, abs=1e-5) and ranked.margin_Q[q] == pytest.approx(
            margin, abs=1e-4
        )


@pytest.mark.parametrize("rule", ["nearest", "prototype", "vote"])
def test_a_gallery_of_one_class_has_no_second_and_none_without_it(rule):
    gallery = enrolled(1, 4)
    ranked = rank_classes(gallery.snapshot, gallery.vectors_ND[:2], rule)
    assert ranked.second_Q.tolist() == [-1, -1] and np.isinf(ranked.margin_Q).all()
    nothing = rank_classes(gallery.snapshot, gallery.vectors_ND[:2], rule, exclude_class_Q=np.zeros(2, int))
    assert nothing.code_Q.tolist() == [-1, -1] and (nothing.score_Q == EXCLUDED).all()


def test_an_unknown_rule_is_refused():
    with pytest.raises(SpecError, match="did you mean 'nearest'"):
        rank_classes(enrolled().snapshot, np.ones((1, 16)), "nearst")


# ---- threshold and margin ----


def unknowns_of(scores, groups, matched, weights=None):
    return UnknownTrials(np.asarray(scores, float), np.asarray(groups), np.asarray(matched),
                    np.ones(len(scores)) if weights is None else np.asarray(weights, float))  # fmt: skip


def test_threshold_at_share_lets_the_share_through_and_splits_no_tie():
    draws = np.random.default_rng(0)
    for levels in (3, 1000):
        scores, weights = draws.integers(0, levels, 200) / levels, draws.uniform(1, 1.2, 200)
        for share in (0, 0.01, 0.1, 0.5):
            t = threshold_at_share(scores, weights, share)
            assert weights[scores >= t].sum() <= share * 200 + 1e-9
            below = scores[scores < t]
            if len(below):
                assert weights[scores >= below.max()].sum() > share * 200
    assert (
        threshold_at_share(np.array([0.1, 0.2]), np.ones(2), 1.0) == -np.inf
        and threshold_at_share(np.empty(0), np.empty(0), 0.1) == np.inf
    )


def test_false_matches_of_a_class_are_counted_without_itself_and_its_double():
    # Classes 0 and 1 are doubles: only they match falsely, and each other. A plain quantile is drawn through them.
    scores = np.r_[np.full(20, 0.9), np.full(20, 0.8), np.linspace(0.1, 0.5, 360)]
    groups = np.r_[np.zeros(20), np.ones(20), np.repeat(np.arange(2, 20), 20)].astype(int)
    matched = np.r_[np.ones(20), np.zeros(20), np.full(360, 5)].astype(int)
    trials = unknowns_of(scores, groups, matched)
    false_N = cross_validated_false_matches(trials, 0.02)
    assert false_N[:40].all()  # the others' threshold lies below 0.5, so every image of the doubles is a false match
    assert (
        threshold_at_share(scores, np.ones(400), 0.02) > 0.8
    )  # where the plain quantile would call class 1 all unknown


def test_false_matches_are_counted_without_the_same_kind_where_kinds_cross_classes():
    rng = np.random.default_rng(4)
    groups, kinds = rng.integers(0, 6, 240), rng.integers(0, 3, 240).astype(str)
    scores = rng.random(240) + (kinds == "2")
    false_N = cross_validated_false_matches(unknowns_of(scores, groups, np.full(240, 99)), 0.1, kinds)
    for i in range(240):  # one after the other
        others = (groups != groups[i]) & (kinds != kinds[i])
        assert false_N[i] == (scores[i] >= threshold_at_share(scores[others], np.ones(others.sum()), 0.1))
    assert false_N[kinds == "2"].mean() > 0.9  # the hardest kind did not set its own threshold


def test_the_interval_of_the_false_match_rate_holds_on_further_classes():
    kept = []
    for seed in range(12):
        vectors, labels = look_alikes(80, 10, seed=seed, dim=6)
        gallery = Gallery(6)
        gallery.enrol(vectors[:400], labels[:400])
        made = calibrate(gallery, 0.05)
        share = float(np.mean(scores_in(gallery, vectors[400:], made) >= made.threshold))
        kept.append(made.false_match.low <= share <= made.false_match.high)
        assert made.false_match.rate <= 0.05 and made.false_match.trials == 400 and made.false_match.classes == 40
    assert sum(kept) >= 10


def test_margin_is_the_smallest_that_keeps_wrong_labels_below_the_share():
    draws = np.random.default_rng(1)
    knowns = KnownTrials(
        draws.uniform(0, 1, 500), draws.exponential(0.1, 500), draws.random(500) < 0.8, draws.integers(0, 9, 500)
    )
    for wrong in (0.01, 0.05, 0.5):
        margin = find_margin(knowns, 0.3, wrong)
        bad = ~knowns.right_M & (knowns.score_M >= 0.3)
        assert (bad & (knowns.margin_M >= margin)).sum() <= wrong * 500
        if margin:
            lower = knowns.margin_M[bad & (knowns.margin_M < margin)].max()
            assert (bad & (knowns.margin_M >= lower)).sum() > wrong * 500
    assert find_margin(knowns, 0.3, 0.5) == 0


def test_a_rate_that_the_data_cannot_support_is_refused():
    with pytest.raises(
        DataError,
        match=r"72 trials of 12 .*worth \d+ independent .*0.001; expected at least 259\d .*rate of 0.\d+ or more",
    ):
        calibrate(enrolled(), 0.001)
    with pytest.raises(DataError, match="400 trials of 4 unknown classes"):
        calibrate(enrolled(4, 100), 0.05)
    with pytest.raises(DataError, match="0 trials of 0"):
        calibrate(enrolled(1, 50), 0.05)
    with pytest.raises(DataError, match="empty"):
        calibrate(Gallery(4), 0.05)
    for settings in (
        {"rate": 0},
        {"rate": 0.1, "wrong": 2},
        {"rate": 0.1, "trials_from": "x"},
        {"rate": 0.1, "rule": "x"},
    ):
        with pytest.raises(SpecError):
            calibrate(enrolled(), **settings)
    with pytest.raises(DataError, match="no images of unknown classes"):
        calibrate(enrolled(), 0.1, trials_from="images")


def test_given_images_are_the_unknown_ones_and_the_known_ones():
    gallery = enrolled(10, 8)
    further, labels = look_alikes(30, 8, seed=0)
    images = (further[40:], labels[40:])  # c5 to c9 are enrolled, c10 to c29 are not
    made = calibrate(gallery, 0.2, images=images)
    assert made.false_match.trials == 160 and made.false_match.classes == 20
    assert made.figures["known_images"] == 40 and "160 images of 20 other classes" == made.made_from
    both = calibrate(gallery, 0.2, images=images, trials_from="both")
    assert both.false_match.trials == 240 and both.false_match.classes == 30
    assert calibrate(gallery, 0.4, images=images, trials_from="gallery").false_match.trials == 80


def test_decisions_and_their_way_through_a_file(tmp_path):
    gallery = enrolled(20, 6, noise=0.8)
    gallery.calibration = made = calibrate(gallery, 0.2, wrong=0.02, rule="vote", k=7)
    score = np.array([made.threshold, np.nextafter(made.threshold, -1), 1.0, 1.0, 1.0])
    margin = np.array([np.inf, 1.0, made.margin, np.nextafter(made.margin, -1), -1.0])
    assert made.decide(score, margin) == ["label", "unknown", "label", "ambiguous", "ambiguous"]
    assert Gallery.load(gallery.save(tmp_path / "g")).calibration == made
    with pytest.raises(DataError, match="update"):
        GalleryCalibration.from_dict({**made.to_dict(), "format_version": 9})
    assert gallery.stale == ""
    gallery.enrol(np.ones((1, 16)), ["another"])
    assert "120 images of 20 classes and now has 121 of 21" in gallery.stale
    assert sum(made.figures[f"known_{name}"] for name in ("right", "wrong", "ambiguous", "unknown")) == pytest.approx(1)
    assert made.figures["known_wrong"] <= 0.02


def test_the_second_class_is_subtracted_and_earlier_files_stay_readable(tmp_path):
    gallery = enrolled(20, 6, noise=0.8)
    gallery.calibration = made = calibrate(gallery, 0.2)
    assert made.second_weight == 0.25 and made.to_dict()["format_version"] == 2
    assert Gallery.load(gallery.save(tmp_path / "g")).calibration == made
    assert "less 0.25 times that of the second" in str(made)
    for rule in ("prototype", "vote"):  # their scores are as they were, and files of these are read by earlier releases
        plain = calibrate(gallery, 0.2, rule=rule).to_dict()
        assert plain["format_version"] == 1 and "second_weight" not in plain
        assert GalleryCalibration.from_dict(plain).second_weight == 0
    # Written out: a cosine of 0.8 with a second class at 0.6 counts 0.65, without a second class 0.8.
    made = replace(made, threshold=0.7, margin=0.0)
    cosine, lead = np.array([0.8, 0.8, 0.8]), np.array([0.2, np.inf, 0.5])
    assert score_of(cosine, lead, 0.25).tolist() == pytest.approx([0.65, 0.8, 0.725])
    assert made.decide(cosine, lead) == ["unknown", "label", "label"]
    assert made.cosine_thresholds(cosine, lead).tolist() == pytest.approx([0.85, 0.7, 0.775])
    assert replace(made, second_weight=0.0).cosine_thresholds(cosine, lead).tolist() == [0.7] * 3
    assert made.decide(cosine, np.ones(3), lead_Q=lead) == ["unknown", "label", "label"]


def test_trials_keep_the_cosine_where_the_second_class_cannot_be_judged():
    assert collect_trials(enrolled(12, 6)).second_weight in SECOND_WEIGHTS
    assert collect_trials(enrolled(2, 6)).second_weight == 0  # a stranger to one class meets no second one
    assert collect_trials(enrolled(12, 1)).second_weight == 0  # no known images
    gallery = enrolled(12, 6)
    trials = collect_trials(gallery)
    snapshot, vectors = gallery.snapshot, gallery.vectors_ND
    for row, score in zip(range(0, 72, 7), trials.unknowns.score_N[::7], strict=False):  # one after the other
        own = snapshot.codes_N[row]
        best = sorted(
            (
                max(vectors[i] @ vectors[row] for i in np.flatnonzero(snapshot.codes_N == c))
                for c in range(12)
                if c != own
            ),
            reverse=True,
        )
        assert score == pytest.approx(best[0] - 0.25 * best[1], abs=1e-5)


def test_a_calibration_is_stale_when_as_many_others_have_come(tmp_path):
    gallery = enrolled(20, 6, noise=0.8)
    gallery.calibration = calibrate(gallery, 0.2)
    first = gallery.classes[0]
    gallery.rename(first, "by another name")
    gallery.store(half=True)
    gallery = Gallery.load(gallery.save(tmp_path / "g"))
    assert gallery.stale == ""
    gallery.remove(["by another name"])
    gallery.enrol(np.random.default_rng(9).normal(size=(6, 16)), ["another"] * 6)
    assert (len(gallery), len(gallery.classes)) == (120, 20) and "these are others by now" in gallery.stale
    gallery = Gallery.load(gallery.save(tmp_path / "g"))
    assert "these are others by now" in gallery.stale
    gallery.calibration = calibrate(gallery, 0.2)
    assert gallery.stale == ""
    gallery.merge(gallery.classes[:1], gallery.classes[1])
    assert gallery.stale


def test_samples_of_trials_are_spread_over_classes():
    codes = np.r_[np.zeros(1000), np.ones(10), np.full(500, 2)].astype(int)
    counts = np.bincount(codes[balanced_sample(codes, 90, 0)])
    assert counts.tolist() == [40, 10, 40] and len(balanced_sample(codes, 9999, 0)) == 1510
    assert find_threshold(unknowns_of([0.5] * 10, range(10), [99] * 10), 0.1).threshold > 0.5


def world(classes, images, seed, dim=64):
    """Vectors of classes in families, a tenth of which have a near twin; each class is shot in two series of like images."""
    rng = np.random.default_rng(seed)
    families = rng.normal(size=(max(1, classes // 8), dim))
    centers = rng.normal(size=(classes, dim)) + 0.8 * families[rng.integers(0, len(families), classes)]
    for i in range(classes // 20):
        centers[2 * i + 1] = centers[2 * i] + 0.25 * rng.normal(size=dim)
    series = centers[:, None] + 0.8 * rng.normal(size=(classes, 2, dim))
    vectors = series[:, np.arange(images) % 2] + 0.15 * rng.normal(size=(classes, images, dim))
    return vectors.reshape(-1, dim), np.repeat(np.arange(classes), images), rng.permutation(classes)


def gallery_of(vectors, labels, classes):
    gallery = Gallery(vectors.shape[1])
    chosen = np.isin(labels, classes)
    gallery.enrol(vectors[chosen], [str(label) for label in labels[chosen]])
    return gallery


def scores_in(gallery, vectors, calibration):
    """What the threshold is compared with, for each vector."""
    ranking = rank_classes(gallery.snapshot, vectors)
    return score_of(ranking.score_Q, ranking.margin_Q, calibration.second_weight)


@pytest.mark.parametrize(("classes", "images", "rate"), [(8, 60, 0.02), (20, 30, 0.05), (30, 6, 0.1), (100, 6, 0.05)])
def test_a_rate_is_refused_or_kept(classes, images, rate):
    draws, fine, covered, accepted = 20, 0, 0, 0
    for seed in range(draws):
        vectors, labels, order = world(2 * classes, images, seed)
        gallery = gallery_of(vectors, labels, order[:classes])
        try:
            calibration = calibrate(gallery, rate)
        except DataError as error:
            assert "independent" in str(error)
            fine += 1
            continue
        unknown = np.isin(labels, order[classes:])
        truth = float(np.mean(scores_in(gallery, vectors[unknown], calibration) >= calibration.threshold))
        accepted += 1
        fine += truth <= 1.5 * rate
        covered += calibration.false_match.low <= truth <= calibration.false_match.high
    assert fine >= 0.85 * draws and covered >= 0.85 * accepted


def test_images_of_a_class_are_alike_although_the_best_scores_are_of_many_classes():
    # The best tenth: two images of every class. Behind them come the images of a few classes that have a look-alike.
    classes, images = 20, 20
    scores = np.random.default_rng(0).uniform(0, 0.5, (classes, images))
    scores[:6] += 0.5
    alike = UnknownTrials(scores.flatten(), np.repeat(np.arange(classes), images), np.full(400, 99), np.ones(400))
    scores[:, :2] += 1
    mixed = UnknownTrials(scores.flatten(), alike.group_N, alike.matched_N, alike.weight_N)
    assert effective_trials(mixed) < 2 * effective_trials(alike) < 60  # by the best tenth alone 298 and 49


def test_the_threshold_rises_with_the_size_of_the_gallery():
    plain, adapted, grown = [], [], 0
    for seed in range(6):
        vectors, labels, order = world(240, 6, seed)
        gallery = gallery_of(vectors, labels, order[:60])
        try:
            calibration = calibrate(gallery, 0.1)
        except DataError:
            continue
        grown += 1
        larger = gallery_of(vectors, labels, order[:180])
        scores = scores_in(larger, vectors[np.isin(labels, order[180:])], calibration)
        threshold = calibration.threshold_for(len(larger), 180)
        assert threshold > calibration.threshold == calibration.threshold_for(10, 2)
        plain.append(np.mean(scores >= calibration.threshold))
        adapted.append(np.mean(scores >= threshold))
    assert grown >= 2 and np.mean(adapted) <= 1.5 * 0.1 and np.mean(adapted) < 0.7 * np.mean(plain)


def test_a_target_that_no_threshold_attains_is_said_to_be_missed():
    # Two classes that are as like one another as no third: even above all other scores they match each other.
    scores = np.r_[np.full(20, 0.9), np.full(20, 0.8), np.linspace(0.1, 0.5, 60)]
    groups = np.r_[np.zeros(20), np.ones(20), np.repeat(np.arange(2, 8), 10)].astype(int)
    matched = np.r_[np.ones(20), np.zeros(20), np.full(60, 5)].astype(int)
    search = find_threshold(unknowns_of(scores, groups, matched), 0.01)
    assert not search.attained and search.threshold > 0.9 and search.false_N.any()
    assert find_threshold(unknowns_of(scores, groups, matched), 0.5).attained


def test_the_rate_that_a_refusal_names_is_accepted():
    for seed, (classes, images) in enumerate([(6, 20), (12, 10), (20, 30)]):
        vectors, labels, order = world(classes, images, seed)
        gallery = gallery_of(vectors, labels, order)
        with pytest.raises(DataError, match=r"rate of 0\.\d+ or more") as refused:
            calibrate(gallery, 0.01)
        named = float(str(refused.value).split("rate of ")[-1].split(" ")[0])
        assert calibrate(gallery, named).false_match.target == named


@pytest.mark.parametrize("rate", [0.0, 1e-320, 1e-7, 1.0, float("nan")])
def test_rates_out_of_range(rate: float) -> None:
    with pytest.raises(SpecError, match=f"rate is {rate}; expected 1e-06 or more, below 1"):
        check_settings(rate)
