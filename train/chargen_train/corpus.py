"""A corpus: a text as tokens, in documents or running on, and what of it is held out."""

from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from chargen_ort.checks import printable
from chargen_ort.documents import DocumentKind
from chargen_ort.errors import CorpusError
from chargen_ort.text import open_text
from chargen_ort.vocabulary import Vocabulary, collect_tokens
from chargen_train.cutting import document_ranges, end_documents, judge_lines
from chargen_train.likeness import describe_unlikeness
from chargen_train.reading import Reading, Source
from chargen_train.split import (
    Part,
    Tokens,
    distinct,
    hash_ranges,
    split_documents,
    split_text,
)

MIN_CHARACTERS_TO_VALIDATE = 10_000  # below this every character is needed for training …
_FEW_DOCUMENTS = 10  # … and below this number of different ones every document
_CHUNK = 1 << 20


@dataclass(frozen=True)
class Corpus:
    """A text as tokens.

    Attributes:
        name: the file's name without its suffix, nor that of gzip.
        sha256: of the file's bytes.
        characters: code points of the file.
        vocabulary: its distinct characters; with an end token, if there are documents.
        tokens: unsigned integers ``[tokens]``, as narrow as the vocabulary allows; of documents,
            the end token stands before the first and after each.
        training, validation: the parts to train on and to measure with; the latter may be empty.
        reading: how it was read, with nothing left open.
        decision: what the documents are and why, a sentence.
        notes: a line each about what was changed while it was read.
        warnings: a line each about what makes the measure doubtful.
        spelled: the same corpus with characters as tokens; None where they are.
    """

    name: str
    sha256: str
    characters: int
    vocabulary: Vocabulary
    tokens: Tokens
    training: Part
    validation: Part
    reading: Reading = Reading("none", None, "none")  # noqa: RUF009 - frozen
    decision: str = ""
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    spelled: "Corpus | None" = None

    def __len__(self) -> int:
        return self.characters

    @property
    def documents(self) -> DocumentKind:
        """What a document is."""
        kind = self.reading.documents
        return "none" if kind == "auto" else kind

    @property
    def document_count(self) -> int:
        """How many documents it has, 0 of running text; without those of a file that measures."""
        if not self.vocabulary.end:
            return 0
        measured = 0 if self.reading.holdout_kind == "file" else len(self.validation.ranges)
        return len(self.training.ranges) + measured

    @property
    def in_characters(self) -> "Corpus":
        """The corpus with characters as tokens."""
        return self.spelled or self

    @property
    def tokens_per_character(self) -> float:
        """Tokens of the text that is trained on by its characters, where an end is one."""
        return len(self.training) / self.training.width

    @property
    def measuring(self) -> Part:
        """What tells which weights to keep: the held-out part, or else the training part."""
        return self.validation if len(self.validation) else self.training

    def beginning(self, length: int) -> str:
        """The first characters of the text, about `length` of them, documents a line each."""
        text = self.tokens[:length]
        if not self.vocabulary.end:
            return self.vocabulary.decode(text)
        ends = np.flatnonzero(text == self.vocabulary.end_token)
        return "\n".join(map(self.vocabulary.decode, np.split(text, ends)[1:]))

    def counts(self) -> NDArray[np.int64]:
        """How often each token stands in the text, ``[vocab_size]``."""
        counts = np.zeros(len(self.vocabulary), dtype=np.int64)
        for begin in range(0, len(self.tokens), _CHUNK):  # bincount widens what it counts to int64
            part = self.tokens[begin : begin + _CHUNK]
            counts += np.bincount(part, minlength=len(counts))
        return counts


def load_corpus(path: Path, reading: Reading = Reading()) -> Corpus:  # noqa: B008 - frozen
    """Read a text file, in pieces, so that hardly more than its tokens is held.

    Raises:
        CorpusError: not readable, not a text (see `chargen_ort.text`), too large for the memory,
            fewer than two characters, without the column, or a single document where documents
            were asked for; or nothing would be held out.
    """
    with open_text(path) as reader:
        source = Source(reader, reading, path)
        if reading.holdout_kind == "file":
            measure = Path(str(reading.holdout))
            with open_text(measure) as other:
                text = chain(source, Source(other, reading, measure))
                characters, tokens = collect_tokens(text)
        else:
            characters, tokens = collect_tokens(source)
    if source.given < 2:
        size = "empty" if not source.given else "one character long"
        raise CorpusError(f"{path} is {size}; a corpus needs at least 2 characters")
    reading, decision = _decide(reading, characters, tokens[: source.given])
    vocabulary, cut = Vocabulary(characters), source.given
    if reading.documents != "none":
        separator, end = characters.find(reading.separator), len(characters) - 1
        if separator < 0:
            raise _one_document(path, reading)
        vocabulary = Vocabulary(characters.replace(reading.separator, ""), end=True)
        parts = [end_documents(t, separator, end) for t in (tokens[:cut], tokens[cut:])]
        tokens, cut = parts[0], len(parts[0])
        if len(parts[1]) > 1:
            tokens = np.concatenate([tokens, parts[1][1:]])
    training, validation, reading = _split(
        path, reading, source.characters, vocabulary, tokens, cut
    )
    problem = describe_unlikeness(training, validation, vocabulary)
    return Corpus(
        corpus_name(path),
        reader.sha256,
        source.characters,
        vocabulary,
        tokens,
        training,
        validation,
        reading,
        decision,
        source.notes,
        (f"{problem}; {_CURES[reading.holdout_kind]}",) if problem else (),
    )


