"""Batches for truncated back-propagation through time."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from chargen_train.evaluate import as_tensor
from chargen_train.recipe import Recipe


class Windows:
    """Yields (token, target), int64 ``[batch, time]`` each, and says which rows begin anew.

    Stateful: the text is cut into `batch_size` columns that are read on from window to window,
    each pass from another random offset, so that windows fall differently every time. Random: each
    window is anywhere and begins anew.
    """

    def __init__(self, tokens: NDArray[np.unsignedinteger], recipe: Recipe, device: torch.device):
        self._tokens = tokens
        self._batch, self._time = recipe.batch_size, recipe.seq_length
        self._stateful = recipe.windows == "stateful"
        self._reset = recipe.reset
        self._device = device
        self._rng = np.random.default_rng(recipe.seed)
        # one window less than would fit, where that leaves any, gives the offset room to move
        fitting = (len(tokens) - 1) // (self._batch * self._time)
        self._per_pass = max(1, fitting - 1)
        self._index = 0
        self._offset = 0  # where this pass begins

    @property
    def per_epoch(self) -> float:
        """Steps in which as many characters are read as the text has."""
        return max(1.0, len(self._tokens) / (self._batch * self._time))

    def next(self) -> tuple[Tensor, Tensor, Tensor]:
        """Token and target ``[batch, time]``, and keep ``[batch, 1, 1]``: 0 where a row begins."""
        batch, time = self._batch, self._time
        if not self._stateful:
            begins = self._rng.integers(0, len(self._tokens) - time, batch)
            window = np.stack([self._tokens[b : b + time + 1] for b in begins])  # [batch, time + 1]
            return self._tensors(window, np.zeros(batch, dtype=np.float32))
        if self._index % self._per_pass == 0:
            used = batch * time * self._per_pass + 1
            self._offset = int(self._rng.integers(0, len(self._tokens) - used + 1))
            keep = np.zeros(batch, dtype=np.float32)
        else:
            keep = (self._rng.random(batch) >= self._reset).astype(np.float32)
        begin = self._index % self._per_pass * time
        starts = self._offset + np.arange(batch) * (self._per_pass * time) + begin
        window = np.stack([self._tokens[s : s + time + 1] for s in starts])  # [batch, time + 1]
        self._index += 1
        return self._tensors(window, keep)

    def state(self) -> dict[str, Any]:
        """Where it stands, ready for JSON: `restore` makes the same windows follow."""
        return {
            "index": self._index,
            "offset": self._offset,
            "generator": self._rng.bit_generator.state,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on where `state` was taken, on the same text with the same recipe."""
        self._index, self._offset = state["index"], state["offset"]
        self._rng.bit_generator.state = state["generator"]

    def _tensors(
        self, window: NDArray[np.unsignedinteger], keep: NDArray[np.float32]
    ) -> tuple[Tensor, Tensor, Tensor]:
        tokens = as_tensor(window, self._device)
        return tokens[:, :-1], tokens[:, 1:], torch.from_numpy(keep).to(self._device)[:, None, None]
