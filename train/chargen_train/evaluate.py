"""What a model is worth on held-out text, and what it writes."""

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from chargen_ort.sampling import Sampler, SamplingOptions
from chargen_ort.vocabulary import Vocabulary
from chargen_train.model import CharGRU

WINDOW = 256  # characters, each window from a zero state: the protocol P1
_ROWS = 64


def bits_per_char(nats: float) -> float:
    """Nats a character as bits a character."""
    return nats / math.log(2)


@torch.no_grad()
def mean_loss(model: CharGRU, tokens: NDArray[np.unsignedinteger], window: int = WINDOW) -> float:
    """Mean loss in nats over consecutive windows, each from a zero state (protocol P1).

    Each window feeds `window` characters and predicts the character after each; the last may be
    shorter. So every character but the first is predicted once.
    """
    device = model.output.weight.device
    was_training = model.training
    model.eval()
    inputs, targets = tokens[:-1], tokens[1:]
    whole = len(inputs) // window * window
    total = 0.0
    parts = [
        (
            inputs[begin : min(begin + _ROWS * window, whole)].reshape(-1, window),
            targets[begin : min(begin + _ROWS * window, whole)].reshape(-1, window),
        )
        for begin in range(0, whole, _ROWS * window)
    ]
    if whole < len(inputs):
        parts.append((inputs[None, whole:], targets[None, whole:]))
    for x, y in parts:
        token = as_tensor(x, device)  # [rows, window]
        logits, _ = model(token, model.zero_hidden(len(x)))  # [rows, window, vocab_size]
        loss = F.cross_entropy(
            logits.flatten(0, 1).float(), as_tensor(y, device).flatten(), reduction="sum"
        )
        total += loss.item()
    model.train(was_training)
    return total / len(inputs)


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
