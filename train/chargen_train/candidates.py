"""A loss that looks at a part of a large vocabulary: sampled softmax.

Of thousands of tokens a step learns from a few hundred, and the logits of all the others would cost
several times as much as the network that makes them. So a step compares with its own targets and
with some tokens drawn at random, each weighted by how seldom it is among them: what the softmax
divides by is then right on average (Jean et al. 2015, "On using very large target vocabulary for
neural machine translation"). Measuring and writing always look at the whole vocabulary.
"""

from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from chargen_train.windows import Among, Batch

LARGE = 2048  # tokens from which on a part of them is looked at; of fewer all cost little
_DRAWN = 512  # tokens at random, on average


class Candidates:
    """Chooses the tokens that a batch is compared with.

    Args:
        counts: how often each token stands in the text, ``[vocab_size]``.
        targets: of a batch.
    """

    def __init__(self, counts: NDArray[np.int64], targets: int) -> None:
        share = torch.from_numpy(counts / max(1, counts.sum()))
        self._drawn = min(1.0, _DRAWN / len(counts))
        absent = (1 - share) ** targets * (1 - self._drawn)
        self._log_chance = (1 - absent).log().float()  # [vocab_size]

    def narrow(self, batch: Batch) -> Batch:
        """`batch` with candidates, and its targets as places among them.

        Drawn by PyTorch's generator of the CPU, so that a run that is resumed draws what it would.
        """
        device = batch.target.device
        target = batch.target.cpu()
        learnt = target >= 0
        chosen = torch.rand(len(self._log_chance)) < self._drawn  # [vocab_size]
        chosen[target[learnt]] = True
        tokens = chosen.nonzero()[:, 0]  # [candidates]
        place = chosen.cumsum(0) - 1  # [vocab_size]
        return replace(
            batch,
            target=torch.where(learnt, place[target.clamp(min=0)], target).to(device),
            among=Among(tokens.to(device), self._log_chance[tokens].to(device)),
        )


def weighted(logits: Tensor, target: Tensor, among: Among) -> Tensor:
    """Logits of a batch's candidates, whose softmax is about what it is among all tokens.

    Each counts for as many as it stands for; a target is there for certain where it is due.

    Args:
        logits: float32 ``[batch, time, candidates]``.
        target: the batch's, ``[batch, time]``.
        among: the candidates.
    """
    own = target.clamp(min=0)[..., None]  # [batch, time, 1]
    return (logits - among.log_chance).scatter(-1, own, logits.gather(-1, own))
