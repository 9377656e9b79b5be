import numpy as np
import pytest

from unalike.explanation.evidence import decompose_similarity, occlude, occlusion_evidence
from unalike.explanation.pictures import evidence_row, overlay_map


def numbers(seed=0, h=3, w=4, c=6, d=5):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(h, w, c)), rng.normal(size=(d, c)), rng.normal(size=d), rng.normal(size=d)


def test_parts_sum_to_the_score_and_to_what_it_lacks():
    features, weight, bias, other = numbers()
    evidence = decompose_similarity(features, weight, bias, other)
    own = weight @ features.reshape(-1, 6).mean(0) + bias
    cosine = own @ other / np.linalg.norm(own) / np.linalg.norm(other)
    assert evidence.exact and evidence.score == pytest.approx(cosine, abs=1e-12)
    assert evidence.for_hw.sum() + evidence.constant == pytest.approx(cosine, abs=1e-12)
    assert evidence.against_hw.sum() + evidence.constant_against == pytest.approx(1 - cosine, abs=1e-12)


def test_each_part_is_the_slow_one():
    features, weight, bias, other = numbers(3)
    evidence = decompose_similarity(features, weight, bias, other)
    length = np.linalg.norm(weight @ features.reshape(-1, 6).mean(0) + bias)
    for y in range(3):
        for x in range(4):
            part = weight @ features[y, x] / 12 / length  # this position's share of the unit vector
            assert evidence.for_hw[y, x] == pytest.approx(part @ other / np.linalg.norm(other))


def test_there_is_no_evidence_against_an_image_itself():
    features, weight, bias, _ = numbers(5)
    evidence = decompose_similarity(features, weight, bias, weight @ features.reshape(-1, 6).mean(0) + bias)
    assert evidence.score == pytest.approx(1) and np.abs(evidence.against_hw).max() < 1e-12


def test_the_planted_part_has_the_most_evidence():
    """One position shares its direction with the other image; all others are noise across it."""
    rng = np.random.default_rng(1)
    wanted = np.eye(8)[0]
    features = rng.normal(0, 0.1, (5, 5, 8))
    features[..., 0] = 0
    features[3, 1] += 4 * wanted
    evidence = decompose_similarity(features, np.eye(8), np.zeros(8), wanted)
    assert np.unravel_index(evidence.for_hw.argmax(), (5, 5)) == (3, 1)
    features[0, 4] += 4 * np.eye(8)[5]  # what the other image has not
    evidence = decompose_similarity(features, np.eye(8), np.zeros(8), wanted)
    assert np.unravel_index(evidence.against_hw.argmax(), (5, 5)) == (0, 4)


def test_occlusions_cover_each_square_and_leave_the_rest():
    image = np.random.default_rng(0).integers(0, 255, (30, 42, 3), dtype=np.uint8)
    images, masks = occlude(image, grid=3, reach=0)
    assert images.shape == (9, 30, 42, 3) and masks.shape == (9, 3, 3)
    assert masks.reshape(9, 9).astype(int).tolist() == np.eye(9, dtype=int).tolist()
    changed = (images[4] != image).any(axis=2)
    assert changed[10:20, 14:28].mean() > 0.9 and not changed[:10].any() and not changed[:, 28:].any()


def test_occlusion_finds_what_the_score_depends_on():
    image = np.full((35, 35, 3), 90, np.uint8)
    image[20:25, 5:10] = 255
    images, masks = occlude(image, grid=7, reach=0)

    def score(pictures):
        return pictures[:, 20:25, 5:10].mean((1, 2, 3)) / 255 + 0.001 * pictures[:, :5, 30:].mean((1, 2, 3)) / 255

    evidence = occlusion_evidence(float(score(image[None])[0]), score(images), masks)
    assert not evidence.exact and np.unravel_index(evidence.for_hw.argmax(), (7, 7)) == (4, 1)
    assert (evidence.for_hw >= 0).all() and (evidence.against_hw >= 0).all()
    rising = occlusion_evidence(0.2, np.where(masks[:, 0, 6], 0.5, 0.2), masks)
    assert np.unravel_index(rising.against_hw.argmax(), (7, 7)) == (0, 6) and rising.for_hw.max() == 0


def test_overlays_are_clear_where_the_map_is_not_positive():
    image = np.full((20, 30, 3), 100, np.uint8)
    values = np.zeros((2, 3))
    values[0, 0], values[1, 2] = 1, -1
    drawn = np.asarray(overlay_map(image, values, (0, 200, 0), 1.0)).astype(int)
    assert drawn[0, 0, 1] - drawn[0, 0, 0] > 80 and np.ptp(drawn[-1, -1]) == 0
    features, weight, bias, other = numbers()
    assert [part.size for part in evidence_row(image, decompose_similarity(features, weight, bias, other))] == [
        (30, 20)
    ] * 3
