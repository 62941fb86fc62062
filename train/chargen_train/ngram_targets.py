"""What an n-gram model predicts at each place of a text, for a network to learn from.

A text says at each place which token came; the counts of all its places say which ones could have
come. A network that is first taught by the counts learns in fewer steps what an n-gram knows, and
less by heart, which is worth most where the text is short. It is what interpolated smoothing does
for a count, done for a network (Xie et al. 2017, "Data noising as smoothing in neural network
language models").

The counts are of the text that is learnt from, so the token of a place is left out where it is
predicted: else each would be foretold by itself.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from chargen_train.evaluate import as_tensor
from chargen_train.ngram import Level, count_ngrams, discounts_of, visible_before
from chargen_train.split import Part, Tokens
from chargen_train.windows import Batch

_ORDER = 6
_KEPT = 64  # likeliest tokens of a prediction; the others share nothing
_NUMBERS_AT_ONCE = 1 << 21  # of the predictions that `prepare` computes: 8 MB an array
_LARGEST_TABLE = 1 << 23  # numbers of a table of predictions: 32 MB


class NGramTargets:
    """The prediction of an n-gram model at each place of a text, that place left out.

    What stands before a place is its context, and places of one context have one prediction but
    for their own token. So a prediction is kept a context, and a probability a place.

    `prepare` computes them a piece at a time, so that a run can be stopped in between.

    Args:
        part: the text; of documents, each with its end token.
        vocab_size: number of tokens.
    """

    def __init__(self, part: Part, vocab_size: int) -> None:
        text, end = part[:], None
        if part.documents:  # before the first stands an end, as before the others
            text, end = np.append(text[-1:], text), int(text[-1])
        seen = visible_before(text, end)
        self._vocab_size = vocab_size
        self._levels = count_ngrams(text, seen, vocab_size, _ORDER).levels
        ids = _ngrams_at(self._levels, text, seen, vocab_size)  # of each length, [tokens] each
        first = len(text) - len(part)
        self._discounts = [discounts_of(level.used) for level in self._levels]
        own = np.full(len(text), 1 / vocab_size)
        self._leave_out(own, ids, seen)
        self._own = own[first:].astype(np.float32)  # [tokens]
        # the longest context of each place, and one place for each of them
        longest = np.minimum(seen, len(self._levels) - 1)
        contexts = np.zeros(len(text), dtype=np.int64)
        for n in range(1, len(self._levels)):
            contexts[1:] = np.where(longest[1:] == n, ids[n - 1][:-1], contexts[1:])
        keys = longest * (len(text) + 1) + contexts
        _, places, of = np.unique(keys, return_index=True, return_inverse=True)
        self._context = of[first:].astype(np.int32)  # [tokens]
        # of one place for each context, the id of what stands before it at each length, or -1
        before = [np.zeros(len(places), dtype=np.int64)]
        before += [
            np.where(seen[places] >= n, ids[n - 1][places - 1], -1)
            for n in range(1, len(self._levels))
        ]
        self._before = before
        self._mixtures = [_mixture(level) for level in self._levels]
        self._tables = _tables(self._levels, self._mixtures, before, vocab_size)
        kept = min(_KEPT, vocab_size)
        self._tokens = np.zeros((len(places), kept), dtype=np.uint16)
        self._probabilities = np.zeros((len(places), kept), dtype=np.float16)
        self._prepared = 0  # contexts

    @property
    def ready(self) -> bool:
        """Whether all predictions are computed."""
        return self._prepared == len(self._tokens)

    def prepare(self) -> None:
        """Compute some more of them."""
        size = self._vocab_size
        count = max(1, _NUMBERS_AT_ONCE // size)
        piece = slice(self._prepared, min(self._prepared + count, len(self._tokens)))
        before = [ids[piece] for ids in self._before]
        prediction = self._tables[0][before[0]]  # [contexts, vocab_size]
        for n in range(1, len(self._tables)):
            known = before[n] >= 0
            prediction[known] = self._tables[n][before[n][known]]
        # from the longest down, so that what is left to the order below is multiplied only once
        left = np.ones(len(prediction), dtype=np.float32)  # [contexts]
        counted = []
        for n in reversed(range(len(self._tables), len(self._levels))):
            known = before[n] >= 0
            row, token, kept = _counted_after(self._levels[n], self._mixtures[n], before[n], size)
            counted.append((row, token, kept * left[row]))
            left[known] *= self._mixtures[n].passed[before[n][known]]
        prediction *= left[:, None]
        for row, token, weight in counted:
            prediction[row, token] += weight
        likeliest = torch.from_numpy(prediction).topk(self._tokens.shape[1])
        self._tokens[piece] = likeliest.indices.numpy()
        self._probabilities[piece] = likeliest.values.numpy()
        self._prepared = piece.stop

    def _leave_out(
        self, own: NDArray[np.float64], ids: list[NDArray[np.int64]], seen: NDArray[np.int64]
    ) -> None:
        """Make `own` the probability of each place's token by the counts of all other places.

        Args:
            own: ``[tokens]``, at first of a model that knows nothing.
            ids: of the n-gram of each length that ends at each place, ``[tokens]`` each.
            seen: how many tokens before each place belong to it, ``[tokens]``.
        """
        for n, (level, discounts) in enumerate(zip(self._levels, self._discounts, strict=True)):
            counts = level.used
            at = np.flatnonzero(seen >= n)
            ngram = ids[n][at]
            context = level.owners[ngram]
            removed = np.ones(len(at), dtype=np.int64)
            if n + 1 < len(self._levels):
                # what stands before it is counted once, however often the two stand there together
                longer = ids[n + 1][at]
                removed[longer >= 0] = self._levels[n + 1].counts[longer[longer >= 0]] == 1
            before, after = counts[ngram], counts[ngram] - removed
            lost = discounts[np.minimum(after, 3)]
            all_lost = discounts[np.minimum(counts, 3)]  # [ngrams]
            freed = np.bincount(level.owners, all_lost, level.contexts)[context]
            freed += lost - discounts[np.minimum(before, 3)]
            total = np.bincount(level.owners, counts, level.contexts)[context] - removed
            mixed = (after - lost + freed * own[at]) / np.maximum(total, 1)
            own[at] = np.where(total > 0, mixed, own[at])

    def loss(self, logits: Tensor, batch: Batch) -> Tensor:
        """Cross-entropy of the predictions and `logits`, nats, summed where one learns.

        Args:
            logits: float32 ``[batch, time, vocab_size]``.
            batch: whose targets they are for.
        """
        device, places = logits.device, batch.places
        context = self._context[places]  # [batch, time]
        tokens = as_tensor(self._tokens[context], device)  # [batch, time, kept]
        soft = torch.from_numpy(self._probabilities[context]).to(device, torch.float32)
        learnt = batch.target >= 0  # [batch, time]
        target = batch.target.clamp(min=0)[..., None]  # [batch, time, 1]
        soft = soft.masked_fill(tokens == target, 0.0)
        # the place's own token has its probability by the other places, and the rest is the others'
        own = torch.from_numpy(self._own[places]).to(device)  # [batch, time]
        others = soft.sum(-1).clamp(min=1e-6)  # [batch, time]
        log = logits.log_softmax(-1)
        expected = (soft * log.gather(-1, tokens)).sum(-1) * ((1 - own) / others)
        expected = expected + own * log.gather(-1, target)[..., 0]
        return -(expected * learnt).sum()


def _ngrams_at(
    levels: tuple[Level, ...], text: Tokens, seen: NDArray[np.int64], vocab_size: int
) -> list[NDArray[np.int64]]:
    """The id of the n-gram of each length that ends at each place, ``[tokens]`` each, or -1."""
    found: list[NDArray[np.int64]] = []
    for n, level in enumerate(levels):
        context = np.roll(found[-1], 1) if found else np.zeros(len(text), dtype=np.int64)
        ids = np.searchsorted(level.keys, context * vocab_size + text)
        found.append(np.where(seen >= n, ids, -1))
    return found


@dataclass(frozen=True)
class _Mixture:
    """How a level's counts and the order below make a prediction.

    Attributes:
        kept: what each n-gram's own count gives its last token, ``[ngrams]``.
        passed: what is left to the order below, ``[contexts]``.
    """

    kept: NDArray[np.float32]
    passed: NDArray[np.float32]


def _mixture(level: Level) -> _Mixture:
    """Of a level of n-grams, with discounts; a context that nothing counts after passes all on."""
    lost = discounts_of(level.used)[np.minimum(level.used, 3)]  # [ngrams]
    total = np.bincount(level.owners, level.used, level.contexts)
    freed = np.bincount(level.owners, lost, level.contexts)
    passed = np.where(total > 0, freed / np.maximum(total, 1), 1.0)
    kept = (level.used - lost) / np.maximum(total, 1)[level.owners]
    return _Mixture(kept.astype(np.float32), passed.astype(np.float32))


def _tables(
    levels: tuple[Level, ...],
    mixtures: list[_Mixture],
    before: list[NDArray[np.int64]],
    vocab_size: int,
) -> list[NDArray[np.float32]]:
    """Whole predictions after every short context, ``[contexts, vocab_size]`` of each length.

    Many long contexts end with the same short one, whose prediction is then made once. The lengths
    go from 0 as far as the tables are small.

    Args:
        before: the id of each context's ending of each length, or -1, ``[places]`` each.
    """
    tables: list[NDArray[np.float32]] = []
    lower = np.full((1, vocab_size), 1 / vocab_size, dtype=np.float32)
    for n, (level, mixture) in enumerate(zip(levels, mixtures, strict=True)):
        if n and level.contexts * vocab_size > _LARGEST_TABLE:
            break
        shorter = np.zeros(level.contexts, dtype=np.int64)
        if n:
            known = before[n] >= 0
            shorter[before[n][known]] = before[n - 1][known]
            lower = tables[-1]
        table = lower[shorter] * mixture.passed[:, None]
        row, token, kept = _counted_after(level, mixture, np.arange(level.contexts), vocab_size)
        table[row, token] += kept
        tables.append(table)
    return tables


def _counted_after(
    level: Level, mixture: _Mixture, context: NDArray[np.int64], vocab_size: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
    """What stands in a level after contexts, -1 for none: each one's place there, the token, and
    what its own count gives it, ``[counted]`` each.
    """
    rows = np.flatnonzero(context >= 0)
    begins = np.searchsorted(level.owners, context[rows])
    sizes = np.searchsorted(level.owners, context[rows], side="right") - begins
    at = np.arange(sizes.sum()) + np.repeat(begins - np.cumsum(sizes) + sizes, sizes)
    return np.repeat(rows, sizes), level.keys[at] % vocab_size, mixture.kept[at]
