"""A corpus of characters in another unit: its words or pieces are learnt, and it is encoded anew.

What is a document and what is held out was decided by characters, and no token goes across the
edge of a part: so all units train on the same text and are measured by the same.
"""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from chargen_ort.errors import OptionError
from chargen_ort.pieces import split_runs
from chargen_ort.records import MAX_TOKENS
from chargen_ort.vocabulary import BYTES, Unit, Vocabulary
from chargen_train.collecting import Tell
from chargen_train.corpus import Corpus, load_corpus
from chargen_train.cutting import document_ranges
from chargen_train.ids import TokenStore, give_back, in_pieces
from chargen_train.reading import Reading
from chargen_train.split import Part, Ranges

_LEARNT = 1 << 25  # characters that words and pieces are learnt from at most, spread over the text
_CHUNK = 1 << 20
_PIECES = {"bpe": (512, 256), "word": (4096, 2048)}  # tokens by default, and pieces at least
_FEWEST_WORDS = 5  # times that a word stands in the text: fewer teach its embedding nothing …
_FEWEST_PAIRS = 2  # … and of a pair that is joined
_SPACES = 0.02  # share of the characters below which a text has no words to speak of


def load_in_unit(
    paths: Path | Sequence[Path],
    reading: Reading,
    store: TokenStore | None = None,
    known: Vocabulary | None = None,
    tell: Tell = lambda read, size: None,
) -> Corpus:
    """The corpus in the unit that it is read in; its pieces are those of `known`, or learnt.

    Args:
        paths, store, tell: see `load_corpus`; the store takes the characters.
        reading: how the files are read, and the unit.
        known: whose characters, policy and pieces the vocabulary has.

    Raises:
        CorpusError, OptionError: see `load_corpus` and `in_unit`.
    """
    corpus = load_corpus(paths, reading, store, characters_of(known), tell)
    return in_unit(corpus, reading.unit, reading.vocab_size, known)


def characters_of(vocabulary: Vocabulary | None) -> Vocabulary | None:
    """A vocabulary without its pieces; None of bytes, which leave the characters open."""
    if vocabulary is None or vocabulary.unit == "byte":
        return None
    return Vocabulary(vocabulary.characters, vocabulary.unknown, vocabulary.replacement)


def in_unit(
    corpus: Corpus, unit: Unit, vocab_size: int | None, known: Vocabulary | None = None
) -> Corpus:
    """A corpus of characters in another unit, with the pieces of `known` if that is given.

    Args:
        corpus: whose tokens are characters; the result keeps it as `spelled`.
        unit: of the result; char gives the corpus back.
        vocab_size: tokens in all, of word and bpe; None is 512 pieces or 4096 words, and more where
            the text has many characters.
        known: of the same unit, such as that of a model to go on from.

    Raises:
        OptionError: `vocab_size` leaves no room for a piece, or the library that learns pieces is
            not installed.
    """
    if unit == "char":
        return corpus
    own, warnings = corpus.vocabulary, corpus.warnings
    if unit == "byte":
        vocabulary = Vocabulary(BYTES, end=own.end, unit="byte")
    elif known is not None and known.unit == unit:
        vocabulary = replace(known, end=own.end, unknown=own.unknown, replacement=own.replacement)
        vocabulary = widened(vocabulary, own.characters)
    else:
        size = _checked_size(corpus, unit, vocab_size)
        learn = _learn_words if unit == "word" else _learn_pieces
        vocabulary = learn(corpus, size - len(own))
    if unit == "word" and _share_of_spaces(corpus) < _SPACES:
        warnings = (
            *warnings,
            "the text has hardly a space, so that most of its words are long and rare; --unit bpe "
            "suits it better",
        )
    return replace(encoded(corpus, vocabulary), warnings=warnings)


def widened(vocabulary: Vocabulary, characters: str) -> Vocabulary:
    """A vocabulary of pieces with these characters too, all of them in code point order."""
    every = "".join(sorted({*vocabulary.characters, *characters}))
    if every == vocabulary.characters:
        return vocabulary
    texts = [*every, *vocabulary.pieces]
    at = {text: token for token, text in enumerate(texts)}
    merges = tuple(at[vocabulary.texts[token]] for token in vocabulary.merges)
    return replace(vocabulary, characters=every, merges=merges)


