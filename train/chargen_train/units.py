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
from chargen_ort.fields import MAX_TOKENS
from chargen_ort.pieces import split_runs
from chargen_ort.vocabulary import BYTES, Unit, Vocabulary
from chargen_train.collecting import Tell
from chargen_train.corpus import Corpus, load_corpus, with_ends
from chargen_train.ids import TokenStore, give_back, in_pieces
from chargen_train.ranges import distinct
from chargen_train.reading import Reading
from chargen_train.split import Part

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

    Many tokens are put into a file without a name, and mapped into memory.

    Raises:
        OptionError: that file cannot be written.
    """
    edges, places = _edges(corpus), [np.zeros(1, dtype=np.int64)]
    counts, most = np.zeros(len(vocabulary), dtype=np.int64), len(vocabulary) - 1
    pieces = _encoded_documents if corpus.vocabulary.end else _encoded_parts
    with TokenStore() as store:
        store.widen(most)
        for piece, old, new in pieces(corpus, vocabulary):
            # the edges are in order, and many: looked up, they need not be sorted for each piece
            is_edge = edges[np.searchsorted(edges, old)] == old
            places.append(store.length + new[is_edge])
            counts += np.bincount(piece, minlength=len(counts))
            store.append(piece)
        store.rewrite(lambda piece, begin: piece, most)
        tokens = store.close({})
    moved_to = np.concatenate(places)  # where each of the edges is now
    sizes = vocabulary.sizes.copy()
    if vocabulary.end_token is not None:
        sizes[vocabulary.end_token] = 1

    def moved(part: Part) -> Part:
        ranges = moved_to[np.searchsorted(edges, part.ranges)].reshape(part.ranges.shape)
        return Part(tokens, ranges, part.documents, sizes)

    return replace(
        corpus,
        vocabulary=vocabulary,
        tokens=tokens,
        training=moved(corpus.training),
        validation=moved(corpus.validation),
        counts=counts,
        spelled=corpus,
    )


def _edges(corpus: Corpus) -> NDArray[np.int64]:
    """Where a text, its parts and their ranges begin and end, in order."""
    parts = [part.ranges.ravel() for part in (corpus.training, corpus.validation)]
    return distinct(np.concatenate([[0, len(corpus.tokens)], *parts]).astype(np.int64))


# tokens of a part of a text; where in the text what they are of may be cut, and where in them
_Encoded = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]


def _encoded_parts(corpus: Corpus, vocabulary: Vocabulary) -> Iterator[_Encoded]:
    """A running text, which is cut at the edges of its parts."""
    edges, own, nowhere = _edges(corpus), corpus.vocabulary, np.zeros(0, dtype=np.int64)
    for begin, end in pairwise(edges.tolist()):
        held = ""
        for at in range(begin, end, _CHUNK):
            text = held + own.decode(corpus.tokens[at : min(at + _CHUNK, end)])
            tokens, held = vocabulary.encode_open(text)
            yield tokens, nowhere, nowhere
            give_back(corpus.tokens)
        tokens = vocabulary.encode(held)
        yield tokens, np.array([end]), np.array([len(tokens)])


def _encoded_documents(corpus: Corpus, vocabulary: Vocabulary) -> Iterator[_Encoded]:
    """Documents, with the end token before the first and after each, behind which they are cut."""
    end, held = np.array([vocabulary.end_token]), ""
    for begin, piece in in_pieces(corpus.tokens, _CHUNK):
        *whole, held = (held + with_ends(corpus.vocabulary, piece)).split("\0")
        parts = [each for text in whole for each in (vocabulary.encode(text), end)]
        tokens = np.concatenate(parts) if parts else end[:0]
        old = begin + np.flatnonzero(piece == corpus.vocabulary.end_token) + 1
        yield tokens, old, np.flatnonzero(tokens == end) + 1


def _learning_text(corpus: Corpus) -> Iterator[str]:
    """What is trained on, or parts spread over it, each without an end of a document."""
    part = corpus.training
    step = max(_CHUNK, len(part) // (_LEARNT // _CHUNK))
    for begin in range(0, len(part), step):
        yield from with_ends(corpus.vocabulary, part[begin : begin + _CHUNK]).split("\0")
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
