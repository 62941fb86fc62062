"""Documents in a text of tokens: whether each line is one, and where each begins and ends."""

from collections.abc import Iterable
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from chargen_train.ids import Tokens
from chargen_train.ranges import distinct, hash_ranges

_COMPARED = 1 << 20  # lines at least, if there are so many, that tell whether they are different
_LEAST, _LONGEST, _DIFFERENT = 50, 512, 0.9  # lines, their characters, the share of different ones


def judge_lines(pieces: Iterable[Tokens], characters: str) -> tuple[bool, str]:
    """Whether the lines of a text look like documents, and why, as the end of a sentence.

    They do where there are at least 50, none blank, at least 90% of them different, and none longer
    than 512 characters: a list of names or addresses is so, and prose, verse and programs are not.
    Of a long list, the first lines tell whether they are different.

    Args:
        pieces: of the text in tokens, in their order, cut anywhere.
        characters: of the tokens.
    """
    line_end = characters.find("\n")
    count = blank = longest = hashed = 0
    hashes: list[NDArray[np.uint64]] = []
    open_line, dropped = np.zeros(0, dtype=np.uint8), 0  # what of it there is, and is not, here
    for piece in chain(pieces, [None]):
        if piece is None:  # nothing follows the last line end, as a rule
            text, ends = open_line, np.array([len(open_line)] * (len(open_line) + dropped > 0))
        else:
            text = np.concatenate([open_line, piece])
            ends = np.flatnonzero(text == line_end)
        if len(ends):
            lines = np.stack([np.append(0, ends[:-1] + 1), ends], axis=1)  # [lines, 2]
            sizes = lines[:, 1] - lines[:, 0]
            sizes[0] += dropped
            count, dropped = count + len(lines), 0
            blank += int((sizes == 0).sum())
            longest = max(longest, int(sizes.max()))
            if not blank and longest <= _LONGEST and hashed < _COMPARED:
                hashes.append(hash_ranges(text, lines, characters))
                hashed += len(lines)
            text = text[ends[-1] + 1 :]
        dropped += max(0, len(text) - _LONGEST - 1)
        open_line = text[: _LONGEST + 1]
    if count < _LEAST:
        return False, f"it has {count:,} lines, and a list has at least {_LEAST}"
    if blank:
        return False, f"{blank:,} of its {count:,} lines are blank"
    if longest > _LONGEST:
        return False, f"one of its lines has {longest:,} characters, more than {_LONGEST}"
    share = len(distinct(np.concatenate(hashes))) / hashed
    of = "its lines" if hashed == count else f"its first {hashed:,} lines"
    if share < _DIFFERENT:
        return False, f"only {share:.0%} of {of} are different"
    of = "them" if hashed == count else f"the first {hashed:,}"
    return True, (
        f"there are {count:,}, none blank, {share:.0%} of {of} different, none longer than "
        f"{longest:,} characters"
    )


class DocumentEnds:
    """Makes separators ends: one before the first document and after each, no document empty.

    Args:
        end: the end token, which stands for the separators already.

    Attributes:
        count: ends so far.
    """

    def __init__(self, end: int) -> None:
        self._end = end
        self._after_end = False
        self.count = 0

    def feed(self, tokens: Tokens, closes: bool = False) -> Tokens:
        """What the next tokens become.

        Args:
            tokens: ``[tokens]``, cut anywhere.
            closes: whether a document that is open after them ends there.
        """
        single = np.array([self._end], dtype=tokens.dtype)
        if not self.count:
            tokens = np.concatenate([single, tokens])
        if closes:
            tokens = np.concatenate([tokens, single])
        is_end = tokens == self._end
        kept = ~is_end
        kept[1:] |= ~is_end[:-1]  # the first separator after a document
        kept[:1] |= not self._after_end
        if len(tokens):
            self._after_end = bool(is_end[-1])
        tokens = tokens[kept]
        self.count += int((tokens == self._end).sum())
        return tokens