def encoded(corpus: Corpus, vocabulary: Vocabulary) -> Corpus:
    """A corpus of characters with the tokens of another vocabulary, and its policy for others.

    Hardly more is held than the tokens, of the smallest type that fits, in memory.
    """
    data, dtype = bytearray(), np.min_scalar_type(len(vocabulary) - 1)  # grows in place
    edges: list[int] = []
    counts = np.zeros(len(vocabulary), dtype=np.int64)
    pieces = _encoded_documents if corpus.vocabulary.end else _encoded_parts
    for piece in pieces(corpus, vocabulary):
        if piece is None:
            edges.append(len(data) // dtype.itemsize)
        else:
            data += piece.astype(dtype).data
            counts += np.bincount(piece, minlength=len(counts))
    tokens: NDArray[np.unsignedinteger] = np.frombuffer(data, dtype)
    place = _places(corpus, vocabulary, tokens, edges)
    sizes = vocabulary.sizes.copy()
    if vocabulary.end_token is not None:
        sizes[vocabulary.end_token] = 1

    def moved(part: Part) -> Part:
        return Part(tokens, place(part.ranges), part.documents, sizes)

    return replace(
        corpus,
        vocabulary=vocabulary,
        tokens=tokens,
        training=moved(corpus.training),
        validation=moved(corpus.validation),
        counts=counts,
        spelled=corpus,
    )


def _places(
    corpus: Corpus, vocabulary: Vocabulary, tokens: NDArray[np.unsignedinteger], edges: list[int]
) -> "_Mover":
    if vocabulary.end_token is None:
        return _Mover(_edges(corpus), np.array(edges))
    own = corpus.vocabulary.end_token
    assert own is not None
    old = document_ranges(corpus.tokens, own)
    new = document_ranges(tokens, vocabulary.end_token)
    return _Mover(np.append(old[:, 0], old[-1:, 1]), np.append(new[:, 0], new[-1:, 1]))


class _Mover:
    """From places among characters to places among tokens, at edges alone."""

    def __init__(self, old: NDArray[np.int64], new: NDArray[np.int64]) -> None:
        self._old, self._new = old, new

    def __call__(self, ranges: Ranges) -> Ranges:
        return self._new[np.searchsorted(self._old, ranges)].reshape(ranges.shape)


def _edges(corpus: Corpus) -> NDArray[np.int64]:
    """Where the parts of a running text begin and end, in order."""
    parts = [part.ranges.ravel() for part in (corpus.training, corpus.validation)]
    return np.unique(np.concatenate([[0, len(corpus.tokens)], *parts]).astype(np.int64))


def _encoded_parts(corpus: Corpus, vocabulary: Vocabulary) -> Iterator[NDArray[np.int64] | None]:
    """The tokens of a running text, and None at each edge of its parts."""
    edges, own = _edges(corpus), corpus.vocabulary
    for begin, end in pairwise(edges.tolist()):
        yield None
        held = ""
        for at in range(begin, end, _CHUNK):
            text = held + own.decode(corpus.tokens[at : min(at + _CHUNK, end)])
            tokens, held = vocabulary.encode_open(text)
            yield tokens
            give_back(corpus.tokens)
        yield vocabulary.encode(held)
    yield None


def _encoded_documents(
    corpus: Corpus, vocabulary: Vocabulary
) -> Iterator[NDArray[np.int64] | None]:
    """The tokens of documents, with the end token before the first and after each."""
    end, held = np.array([vocabulary.end_token]), ""
    for _, piece in in_pieces(corpus.tokens, _CHUNK):
        *whole, held = (held + _with_ends(corpus, piece)).split("\0")
        parts = [each for text in whole for each in (vocabulary.encode(text), end)]
        yield np.concatenate(parts) if parts else end[:0]


def _with_ends(corpus: Corpus, tokens: NDArray[np.unsignedinteger]) -> str:
    """The text of tokens of characters, with NUL, which no text has, for each end."""
    points = np.array([*map(ord, corpus.vocabulary.characters), 0], dtype="<u4")
    return bytes(points[tokens].data).decode("utf-32-le")


def _learning_text(corpus: Corpus) -> Iterator[str]:
    """What is trained on, or parts spread over it, each without an end of a document."""
    part = corpus.training
    step = max(_CHUNK, len(part) // (_LEARNT // _CHUNK))
    for begin in range(0, len(part), step):
        yield from _with_ends(corpus, part[begin : begin + _CHUNK]).split("\0")
        give_back(part.tokens)


def _share_of_spaces(corpus: Corpus) -> float:
    counts = corpus.counts
    place = corpus.vocabulary.characters.find(" ")
    return float(counts[place] / counts.sum()) if place >= 0 else 0.0


def _checked_size(corpus: Corpus, unit: str, vocab_size: int | None) -> int:
    least, (size, pieces) = len(corpus.vocabulary), _PIECES[unit]
    if vocab_size is None:
        return min(MAX_TOKENS, max(size, least + pieces))
    if vocab_size <= least:
        raise OptionError(
            f"--vocab-size {vocab_size} leaves no room for pieces: {corpus.name} has "
            f"{len(corpus.vocabulary.characters):,} characters; give {least + 1} or more"
        )
    return vocab_size


def _learn_words(corpus: Corpus, most: int) -> Vocabulary:
    """The words that stand in the text most often, those of equal counts in their order."""
    counts: Counter[str] = Counter()
    for text in _learning_text(corpus):
        counts.update(split_runs(text))
    frequent = [
        (-count, run)
        for run, count in counts.items()
        if count >= _FEWEST_WORDS and len(run) > 1 and split_runs(run) == [run]
    ]
    words = tuple(run for _, run in sorted(frequent)[:most])
    return replace(corpus.vocabulary, unit="word", pieces=words)


def _learn_pieces(corpus: Corpus, most: int) -> Vocabulary:
    """The pieces that the tokenizers library joins of the pairs that stand there most often.

    Raises:
        OptionError: it is not installed.
    """
    try:
        from tokenizers import Tokenizer
        from tokenizers.models import BPE
        from tokenizers.trainers import BpeTrainer
    except ImportError:
        raise OptionError(
            "--unit bpe needs the tokenizers library: pip install 'chargen-ort[train]'"
        ) from None
    characters = corpus.vocabulary.characters
    tokenizer = Tokenizer(BPE())
    trainer = BpeTrainer(
        vocab_size=len(characters) + most,
        min_frequency=_FEWEST_PAIRS,
        show_progress=False,
        initial_alphabet=list(characters),
        limit_alphabet=len(characters),
    )
    # without a pre-tokenizer each text that it is given is a word: one of our runs
    runs = (split_runs(text) for text in _learning_text(corpus))
    tokenizer.train_from_iterator((run for some in runs for run in some), trainer)
    found = json.loads(tokenizer.to_str())["model"]["merges"]
    at = {character: token for token, character in enumerate(characters)}
    merges: list[int] = []
    for pair in found:
        one, other = pair.split(" ") if isinstance(pair, str) else pair
        merges += [at[one], at[other]]
        at.setdefault(one + other, len(at))
    pieces = tuple(at)[len(characters) :]
    return replace(corpus.vocabulary, unit="bpe", pieces=pieces, merges=tuple(merges))
