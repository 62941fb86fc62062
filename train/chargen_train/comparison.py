"""What a finished model is held against: an n-gram on the held-out text, and the corpus itself."""

import math
import time
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from chargen_ort.options import SamplingOptions
from chargen_ort.provenance import PIECE, SampleFacts
from chargen_ort.sampling import Sampler
from chargen_train.corpus import Corpus, choose_separator
from chargen_train.device import threads
from chargen_train.evaluate import as_tensor
from chargen_train.events import TrainedModel
from chargen_train.ids import gather, give_back
from chargen_train.model import CharGRU
from chargen_train.ngram import (
    COUNTED_A_MINUTE,
    MAX_COUNTED,
    Yardstick,
    measure_ngram,
)
from chargen_train.planning import MAX_VALIDATION
from chargen_train.ranges import document_ranges, hash_ranges
from chargen_train.recipe import Recipe
from chargen_train.run import build_model
from chargen_train.split import Passages, Tokens

SAMPLES = 1_000  # texts that are compared with the corpus
SAMPLE_SHARE = 0.05  # of the minutes given, at most: else they are fewer …
_FEWEST = 100  # … but not fewer than this
_LONGEST_DOCUMENT = 512  # tokens: a longer document is cut off, and stands in no corpus then
_TIMED_STEPS = 2  # of the writing, that its time is foretold by
_LOGITS_AT_ONCE = 1 << 23  # numbers: 96 MB with the probabilities, whatever the vocabulary
_LOOKED_THROUGH = 1 << 18  # places of the corpus at a time
MOST_SEARCHED = 1 << 26  # places of a corpus; of a longer one as many, spread over it
_BASE = 0x9E3779B97F4A7C15  # of the hashes, odd
_TABLE_BITS = 16


def measure_yardstick(corpus: Corpus, recipe: Recipe) -> Yardstick | None:
    """What an n-gram reaches on the held-out text, by the protocol of the model's own loss.

    It is measured before the first step, so that its time is part of the minutes given, and those
    bound how much of the text is counted. None where no text is held out.
    """
    if not len(corpus.validation):
        return None
    most = MAX_COUNTED
    if recipe.minutes is not None:
        most = min(most, max(1, int(recipe.minutes * COUNTED_A_MINUTE)))
    corpus = corpus.in_characters
    passages = corpus.validation.passages().head(MAX_VALIDATION)
    end = corpus.vocabulary.end_token
    return measure_ngram(
        corpus.training, *_as_text(passages), len(corpus.vocabulary), end=end, most=most
    )


def _as_text(passages: Passages) -> tuple[Tokens, NDArray[np.int64]]:
    """Passages one after the other, and how many tokens are seen before each, ``[tokens]`` each.

    Each begins with the token that is read before it, which sees none and is not predicted.
    """
    begins = passages.ranges[:, 0] - 1
    sizes = passages.sizes + 1
    firsts = np.cumsum(sizes) - sizes  # where each begins in the result
    visible = np.arange(sizes.sum()) - np.repeat(firsts, sizes)
    return gather(passages.tokens, np.repeat(begins, sizes) + visible), visible


def plan_samples(corpus: Corpus, recipe: Recipe) -> tuple[int, float]:
    """How many texts a finished model writes to be compared, and the seconds to leave for it.

    Where minutes bound the run, a few steps of an untrained model are timed.
    """
    if recipe.minutes is None or not _can_write(corpus):
        return SAMPLES, 0.0
    with torch.random.fork_rng(devices=[]):
        model = build_model(corpus, recipe).eval()
    begun = time.monotonic()
    pieces = write_pieces(model, corpus, SAMPLES, SamplingOptions(seed=0), _TIMED_STEPS)
    written = time.monotonic()
    part = corpus.tokens[:_LOOKED_THROUGH]
    stand_in(part, pieces)
    searched = min(len(corpus.tokens), MOST_SEARCHED)
    looking = (time.monotonic() - written) * searched / len(part)
    writing = (written - begun) * sample_length(corpus) / _TIMED_STEPS
    affordable = (SAMPLE_SHARE * recipe.minutes * 60 - looking) / writing
    count = round(SAMPLES * min(1.0, max(_FEWEST / SAMPLES, affordable)))
    return count, writing * count / SAMPLES + looking


