"""Which documents of a list train a model and which measure it, in a memory that has a bound.

A list of a few names and one of a hundred million lines are split by one rule. Up to a million
documents each is a range of its own. Of a longer list neighbours share one, and are shuffled
together, since what is held of each document would else outgrow the text.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from chargen_train.ids import Tokens, in_pieces
from chargen_train.ranges import Ranges, distinct, document_ranges, documents_in_pieces, hash_ranges
from chargen_train.split import HELD_OUT, Part

_MOST = 1 << 20  # documents that are ranges of their own …
_MOST_HELD_OUT = round(HELD_OUT * _MOST)  # … and different ones that measure


@dataclass(frozen=True)
class Listing:
    """The documents of a list, as far as splitting it asks.

    Attributes:
        tokens: an end token before the first document and after each, as
            `chargen_train.cutting.DocumentEnds` gives them.
        end: that token.
        characters: of the other tokens.
        count: documents.
        lowest: the hashes of the different documents, rising; of more than a million at least those
            that may be held out, the lowest tenth of a million.
        is_long: whether there are more.
    """

    tokens: Tokens
    end: int
    characters: str
    count: int
    lowest: NDArray[np.uint64]
    is_long: bool

    @property
    def different(self) -> int:
        """How many different documents there are, at least; of a long list a million."""
        return _MOST if self.is_long else len(self.lowest)

    def split(self, holdout: str) -> tuple[Part, Part]:
        """The part that trains, in the order of the list, and the part that measures.

        That is the ``tail``; or ``spread``, of the different documents those with the lowest
        hashes, in that order: equal documents are on the same side, wherever they stand. Or it is
        empty, ``none``.
        """
        held_out = {"tail": self._tail, "spread": self._spread, "none": self._none}[holdout]()
        step = -(-self.count // _MOST)
        # a range ends where every so many documents do, and at both sides of one that is held out
        marks = [np.zeros(0, dtype=np.int64)]
        seen = 0
        for ranges in documents_in_pieces(self.tokens, self.end):
            marks.append(ranges[-seen % step :: step, 0].copy())  # a view would keep the rest
            seen += len(ranges)
        edges = distinct(np.concatenate([*marks, [len(self.tokens)], held_out.ravel()]))
        trained = np.stack([edges[:-1], edges[1:]], axis=1)
        trained = trained[~np.isin(trained[:, 0], held_out[:, 0])]
        return (
            Part(self.tokens, trained, self.count - len(held_out)),
            Part(self.tokens, held_out, len(held_out)),
        )

    def _none(self) -> Ranges:
        return np.zeros((0, 2), dtype=np.int64)

    def _tail(self) -> Ranges:
        cut = min(self.count - 1, int((1 - HELD_OUT) * self.count))
        cut = max(cut, self.count - _MOST_HELD_OUT)
        seen = 0
        for ranges in documents_in_pieces(self.tokens, self.end):
            if seen + len(ranges) > cut:
                begin = int(ranges[cut - seen, 0])
                break
            seen += len(ranges)
        return document_ranges(self.tokens[begin - 1 :], self.end) + begin - 1

    def _spread(self) -> Ranges:
        kept = _MOST_HELD_OUT if self.is_long else round(HELD_OUT * self.different) or 1
        highest = self.lowest[kept - 1]
        parts = [
            (hashes[hashes <= highest], ranges[hashes <= highest])
            for hashes, ranges in _hashed(self.tokens, self.end, self.characters)
        ]
        hashes, ranges = (np.concatenate(each) for each in zip(*parts, strict=True))
        return np.asarray(ranges[np.argsort(hashes, kind="stable")])


def read_list(tokens: Tokens, end: int, characters: str) -> Listing:
    """Read a list once; see `Listing` for what is what."""
    count = sum(int((piece == end).sum()) for _, piece in in_pieces(tokens)) - 1
    lowest, waiting, is_long = np.zeros(0, dtype=np.uint64), [], False
    for hashes, _ in _hashed(tokens, end, characters):
        # of a long list, what has a higher hash than enough others is not held out
        waiting.append(hashes[hashes <= lowest[-1]] if is_long else hashes)
        if sum(map(len, waiting)) > _MOST:
            lowest, waiting = distinct(np.concatenate([lowest, *waiting])), []
            is_long |= len(lowest) > _MOST
            lowest = lowest[:_MOST_HELD_OUT] if is_long else lowest
    lowest = distinct(np.concatenate([lowest, *waiting]))
    return Listing(tokens, end, characters, count, lowest, is_long or len(lowest) > _MOST)


def _hashed(
    tokens: Tokens, end: int, characters: str
) -> Iterator[tuple[NDArray[np.uint64], Ranges]]:
    """The hashes of documents and where they stand, ``[documents]`` and ``[documents, 2]``."""
    for ranges in documents_in_pieces(tokens, end):
        yield hash_ranges(tokens, ranges - np.array([0, 1]), characters), ranges
