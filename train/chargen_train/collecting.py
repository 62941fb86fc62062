"""From the texts of a corpus to its tokens: the only place where a text is made into numbers."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from chargen_ort.errors import CorpusError
from chargen_ort.vocabulary import UnknownPolicy, Vocabulary
from chargen_train.cutting import DocumentEnds
from chargen_train.ids import PIECE, TokenStore, look_up
from chargen_train.inputs import Input, describe_many
from chargen_train.reading import Reading, Source

UNKNOWN = "\N{REPLACEMENT CHARACTER}"  # what rare characters are read as
_CODE_POINTS = 0x110000
_NOTES = 5  # of single files that are told

Tell = Callable[[int, int], None]


@dataclass(frozen=True)
class SourceFile:
    """A file that a corpus was read from.

    Attributes:
        name: as it was given, or within the folder that was.
        sha256: of its bytes.
        characters: code points of it.
    """

    name: str
    sha256: str
    characters: int


@dataclass(frozen=True)
class Collected:
    """What was found while the texts of a corpus were read.

    Attributes:
        characters: that were met, in the order of their numbers.
        counts: how often each stands in the text to train on, ``[characters]``.
        measured: how often each stands in the text that measures, behind it.
        cut: numbers of the text to train on.
        added: line ends that were put between files, which the counts include.
        sources, measure: the files of either.
        notes: for people, a line each.
    """

    characters: str
    counts: NDArray[np.int64]
    measured: NDArray[np.int64]
    cut: int
    added: int
    sources: tuple[SourceFile, ...]
    measure: tuple[SourceFile, ...]
    notes: tuple[str, ...]


@dataclass
class _Numbers:
    """Gives characters numbers as they are met, so that the text need not be held or read twice."""

    store: TokenStore
    number_of: NDArray[np.int32] = field(
        default_factory=lambda: np.full(_CODE_POINTS, -1, dtype=np.int32)
    )
    met: list[int] = field(default_factory=list)  # code points in the order of their numbers
    counts: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    last: str = ""  # character

    def add(self, text: str) -> None:
        """Put the numbers of its characters into the store."""
        for begin in range(0, len(text), PIECE):
            piece = text[begin : begin + PIECE]
            if piece.isascii():
                points = np.frombuffer(piece.encode(), dtype=np.uint8)
                counts = np.bincount(points, minlength=1)
                self._meet(np.flatnonzero(counts))
                self._count(self.number_of[np.flatnonzero(counts)], counts[counts > 0])
            else:
                points = np.frombuffer(piece.encode("utf-32-le"), dtype="<u4")
                found, counts = np.unique(points, return_counts=True)
                self._meet(found)
                self._count(self.number_of[found], counts)
            self.store.append(look_up(self.number_of, points, len(self.met) - 1))
        self.last = text[-1:] or self.last

    def _meet(self, points: NDArray[np.integer]) -> None:
        """Give different code points numbers, if they have none."""
        new = points[self.number_of[points] < 0]
        if len(new):
            first = len(self.met)
            self.number_of[new] = np.arange(first, first + len(new), dtype=np.int32)
            self.met += new.tolist()
            self.counts = np.append(self.counts, np.zeros(len(new), dtype=np.int64))
            self.store.widen(len(self.met) - 1)

    def _count(self, numbers: NDArray[np.int32], counts: NDArray[np.int64]) -> None:
        self.counts[numbers] += counts

    def back_to(self, length: int, counts: NDArray[np.int64], last: str) -> None:
        """Forget what was added since the store and this had these values."""
        self.store.cut(length)
        self.counts = np.append(counts, np.zeros(len(self.met) - len(counts), dtype=np.int64))
        self.last = last


def collect(
    inputs: Sequence[Input],
    measure: Sequence[Input],
    reading: Reading,
    store: TokenStore,
    tell: Tell = lambda read, size: None,
) -> Collected:
    """Read texts, one after the other, into a store.

    A file that is joined to running text or to a list begins on a line of its own.

    Args:
        inputs: to train on.
        measure: that measure, behind them.
        reading: how they are read.
        store: that takes the numbers of their characters.
        tell: takes bytes that were read, and bytes that are known to come.

    Raises:
        CorpusError: see `chargen_train.corpus.load_corpus`.
    """
    part = _Part(_Numbers(store), reading, tell, sum(each.size for each in (*inputs, *measure)))
    several = len(inputs) + len(measure) > 1
    sources = part.read_all(inputs, several)
    cut, trained = store.length, part.numbers.counts
    part.numbers.counts, part.numbers.last = np.zeros_like(trained), ""
    measured = part.read_all(measure, several)
    notes = part.notes[:_NOTES]
    if more := len(part.notes) - len(notes):
        notes.append(f"{more:,} more files were changed so while they were read")
    if part.skipped:
        notes.append(
            f"left out {len(part.skipped):,} of {len(inputs):,} files, which cannot be read as "
            f"text: {describe_many(part.skipped)}"
        )
    if not sources and part.skipped:
        raise CorpusError(f"none of the {len(inputs):,} files is a text; give a text file")
    known = part.numbers.counts
    return Collected(
        characters="".join(map(chr, part.numbers.met)),
        counts=np.append(trained, np.zeros(len(known) - len(trained), dtype=np.int64)),
        measured=known,
        cut=cut,
        added=part.added,
        sources=sources,
        measure=measured,
        notes=tuple(notes),
    )


@dataclass
class _Part:
    """Reads the files of a part of a corpus, and counts what was read."""

    numbers: _Numbers
    reading: Reading
    tell: Tell
    size: int
    read: int = 0
    added: int = 0
    notes: list[str] = field(default_factory=list)
    skipped: list[Input] = field(default_factory=list)

    def read_all(self, inputs: Sequence[Input], several: bool) -> tuple[SourceFile, ...]:
        """Read files that are joined; `several` says that there are others."""
        sources = []
        for each in inputs:
            before = self.numbers.store.length, self.numbers.counts.copy(), self.numbers.last
            added = self.added
            try:
                source = self._read(each, several)
                if source.characters:
                    sources.append(source)
                elif several:
                    self.notes.append(f"{each} is empty")
            except CorpusError as error:
                if not self.reading.skip_unreadable or str(error).startswith("no such file"):
                    raise
                self.skipped.append(each)
                self.numbers.back_to(*before)
                self.added = added
        return tuple(sources)

    def _read(self, each: Input, several: bool) -> SourceFile:
        with each.open(self.reading.encoding) as reader:
            source = Source(reader, self.reading, str(each))
            runs_on = source.in_lines and self.numbers.last not in ("", "\n")
            for text in source:
                if text and runs_on:
                    self.numbers.add("\n")
                    self.added, runs_on = self.added + 1, False
                self.numbers.add(text)
                self.tell(self.read + reader.read, self.size)
            self.read += reader.read
        self.notes += [f"{each}: {note}" if several else note for note in source.notes]
        return SourceFile(each.name, reader.sha256, source.characters)


@dataclass(frozen=True)
class Numbered:
    """The tokens that a store now has.

    Attributes:
        vocabulary: of them.
        cut: tokens of the text to train on.
        counts: how often each stands in all of them, ``[vocab_size]``.
        notes: for people, a line each.
    """

    vocabulary: Vocabulary
    cut: int
    counts: NDArray[np.int64]
    notes: tuple[str, ...] = ()


def number_tokens(
    collected: Collected, reading: Reading, store: TokenStore, known: Vocabulary | None = None
) -> Numbered:
    """Put tokens in the place of the numbers that a store has.

    The characters of a vocabulary are in code point order; an end token stands before the first
    document and after each.

    Args:
        collected: what the store has.
        reading: whose `documents` is decided; the separator, if there are any, was met.
        store: whose numbers become tokens.
        known: characters that the vocabulary has besides, and its policy for others.
    """
    characters, separator = collected.characters, None
    if reading.documents != "none":
        separator = characters.index(reading.separator)
    own, rare = _kept(collected, reading, separator, known)
    final = "".join(sorted({*own, *(known.characters if known else ""), *(UNKNOWN * bool(rare))}))
    unknown: UnknownPolicy = "replace" if rare else "error"
    replacement = UNKNOWN if rare else ""
    if known is not None and not rare and known.unknown == "replace":
        unknown, replacement = known.unknown, known.replacement
    vocabulary = Vocabulary(final, unknown, replacement, end=separator is not None)
    place_of = {character: place for place, character in enumerate(final)}
    places = [place_of.get(c, place_of.get(UNKNOWN, 0)) for c in characters]
    if separator is not None:
        places[separator] = len(final)
    token_of = np.array(places, dtype=np.min_scalar_type(len(vocabulary) - 1))
    counts = np.zeros(len(vocabulary), dtype=np.int64)
    np.add.at(counts, token_of, collected.counts + collected.measured)
    cut, ends = _rewrite(store, token_of, vocabulary.end_token, collected.cut)
    if vocabulary.end_token is not None:
        counts[vocabulary.end_token] = ends
    notes: tuple[str, ...] = ()
    if rare:
        share = int(collected.counts[list(rare)].sum()) / max(1, int(collected.counts.sum()))
        notes = (
            f"{len(rare):,} characters that stand there less than {reading.min_count:,} times are "
            f"read as one that is unknown, U+FFFD: {share:.2%} of the text",
        )
    return Numbered(vocabulary, cut, counts, notes)


def _kept(
    collected: Collected, reading: Reading, separator: int | None, known: Vocabulary | None
) -> tuple[list[str], list[int]]:
    """The characters that get a token of their own, and the numbers of those that are rare.

    A character that was met only in a file that was left out after all is neither.
    """
    kept, rare = [], []
    for number, character in enumerate(collected.characters):
        count = int(collected.counts[number])
        if number == separator or not count + int(collected.measured[number]):
            continue
        if count >= reading.min_count or reading.min_count == 1:
            kept.append(character)
        elif known is None or character not in known.characters:
            rare.append(number)
    return kept, rare


def _rewrite(
    store: TokenStore, token_of: NDArray[np.unsignedinteger], end: int | None, cut: int
) -> tuple[int, int]:
    """Put tokens into a store, and ends; returns where the second part begins, and how many ends.

    Args:
        store: with numbers.
        token_of: the token of each number; `end` of the separator.
        end: the end token, if there are documents.
        cut: where the second part begins.
    """
    most = max(int(token_of.max()), 0)
    if end is None:
        store.rewrite(lambda piece, begin: look_up(token_of, piece, most), most)
        return cut, 0
    ends, written, length = DocumentEnds(end), [0, 0], store.length

    def change(piece: NDArray[np.unsignedinteger], begin: int) -> NDArray[np.unsignedinteger]:
        tokens = look_up(token_of, piece, most)
        at = min(max(0, cut - begin), len(tokens))
        first = ends.feed(tokens[:at], closes=at > 0 and begin + at == cut)
        second = ends.feed(tokens[at:], closes=begin + len(tokens) == length > cut)
        written[0] += len(first)
        return np.concatenate([first, second])

    store.rewrite(change, most)
    return written[0], ends.count