_CURES = {
    "tail": "--holdout spread holds out parts of the whole text",
    "spread": "the model cannot predict them",
    "file": "give a --holdout of the same kind of text",
}


def _decide(reading: Reading, characters: str, tokens: Tokens) -> tuple[Reading, str]:
    """The reading with its kind of documents, and why, in a sentence."""
    if reading.column is not None:
        of = f"the column {printable(reading.column)}"
        return replace(reading, documents="lines"), f"each value of {of} is a document"
    if reading.documents == "auto":
        lines, why = judge_lines(tokens, characters)
        if lines:
            return replace(reading, documents="lines"), f"each line is a document: {why}"
        return replace(reading, documents="none"), f"the text runs on, no list of lines: {why}"
    what = {
        "none": "the text runs on",
        "lines": "each line is a document",
        "blank": "what stands between blank lines is a document",
        "files": "each file is a document",
    }[reading.documents]
    return reading, f"{what}, as --documents says"


def split_again(corpus: Corpus, holdout: str) -> Corpus:
    """A corpus of which nothing is held out, split as it is with this `Reading.holdout`.

    Raises:
        CorpusError: a part would be empty.
    """
    reading, tokens = replace(corpus.reading, holdout=holdout), corpus.tokens
    training, validation, reading = _split(
        Path(corpus.name), reading, corpus.characters, corpus.vocabulary, tokens, len(tokens)
    )
    return replace(corpus, training=training, validation=validation, reading=reading)


def _split(
    path: Path, reading: Reading, characters: int, vocabulary: Vocabulary, tokens: Tokens, cut: int
) -> tuple[Part, Part, Reading]:
    """The parts to train on and to measure with, and the reading with what is held out.

    Args:
        path: of the corpus, for messages.
        reading: whose `documents` is decided.
        characters: of the file.
        vocabulary, tokens: of the corpus, and of the text that measures behind it.
        cut: where that begins.

    Raises:
        CorpusError: there is one document, or one part would be empty.
    """
    end = vocabulary.end_token
    if end is None:
        ranges, other = np.array([[0, cut]]), np.array([[cut, len(tokens)]])
        different = _FEW_DOCUMENTS
    else:
        ranges = document_ranges(tokens[:cut], end)
        other = document_ranges(tokens[cut - 1 :], end) + cut - 1
        if len(ranges) < 2:
            raise _one_document(path, reading)
        hashes = hash_ranges(tokens, ranges - np.array([0, 1]), vocabulary.characters)
        different = len(distinct(hashes))
    if reading.holdout is None:
        enough = characters >= MIN_CHARACTERS_TO_VALIDATE and different >= _FEW_DOCUMENTS
        reading = replace(reading, holdout="spread" if enough else "none")
    kind = reading.holdout_kind
    if kind == "file":
        chosen = ranges, other
    elif kind == "none":
        chosen = ranges, ranges[:0]
    elif end is None:
        chosen = split_text(cut, kind)
    else:
        numbers = split_documents(hashes, kind)
        chosen = ranges[numbers[0]], ranges[numbers[1]]
    training, validation = (Part(tokens, each, end is not None) for each in chosen)
    if kind != "none" and min(len(training), len(validation)) < 2:
        raise CorpusError(
            f"--holdout {reading.holdout} would leave {training.characters:,} characters of {path} "
            f"to train on and {validation.characters:,} to measure with; give a longer text, or "
            "--holdout none"
        )
    return training, validation, reading


def _one_document(path: Path, reading: Reading) -> CorpusError:
    return CorpusError(
        f"{path} is one document with --documents {reading.documents}; give --documents none"
    )


def corpus_name(path: Path) -> str:
    """names.txt and names.txt.gz are both called names."""
    return Path(path.stem).stem if path.suffix.lower() == ".gz" else path.stem


def choose_separator(corpus: Corpus) -> str:
    """The text of the token that stands before a text begins.

    The end token's, if there is one; else a line end, else a space, else the corpus's last
    character: what would stand before its first one if it were read again.
    """
    if corpus.vocabulary.end:
        return ""
    characters = corpus.vocabulary.characters
    text = corpus.in_characters
    last = text.vocabulary.characters[int(text.tokens[-1])]
    return next((c for c in "\n " if c in characters), last)
