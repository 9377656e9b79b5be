"""Class-balanced sampler: P classes x K instances a batch on every rank, planned for a whole epoch at once.

Letters: N images, C classes with at least one image, B images a batch and rank, W ranks, S steps an epoch,
P classes a batch, T = S x W x P groups an epoch (a group = one class's share of one batch).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from unalike.data.batches import counter_rng
from unalike.data.batches.class_draw import draw_classes, inclusion_weights
from unalike.errors import DataError
from unalike.progress import say

_CLASS_ROUND, _EXTRA_ORDER, _IMAGE_PASS = 11, 12, 13


class ClassBalancedSampler:
    """Which images make which batch: a pure function of labels, sizes, seed and epoch, of which each rank takes its share.

    Shape of a batch. P = B // K classes, at least 2 and at most C, each with B // P or B // P + 1 images: exactly K when
    K divides B, B / K >= 2 and C >= B / K. Another number of instances than was requested is reported once.

    Classes. S = max(ceil(N / (W x B)), ceil(C / (W x P))) steps, equal on all ranks. The T groups are assigned in rounds
    that visit every class once in a new random order (first a partial round, when C does not divide T: its classes rotate
    from epoch to epoch), so every class gets T // C or T // C + 1 groups an epoch, at least one. A round's order is chosen
    such that the W x P groups of one step are of different classes over all ranks whenever C >= W x P, and always
    within a rank.

    With ``class_sampling`` "sqrt" the classes of a step are drawn in proportion to the square root of their sizes instead,
    still different within it (see ``class_draw``): an epoch may leave a class out.

    Images. A class yields its images in passes: all of them once in a new random order, then again. So within an
    epoch no image is used twice more often than another of its class; with balanced classes whose size K divides, each
    is used at least once an epoch. A class of at least as many images as a group holds never repeats one within the
    group; a smaller one does, as evenly as possible. The pass number goes along as the image's occurrence, so that
    repeats are augmented differently.

    W ranks with batches of B get the same images, step by step, as one rank with W x B (K dividing B).

    Args:
        labels_N: class indices; images with labels below 0 (without a label) are left out.
        batch_size: B.
        num_instance: K, images of a class in a batch.
        seed: of all random orders.
        rank: of this process.
        world_size: W, the number of processes.
        epoch_images: Images that an epoch draws, if not all N; every epoch draws others.
        class_sampling: "balanced", or "sqrt".

    Raises:
        DataError: when no batch of two classes can be made.
    """

    def __init__(
        self,
        labels_N: Sequence[int] | np.ndarray,
        *,
        batch_size: int,
        num_instance: int,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        epoch_images: int | None = None,
        class_sampling: str = "balanced",
    ) -> None:
        labels = np.asarray(labels_N, dtype=np.int64)
        self.seed, self.rank, self.world_size = int(seed), int(rank), int(world_size)
        self.class_sampling = class_sampling
        self.batch_size, self.num_instance = int(batch_size), int(num_instance)
        if not 0 <= self.rank < self.world_size:
            raise DataError(f"rank {rank} of {world_size}", expected="a rank from 0 to world size - 1")
        self._members = np.flatnonzero(labels >= 0)
        present = np.unique(labels[self._members])
        self._check(len(self._members), len(present))
        # Members sorted by class, where each class starts and how many it has.
        class_of = np.searchsorted(present, labels[self._members])
        self._members = self._members[np.argsort(class_of, kind="stable")]
        self.class_counts = np.bincount(class_of, minlength=len(present))
        self._class_start = np.cumsum(self.class_counts) - self.class_counts
        self.classes_per_batch = min(max(2, self.batch_size // self.num_instance), len(present))
        small, larger = divmod(self.batch_size, self.classes_per_batch)
        self._group_sizes = np.full(self.classes_per_batch, small)
        self._group_sizes[:larger] += 1
        self._report_shape(len(present))
        for_images = -(-len(self._members) // (self.batch_size * self.world_size))
        for_classes = -(-len(present) // (self.classes_per_batch * self.world_size))
        self.steps = max(for_images, for_classes)
        if epoch_images is not None:
            self.steps = min(self.steps, max(1, -(-epoch_images // (self.batch_size * self.world_size))))

    def _check(self, images: int, classes: int) -> None:
        """Raise one DataError with every reason why no batch can be drawn, each with its remedy."""
        faults = []
        if images == 0:
            faults.append("no labeled training image (put images into one folder a class)")
        elif classes < 2:
            faults.append("only one class in the training data (add images of at least one other class)")
        if self.batch_size < 2:
            faults.append(f"train.batch_size {self.batch_size} cannot hold two classes (set it to 4 or more)")
        if self.num_instance < 1:
            faults.append(f"dataset.num_instance {self.num_instance} (set it to 2 or more)")
        if faults:
            raise DataError(
                "; ".join(faults), expected="batches of at least two classes, because metric learning compares them"
            )

    def _report_shape(self, classes: int) -> None:
        sizes = sorted({int(n) for n in self._group_sizes})
        if sizes == [self.num_instance]:
            return
        shape = " or ".join(str(n) for n in sizes)
        why = (
            f"the data has {classes} classes"
            if classes == self.classes_per_batch and classes < self.batch_size // self.num_instance
            else f"train.batch_size {self.batch_size} does not divide into two or more classes of that many"
        )
        say(
            f"batches hold {self.classes_per_batch} classes x {shape} images, not dataset.num_instance "
            f"{self.num_instance}: {why}",
            once=True,
        )
        if sizes == [1]:
            say(
                f"train.batch_size {self.batch_size} leaves one image a class: losses that compare images of one class "
                "will not move; set it to 4 or more",
                once=True,
            )

    def __len__(self) -> int:
        """Steps an epoch, the same on all ranks."""
        return self.steps

    def epoch(self, epoch: int) -> np.ndarray:
        """This rank's batches: int64 image indices (S, B). To resume, start at a later row."""
        return self.plan(epoch)[0]

    def plan(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """This rank's image indices (S, B) and, beside each, how often it was used before in this epoch (S, B)."""
        group_class_T = self._assign_classes(epoch)
        size_T = np.tile(self._group_sizes, self.steps * self.world_size)
        image_M, pass_M = self._assign_images(epoch, group_class_T, size_T)
        shape = (self.steps, self.world_size, self.batch_size)
        return image_M.reshape(shape)[:, self.rank].copy(), pass_M.reshape(shape)[:, self.rank].copy()

    # ---- classes

    def _assign_classes(self, epoch: int) -> np.ndarray:
        """The class of every group of the epoch, (T,)."""
        classes = len(self.class_counts)
        total = self.steps * self.world_size * self.classes_per_batch
        # Groups that must be of different classes: a step over all ranks if there are classes enough, else a rank's.
        window = self.world_size * self.classes_per_batch
        window = window if window <= classes else self.classes_per_batch
        if self.class_sampling == "sqrt":
            weights_C = inclusion_weights(np.sqrt(self.class_counts), window)
            return draw_classes(weights_C, window, total // window, (self.seed, epoch)).ravel()
        rounds, extra = divmod(total, classes)
        everyone = np.arange(classes)
        fixed_order = np.argsort(counter_rng.keys((self.seed, _EXTRA_ORDER), everyone), kind="stable")
        first = fixed_order[(epoch * total + np.arange(extra)) % classes]
        parts = [first[np.argsort(counter_rng.keys((self.seed, _EXTRA_ORDER, epoch), first), kind="stable")]]
        position, before = extra, parts[0]
        for number in range(rounds):
            order = np.argsort(counter_rng.keys((self.seed, _CLASS_ROUND, epoch, number), everyone), kind="stable")
            offset = position % window  # groups of a window that the round before has filled
            if offset:
                order = _keep_apart(order, before[-offset:], window - offset)
            parts.append(order)
            position, before = position + classes, order
        return np.concatenate(parts)

    # ---- images

    def _assign_images(
        self, epoch: int, group_class_T: np.ndarray, size_T: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Image and pass number of every place of the epoch, both (S x W x B,), in the order of the groups."""
        counts = self.class_counts
        by_class = np.argsort(group_class_T, kind="stable")
        # The queues of the epoch, one class behind the other: where each group starts in its class's.
        sorted_size = size_T[by_class]
        sorted_start = np.cumsum(sorted_size) - sorted_size
        needed_C = np.bincount(group_class_T, weights=size_T, minlength=len(counts)).astype(np.int64)
        queue_start_C = np.cumsum(needed_C) - needed_C
        queue_image, queue_pass = self._queues(epoch, needed_C, queue_start_C, sorted_start)
        start_T = np.empty_like(sorted_start)
        start_T[by_class] = sorted_start
        place_M = np.repeat(start_T - (np.cumsum(size_T) - size_T), size_T) + np.arange(int(size_T.sum()))
        return queue_image[place_M], queue_pass[place_M]

    def _queues(
        self, epoch: int, needed_C: np.ndarray, queue_start_C: np.ndarray, group_start: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Image and pass number of every place of the classes' queues, pass by pass, all classes at once."""
        counts = self.class_counts
        image = np.empty(int(needed_C.sum()), dtype=np.int64)
        number_of = np.empty_like(image)
        before = np.full(len(self._members), -1)  # each member's place in the pass before, counted from its end
        for number in range(int((-(-needed_C // counts)).max())):
            live = np.flatnonzero(needed_C > number * counts)
            size = counts[live]
            offset = np.cumsum(size) - size
            member = np.repeat(self._class_start[live] - offset, size) + np.arange(int(size.sum()))
            # Images that are already in the group which straddles two passes go to the end of the new pass. A group longer
            # than a pass contains some images once more than the others: these stay last from pass to pass.
            begin = queue_start_C[live] + number * size
            phase = (begin - group_start[np.searchsorted(group_start, begin, side="right") - 1]) % size
            late = before[member] < np.repeat(phase, size) if number else np.zeros(len(member), dtype=bool)
            key = counter_rng.keys((self.seed, _IMAGE_PASS, epoch, number), member)
            order = np.lexsort((key, late, np.repeat(live, size)))
            rank = np.arange(len(member)) - np.repeat(offset, size)
            queue = member[order]
            before[queue] = np.repeat(size, size) - 1 - rank
            in_round = rank < np.repeat(needed_C[live] - number * size, size)
            position = (np.repeat(begin, size) + rank)[in_round]
            image[position], number_of[position] = self._members[queue[in_round]], number
        return image, number_of


def _keep_apart(order: np.ndarray, before: np.ndarray, count: int) -> np.ndarray:
    """``order`` with its first ``count`` classes not among ``before``, else in the order that it had."""
    if not np.isin(order[:count], before).any():
        return order
    free = order[~np.isin(order, before)]
    rest = order[~np.isin(order, free[:count])]
    return np.concatenate([free[:count], rest])
