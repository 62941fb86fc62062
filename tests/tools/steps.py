"""Steps to compare: sizes, what is fed, and PyTorch's account of what comes out."""

from collections.abc import Iterable

import numpy as np
import torch
from numpy.typing import NDArray

from chargen_train.model import CharGRU

# vocab_size, embedding_dim, hidden_size, num_layers, batch, time
SHAPES = [
    (2, 1, 8, 1, 1, 1),
    (2, 4, 8, 3, 8, 64),
    (29, 16, 32, 1, 1, 64),
    (29, 16, 32, 2, 3, 5),
    (65, 8, 33, 1, 2, 17),
    (65, 64, 128, 3, 4, 16),
    (100, 32, 256, 2, 8, 8),
    (100, 64, 512, 1, 2, 64),
    (65, 64, 512, 2, 1, 32),
    (65, 64, 512, 3, 8, 4),
    (5000, 32, 64, 1, 2, 16),
    (5000, 16, 512, 2, 1, 3),
]


def inputs(
    model: CharGRU, batch: int, time: int, seed: int = 0
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Tokens ``[batch, time]`` and a hidden state ``[batch, num_layers, hidden_size]``."""
    rng = np.random.default_rng(seed)
    token = rng.integers(0, model.vocab_size, (batch, time))
    hidden = rng.standard_normal((batch, model.num_layers, model.hidden_size), dtype=np.float32)
    return token, np.clip(hidden, -1, 1)


def by_torch(
    model: CharGRU, token: NDArray[np.int64], hidden: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Logits ``[batch, time, vocab_size]`` and the next hidden state, by PyTorch."""
    with torch.no_grad():
        logits, next_hidden = model(torch.from_numpy(token), torch.from_numpy(hidden))
    return logits.numpy(), next_hidden.numpy()


def assert_same(
    ours: Iterable[NDArray[np.float32]],
    theirs: Iterable[NDArray[np.float32]],
    tolerance: float = 1e-5,
) -> None:
    """The arrays have the same shapes, and the same numbers within `tolerance`."""
    for a, b in zip(ours, theirs, strict=True):
        assert a.shape == b.shape
        np.testing.assert_allclose(a, b, rtol=0, atol=tolerance)
