"""What a model is worth on held-out text, and what it writes."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from chargen_ort.sampling import Sampler, SamplingOptions
from chargen_ort.vocabulary import Vocabulary
from chargen_train.model import CharGRU
from chargen_train.split import Passages

_STEPS = 256  # in one call


def bits_per_char(nats: float) -> float:
    """Nats a character as bits a character."""
    return nats / math.log(2)


@dataclass(frozen=True)
class Losses:
    """What passages cost, in the order of the passages.

    Attributes:
        nats: of all predictions in each, ``[passages]``.
        predicted: how many characters those are, ``[passages]``.
    """

    nats: NDArray[np.float64]
    predicted: NDArray[np.int64]

    @property
    def mean(self) -> float:
        """Mean loss of a character, nats, whatever the tokens are."""
        return math.fsum(self.nats) / int(self.predicted.sum())


def mean_loss(model: CharGRU, passages: Passages) -> float:
    """Mean loss of a character in nats, each passage from a zero state."""
    return measure_losses(model, passages, lambda: False).mean


@torch.no_grad()
def measure_losses(model: CharGRU, passages: Passages, is_over: Callable[[], bool]) -> Losses:
    """The loss of as many passages as can be read before `is_over` says so.

    It is asked after every 16,384 tokens or so, the first of which are read in any case.
    """
    device = model.output.weight.device
    was_training = model.training
    model.eval()
    nats, read = np.zeros(len(passages)), np.zeros(len(passages), dtype=bool)
    for rows, inputs, targets in passages.batches():
        if read.any() and is_over():
            break
        hidden = model.zero_hidden(len(rows))
        for begin in range(0, inputs.shape[1], _STEPS):
            piece = slice(begin, begin + _STEPS)
            token, target = (as_tensor(each[:, piece], device) for each in (inputs, targets))
            logits, hidden = model(token, hidden)  # [rows, time, vocab_size]
            # what is predicted behind the end of a row costs nothing
            losses = F.cross_entropy(
                logits.flatten(0, 1).float(), target.flatten(), reduction="none"
            )
            hidden = hidden.float()
            nats[rows] += losses.view(target.shape).double().sum(dim=1).cpu().numpy()
        read[rows] = True
    model.train(was_training)
    return Losses(nats[read], passages.characters[read])


def sample_text(
    model: CharGRU, vocabulary: Vocabulary, start: str, length: int, options: SamplingOptions
) -> str:
    """The text of `length` tokens that the model writes after `start` (not included)."""
    return sample_texts(model, vocabulary, start, length, [options])[0]


@torch.no_grad()
def sample_texts(
    model: CharGRU,
    vocabulary: Vocabulary,
    start: str,
    length: int,
    options: Sequence[SamplingOptions],
) -> list[str]:
    """The same for several options at once: one text for each.

    Where texts have an end, one begins after the other, each on a line of its own.
    """
    was_training = model.training
    model.eval()
    samplers = [Sampler(each, len(vocabulary)) for each in options]
    rows, end = len(samplers), vocabulary.end_token
    device = model.output.weight.device
    read = vocabulary.encode(start) if end is None else np.append(end, vocabulary.encode(start))
    token = as_tensor(np.tile(read, (rows, 1)), device)  # [rows, time]
    hidden = model.zero_hidden(rows)
    tokens = np.zeros((length, rows), dtype=np.int64)
    for time in range(length):
        logits, hidden = model(token, hidden)
        last = logits[:, -1].float().cpu().numpy()  # [rows, vocab_size]
        for row, sampler in enumerate(samplers):
            tokens[time, row] = sampler.sample(last[row : row + 1])[0]
            if tokens[time, row] == end:
                hidden[row] = 0
        token = as_tensor(tokens[time, :, None], device)  # [rows, 1]
    model.train(was_training)
    return [_lines(vocabulary, row) for row in tokens.T]


def _lines(vocabulary: Vocabulary, tokens: NDArray[np.int64]) -> str:
    """The text of tokens, with a line end in place of each end token."""
    ends = np.flatnonzero(tokens == (-1 if vocabulary.end_token is None else vocabulary.end_token))
    return "\n".join(vocabulary.decode(text) for text in np.split(tokens, ends))


def as_tensor(tokens: NDArray[np.integer], device: torch.device) -> Tensor:
    """Tokens as an int64 tensor of the same shape."""
    return torch.from_numpy(np.ascontiguousarray(tokens, dtype=np.int64)).to(device)
