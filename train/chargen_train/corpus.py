"""A corpus: one text file as tokens, cut into a training part and a validation tail."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from chargen_ort.errors import CorpusError
from chargen_ort.text import read_text
from chargen_ort.vocabulary import Vocabulary

TRAINING_FRACTION = 0.9
MIN_CHARACTERS_TO_VALIDATE = 10_000  # below this every character is needed for training
_CHUNK = 1 << 20


@dataclass(frozen=True)
class Corpus:
    """A text as tokens.

    Attributes:
        name: the file's name without its suffix.
        sha256: of the file's bytes.
        vocabulary: its distinct characters.
        tokens: unsigned integers ``[characters]``, as narrow as the vocabulary allows.
        cut: tokens before this index train, the rest validate (none when it is the length).
    """

    name: str
    sha256: str
    vocabulary: Vocabulary
    tokens: NDArray[np.unsignedinteger]
    cut: int

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


def load_corpus(path: Path) -> Corpus:
    """Read a UTF-8 text file.

    Raises:
        CorpusError: not readable, not UTF-8, or fewer than two characters.
    """
    text, data = read_text(path)
    if len(text) < 2:
        size = "empty" if not text else "one character long"
        raise CorpusError(f"{path} is {size}; a corpus needs at least 2 characters")
    vocabulary = Vocabulary.from_texts([text])
    dtype = np.min_scalar_type(len(vocabulary) - 1)
    tokens = np.empty(len(text), dtype=dtype)
    for begin in range(0, len(text), _CHUNK):
        piece = text[begin : begin + _CHUNK]
        tokens[begin : begin + len(piece)] = vocabulary.encode(piece)
    cut = int(TRAINING_FRACTION * len(text))
    if len(text) < MIN_CHARACTERS_TO_VALIDATE:
        cut = len(text)
    return Corpus(path.stem, hashlib.sha256(data).hexdigest(), vocabulary, tokens, cut)
