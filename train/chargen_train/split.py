"""Which part of a corpus trains a model and which measures it."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from chargen_train.ids import Tokens as Tokens
from chargen_train.ids import gather, give_back
from chargen_train.ranges import Ranges, document_ranges

HELD_OUT = 0.1  # of the documents, or of the characters of running text
BLOCKS = 20  # that running text is held out in
WINDOW = 256  # characters, each window from a zero state: the protocol P1
_AREA = 1 << 14  # tokens, padding included, that are read side by side
_READ = 1 << 20  # tokens at a time


@dataclass(frozen=True)
class Passages:
    """Texts that are measured, each from a zero state.

    Attributes:
        tokens: of the corpus, ``[tokens]``.
        ranges: what is predicted in each, ``[passages, 2]``; read is the token before each of them.
        widths: how many characters each token counts for, ``[vocab_size]``; None is one each.
    """

    tokens: Tokens
    ranges: Ranges
    widths: NDArray[np.int64] | None = None

    @classmethod
    def of(cls, tokens: Tokens, window: int = WINDOW) -> "Passages":
        """Consecutive windows of a running text."""
        return Part.of(tokens).passages(window)

    def __len__(self) -> int:
        return len(self.ranges)

    @cached_property
    def sizes(self) -> NDArray[np.int64]:
        """How many tokens are predicted in each, ``[passages]``."""
        return np.asarray(self.ranges[:, 1] - self.ranges[:, 0])

    @property
    def predicted(self) -> int:
        """Tokens that are predicted in all of them."""
        return int(self.sizes.sum())

    @cached_property
    def characters(self) -> NDArray[np.int64]:
        """How many characters the predicted tokens of each count for, ``[passages]``."""
        if self.widths is None:
            return self.sizes
        return np.array(
            [self.widths[self.tokens[begin:end]].sum() for begin, end in self.ranges.tolist()],
            dtype=np.int64,
        )

    def head(self, predicted: int) -> "Passages":
        """The first of them, at least one, in which at most so many tokens are predicted."""
        count = int(np.searchsorted(np.cumsum(self.sizes), predicted, side="right"))
        return Passages(self.tokens, self.ranges[: max(1, count)], self.widths)

    def batches(self) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]]:
        """Passages side by side, those of like length together, in about their order.

        Yields:
            their numbers ``[rows]``, what is read and what is predicted, ``[rows, time]`` each;
            -100 is predicted where a row has ended.
        """
        edges = np.searchsorted(np.cumsum(self.sizes), np.arange(0, self.predicted, _AREA))
        for begin, end in zip(edges, [*edges[1:], len(self)], strict=True):
            order = begin + np.argsort(self.sizes[begin:end], kind="stable")
            while len(order):
                # the longest, at the end, says how many fit beside it
                rows = order[-max(1, _AREA // int(self.sizes[order[-1]])) :]
                order = order[: -len(rows)]
                yield rows, *padded(self.tokens, self.ranges[rows])
                give_back(self.tokens)


def padded(tokens: Tokens, ranges: Ranges) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """What is read and what is predicted in `ranges`, ``[rows, longest]``; -100 behind the end."""
    sizes = ranges[:, 1] - ranges[:, 0]
    at = ranges[:, :1] + np.arange(sizes.max())  # [rows, longest]
    inside = at < ranges[:, 1:]
    at = np.where(inside, at, 1)
    return tokens[at - 1].astype(np.int64), np.where(inside, tokens[at].astype(np.int64), -100)


@dataclass(frozen=True)
class Part:
    """A part of a corpus: ranges of its tokens, read as if one followed the other.

    Attributes:
        tokens: of the corpus, ``[tokens]``.
        ranges: ``[ranges, 2]``. Where there are documents, each is one with its end token, and
            before it stands one; of a long list, each may be several that follow each other.
        documents: how many documents it has; 0 of running text.
        widths: how many characters each token counts for, an end token one, ``[vocab_size]``; None
            is one each.
    """

    tokens: Tokens
    ranges: Ranges
    documents: int = 0
    widths: NDArray[np.int64] | None = None

    @classmethod
    def of(cls, tokens: Tokens) -> "Part":
        """All of a running text."""
        return cls(tokens, np.array([[0, len(tokens)]]))

    @cached_property
    def edges(self) -> NDArray[np.int64]:
        """Where in the part each range begins, and its end, ``[ranges + 1]``."""
        return np.concatenate([[0], np.cumsum(self.ranges[:, 1] - self.ranges[:, 0])])

    def __len__(self) -> int:
        return int(self.edges[-1])

    @cached_property
    def width(self) -> int:
        """How many characters its tokens count for."""
        if self.widths is None:
            return len(self)
        pieces = (self[begin : begin + _READ] for begin in range(0, len(self), _READ))
        return sum(int(self.widths[piece].sum()) for piece in pieces)

    @property
    def characters(self) -> int:
        """Its characters without the ends of documents."""
        return self.width - self.documents

    def head(self, length: int) -> "Part":
        """Its first tokens, and the rest of the document in which they end."""
        ranges = self._first(length).copy()
        if self.documents:
            return Part(self.tokens, ranges, len(ranges), self.widths)
        over = max(0, int(self.edges[len(ranges)]) - length)
        ranges[-1, 1] -= over
        return Part(self.tokens, ranges, 0, self.widths)

    def _first(self, length: int) -> Ranges:
        """The ranges in which its first tokens stand; each of them is a document, if it has any."""
        ranges = self.ranges[: max(1, int(np.searchsorted(self.edges, length)))]
        if not self.documents or len(self.ranges) == self.documents:
            return ranges
        ranges = self._singled(ranges)
        before = np.cumsum(ranges[:, 1] - ranges[:, 0])
        return ranges[: max(1, 1 + int(np.searchsorted(before, length)))]

    def _singled(self, ranges: Ranges) -> Ranges:
        """The documents in some of its ranges, each by itself."""
        end = int(self.tokens[ranges[0, 0] - 1])
        parts = [
            document_ranges(self.tokens[begin - 1 : close], end) + begin - 1
            for begin, close in ranges.tolist()
        ]
        return np.concatenate(parts)

    def __getitem__(self, part: slice) -> Tokens:
        begin, end, _ = part.indices(len(self))
        if begin >= end:
            return self.tokens[:0]
        first = int(np.searchsorted(self.edges, begin, side="right")) - 1
        if end <= self.edges[first + 1]:
            shift = int(self.ranges[first, 0] - self.edges[first])
            return self.tokens[begin + shift : end + shift]  # a view
        return self.take(np.arange(begin, end))

    def take(self, places: NDArray[np.int64]) -> Tokens:
        """The tokens at any places of it, in the shape of `places`; they wrap around."""
        places = places % len(self)
        at = np.searchsorted(self.edges, places, side="right") - 1
        return gather(self.tokens, places + self.ranges[at, 0] - self.edges[at])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return np.asarray(self[:], dtype=dtype)

    def measured(self, predicted: int) -> "Part":
        """A part of its own, with the tokens of about so many predictions of its `passages` alone.

        Those are the same as far as they go. The tokens are copied, in their order.
        """
        ranges = self._first(predicted) if self.documents else self.ranges
        if not self.documents:
            each = 1 + WINDOW * (1 + predicted // (WINDOW * len(ranges)))
            ranges = np.stack([ranges[:, 0], np.minimum(ranges[:, 1], ranges[:, 0] + each)], axis=1)
        before = int(self.documents > 0)  # the end token that is read before each
        parts = [self.tokens[begin - before : end] for begin, end in ranges.tolist()]
        ends = np.cumsum([len(part) for part in parts])
        begins = ends - (ranges[:, 1] - ranges[:, 0])
        moved = np.stack([begins, ends], axis=1)
        return Part(np.concatenate(parts), moved, len(moved) * before, self.widths)

    def passages(self, window: int = WINDOW) -> Passages:
        """Its documents; or the windows of its ranges, the first of each range before the others.

        So the first passages represent the whole as far as the order of the ranges does. A window
        has so many characters; where those of a token differ, so many on average.
        """
        if self.documents:
            return Passages(self.tokens, self._first(len(self)), self.widths)
        if self.widths is not None:
            window = max(1, round(window * len(self) / max(1, self.width)))
        parts = []
        for begin, end in self.ranges.tolist():
            starts = np.arange(begin + 1, end, window)
            parts.append(np.stack([starts, np.minimum(starts + window, end)], axis=1))
        rank = np.concatenate([np.arange(len(part)) for part in parts])
        order = np.argsort(rank, kind="stable")
        return Passages(self.tokens, np.concatenate(parts)[order], self.widths)


def split_text(length: int, holdout: str) -> tuple[Ranges, Ranges]:
    """Ranges of a running text that train and that measure.

    Those are its ``tail`` or blocks ``spread`` over it; any other word holds nothing out.
    """
    whole = np.array([[0, length]])
    if holdout not in ("tail", "spread"):
        return whole, whole[:0]
    held_out = length - int((1 - HELD_OUT) * length)
    blocks = 1 if holdout == "tail" else max(1, min(BLOCKS, held_out // 2))
    edges = np.linspace(0, length, blocks + 1).round().astype(np.int64)  # of sections
    if holdout == "tail":
        begins, ends = np.array([length - held_out]), np.array([length])
    else:
        sizes = np.diff(np.linspace(0, held_out, blocks + 1).round().astype(np.int64))
        begins = (edges[:-1] + edges[1:] - sizes) // 2  # in the middle of each section
        ends = begins + sizes
    validation = np.stack([begins, ends], axis=1)
    training = np.stack([np.append(0, ends), np.append(begins, length)], axis=1)
    return training[training[:, 0] < training[:, 1]], validation
