"""A corpus: a text as tokens, in documents or running on, and what of it is held out."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from chargen_ort.checks import printable
from chargen_ort.documents import DocumentKind
from chargen_ort.errors import CorpusError
from chargen_ort.vocabulary import Vocabulary
from chargen_train.collecting import Collected, SourceFile, Tell, collect, number_tokens
from chargen_train.cutting import judge_lines
from chargen_train.ids import Tokens, TokenStore, in_pieces
from chargen_train.inputs import (
    STDIN,
    Input,
    combined_sha256,
    corpus_name,
    describe_many,
    find_inputs,
    refuse_unreadable,
)
from chargen_train.kept_tokens import Facts, find_kept
from chargen_train.likeness import describe_unlikeness
from chargen_train.list_split import read_list
from chargen_train.ranges import document_ranges
from chargen_train.reading import Reading
from chargen_train.split import Part, split_text

MIN_CHARACTERS_TO_VALIDATE = 10_000  # below this every character is needed for training …
_FEW_DOCUMENTS = 10  # … and below this number of different ones every document


@dataclass(frozen=True)
class Corpus:
    """A text as tokens.

    Attributes:
        name: the file's name without its suffix, nor that of gzip; see `corpus_name`.
        sources: the files, in their order.
        characters: code points of the files, and line ends that were put between them.
        vocabulary: its distinct characters; with an end token, if there are documents.
        tokens: unsigned integers ``[tokens]``, as narrow as the vocabulary allows; of documents,
            the end token stands before the first and after each.
        training, validation: the parts to train on and to measure with; the latter may be empty.
        reading: how it was read, with nothing left open.
        decision: what the documents are and why, a sentence.
        notes: a line each about what was changed while it was read.
        warnings: a line each about what makes the measure doubtful.
        measure: the file that measures, if it is one of its own.
        counts: how often each token stands in the text, that which measures included,
            ``[vocab_size]``.
        spelled: the same corpus with characters as tokens; None where they are.
    """

    name: str
    sources: tuple[SourceFile, ...]
    characters: int
    vocabulary: Vocabulary
    tokens: Tokens
    training: Part
    validation: Part
    reading: Reading = Reading("none", None, "none")  # noqa: RUF009 - frozen
    decision: str = ""
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    measure: tuple[SourceFile, ...] = ()
    counts: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    spelled: "Corpus | None" = None

    def __len__(self) -> int:
        return self.characters

    @property
    def sha256(self) -> str:
        """Of the file's bytes; of several files, see `combined_sha256`."""
        return combined_sha256([each.sha256 for each in self.sources])

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
        measured = 0 if self.reading.holdout_kind == "file" else self.validation.documents
        return self.training.documents + measured

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


def with_ends(vocabulary: Vocabulary, tokens: Tokens) -> str:
    """The text of tokens of characters, with NUL, which no text has, for each end."""
    points = np.array([*map(ord, vocabulary.characters), 0], dtype="<u4")
    return bytes(points[tokens].data).decode("utf-32-le")


def document_texts(corpus: Corpus) -> Iterator[str]:
    """The documents of a corpus, in their order, without those of a file that measures."""
    corpus = corpus.in_characters
    kept = len(corpus.tokens)
    if corpus.reading.holdout_kind == "file":
        kept = int(corpus.training.ranges[-1, 1])
    held = ""
    for begin, piece in in_pieces(corpus.tokens[:kept]):
        text = with_ends(corpus.vocabulary, piece)
        *whole, held = (held + (text if begin else text[1:])).split("\0")
        yield from whole


def load_corpus(
    paths: Path | Sequence[Path],
    reading: Reading = Reading(),  # noqa: B008 - frozen
    store: TokenStore | None = None,
    known: Vocabulary | None = None,
    tell: Tell = lambda read, size: None,
) -> Corpus:
    """Read files, in pieces, so that hardly more than the tokens is held, or not even they.

    Args:
        paths: one or more: files, folders, and `chargen_train.inputs.STDIN`.
        reading: how they are read.
        store: that takes the tokens; None makes one, whose file, if any, has no name.
        known: characters that the vocabulary has besides those of the text, and its policy.
        tell: takes bytes that were read, and bytes that are known to come.

    Raises:
        CorpusError: not readable, not a text (see `chargen_ort.text`), given twice, too large for
            the memory, fewer than two characters, without the column, or a single document where
            documents were asked for; or nothing would be held out.
        OptionError: the file for the tokens cannot be written.
    """
    paths = [paths] if isinstance(paths, Path) else paths
    if store is None:
        with TokenStore() as store:
            return load_corpus(paths, reading, store, known, tell)
    inputs, measure = find_inputs(paths), _measure_of(reading)
    if not reading.skip_unreadable:
        refuse_unreadable(inputs, reading.encoding)
    if store.kept and (found := find_kept(store.kept, inputs, measure, reading, known)):
        return corpus_of(*found)
    name = corpus_name(paths)
    title = (
        str(inputs[0] if paths == [STDIN] else paths[0])
        if len(paths) == 1
        else f"{paths[0]} with {len(paths) - 1:,} more"
    )
    collected = collect(inputs, measure, reading, store, tell)
    characters = sum(each.characters for each in collected.sources) + collected.added
    if collected.cut < 2:
        size = "empty" if not collected.cut else "one character long"
        raise CorpusError(f"{title} is {size}; a corpus needs at least 2 characters")
    reading, decision = _decide(reading, collected, store)
    if reading.documents != "none" and reading.separator not in collected.characters:
        raise _one_document(title, reading)
    numbered = number_tokens(collected, reading, store, known)
    facts = Facts(
        name, title, characters, collected.sources, collected.measure, numbered.vocabulary,
        numbered.counts.tolist(), numbered.cut, reading, _describe_order(collected, decision),
        (*collected.notes, *numbered.notes), known,
    )  # fmt: skip
    return corpus_of(facts, store.close(asdict(facts)))


