"""Learning further good images: they are no longer defective, defects still are, and the threshold comes from held-out scores."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from tests.support.inspected_parts import CONFIG, GOOD_PARTS, draw_part, fitted_inspector, map_model, write_images
from unalike.errors import DataError
from unalike.inspection import learned_images
from unalike.inspection.anomaly_map import anomaly_maps, image_score
from unalike.inspection.inspector import Inspector
from unalike.inspection.learned_images import learn_images
from unalike.inspection.memory_bank import MemoryBank
from unalike.inspection.normal_images import sample_patches
from unalike.metrics.false_alarm import fit_threshold
from unalike.metrics.roc import auroc

PLACES = [(30, 40), (50, 10), (20, 25), (40, 30), (25, 45), (45, 20)]


def varnished(seed, scratch=None):
    """A part of another batch: darker, and with a band that the parts of the fit do not have."""
    image = draw_part(seed).astype(np.float32) * 0.7
    image[56:60] *= 0.8
    if scratch is not None:
        y, x = scratch
        image[y : y + 5, x : x + 12] = 230
    return image.clip(0, 255).astype(np.uint8)


FURTHER = [varnished(seed) for seed in range(500, 506)]
LATER = [varnished(seed) for seed in range(600, 612)]


@pytest.fixture(scope="module")
def inspector():
    return Inspector.fit(GOOD_PARTS, model=map_model(), rate=0.05, config=replace(CONFIG, synthetic_defects=0))


@pytest.fixture(scope="module")
def learned(inspector):
    return learn_images(inspector, FURTHER)


def score(inspector, image):
    return inspector.inspect(image).score


def test_what_is_learned_is_no_longer_defective_and_defects_still_are(inspector, learned):
    after = learned.inspector
    assert learned.images == 6 and learned.before == 6 and learned.after == 0 and not learned.unlike
    assert all(inspector.inspect(image).decision == "defective" for image in LATER)
    assert [after.inspect(image).decision for image in LATER].count("good") >= 10
    assert [after.inspect(draw_part(seed)).decision for seed in range(200, 212)].count("good") >= 10
    for draw in (draw_part, varnished):
        defective = [score(after, draw(700 + number, place)) for number, place in enumerate(PLACES)]
        good = [score(after, draw(800 + number)) for number in range(12)]
        assert auroc(np.array(defective), np.array(good)) == 1.0
        assert min(defective) > after.threshold.threshold


def test_the_inspector_that_learns_stays_as_it_is(inspector, learned):
    assert inspector.facts["images"] == 24 and len(inspector.facts["good_scores"]) == 24
    assert inspector.threshold.images == 24 and learned.inspector.threshold.images == 30
    assert len(inspector.model.memory) == len(learned.inspector.model.memory) == 300  # bounded


def test_the_threshold_is_that_of_the_scores_of_the_fit_and_held_out_ones(inspector, learned):
    after = learned.inspector
    held_out = sorted(set(after.facts["good_scores"]) - set(inspector.facts["good_scores"]))
    own = [score(after, image) for image in FURTHER]
    assert len(held_out) == 6 and np.median(held_out) > 1.05 * np.median(own)
    both = sorted([*inspector.facts["good_scores"], *held_out])
    assert after.facts["good_scores"] == both
    assert after.threshold.threshold == pytest.approx(fit_threshold(np.array(both), 0.05).threshold)


def test_each_image_is_scored_without_its_own_patches_alone(inspector, monkeypatch):
    """The model that scores an image holds the memory of the fit and the patches of all others: compared with a slow loop."""
    samples = []

    def sample(*arguments, **options):
        samples.append(sample_patches(*arguments, **options))
        return samples[-1]

    monkeypatch.setattr(learned_images, "sample_patches", sample)
    after = inspector.learn(FURTHER)
    (patches,), expected = samples, []
    for number, image in enumerate(FURTHER):
        others = patches.subset(patches.image_N != number)
        model = inspector.model.extended(others.vectors_NF, others.positions_NP, CONFIG.memory, CONFIG.seed)
        (maps,) = anomaly_maps(Image.fromarray(image), inspector.extractor, [model], CONFIG.smooth)
        expected.append(image_score(maps.score_hw, CONFIG.top_share))
    both = sorted([*inspector.facts["good_scores"], *expected])
    assert np.allclose(after.facts["good_scores"], both, atol=2e-6)


def test_images_of_one_part_are_scored_without_one_another():
    config = replace(CONFIG, patches=20_000, memory=10_000, synthetic_defects=0)
    inspector = Inspector.fit(GOOD_PARTS, model=map_model(), rate=0.05, config=config)
    twice = [image for image in FURTHER for image in (image, image + np.uint8(1))]
    alone = learn_images(inspector, twice)
    named = learn_images(inspector, twice, parts=[number // 2 for number in range(12)])
    former = set(inspector.facts["good_scores"])
    alone_scores, named_scores = (sorted(set(one.inspector.facts["good_scores"]) - former) for one in (alone, named))
    assert np.median(alone_scores) < 0.6 * np.median(named_scores)
    assert named.inspector.threshold.parts == 24 + 6 and alone.inspector.threshold.parts == 0


def test_below_the_size_of_the_memory_the_patches_are_those_of_a_fit_of_all():
    config = replace(CONFIG, patches=10_000, memory=10_000, synthetic_defects=0)
    together = [*GOOD_PARTS[:4], *FURTHER[:2]]
    options = {"model": map_model(), "rate": 0.3, "config": config}
    after = Inspector.fit(GOOD_PARTS[:4], **options).learn(FURTHER[:2])
    anew = Inspector.fit(together, **options)

    def patches(inspector):
        model = inspector.model
        width = len(model.mix_FF)
        raw = model.memory.vectors_MF[:, :width] @ np.linalg.inv(model.mix_FF) + model.mean_F
        border = model.memory.vectors_MF[:, width:] / model.positions.rim  # in units of each space
        return np.concatenate([raw, border], axis=1)

    assert len(after.model.memory) == len(anew.model.memory) == 6 * 16 * 16
    for one, other in ((after, anew), (anew, after)):
        assert MemoryBank(patches(one)).nearest(patches(other))[0].max() < 1e-2
    assert after.facts["images"] == anew.facts["images"] == 6


def test_the_spread_of_a_further_patch_is_that_of_its_nearest(inspector):
    model, width = inspector.model, len(inspector.model.mean_F)
    own = model.memory.vectors_MF[:5]
    vectors = own[:, : len(model.mix_FF)] @ np.linalg.inv(model.mix_FF) + model.mean_F
    positions = np.concatenate(
        [np.zeros((5, 2)), own[:, len(model.mix_FF) :] / model.positions.rim * model.positions.border], axis=1
    )
    grown = model.extended(vectors.astype(np.float32), positions.astype(np.float32), 10_000, 0)
    assert width == vectors.shape[1] and np.array_equal(grown.local_M[:300], model.local_M)
    assert np.array_equal(grown.local_M[300:], model.local_M[:5])
    assert model.extended(vectors[:0], positions[:0], 10, 0) is model


def test_a_file_round_trip_and_learning_again(inspector, learned, tmp_path):
    again = Inspector.load(learned.inspector.save(tmp_path / "a.inspector"), runtime="onnxruntime", threads=1)
    assert again.threshold == learned.inspector.threshold and again.facts == learned.inspector.facts
    for image in (FURTHER[0], LATER[0], varnished(700, PLACES[0])):
        assert score(again, image) == pytest.approx(score(learned.inspector, image), rel=1e-4)
    twice = again.learn(LATER[:3])
    assert twice.facts["learned"] == 9 and twice.facts["images"] == twice.threshold.images == 33
    with pytest.raises(DataError, match="image 1 was learned already"):
        again.learn([LATER[0], FURTHER[2]])


def test_the_image_that_sets_the_threshold_is_named(inspector, tmp_path):
    folder = write_images(tmp_path / "new", FURTHER)
    after = inspector.learn(folder, rate=0.04)
    scores, names = after.facts["good_scores"], after.facts["good_names"]
    assert (
        names[scores.index(min(scores, key=lambda one: abs(one - after.threshold.threshold)))] == after.threshold.set_by
    )
    assert sorted(name for name in names if "new" in name) == sorted(str(path) for path in folder.iterdir())
    assert {f"image {number}" for number in range(24)} == {name for name in names if "new" not in name}
    unnamed = inspector.learn(FURTHER[:2])
    assert {"image 24", "image 25"} <= set(unnamed.facts["good_names"])
    # Files of earlier versions know the one that set the threshold alone.
    former = replace_facts(inspector, good_names=None)
    names = former.learn(folder).facts["good_names"]
    assert names.count("a good image of the fit") >= 22 and inspector.threshold.set_by in names


def replace_facts(inspector, **changes):
    facts = {key: value for key, value in (inspector.facts | changes).items() if value is not None}
    return Inspector(
        inspector.network, inspector.tiling, inspector.config, inspector.model, inspector.threshold, facts,
        inspector.extractor.ignored_HW, inspector.extractor.centers,
    )  # fmt: skip


def test_a_defect_that_is_confirmed_by_mistake_is_named(inspector):
    mistaken = varnished(505, (30, 40))
    learned = learn_images(inspector, [*FURTHER[:5], mistaken])
    assert learned.unlike == ("image 5",) and learned.held_out >= 1
    assert learn_images(inspector, [draw_part(900)]).unlike == ()
    assert learn_images(inspector, [draw_part(900, (30, 40))]).unlike == ("image 0",)


def test_ignored_regions_stay_and_do_not_count():
    inspector = fitted_inspector(ignore_boxes=((24, 24, 64, 64),))
    images = [image.copy() for image in GOOD_PARTS[:3]]
    for number, image in enumerate(images):
        image[44:52, 44:52] = 255  # in the region alone
        image[44, 44] = number
    learned = learn_images(inspector, images)
    assert learned.before == learned.after == 0 and learned.inspector.extractor.ignored_HW is not None
    assert learned.inspector.model.classifier is inspector.model.classifier  # a classifier stays as it was fitted
    assert max(learned.inspector.facts["good_scores"]) == max(inspector.facts["good_scores"])


def test_an_inspector_without_a_threshold_learns_patches_alone(learned):
    plain = Inspector.fit(GOOD_PARTS, model=map_model(), rate=None, config=replace(CONFIG, synthetic_defects=0))
    after = plain.learn(FURTHER)
    assert after.threshold is None and max(score(after, one) for one in LATER) < min(score(plain, one) for one in LATER)
    with pytest.raises(DataError, match="holds no scores.*fit it anew"):
        plain.learn(FURTHER, rate=0.1)


def test_mistakes_are_refused(inspector, tmp_path):
    (tmp_path / "broken.png").write_bytes(b"x")
    Image.fromarray(FURTHER[0]).save(tmp_path / "a.png")
    cases = [
        ([], {}, "no images to learn"),
        ([tmp_path / "a.png", tmp_path / "broken.png"], {}, "1 of 2 images cannot be read.*broken"),
        ([tmp_path / "broken.png"], {}, "cannot be read"),
        ([FURTHER[0], FURTHER[0].copy()], {}, "image 1 is the same image as image 0"),
        ([np.zeros((64, 128, 3), np.uint8)], {}, r"image 0 is 128 x 64 pixels.*about the size.*64 x 64"),
        (FURTHER, {"rate": 0.01}, "30 good images cannot support 1 %"),
        (FURTHER, {"rate": 1.5}, "between 0 and 1"),
        (FURTHER, {"parts": [1, 2]}, "the parts of 2 images"),
    ]
    for images, options, message in cases:
        with pytest.raises(DataError, match=message):
            inspector.learn(images, **options)
    chosen = inspector.with_settings(threshold=100.0)
    with pytest.raises(DataError, match="chosen by hand.*--rate"):
        chosen.learn(FURTHER)
    assert chosen.learn(FURTHER, rate=0.05).threshold.threshold < 100


@pytest.mark.parametrize("facts", [
    {"good_names": ["a"]}, {"good_scores": ["a"]}, {"good_scores": 3}, {"learned_digests": [1]}, {"learned": -1}, {"images": "many"},
    {"sizes": [[64, 64]]}, {"sizes": [[64, 64], [0, 64]]},
])  # fmt: skip
def test_a_file_whose_facts_do_not_fit_is_refused(inspector, tmp_path, facts):
    path = replace_facts(inspector, **facts).save(tmp_path / "a.inspector")
    with pytest.raises(DataError, match=r"a\.inspector"):
        Inspector.load(path, runtime="onnxruntime", threads=1)
