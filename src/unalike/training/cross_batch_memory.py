"""Cross-batch memory: each batch is compared with the vectors of batches before it, by a loss of pairs or triplets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pytorch_metric_learning import losses

from unalike.errors import SpecError

if TYPE_CHECKING:
    from unalike.spec.train import Train


class CrossBatchMemory(losses.CrossBatchMemory):  # type: ignore[misc]
    """The library's cross-batch memory, whose place in the ring of vectors is saved with them.

    Each batch is compared with the last vectors of the batches before it, and with its own (X. Wang et al., Cross-Batch Memory
    for Embedding Learning, CVPR 2020).

    Args:
        loss: a loss of pairs or triplets.
        embedding_size: width D of the vectors.
        memory_size: number of vectors kept.
        miner: chooses pairs or triplets of batch and memory; None for all.
    """

    def get_extra_state(self) -> dict[str, Any]:
        """The place of the next vector, and whether all places are taken."""
        return {"queue_idx": self.queue_idx, "has_been_filled": self.has_been_filled}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Take the place over from a saved state."""
        self.queue_idx, self.has_been_filled = int(state["queue_idx"]), bool(state["has_been_filled"])


def check_memory(train: Train, memory_size: int) -> None:
    """Refuse a memory with a loss that compares no pairs, and one that does not hold a whole batch of all processes.

    Args:
        train: the settled section of the spec.
        memory_size: ``train.loss.memory_size``, which is set.

    Raises:
        SpecError: the loss has no use for a memory, or the memory is too small.
    """
    supported = CrossBatchMemory.supported_losses()
    if train.loss.name not in supported:
        raise SpecError(f"train.loss.memory_size is set and train.loss.name is {train.loss.name}",
                        expected="a loss of pairs or triplets: " + ", ".join(supported), remedy="remove train.loss.memory_size")  # fmt: skip
    batch = train.batch_size * (train.num_gpus * train.num_nodes if train.max_gather else 1)
    if memory_size < batch:
        raise SpecError(f"train.loss.memory_size is {memory_size}",
                        expected=f"at least {batch}, the images of a batch of all processes")  # fmt: skip