def corpus_of(facts: Facts, tokens: Tokens) -> Corpus:
    """The corpus of tokens, split as its reading says.

    Raises:
        CorpusError: a single document where documents were asked for; or nothing would be held out.
    """
    training, validation, reading = _split(
        facts.title, facts.reading, facts.characters, facts.vocabulary, tokens, facts.cut
    )
    problem = describe_unlikeness(training, validation, facts.vocabulary)
    return Corpus(
        facts.name,
        facts.sources,
        facts.characters,
        facts.vocabulary,
        tokens,
        training,
        validation,
        reading,
        facts.decision,
        facts.notes,
        (f"{problem}; {_CURES[reading.holdout_kind]}",) if problem else (),
        facts.measure,
        np.array(facts.counts, dtype=np.int64),
    )


def _measure_of(reading: Reading) -> tuple[Input, ...]:
    """The text that measures, if it is one of its own."""
    if reading.holdout_kind != "file":
        return ()
    path = Path(str(reading.holdout))
    return (Input(path, path.name, path.stat().st_size if path.is_file() else 0),)


def _describe_order(collected: Collected, decision: str) -> str:
    """What the documents are and why; of several files also which were read, in which order."""
    sources = collected.sources
    if len(sources) < 2:
        return decision
    names = describe_many([each.name for each in sources])
    return f"{decision}; {len(sources):,} files in this order: {names}"


_CURES = {
    "tail": "--holdout spread holds out parts of the whole text",
    "spread": "the model cannot predict them",
    "file": "give a --holdout of the same kind of text",
}


def _decide(reading: Reading, collected: Collected, store: TokenStore) -> tuple[Reading, str]:
    """The reading with its kind of documents, and why, in a sentence."""
    if reading.column is not None:
        of = f"the column {printable(reading.column)}"
        return replace(reading, documents="lines"), f"each value of {of} is a document"
    if reading.documents == "auto":
        lines, why = judge_lines(store.pieces(collected.cut), collected.characters)
        if lines:
            return replace(reading, documents="lines"), f"each line is a document: {why}"
        runs = "the text runs on" + ", each file from a new line on" * (len(collected.sources) > 1)
        return replace(reading, documents="none"), f"{runs}, no list of lines: {why}"
    what = {
        "none": "the text runs on",
        "lines": "each line is a document",
        "blank": "what stands between blank lines is a document",
        "files": "each file is a document",
    }[reading.documents]
    if reading.documents == "none" and len(collected.sources) > 1:
        what += ", each file from a new line on"
    return reading, f"{what}, as --documents says"


def split_again(corpus: Corpus, holdout: str) -> Corpus:
    """A corpus of which nothing is held out, split as it is with this `Reading.holdout`.

    Raises:
        CorpusError: a part would be empty.
    """
    reading, tokens = replace(corpus.reading, holdout=holdout), corpus.tokens
    training, validation, reading = _split(
        corpus.name, reading, corpus.characters, corpus.vocabulary, tokens, len(tokens)
    )
    return replace(corpus, training=training, validation=validation, reading=reading)


def _split(
    title: str, reading: Reading, characters: int, vocabulary: Vocabulary, tokens: Tokens, cut: int
) -> tuple[Part, Part, Reading]:
    """The parts to train on and to measure with, and the reading with what is held out.

    Args:
        title: of the corpus, for messages.
        reading: whose `documents` is decided.
        characters: of the file.
        vocabulary, tokens: of the corpus, and of the text that measures behind it.
        cut: where that begins.

    Raises:
        CorpusError: there is one document, or one part would be empty.
    """
    end = vocabulary.end_token
    different = _FEW_DOCUMENTS
    if end is not None:
        listing = read_list(tokens[:cut], end, vocabulary.characters)
        if listing.count < 2:
            raise _one_document(title, reading)
        different = listing.different
    if reading.holdout is None:
        enough = characters >= MIN_CHARACTERS_TO_VALIDATE and different >= _FEW_DOCUMENTS
        reading = replace(reading, holdout="spread" if enough else "none")
    kind = reading.holdout_kind
    if end is not None:
        training, validation = listing.split("none" if kind == "file" else kind)
        if kind == "file":
            other = document_ranges(tokens[cut - 1 :], end) + cut - 1
            validation = Part(tokens, other, len(other))
    else:
        training, validation = (Part(tokens, ranges) for ranges in split_text(cut, kind))
        if kind == "file":
            validation = Part(tokens, np.array([[cut, len(tokens)]]))
    if kind != "none" and min(len(training), len(validation)) < 2:
        raise CorpusError(
            f"--holdout {reading.holdout} would leave {training.characters:,} characters of "
            f"{title} to train on and {validation.characters:,} to measure with; give a longer "
            "text, or --holdout none"
        )
    return training, validation, reading


def _one_document(title: str, reading: Reading) -> CorpusError:
    return CorpusError(
        f"{title} is one document with --documents {reading.documents}; give --documents none"
    )


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
