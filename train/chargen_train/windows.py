"""Batches for truncated back-propagation through time."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from chargen_ort.errors import OptionError
from chargen_train.evaluate import as_tensor
from chargen_train.recipe import SEGMENT, Recipe
from chargen_train.split import Part, Ranges, Tokens, padded

_POOL = 64  # batches of documents that are made at once, sorted by length


@dataclass(frozen=True)
class Batch:
    """One window of each row.

    Attributes:
        token, target: int64 ``[batch, time]``; a target of -100 is behind the end of a document.
        keep: ``[batch, 1, 1]``, 0 where a row begins anew, else 1.
        starts: where in the text each row's window begins, ``[batch]``.
    """

    token: Tensor
    target: Tensor
    keep: Tensor
    starts: NDArray[np.int64]


class BatchSource(Protocol):
    """Gives the batches of a run."""

    @property
    def per_epoch(self) -> float:
        """Steps in which as many characters are read as there are to train on."""

    @property
    def characters_per_step(self) -> float:
        """Characters that a step reads, ends included, on average."""

    def next(self) -> Batch:
        """The next window of each row."""

    def state(self) -> dict[str, Any]:
        """Where it stands, ready for JSON: `load` makes the same windows follow."""

    def load(self, state: Mapping[str, Any]) -> None:
        """Go on where `state` was taken, on the same text with the same recipe.

        Raises:
            OptionError: it was taken elsewhere.
        """


def batches_of(part: Part, recipe: Recipe, device: torch.device) -> BatchSource:
    """What gives the batches of a part of a corpus: documents, or windows of running text."""
    if part.documents:
        return DocumentWindows(part, recipe, device)
    return Windows(part, recipe, device)


class Windows:
    """Yields windows of a text, and says which rows begin anew.

    Stateful: the text is cut into `batch_size` columns that are read on from window to window,
    each pass from another random offset, so that windows fall differently every time. Random: each
    window is anywhere and begins anew.
    """

    def __init__(self, tokens: Part | Tokens, recipe: Recipe, device: torch.device):
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
    def characters_per_step(self) -> float:
        """Characters that a step reads."""
        return self._batch * self._time

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


class DocumentWindows:
    """Yields documents side by side, each from its beginning, shuffled anew each epoch.

    A pool of batches is filled with documents at random, which are then sorted by length, so that
    those of a batch end at about the same time; the batches come in random order. Documents that
    are longer than a window are read on from window to window, and one that is longer than
    `SEGMENT` counts as several, of which the later ones begin in its middle.

    All of it follows from the seed and the number of the epoch.
    """

    def __init__(self, part: Part, recipe: Recipe, device: torch.device) -> None:
        self._tokens = part.tokens
        self._segments = _segments(part.ranges)
        self._batch, self._time = recipe.batch_size, recipe.seq_length
        self._seed, self._device = recipe.seed, device
        self._characters = len(part)
        self._epoch = self._index = self._offset = 0  # the batch that is read, and how far
        self._order = self._shuffled(0)

    def _shuffled(self, epoch: int) -> NDArray[np.int64]:
        """Numbers of the segments of each batch of an epoch, ``[batches, rows]``."""
        rng = np.random.default_rng([self._seed, epoch])
        sizes = self._segments[:, 1] - self._segments[:, 0]
        order = rng.permutation(len(sizes))[: len(sizes) // self._batch * self._batch]
        if not len(order):  # fewer than a batch has rows
            order = np.resize(rng.permutation(len(sizes)), self._batch)
        for begin in range(0, len(order), _POOL * self._batch):
            pool = order[begin : begin + _POOL * self._batch]
            by_size = pool[np.argsort(sizes[pool], kind="stable")].reshape(-1, self._batch)
            pool[:] = by_size[rng.permutation(len(by_size))].ravel()
        return order.reshape(-1, self._batch)

    @cached_property
    def _first_epoch(self) -> tuple[int, int, int]:
        """Of the first epoch: steps, tokens that are predicted, and tokens with padding."""
        sizes = (self._segments[:, 1] - self._segments[:, 0])[self._shuffled(0)]
        longest = sizes.max(axis=1)
        steps = int((-(-longest // self._time)).sum())
        return steps, int(sizes.sum()), int(longest.sum()) * self._batch

    @property
    def per_epoch(self) -> float:
        """Steps in which as many characters are read as there are to train on."""
        return max(1.0, self._characters / self.characters_per_step)

    @property
    def characters_per_step(self) -> float:
        """Characters that a step reads, ends included, on average."""
        steps, predicted, _ = self._first_epoch
        return predicted / steps

    @property
    def padding(self) -> float:
        """Share of what is computed that is behind the end of a document."""
        _, predicted, computed = self._first_epoch
        return 1 - predicted / computed

    def next(self) -> Batch:
        """The next window of the documents of a batch, or the first of the next batch."""
        ranges = self._segments[self._order[self._index]]
        longest = int((ranges[:, 1] - ranges[:, 0]).max())
        offset = self._offset
        window = ranges + np.array([offset, 0])
        window[:, 1] = np.minimum(window[:, 1], window[:, 0] + self._time)
        tokens, targets = padded(self._tokens, window)
        keep = torch.full((len(ranges), 1, 1), float(offset > 0), device=self._device)
        self._offset += self._time
        if self._offset >= longest:
            self._offset, self._index = 0, self._index + 1
        if self._index == len(self._order):
            self._index, self._epoch = 0, self._epoch + 1
            self._order = self._shuffled(self._epoch)
        device = self._device
        return Batch(as_tensor(tokens, device), as_tensor(targets, device), keep, window[:, 0] - 1)

    def state(self) -> dict[str, Any]:
        """Where it stands, ready for JSON: `load` makes the same windows follow."""
        return {"epoch": self._epoch, "index": self._index, "offset": self._offset}

    def load(self, state: Mapping[str, Any]) -> None:
        """Go on where `state` was taken, on the same text with the same recipe.

        Raises:
            OptionError: it was taken elsewhere: there is no such batch.
        """
        order = self._shuffled(state["epoch"])
        index, offset = state["index"], state["offset"]
        inside = index < len(order)
        if inside:
            ranges = self._segments[order[index]]
            inside = offset % self._time == 0 and offset < (ranges[:, 1] - ranges[:, 0]).max()
        if not inside:
            raise OptionError(
                f"the run was {offset:,} characters into batch {index:,}, which its "
                f"{len(self._segments):,} documents do not have; train anew"
            )
        self._epoch, self._index, self._offset = state["epoch"], index, offset
        self._order = order


def _segments(ranges: Ranges) -> Ranges:
    """Documents, and the parts of at most `SEGMENT` tokens of those that are longer."""
    parts = -(-(ranges[:, 1] - ranges[:, 0]) // SEGMENT)
    if len(parts) and parts.max() == 1:
        return ranges
    begins = np.repeat(ranges[:, 0], parts)
    rank = np.arange(len(begins)) - np.repeat(np.cumsum(parts) - parts, parts)
    begins = begins + rank * SEGMENT
    return np.stack([begins, np.minimum(begins + SEGMENT, np.repeat(ranges[:, 1], parts))], axis=1)
