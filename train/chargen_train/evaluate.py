"""What a model is worth on held-out text, and what it writes."""

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from chargen_ort.sampling import Sampler, SamplingOptions
from chargen_ort.scoring import window_rows
from chargen_ort.vocabulary import Vocabulary
from chargen_train.model import CharGRU

WINDOW = 256  # characters, each window from a zero state: the protocol P1


def bits_per_char(nats: float) -> float:
    """Nats a character as bits a character."""
    return nats / math.log(2)


def mean_loss(model: CharGRU, tokens: NDArray[np.unsignedinteger], window: int = WINDOW) -> float:
    """Mean loss in nats over consecutive windows, each from a zero state (protocol P1).

    Each window feeds `window` characters and predicts the character after each; the last may be
    shorter. So every character but the first is predicted once.
    """
    return mean_loss_until(model, tokens, lambda: False, window)[0]


@torch.no_grad()
def mean_loss_until(
    model: CharGRU,
    tokens: NDArray[np.unsignedinteger],
    is_over: Callable[[], bool],
    window: int = WINDOW,
) -> tuple[float, int]:
    """`mean_loss` of as much of the text as can be read before `is_over` says so.

    It is asked every 64 windows, the first of which are read in any case.

    Returns:
        the mean loss, and how many characters of `tokens` it is of.
    """
    device = model.output.weight.device
    was_training = model.training
    model.eval()
    total, read = 0.0, 0
    for inputs, targets in window_rows(tokens, window):
        if read and is_over():
            break
        token, target = as_tensor(inputs, device), as_tensor(targets, device)  # [rows, width]
        logits, _ = model(token, model.zero_hidden(len(token)))  # [rows, width, vocab_size]
        losses = F.cross_entropy(logits.flatten(0, 1).float(), target.flatten(), reduction="sum")
        total, read = total + losses.item(), read + target.numel()
    model.train(was_training)
    return total / read, read + 1


def sample_text(
    model: CharGRU, vocabulary: Vocabulary, start: str, length: int, options: SamplingOptions
) -> str:
    """`length` characters that the model writes after `start` (not included)."""
    return sample_texts(model, vocabulary, start, length, [options])[0]


@torch.no_grad()
def sample_texts(
    model: CharGRU,
    vocabulary: Vocabulary,
    start: str,
    length: int,
    options: Sequence[SamplingOptions],
) -> list[str]:
    """The same for several options at once: one text for each."""
    was_training = model.training
    model.eval()
    samplers = [Sampler(each, len(vocabulary)) for each in options]
    rows = len(samplers)
    device = model.output.weight.device
    token = as_tensor(np.tile(vocabulary.encode(start), (rows, 1)), device)  # [rows, time]
    hidden = model.zero_hidden(rows)
    tokens = np.zeros((length, rows), dtype=np.int64)
    for time in range(length):
        logits, hidden = model(token, hidden)
        last = logits[:, -1].float().cpu().numpy()  # [rows, vocab_size]
        for row, sampler in enumerate(samplers):
            tokens[time, row] = sampler.sample(last[row : row + 1])[0]
        token = as_tensor(tokens[time, :, None], device)  # [rows, 1]
    model.train(was_training)
    return [vocabulary.decode(row) for row in tokens.T]


def as_tensor(tokens: NDArray[np.integer], device: torch.device) -> Tensor:
    """Tokens as an int64 tensor of the same shape."""
    return torch.from_numpy(np.ascontiguousarray(tokens, dtype=np.int64)).to(device)
