"""From text to pieces of it, and back: what the units word and bpe are made of, and bytes too.

A text is first split where no piece may go across: into runs of letters and runs of other
characters, each with one space before it; more spaces are a run of their own. The classes are
ranges of code points that stand here, so that the same file reads the same text everywhere,
whatever version of Unicode a language knows. A piece of `word` is such a run, if it is frequent, or
else each of its characters; those of `bpe` are joined inside a run (Sennrich et al. 2016, "Neural
machine translation of rare words with subword units").
"""

import codecs
import heapq
import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise

MAX_RUN = 32  # characters of a run without its space: bounds the work and what is taken back
# letters and digits; from U+00C0 on all but punctuation, symbols and full-width signs
LETTERS = (
    "0-9A-Za-z\u00c0-\u1fff\u2c00-\u2fff\u3040-\ufeff\uff10-\uff19\uff21-\uff3a\uff41-\uff5a"
    "\uff66-\U0010ffff"
)
_SPLIT = re.compile(
    f" ?[{LETTERS}]{{1,{MAX_RUN}}}| ?[^ {LETTERS}]{{1,{MAX_RUN}}}| {{1,{MAX_RUN}}}(?= )| "
)
_MOST_KEPT = 1 << 16  # runs whose pieces are remembered

split_runs = _SPLIT.findall  # the runs of a text: joined, they are the text


class PieceEncoder:
    """Gives the pieces of texts, and remembers those of the runs that it has met.

    Args:
        token_of: the token of each text that is one.
        merges: pairs of tokens that are joined, in their order, and what comes out of each; None
            takes a run whole where it is a token, and its characters where it is none.

    Attributes:
        token_of: as given.
    """

    def __init__(
        self,
        token_of: Mapping[str, int],
        merges: Mapping[tuple[int, int], tuple[int, int]] | None,
    ) -> None:
        self.token_of, self._merges = token_of, merges
        self._known: dict[str, list[int]] = {}

    def encode(self, runs: Iterable[str]) -> list[int]:
        """The tokens of runs whose characters are all known."""
        tokens: list[int] = []
        known = self._known
        for run in runs:
            found = known.get(run)
            if found is None:
                found = self._pieces(run)
                if len(known) >= _MOST_KEPT:
                    known.clear()
                known[run] = found
            tokens += found
        return tokens

    def _pieces(self, run: str) -> list[int]:
        if self._merges is not None:
            return join_pairs([self.token_of[each] for each in run], self._merges)
        whole = self.token_of.get(run)
        return [self.token_of[each] for each in run] if whole is None else [whole]


def join_pairs(tokens: list[int], merges: Mapping[tuple[int, int], tuple[int, int]]) -> list[int]:
    """`tokens` with pairs joined: always the pair of the earliest merge, and the first of equals.

    Args:
        tokens: of a run, a character each.
        merges: by pair, the place of its merge in their order, and the token that it becomes.
    """
    following = [*range(1, len(tokens)), -1]  # the place of the next token that is left
    before = [-1, *range(len(tokens) - 1)]
    left: list[int | None] = [*tokens]
    waiting = [
        (merges[pair][0], place, pair)
        for place, pair in enumerate(pairwise(tokens))
        if pair in merges
    ]
    heapq.heapify(waiting)
    while waiting:
        _, place, pair = heapq.heappop(waiting)
        after = following[place]
        if after < 0 or (left[place], left[after]) != pair:  # one of the two was joined meanwhile
            continue
        left[place], left[after] = merges[pair][1], None
        following[place] = following[after]
        if following[after] >= 0:
            before[following[after]] = place
        for first in (before[place], place):
            second = following[first] if first >= 0 else -1
            one, other = (left[first], left[second]) if second >= 0 else (None, None)
            if one is not None and other is not None and (one, other) in merges:
                heapq.heappush(waiting, (merges[one, other][0], first, (one, other)))
    return [token for token in left if token is not None]


class TextDecoder:
    """The text of tokens as they come, of any unit.

    Bytes become characters as soon as these are whole. What cannot be UTF-8 becomes U+FFFD as soon
    as that is certain, once for each longest part of a sequence that could have begun one; what
    may yet become a character is held back, and lost where the text ends.

    Args:
        texts: of the tokens, by number.
        bytes_: whether the tokens are bytes.
    """

    def __init__(self, texts: Sequence[str], bytes_: bool) -> None:
        self._texts = texts
        self._bytes = codecs.getincrementaldecoder("utf-8")("replace") if bytes_ else None

    def feed(self, tokens: Iterable[int]) -> str:
        """The characters that `tokens` complete; there is no end token among them."""
        if self._bytes is not None:
            return self._bytes.decode(bytes(tokens))
        texts = self._texts
        return "".join([texts[token] for token in tokens])

    @property
    def partial(self) -> bytes:
        """The bytes of a character that has only begun, at most three."""
        return b"" if self._bytes is None else self._bytes.getstate()[0]

    def restart(self, partial: bytes = b"") -> None:
        """Forget what has begun, or go on where `partial` was left."""
        if self._bytes is not None:
            self._bytes.setstate((partial, 0))


def merge_table(
    merges: Sequence[int], texts: Sequence[str], token_of: Mapping[str, int]
) -> dict[tuple[int, int], tuple[int, int]]:
    """What `join_pairs` takes, from the merges of a file: pairs of tokens, one after the other."""
    pairs = zip(merges[::2], merges[1::2], strict=True)
    return {
        (one, other): (place, token_of[texts[one] + texts[other]])
        for place, (one, other) in enumerate(pairs)
    }


def pieces_problem(characters: str, pieces: Sequence[str], merges: Sequence[int], unit: str) -> str:
    """What pieces and merges say against each other and the unit, in words; empty if nothing.

    Args:
        characters: that are tokens by themselves, the first ones.
        pieces: the tokens after them.
        merges: pairs of tokens, one after the other.
        unit: word or bpe.
    """
    known = set(characters)
    for index, piece in enumerate(pieces, len(characters)):
        if not known.issuperset(piece):
            return f"tokens[{index}] has a character that is no token by itself"
        if split_runs(piece) != [piece] and split_runs(piece + " ")[0] != piece:
            return f"tokens[{index}] goes across where a text is split, so no text has it"
    if unit != "bpe":
        return "merges are of the unit bpe" if merges else ""
    if len(merges) % 2:
        return f"merges has {len(merges)} tokens, which are no pairs"
    texts = [*characters, *pieces]
    made, seen = set(range(len(characters))), set()
    token_of = {text: token for token, text in enumerate(texts)}
    for place in range(0, len(merges), 2):
        pair = (merges[place], merges[place + 1])
        if not made.issuperset(pair):
            return f"merges[{place}]: a token of the pair {pair} is not made before it"
        joined = token_of.get(texts[pair[0]] + texts[pair[1]])
        if joined is None:
            return f"merges[{place}]: the pair {pair} makes no token"
        if pair in seen:
            return f"merges[{place}]: the pair {pair} stands twice"
        seen.add(pair)
        made.add(joined)
    missing = next((token for token in range(len(texts)) if token not in made), None)
    return "" if missing is None else f"tokens[{missing}] is made by no merge"
