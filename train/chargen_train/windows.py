"""Batches for truncated back-propagation through time."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from chargen_ort.errors import OptionError
from chargen_train.evaluate import as_tensor
from chargen_train.ids import give_back
from chargen_train.recipe import Recipe
from chargen_train.split import Part, Tokens

_GIVEN_BACK = 32  # batches: of each row the system may have read 64 kB around what was asked for


@dataclass(frozen=True)
class Among:
    """The tokens that alone are looked at in a batch, its candidates.

    Attributes:
        tokens: int64 ``[candidates]``, rising.
        log_chance: float32 ``[candidates]``, of how likely each was to be among them.
    """

    tokens: Tensor
    log_chance: Tensor


@dataclass(frozen=True)
class Batch:
    """One window of each row.

    Attributes:
        token, target: int64 ``[batch, time]``; a target of -100 is not learnt from. Where there are
            candidates, targets are places among them.
        keep: ``[batch, 1, 1]``, 0 where a row begins anew, else 1.
        places: where in the part each target stands, ``[batch, time]``.
        begins: bool ``[batch, time]``, where a document begins; None is nowhere.
        predicted: targets that are learnt from in the rows of all processes; 0 where one has them
            all.
        among: the candidates; None is all tokens.
    """

    token: Tensor
    target: Tensor
    keep: Tensor
    places: NDArray[np.int64]
    begins: Tensor | None = None
    predicted: int = 0
    among: Among | None = None

    def part(self, rows: slice) -> "Batch":
        """Some of its rows."""
        return replace(
            self,
            token=self.token[rows],
            target=self.target[rows],
            keep=self.keep[rows],
            places=self.places[rows],
            begins=None if self.begins is None else self.begins[rows],
            predicted=int((self.target != -100).sum()),
        )


class BatchSource(Protocol):
    """Gives the batches of a run."""

    @property
    def per_epoch(self) -> float:
        """Steps in which as many characters are read as there are to train on."""

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
        self._index = self._read = 0
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
        self._read = _give_back_at_times(self._tokens, self._read)
        window = np.stack([self._tokens[s : s + self._time + 1] for s in starts])
        tokens = as_tensor(window, self._device)  # [batch, time + 1]
        rows = torch.from_numpy(keep).to(self._device)[:, None, None]  # [batch, 1, 1]
        places = starts[:, None] + np.arange(1, self._time + 1)  # [batch, time]
        return Batch(tokens[:, :-1], tokens[:, 1:], rows, places)


def _give_back_at_times(tokens: Part | Tokens, read: int) -> int:
    """Give back, now and then, the memory of what was read; returns how many batches that was."""
    if read < _GIVEN_BACK:
        return read + 1
    give_back(tokens.tokens if isinstance(tokens, Part) else tokens)
    return 0


class DocumentWindows:
    """Yields windows of documents, shuffled anew each epoch, each document from a zero state.

    The documents are joined in their order to one text, which is cut into `batch_size` columns that
    are read on from window to window. So no step is lost on documents of unlike lengths. What a
    column begins with, in the middle of a document, is read and not learnt from.
    """

    def __init__(self, part: Part, recipe: Recipe, device: torch.device) -> None:
        self._part, self._end = part, int(part.tokens[part.ranges[0, 0] - 1])
        self._batch, self._time = recipe.batch_size, recipe.seq_length
        self._seed, self._device = recipe.seed, device
        self._per_pass = max(1, len(part) // (self._batch * self._time))
        self._index = self._read = 0
        self._begin(0)

    def _begin(self, epoch: int) -> None:
        """Take the documents in the order of an epoch, from its number and the seed."""
        order = np.random.default_rng([self._seed, epoch]).permutation(len(self._part.ranges))
        self._text = Part(self._part.tokens, self._part.ranges[order], self._part.documents)
        self._moved = self._part.edges[order] - self._text.edges[:-1]  # [documents]

    def _places(self, joined: NDArray[np.int64]) -> NDArray[np.int64]:
        """Where in the part stands what stands at `joined` in the text of this epoch."""
        joined = joined % len(self._part)
        document = np.searchsorted(self._text.edges, joined, side="right") - 1
        return joined + self._moved[document]

    @property
    def per_epoch(self) -> float:
        """Steps in which as many characters are read as there are to train on."""
        return max(1.0, len(self._part) / (self._batch * self._time))

    @property
    def lost(self) -> float:
        """Share of the steps of this epoch that are read and not learnt from."""
        starts = np.arange(self._batch) * (self._per_pass * self._time)
        tokens = self._text.take(np.add.outer(starts, np.arange(-1, self._time - 1)))
        before = np.cumsum(tokens == self._end, axis=1) == 0
        return float(before.sum()) / (self._batch * self._per_pass * self._time)

    def next(self) -> Batch:
        """The next window of each column."""
        self._read = _give_back_at_times(self._part, self._read)
        epoch, window = divmod(self._index, self._per_pass)
        if window == 0:
            self._begin(epoch)
        starts = np.arange(self._batch) * (self._per_pass * self._time) + window * self._time
        # from the end token on that stands before the first document, as it does behind the last
        tokens = self._text.take(np.add.outer(starts, np.arange(-1, self._time)))
        begins = tokens[:, :-1] == self._end
        targets = tokens[:, 1:].astype(np.int64)
        if window == 0:
            targets[np.cumsum(begins, axis=1) == 0] = -100
        places = self._places(np.add.outer(starts, np.arange(self._time)))
        self._index += 1
        device = self._device
        return Batch(
            as_tensor(tokens[:, :-1], device),
            as_tensor(targets, device),
            torch.full((self._batch, 1, 1), float(window > 0), device=device),
            places,
            torch.from_numpy(begins).to(device),
        )

    def state(self) -> dict[str, Any]:
        """Where it stands, ready for JSON: `load` makes the same windows follow."""
        return {"index": self._index}

    def load(self, state: Mapping[str, Any]) -> None:
        """Go on where `state` was taken, on the same text with the same recipe."""
        self._index = state["index"]
        self._begin(self._index // self._per_pass)
