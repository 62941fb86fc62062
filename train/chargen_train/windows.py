"""Batches for truncated back-propagation through time."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from chargen_ort.errors import OptionError
from chargen_train.evaluate import as_tensor
from chargen_train.recipe import Recipe


@dataclass(frozen=True)
class Batch:
    """One window of each row.

    Attributes:
        token, target: int64 ``[batch, time]``.
        keep: ``[batch, 1, 1]``, 0 where a row begins anew, else 1.
        starts: where in the text each row's window begins, ``[batch]``.
    """

    token: Tensor
    target: Tensor
    keep: Tensor
    starts: NDArray[np.int64]


class Windows:
    """Yields windows of a text, and says which rows begin anew.

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

    @property
    def _used(self) -> int:
        """Characters that a stateful pass reads."""
        return self._batch * self._time * self._per_pass + 1

    def next(self) -> Batch:
        """The next window of each row."""
        batch, time = self._batch, self._time
        if not self._stateful:
            starts = self._rng.integers(0, len(self._tokens) - time, batch)
            return self._batch_at(starts, np.zeros(batch, dtype=np.float32))
        if self._index % self._per_pass == 0:
            self._offset = int(self._rng.integers(0, len(self._tokens) - self._used + 1))
            keep = np.zeros(batch, dtype=np.float32)
        else:
            keep = (self._rng.random(batch) >= self._reset).astype(np.float32)
        begin = self._index % self._per_pass * time
        starts = self._offset + np.arange(batch) * (self._per_pass * time) + begin
        self._index += 1
        return self._batch_at(starts, keep)

    def state(self) -> dict[str, Any]:
        """Where it stands, ready for JSON: `load` makes the same windows follow."""
        return {
            "index": self._index,
            "offset": self._offset,
            "generator": self._rng.bit_generator.state,
        }

    def load(self, state: Mapping[str, Any]) -> None:
        """Go on where `state` was taken, on the same text with the same recipe.

        Raises:
            OptionError: it was taken elsewhere: the text is too short for it.
        """
        room = len(self._tokens) - (self._used if self._stateful else self._time + 1)
        if not 0 <= state["offset"] <= room:
            raise OptionError(
                f"the run read {self._batch} windows of {self._time} characters at once from "
                f"{state['offset']:,} on, which the text of {len(self._tokens):,} does not have; "
                "train anew"
            )
        self._index, self._offset = state["index"], state["offset"]
        self._rng.bit_generator.state = state["generator"]

    def _batch_at(self, starts: NDArray[np.int64], keep: NDArray[np.float32]) -> Batch:
        window = np.stack([self._tokens[s : s + self._time + 1] for s in starts])
        tokens = as_tensor(window, self._device)  # [batch, time + 1]
        rows = torch.from_numpy(keep).to(self._device)[:, None, None]  # [batch, 1, 1]
        return Batch(tokens[:, :-1], tokens[:, 1:], rows, starts)