def compared(
    trained: TrainedModel,
    corpus: Corpus,
    yardstick: Yardstick | None,
    options: SamplingOptions,
    count: int = SAMPLES,
) -> TrainedModel:
    """`trained` with what it was held against in its record.

    Args:
        trained: the result of a run.
        corpus: that it was trained on.
        yardstick: of that corpus.
        options: that the model writes with, but for the seed, which is the run's.
        count: texts that it writes; none if the corpus is shorter than one.
    """
    validation, baseline, samples = trained.summary.validation, None, None
    if validation is not None and yardstick is not None:
        baseline = yardstick.over(validation.characters + validation.documents)
    if _can_write(corpus):
        options = replace(options, seed=trained.summary.seed)
        pieces = write_pieces(trained.model, corpus, count, options, sample_length(corpus))
        end, text = corpus.vocabulary.end_token, corpus.in_characters
        rows: list[NDArray[np.integer]]
        rows = [*pieces] if end is None else [_until(row, end) for row in pieces]
        if corpus.spelled is not None:
            decode, look_up = corpus.vocabulary.decode, text.vocabulary.look_up
            rows = [np.asarray(look_up(decode(row)), dtype=np.int64) for row in rows]
        if end is None:
            samples = sample_facts(text.tokens, [row[:PIECE] for row in rows])
        else:
            samples = document_facts(text, rows)
    summary = replace(trained.summary, baseline=baseline, samples=samples)
    return replace(trained, summary=summary)


def _can_write(corpus: Corpus) -> bool:
    """Whether the corpus is long enough for a text of the model's own to stand in it."""
    return corpus.vocabulary.end or len(corpus) >= PIECE


def sample_length(corpus: Corpus) -> int:
    """Tokens of each text that is compared with the corpus: of documents, at most."""
    end = corpus.vocabulary.end_token
    if end is None:  # bytes may be more than the characters, and pieces are fewer
        return math.ceil(PIECE * max(1.0, corpus.tokens_per_character))
    # of a long list, whose ranges are several documents, those that measure tell it
    parts = [corpus.training, corpus.validation]
    alone = [part.ranges for part in parts if 0 < len(part.ranges) == part.documents]
    longest = max((int(np.diff(ranges).max()) for ranges in alone), default=_LONGEST_DOCUMENT)
    return min(longest, _LONGEST_DOCUMENT)


def _until(row: NDArray[np.int64], end: int) -> NDArray[np.int64]:
    """A text as far as its end token, which is left out."""
    ends = np.flatnonzero(row == end)
    return row[: ends[0]] if len(ends) else row


