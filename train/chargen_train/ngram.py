"""A yardstick: what an n-gram model reaches on the text that a network is measured on.

Interpolated modified Kneser-Ney smoothing (Chen and Goodman 1999, "An empirical study of smoothing
techniques for language modeling"): each count loses a discount, what it loses goes to the model of
one token less, and below the longest n-grams what counts is before how many different tokens an
n-gram stands. Everything is arrays over the whole text, no loop over its characters.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from chargen_ort.provenance import Baseline
from chargen_train.split import Part, Tokens

METHOD = "modified Kneser-Ney"
MAX_ORDER = 6
MAX_COUNTED = 1 << 21  # tokens: three seconds, and 170 MB while they are counted
COUNTED_A_MINUTE = 1_000_000  # of a run that minutes bound: a few hundredths of its time
_BLOCKS = 64  # that a longer text is counted in, spread over it
_TRIED_AFTER = 0.9  # of the counted text, whose rest tells the best order
_LEAST_DISCOUNT = 0.05  # so that no token is impossible, whatever the counts of counts are


@dataclass(frozen=True)
class Level:
    """The different n-grams of one length n, by rising key; one's place here is its id.

    Attributes:
        keys: the id of the first n - 1 tokens times vocab_size plus the last token, ``[ngrams]``.
        counts: how often each stands in the text, ``[ngrams]``.
        before: how many different tokens stand before it, where each beginning of a text counts as
            one of its own, ``[ngrams]``; not known of the longest.
        contexts: how many different first n - 1 tokens there are.
        owners: the id of the first n - 1 tokens of each, ``[ngrams]``.
    """

    keys: NDArray[np.int64]
    counts: NDArray[np.int64]
    before: NDArray[np.int64] | None
    contexts: int
    owners: NDArray[np.int64]

    @property
    def used(self) -> NDArray[np.int64]:
        """The counts that the model of the longest n-grams uses of these, ``[ngrams]``."""
        return self.counts if self.before is None else self.before


@dataclass(frozen=True)
class NGram:
    """The counts of a text, enough for models of every order up to that of the longest n-grams.

    Attributes:
        vocab_size: number of tokens.
        levels: of n-grams of 1, 2, … tokens, as long as the text has any.
    """

    vocab_size: int
    levels: tuple[Level, ...]


def visible_before(
    tokens: Tokens, end: int | None = None, window: int | None = None
) -> NDArray[np.int64]:
    """How many tokens before each of a text a model sees, ``[tokens]``: none before the first.

    Args:
        tokens: a text ``[tokens]``.
        end: the token that ends each document and begins the next; nothing before it is seen.
        window: tokens that are read from a zero state, after which it begins anew: the protocol P1.
    """
    place = np.arange(len(tokens), dtype=np.int64)
    begins = np.zeros_like(place)
    if end is not None:
        ends = np.where(tokens == end, place, 0)
        np.maximum.accumulate(ends[:-1], out=begins[1:])
    elif window is not None:
        begins[1:] = place[:-1] // window * window
    return place - begins


def count_ngrams(tokens: Tokens, visible: NDArray[np.int64], vocab_size: int, order: int) -> NGram:
    """Count the n-grams of a text.

    Args:
        tokens: the text, ``[tokens]``, 1 to 2**23 of them, each below `vocab_size`.
        visible: how many of those before each belong to it, ``[tokens]``; see `visible_before`.
        vocab_size: number of tokens, at most 2**16.
        order: tokens of the longest n-grams.
    """
    shift = len(tokens).bit_length()
    ids = np.zeros(len(tokens), dtype=np.int64)  # of the n-gram that ends at each token
    levels: list[Level] = []
    contexts = 1
    for n in range(1, order + 1):
        at = np.flatnonzero(visible >= n - 1)
        if not len(at):
            break
        keys = ids[at - 1] * vocab_size + tokens[at]
        # sorted as one number with their places: faster than to sort places by keys
        keys <<= shift
        keys |= at
        keys.sort()
        at = keys & ((1 << shift) - 1)
        keys >>= shift
        is_new = np.diff(keys, prepend=-1) > 0
        first = np.flatnonzero(is_new)
        if levels:
            before = np.bincount(ids[at[first]], minlength=contexts)
            before += np.bincount(ids[visible == n - 2], minlength=contexts)
            levels[-1] = replace(levels[-1], before=before)
        counts = np.diff(first, append=len(keys))
        levels.append(Level(keys[first], counts, None, contexts, keys[first] // vocab_size))
        ids[at] = np.cumsum(is_new) - 1
        contexts = len(first)
    return NGram(vocab_size, tuple(levels))


def nats_by_order(
    model: NGram, tokens: Tokens, visible: NDArray[np.int64]
) -> Iterator[NDArray[np.float64]]:
    """What each token of a text costs after those before it, for models of order 1, 2, ….

    Args:
        model: that predicts.
        tokens: the text, ``[tokens]``, each below the model's vocab_size.
        visible: how many of those before each are seen, ``[tokens]``.

    Yields:
        Negative log probabilities in nats, ``[tokens]``.
    """
    lower = np.full(len(tokens), 1 / model.vocab_size)  # probabilities by the order below
    ids = np.zeros(len(tokens), dtype=np.int64)  # of the n-gram that ends at each, -1 if unknown
    for n, level in enumerate(model.levels, 1):
        context = np.where(visible >= n - 1, np.roll(ids, 1), -1)
        keys = context * model.vocab_size + tokens
        ids = np.minimum(np.searchsorted(level.keys, keys), len(level.keys) - 1)
        ids[level.keys[ids] != keys] = -1
        yield -np.log(_mix(model, level, level.counts, context, ids, lower))
        if level.before is not None:
            lower = _mix(model, level, level.before, context, ids, lower)


def _mix(
    model: NGram,
    level: Level,
    counts: NDArray[np.int64],
    context: NDArray[np.int64],
    ids: NDArray[np.int64],
    lower: NDArray[np.float64],
) -> NDArray[np.float64]:
    """The probability of each token by `counts` of a level, and by the order below."""
    owner = level.owners
    discounts = discounts_of(counts)[np.minimum(counts, 3)]  # [ngrams]
    total = np.bincount(owner, counts, level.contexts)
    freed = np.bincount(owner, discounts, level.contexts)
    known = (context >= 0) & (total[context] > 0)  # what ended the text has nothing after it
    context, ids, mixed = context[known], ids[known], lower.copy()
    kept = np.where(ids >= 0, counts[ids] - discounts[ids], 0.0)
    mixed[known] = (kept + freed[context] * lower[known]) / total[context]
    return mixed


def discounts_of(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """What counts of 0, 1, 2, and 3 or more lose, ``[4]``."""
    one, two, three, four = (int(np.count_nonzero(counts == n)) for n in (1, 2, 3, 4))
    if not one or not two:  # a few n-grams, all of them frequent
        return np.array([0, 0.5, 0.5, 0.5])
    ratio = one / (one + 2 * two)
    last = 3 - 4 * ratio * four / three if three else 0.5
    found = [1 - 2 * ratio * two / one, 2 - 3 * ratio * three / two, last]
    return np.array([0, *np.maximum(found, _LEAST_DISCOUNT)])


@dataclass(frozen=True)
class Yardstick:
    """What an n-gram model gives a held-out text.

    Attributes:
        method: of smoothing, and what was counted if not everything, in words.
        order: that was chosen.
        nats: what each predicted token costs, ``[predicted]``.
    """

    method: str
    order: int
    nats: NDArray[np.float32]

    def over(self, predicted: int) -> Baseline:
        """The record, of the first so many predicted tokens."""
        mean = float(self.nats[:predicted].mean(dtype=np.float64))
        return Baseline(method=self.method, order=self.order, nats_per_char=mean)


def measure_ngram(
    training: Tokens | Part,
    held_out: Tokens,
    visible: NDArray[np.int64],
    vocab_size: int,
    end: int | None = None,
    most: int = MAX_COUNTED,
) -> Yardstick:
    """Count a text, and predict another with it.

    The order is the best one of 1 to 6 on the last tenth of the counted text, by the counts of the
    rest; the held-out text has no part in it.

    Args:
        training: what is counted, at least one token; with `end`, documents followed by it.
        held_out: what is predicted, at least two tokens.
        visible: how many tokens before each of `held_out` are seen, ``[tokens]``; what sees none is
            not predicted, only read.
        vocab_size: number of tokens.
        end: the token that ends each document of `training`, if it has documents.
        most: tokens that are counted; of a longer text as many, in blocks spread over it.
    """
    counted, method = training[:most], METHOD
    if len(training) > most:
        size = max(1, most // _BLOCKS)
        begins = np.linspace(0, len(training) - size, _BLOCKS).astype(np.int64)
        counted = np.concatenate([training[begin : begin + size] for begin in begins])
        method = f"{METHOD} on {len(counted):,} characters of the text"
    cut = max(1, int(_TRIED_AFTER * len(counted)))
    seen = visible_before(counted, end)
    tried = count_ngrams(counted[:cut], seen[:cut], vocab_size, MAX_ORDER)
    rest, seen_there = counted[cut - 1 :], visible_before(counted[cut - 1 :], end)
    losses = [nats.mean() for nats in nats_by_order(tried, rest, seen_there)]
    order = 1 + int(np.argmin(losses))
    *_, nats = nats_by_order(count_ngrams(counted, seen, vocab_size, order), held_out, visible)
    return Yardstick(method, order, nats[visible > 0].astype(np.float32))
