"""Loss of distillation: each vector against the teacher's of the same image, and the cosines among the images of a batch.

The second part is relational distillation by similarities: which images are alike, and how much, is what a search by cosine
ranks by (relations within a batch: W. Park et al., Relational Knowledge Distillation, 2019; similarities of a batch:
F. Tung and G. Mori, Similarity-Preserving Knowledge Distillation, 2019).
Shape letters: N images, B images of a batch, D dimensions.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

# Weight of the squared differences of cosines beside one minus the cosine to the teacher.
RELATION_WEIGHT = 2.0


class DistillationLoss(nn.Module):
    """``1 - cos(vector, teacher's)``, averaged, plus a weight times the mean squared difference of the cosines of pairs.

    Args:
        targets_ND: the teacher's vector of every image, of length 1. It is in no checkpoint.
        relation_weight: weight of the second part.
    """

    targets_ND: Tensor

    def __init__(self, targets_ND: Tensor, relation_weight: float = RELATION_WEIGHT) -> None:
        super().__init__()
        self.relation_weight = relation_weight
        self.register_buffer("targets_ND", targets_ND.float(), persistent=False)

    def forward(self, vectors_BD: Tensor, index_B: Tensor) -> Tensor:
        """Compute the loss.

        Args:
            vectors_BD: the student's vectors, of any length.
            index_B: the row of each image's target.

        Returns:
            The loss, a scalar; the second part is 0 for a single image.
        """
        vectors_BD = nn.functional.normalize(vectors_BD)
        target_BD = self.targets_ND[index_B]
        loss = (1 - (vectors_BD * target_BD).sum(dim=1)).mean()
        count = len(index_B)
        if count < 2 or self.relation_weight == 0:
            return loss
        difference_BB = vectors_BD @ vectors_BD.T - target_BD @ target_BD.T
        off_diagonal_BB = ~torch.eye(count, dtype=torch.bool, device=difference_BB.device)
        squares = (difference_BB * off_diagonal_BB).square().sum() / (count * (count - 1))
        return loss + self.relation_weight * squares
