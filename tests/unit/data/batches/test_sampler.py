"""Laws of the class-balanced sampler, over many label sets, each checked the slow way."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unalike import progress
from unalike.data.batches.sampler import ClassBalancedSampler
from unalike.errors import UnalikeError


@pytest.fixture
def loud(monkeypatch):
    """Lines said once are said anew, whatever tests ran before."""
    monkeypatch.setattr(progress, "_said", set())
    monkeypatch.setattr(progress, "_verbosity", 1)


counts = st.lists(st.integers(1, 17), min_size=2, max_size=25)


def labels_of(class_counts, seed=0):
    labels = np.repeat(np.arange(len(class_counts)) * 3, class_counts)  # labels need not be consecutive
    np.random.default_rng(seed).shuffle(labels)
    return labels


def ranks(labels, world, **options):
    return [ClassBalancedSampler(labels, rank=r, world_size=world, **options) for r in range(world)]


def check_batch(labels, batch, classes):
    present, sizes = np.unique(labels[batch], return_counts=True)
    assert len(present) == classes >= 2
    assert sizes.max() - sizes.min() <= 1
    for label, size in zip(present, sizes, strict=True):
        uses = np.unique(batch[labels[batch] == label], return_counts=True)[1]
        have = (labels == label).sum()
        if have >= size:
            assert uses.max() == 1, "a class with images enough repeats none within a batch"
        else:
            assert len(uses) == have and uses.max() - uses.min() <= 1


@settings(max_examples=60, deadline=None)
@given(counts, st.integers(2, 40), st.integers(1, 9), st.integers(1, 3), st.integers(0, 5))
def test_laws_of_shape_and_use(class_counts, batch, instances, world, epoch):
    labels = labels_of(class_counts)
    members = ranks(labels, world, batch_size=batch, num_instance=instances, seed=7)
    plans = [m.epoch(epoch) for m in members]
    classes = members[0].classes_per_batch
    for plan in plans:
        assert plan.shape == (len(members[0]), batch)
        for row in plan:
            check_batch(labels, row, classes)
    everything = np.concatenate(plans).ravel()
    use = np.bincount(everything, minlength=len(labels))
    for label in np.unique(labels):
        of_class = use[labels == label]
        assert of_class.sum() > 0, "every class is visited in every epoch"
        assert of_class.max() - of_class.min() <= 1, "no image is used twice more than another of its class"
    groups = [len({*labels[row].tolist()}) for plan in plans for row in plan]
    assert sum(groups) == len(members[0]) * world * classes


@settings(max_examples=40, deadline=None)
@given(counts, st.integers(2, 5), st.integers(2, 4), st.integers(0, 3))
def test_exactly_k_where_classes_and_batch_allow(class_counts, p, k, epoch):
    labels = labels_of(class_counts)
    sampler = ClassBalancedSampler(labels, batch_size=p * k, num_instance=k)
    if len(class_counts) < p:
        return
    for row in sampler.epoch(epoch):
        assert set(np.unique(labels[row], return_counts=True)[1]) == {k}


@settings(max_examples=40, deadline=None)
@given(counts, st.integers(2, 20), st.integers(1, 5), st.integers(2, 4), st.integers(0, 3))
def test_d14_ranks_get_balanced_batches_of_different_classes(class_counts, batch, instances, world, epoch):
    labels = labels_of(class_counts)
    members = ranks(labels, world, batch_size=batch, num_instance=instances, seed=1)
    assert len({len(m) for m in members}) == 1, "equal steps on all ranks"
    plans = [m.epoch(epoch) for m in members]
    for step in range(len(members[0])):
        classes = [set(labels[plan[step]].tolist()) for plan in plans]
        assert all(len(c) == members[0].classes_per_batch for c in classes)
        if world * members[0].classes_per_batch <= len(class_counts):
            assert len(set.union(*classes)) == sum(map(len, classes)), "no class on two ranks in one step"


def test_d14_two_ranks_see_what_one_with_twice_the_batch_sees():
    labels = labels_of([9, 4, 30, 2, 8, 8, 12, 5])
    single = ClassBalancedSampler(labels, batch_size=16, num_instance=4, seed=3)
    halves = ranks(labels, 2, batch_size=8, num_instance=4, seed=3)
    for epoch in range(3):
        plan, passes = single.plan(epoch)
        assert np.array_equal(plan, np.concatenate([h.plan(epoch)[0] for h in halves], axis=1))
        assert np.array_equal(passes, np.concatenate([h.plan(epoch)[1] for h in halves], axis=1))


def test_d01_default_batch_of_four_holds_two_classes(capsys, loud):
    labels = labels_of([6, 6, 6])
    sampler = ClassBalancedSampler(labels, batch_size=4, num_instance=4)
    for row in sampler.epoch(0):
        assert sorted(np.unique(labels[row], return_counts=True)[1]) == [2, 2]
    output = capsys.readouterr().err
    assert "2 classes x 2 images" in output and "num_instance 4" in output


def test_d01_a_batch_of_two_says_that_pairs_are_missing(capsys, loud):
    ClassBalancedSampler(labels_of([6, 6, 6]), batch_size=2, num_instance=4)
    assert "set it to 4 or more" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("labels", "batch", "instances", "remedies"),
    [
        ([0] * 9, 8, 4, ["only one class", "add images"]),
        ([], 8, 4, ["no labeled"]),
        ([-1, -1], 8, 4, ["no labeled"]),
        ([0, 1], 1, 4, ["train.batch_size 1", "set it to 4"]),
        ([0, 1], 8, 0, ["dataset.num_instance 0", "set it to 2"]),
        ([0, 0], 1, 0, ["only one class", "train.batch_size", "dataset.num_instance"]),
    ],
)
def test_d17_what_cannot_be_is_one_message_with_the_remedy(labels, batch, instances, remedies):
    with pytest.raises(UnalikeError) as caught:
        ClassBalancedSampler(labels, batch_size=batch, num_instance=instances)
    assert all(remedy in str(caught.value) for remedy in remedies) and "\n" not in str(caught.value)


@pytest.mark.parametrize("batch", range(2, 23))
def test_d17_any_batch_of_two_or_more_works_with_any_instances(batch):
    labels = labels_of([5, 1, 3])
    for instances in (1, 2, 3, 4, 7, 50):
        for row in ClassBalancedSampler(labels, batch_size=batch, num_instance=instances).epoch(0):
            assert len(row) == batch and len(set(labels[row])) >= 2


def test_balanced_classes_use_every_image_each_epoch_once():
    labels = labels_of([8] * 10)
    sampler = ClassBalancedSampler(labels, batch_size=20, num_instance=4)
    assert len(sampler) == 4
    for epoch in range(3):
        assert np.array_equal(np.sort(sampler.epoch(epoch).ravel()), np.arange(80))


def test_rare_classes_come_as_often_as_frequent_ones():
    labels = labels_of([200, 3, 3, 3])
    sampler = ClassBalancedSampler(labels, batch_size=8, num_instance=4)
    of_class = np.bincount(labels[sampler.epoch(0).ravel()])[::3]
    assert of_class.max() - of_class.min() <= 4
    over_epochs = np.bincount(np.concatenate([labels[sampler.epoch(e).ravel()] for e in range(4)]))[::3]
    assert over_epochs.max() - over_epochs.min() <= 4, "the classes of the partial round rotate"


def test_repeats_of_an_image_carry_different_occurrences():
    labels = labels_of([2, 1, 9, 40])
    plans = [s.plan(0) for s in ranks(labels, 2, batch_size=8, num_instance=4)]
    pairs = [(i, o) for images, passes in plans for i, o in zip(images.ravel(), passes.ravel(), strict=True)]
    assert len(set(pairs)) == len(pairs)


def test_deterministic_per_seed_and_epoch_and_skippable():
    labels = labels_of([5, 9, 2, 7])
    make = lambda seed: ClassBalancedSampler(labels, batch_size=8, num_instance=4, seed=seed)
    first, again = make(0), make(0)
    first.epoch(0)
    assert np.array_equal(first.epoch(4), again.epoch(4)), "no state is carried from epoch to epoch"
    assert not np.array_equal(first.epoch(4), first.epoch(5))
    assert not np.array_equal(first.epoch(4), make(1).epoch(4))


def test_unlabeled_images_are_left_out():
    labels = np.array([0, -1, 1, -1, 0, 1])
    drawn = ClassBalancedSampler(labels, batch_size=4, num_instance=2).epoch(0)
    assert set(drawn.ravel()) == {0, 2, 4, 5}


@settings(max_examples=40, deadline=None)
@given(counts, st.integers(2, 40), st.integers(1, 9), st.integers(1, 3), st.integers(0, 3))
def test_batches_drawn_by_the_root_of_sizes_keep_their_shape(class_counts, batch, instances, world, epoch):
    labels = labels_of(class_counts)
    options = {"batch_size": batch, "num_instance": instances, "seed": 5, "class_sampling": "sqrt"}
    members = ranks(labels, world, **options)
    plans = [m.epoch(epoch) for m in members]
    classes = members[0].classes_per_batch
    for plan in plans:
        assert plan.shape == (len(members[0]), batch)
        for row in plan:
            check_batch(labels, row, classes)
    if world * classes <= len(class_counts):
        for rows in zip(*plans, strict=True):
            assert len(np.unique(labels[np.concatenate(rows)])) == world * classes
    use = np.bincount(np.concatenate(plans).ravel(), minlength=len(labels))
    assert all(np.ptp(use[labels == label]) <= 1 for label in np.unique(labels))
    assert all(
        np.array_equal(m.epoch(epoch), plan) for m, plan in zip(ranks(labels, world, **options), plans, strict=True)
    )


def test_shares_of_images_follow_the_root_of_class_sizes():
    class_counts = np.array([144, 64, 36, 16, 9, 4, 1, 1])
    labels = np.repeat(np.arange(8), class_counts)
    sampler = ClassBalancedSampler(labels, batch_size=8, num_instance=4, class_sampling="sqrt")
    drawn = np.concatenate([labels[sampler.epoch(epoch).ravel()] for epoch in range(200)])
    shares = np.bincount(drawn, minlength=8) / len(drawn)
    np.testing.assert_allclose(shares, np.sqrt(class_counts) / np.sqrt(class_counts).sum(), atol=0.004)


def test_two_ranks_draw_by_the_root_what_one_with_twice_the_batch_draws():
    labels = labels_of([9, 4, 30, 2, 8, 8, 12, 5])
    single = ClassBalancedSampler(labels, batch_size=16, num_instance=4, seed=3, class_sampling="sqrt")
    halves = ranks(labels, 2, batch_size=8, num_instance=4, seed=3, class_sampling="sqrt")
    assert np.array_equal(single.epoch(1), np.concatenate([h.epoch(1) for h in halves], axis=1))