@torch.no_grad()
def write_pieces(
    model: CharGRU, corpus: Corpus, count: int, options: SamplingOptions, length: int = PIECE
) -> NDArray[np.int64]:
    """Texts that the model writes from its beginning side by side, ``[count, length]``.

    What stands behind an end token is of no meaning.

    One thread computes it: as fast as two where another program runs, and always the same.
    """
    end = corpus.vocabulary.end_token
    [start] = corpus.vocabulary.encode(choose_separator(corpus)) if end is None else [end]
    pieces = np.full((count, length + 1), start)
    at_once = max(1, _LOGITS_AT_ONCE // model.vocab_size)
    with threads(1):
        for begin in range(0, count, at_once):
            rows = pieces[begin : begin + at_once]  # [rows, length + 1]
            sampler = Sampler(options, model.vocab_size, range(begin, begin + len(rows)))
            hidden = model.zero_hidden(len(rows))  # [rows, num_layers, hidden_size]
            for step in range(length):
                token = as_tensor(rows[:, step : step + 1], hidden.device)  # [rows, 1]
                logits, hidden = model(token, hidden)  # [rows, 1, vocab_size]
                rows[:, step + 1] = sampler.sample(logits[:, 0].numpy())
                if end is not None and (rows[:, 1 : step + 2] == end).any(axis=1).all():
                    break
    return pieces[:, 1:]


def document_facts(corpus: Corpus, samples: Sequence[NDArray[np.integer]]) -> SampleFacts:
    """How many of some texts are documents of a corpus, and how many are equal to an earlier one.

    Documents are compared by hashes of 64 bits.

    Args:
        corpus: of documents.
        samples: the texts, each ``[tokens]`` without an end token; one may be empty.
    """
    end, characters = corpus.vocabulary.end_token, corpus.vocabulary.characters
    if end is None:
        raise TypeError("the corpus has no documents")
    written = [sample for sample in samples if len(sample)]  # no document is empty
    ends = np.cumsum([len(sample) for sample in written], dtype=np.int64)
    ranges = np.stack([ends - [len(sample) for sample in written], ends], axis=1)
    hashes = hash_ranges(np.concatenate([*written, ends[:0]]), ranges, characters)
    found = np.zeros(len(hashes), dtype=bool)
    begins = _searched(len(corpus.tokens))
    for begin in begins:
        # with what a document that begins there may reach into
        part = corpus.tokens[begin : begin + _LOOKED_THROUGH + _LONGEST_DOCUMENT + 1]
        documents = document_ranges(part, end) - np.array([0, 1])  # without their end tokens
        found |= np.isin(hashes, hash_ranges(part, documents, characters))
    distinct = len(np.unique(hashes)) + (len(written) < len(samples))
    return SampleFacts(
        count=len(samples),
        share_in_corpus=int(found.sum()) / len(samples),
        share_of_doubles=1 - distinct / len(samples),
        searched=_share_searched(len(corpus.tokens)),
    )


def sample_facts(text: Tokens, samples: Sequence[NDArray[np.integer]]) -> SampleFacts:
    """How many of some texts stand in a corpus, and how many are equal to an earlier one.

    Args:
        text: the corpus, ``[tokens]``.
        samples: the texts, each ``[tokens]``, of any lengths.
    """
    distinct = {sample.tobytes(): sample for sample in samples}
    known: set[bytes] = set()
    for length in {len(sample) for sample in distinct.values()}:
        pieces = np.stack([sample for sample in distinct.values() if len(sample) == length])
        known |= {piece.tobytes() for piece in pieces[stand_in(text, pieces)]}
    count = len(samples)
    return SampleFacts(
        count=count,
        share_in_corpus=sum(sample.tobytes() in known for sample in samples) / count,
        share_of_doubles=1 - len(distinct) / count,
        searched=_share_searched(len(text)),
    )


def stand_in(text: Tokens, pieces: NDArray[np.integer]) -> NDArray[np.bool_]:
    """Which of some different texts of one length stand in a corpus, bool ``[pieces]``.

    Every window of the corpus is hashed, a part at a time, by a polynomial modulo 2**64 whose sums
    run on (Karp and Rabin 1987); where the hash is that of a piece, the two are compared.

    Args:
        text: the corpus, ``[tokens]``.
        pieces: ``[pieces, length]``.
    """
    length = pieces.shape[1]
    powers = _powers(_BASE, _LOOKED_THROUGH + length)
    inverse = _powers(pow(_BASE, -1, 1 << 64), _LOOKED_THROUGH)
    hashes = ((pieces.astype(np.uint64) + 1) * powers[:length]).sum(1, dtype=np.uint64)  # [pieces]
    order = np.argsort(hashes)
    hashes, found = hashes[order], np.zeros(len(pieces), dtype=bool)
    likely = np.zeros(1 << _TABLE_BITS, dtype=bool)  # by the first bits of a hash
    likely[hashes >> (64 - _TABLE_BITS)] = True
    for begin in _searched(len(text) - length + 1):
        part = text[begin : begin + _LOOKED_THROUGH + length - 1].astype(np.uint64) + 1
        sums = np.cumsum(part * powers[: len(part)])
        windows = sums[length - 1 :].copy()  # [windows]
        windows[1:] -= sums[:-length]
        windows *= inverse[: len(windows)]
        at = np.flatnonzero(likely[windows >> (64 - _TABLE_BITS)])
        nearest = np.minimum(np.searchsorted(hashes, windows[at]), len(hashes) - 1)
        equal = hashes[nearest] == windows[at]
        for index, place in zip(*np.unique(nearest[equal], return_index=True), strict=True):
            first = begin + at[equal][place]
            piece = pieces[order[index]]
            found[order[index]] |= np.array_equal(text[first : first + length], piece)
        give_back(text)
    return found


def _searched(places: int) -> list[int]:
    """Where the blocks of a corpus begin that are looked through: all, or some spread over it."""
    begins = list(range(0, places, _LOOKED_THROUGH))
    most = max(1, MOST_SEARCHED // _LOOKED_THROUGH)
    if len(begins) <= most:
        return begins
    return [begins[place] for place in np.linspace(0, len(begins) - 1, most).astype(int).tolist()]


def _share_searched(places: int) -> float:
    """The share of a corpus that is looked through."""
    return min(1.0, len(_searched(places)) * _LOOKED_THROUGH / max(1, places))


def _powers(base: int, count: int) -> NDArray[np.uint64]:
    """1, base, base**2, … modulo 2**64, ``[count]``."""
    powers = np.full(count, base, dtype=np.uint64)
    powers[0] = 1
    return np.multiply.accumulate(powers)
