"""A corpus: one text file as tokens, cut into a training part and a validation tail."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from chargen_ort.errors import CorpusError
from chargen_ort.text import open_text
from chargen_ort.vocabulary import Vocabulary, collect_tokens

TRAINING_FRACTION = 0.9
MIN_CHARACTERS_TO_VALIDATE = 10_000  # below this every character is needed for training
_CHUNK = 1 << 20


@dataclass(frozen=True)
class Corpus:
    """A text as tokens.

    Attributes:
        name: the file's name without its suffix, nor that of gzip.
        sha256: of the file's bytes.
        vocabulary: its distinct characters.
        tokens: unsigned integers ``[characters]``, as narrow as the vocabulary allows.
        cut: tokens before this index train, the rest validate (none when it is the length).
        notes: a line each about what was changed while it was read.
    """

    name: str
    sha256: str
    vocabulary: Vocabulary
    tokens: NDArray[np.unsignedinteger]
    cut: int
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def training(self) -> NDArray[np.unsignedinteger]:
        """The tokens to train on."""
        return self.tokens[: self.cut]

    @property
    def validation(self) -> NDArray[np.unsignedinteger]:
        """The held-out tail; empty for a short corpus."""
        return self.tokens[self.cut :]

    def counts(self) -> NDArray[np.int64]:
        """How often each token stands in the text, ``[vocab_size]``."""
        counts = np.zeros(len(self.vocabulary), dtype=np.int64)
        for begin in range(0, len(self), _CHUNK):  # bincount widens what it counts to int64
            part = self.tokens[begin : begin + _CHUNK]
            counts += np.bincount(part, minlength=len(counts))
        return counts


def load_corpus(path: Path) -> Corpus:
    """Read a text file, in pieces, so that hardly more than its tokens is held.

    Raises:
        CorpusError: not readable, not a text (see `chargen_ort.text`), too large for the memory,
            or fewer than two characters.
    """
    with open_text(path) as reader:
        characters, tokens = collect_tokens(reader)
    if len(tokens) < 2:
        size = "empty" if not characters else "one character long"
        raise CorpusError(f"{path} is {size}; a corpus needs at least 2 characters")
    cut = int(TRAINING_FRACTION * len(tokens))
    if len(tokens) < MIN_CHARACTERS_TO_VALIDATE:
        cut = len(tokens)
    return Corpus(
        corpus_name(path), reader.sha256, Vocabulary(characters), tokens, cut, notes=reader.notes
    )


def corpus_name(path: Path) -> str:
    """names.txt and names.txt.gz are both called names."""
    return Path(path.stem).stem if path.suffix.lower() == ".gz" else path.stem


def choose_separator(corpus: Corpus) -> str:
    """The character that stands before a text begins.

    A line end, else a space, else the corpus's last character: what would stand before its first
    one if it were read again.
    """
    characters = corpus.vocabulary.characters
    last = characters[int(corpus.tokens[-1])]
    return next((c for c in "\n " if c in characters), last)
