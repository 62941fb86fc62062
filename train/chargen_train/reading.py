"""How a corpus is read: what its documents are, and what of it is held out."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Literal, get_args

from chargen_ort.checks import printable, whole_number
from chargen_ort.documents import DOCUMENT_KINDS
from chargen_ort.errors import OptionError
from chargen_ort.fields import MAX_TOKENS
from chargen_ort.text import TextReader
from chargen_ort.vocabulary import UNITS, Unit
from chargen_train.columns import Column
from chargen_train.inputs import check_encoding

HoldoutKind = Literal["tail", "spread", "none", "file"]
_END = "\0"  # ends a document while it is read; no text has this character
_BLANK_LINES = re.compile(r"\n\s*\n")
_MOST_RARE = 10**9
_CHUNK = 1 << 16  # characters of documents that are given on at a time, at least


@dataclass(frozen=True)
class Reading:
    """How a corpus is read and split.

    Attributes:
        documents: what a document is; ``auto`` finds out whether each line is one.
        column: name or number of a column of a table, each of whose values is a document; None
            reads the whole file.
        holdout: what measures the model: the ``tail``, parts ``spread`` over the corpus, ``none``
            of it, or the path of another text. None spreads, where the corpus is long enough.
        encoding: of all texts, a name that Python knows; None is UTF-8, or what a mark says.
        min_count: a character that the text to train on has less often is read as unknown.
        skip_unreadable: leave out files that are no texts.
        unit: what a token is, see `chargen_ort.Vocabulary`.
        vocab_size: tokens in all, of word and bpe; None leaves it to `chargen_train.units`.

    Raises:
        OptionError: an unknown name, or options that contradict each other.
    """

    documents: Literal["auto", "none", "lines", "blank", "files"] = "auto"
    column: str | None = None
    holdout: str | None = None
    encoding: str | None = None
    min_count: int = 1
    skip_unreadable: bool = False
    unit: Unit = "char"
    vocab_size: int | None = None

    def __post_init__(self) -> None:
        if self.documents not in ("auto", *DOCUMENT_KINDS):
            names = ", ".join(DOCUMENT_KINDS)
            raise OptionError(f"documents is {printable(self.documents, 60)}; give auto, {names}")
        if self.column is not None and self.documents not in ("auto", "lines"):
            raise OptionError(
                f"--column makes each value a document, and --documents is {self.documents}; leave "
                "one of the two out"
            )
        if self.unit not in UNITS:
            names = ", ".join(UNITS)
            raise OptionError(f"unit is {printable(self.unit, 60)}; give one of {names}")
        if self.vocab_size is not None:
            if self.unit not in ("word", "bpe"):
                raise OptionError(
                    f"--vocab-size is for --unit word and bpe, and the unit is {self.unit}; leave "
                    "it out"
                )
            whole_number("--vocab-size", self.vocab_size, 2, MAX_TOKENS)
        for name in ("column", "holdout"):
            if getattr(self, name) == "":
                raise OptionError(f"--{name} is empty; give a name, or leave it out")
        whole_number("min_count", self.min_count, 1, _MOST_RARE)
        if self.encoding is not None and not check_encoding(self.encoding):
            raise OptionError(
                f"--encoding {printable(self.encoding, 60)!r} is no encoding of text that Python "
                "knows; give a name such as cp1252, utf-16 or shift_jis"
            )

    @property
    def holdout_kind(self) -> HoldoutKind:
        """What measures the model; ``none`` where it is left open."""
        if self.holdout is None:
            return "none"
        return next((kind for kind in get_args(HoldoutKind)[:3] if kind == self.holdout), "file")

    @property
    def separator(self) -> str:
        """What ends a document in the text that `Source` gives."""
        lines = self.documents in ("auto", "lines") and self.column is None
        return "\n" if lines else _END


class Source:
    """The text of one file as it is made into tokens, in pieces, once.

    Lines stay as they are. Of other documents, each has the separator after it.

    Args:
        reader: of the file.
        reading: how it is read.
        name: of the file, for messages.

    Attributes:
        characters: code points of the file that were read.
        in_lines: whether the text stays as it is, so that another one begins on a line of its own.
    """

    def __init__(self, reader: TextReader, reading: Reading, name: str) -> None:
        self.characters = 0
        self._reader, self._reading = reader, reading
        self.in_lines = reading.column is None and reading.documents not in ("blank", "files")
        self._column: Column | None = None
        if reading.column is not None:
            self._column = Column(self._pieces(), reading.column, name)

    def __iter__(self) -> Iterator[str]:
        pieces = self._pieces()
        if self._column is not None:
            return _with_ends(self._column)
        if self._reading.documents == "blank":
            return end_at_blank_lines(pieces)
        return chain(pieces, (_END,)) if self._reading.documents == "files" else pieces

    def _pieces(self) -> Iterator[str]:
        for piece in self._reader:
            self.characters += len(piece)
            yield piece

    @property
    def notes(self) -> tuple[str, ...]:
        """After the last piece: what was changed or left out, for people."""
        missing = self._column.missing if self._column is not None else 0
        left_out = (f"left out {missing:,} lines that are too short to have the column",)
        return (*self._reader.notes, *(left_out if missing else ()))


def end_at_blank_lines(pieces: Iterable[str]) -> Iterator[str]:
    """A text with `_END` in place of blank lines and what ends the line before, and at its end.

    The documents are those of `chargen_ort.documents.cut_documents`, which holds each as a whole.
    """
    held = "\n\n"  # white space whose meaning depends on what follows; at first a blank line
    for piece in pieces:
        text = held + piece
        kept = text.rstrip()
        held = text[len(kept) :]
        yield _BLANK_LINES.sub(_END, kept)
    # of what is left, only what stands on the last line of text belongs to it
    yield held.split("\n")[0] + _END


def _with_ends(documents: Iterable[str]) -> Iterator[str]:
    """The documents, each with `_END` after it, many in one piece."""
    waiting: list[str] = []
    size = 0
    for document in documents:
        waiting.append(document)
        size += len(document)
        if size >= _CHUNK:
            yield _END.join([*waiting, ""])
            waiting, size = [], 0
    yield _END.join([*waiting, ""])
