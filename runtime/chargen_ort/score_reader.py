"""What a score reads of a text: its tokens, and the end where texts have one."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from chargen_ort.calibration import Calibration
from chargen_ort.engine import Engine
from chargen_ort.score import Score
from chargen_ort.vocabulary import UnknownPolicy

LINE_END = "\n"
MANY_ROWS = 16  # in a call, from which on they are read as rows of a batch


@dataclass(frozen=True)
class ScoreReader:
    """The model, and what it reads where a text has a character that it does not know.

    Attributes:
        engine: the model.
        policy: ``error``, ``skip`` or ``replace``.
        separator: the token before a text; also read before what follows, where a text or a
            window begins with a character that is left out.
        stand_in: the token read in place of an unknown character; None leaves it out.
        side_by_side: whether it reads with `Engine.run_rows`.
        ending: the token that is scored after each text; None where there is none.
        calibration: how odd the score of a whole text is; None where that is not known.
    """

    engine: Engine
    policy: UnknownPolicy
    separator: int
    stand_in: int | None
    side_by_side: bool
    ending: int | None
    calibration: Calibration | None

    def pieces(self, text: str, size: int) -> Iterator[NDArray[np.int32]]:
        """Tokens of `text` and its ending, `size` characters at a time; -1 is an unknown one."""
        last = np.zeros(0, dtype=np.int32)  # held back until it is known that it is the last
        for piece in self.characters(text, size):
            if len(last):
                yield last
            last = piece
        if self.ending is not None:
            last = np.append(last, np.int32(self.ending))
        if len(last):
            yield last

    def characters(self, text: str, size: int) -> Iterator[NDArray[np.int32]]:
        """Tokens of `text` without its ending."""
        vocabulary = self.engine.vocabulary
        if self.policy == "error":
            for piece in vocabulary.encode_pieces(text, "error", size):
                yield piece.astype(np.int32)
            return
        yield from map(vocabulary.look_up, vocabulary.cut(text, size))

    def most_tokens(self, text: str) -> int:
        """How many tokens a text has at most, without its ending."""
        is_bytes = self.engine.vocabulary.unit == "byte" and not text.isascii()
        return len(text.encode("utf-8", "replace")) if is_bytes else len(text)

    @property
    def by_character(self) -> bool:
        """Whether each token is a character."""
        return self.engine.vocabulary.unit == "char"

    def sizes(self, tokens: NDArray[np.int32]) -> NDArray[np.int64]:
        """How many characters tokens ``[time]`` are; an unknown one and the ending are one each."""
        found = self.engine.vocabulary.sizes[np.maximum(tokens, 0)].astype(np.int64)
        alone = (tokens < 0) | (tokens == (-1 if self.ending is None else self.ending))
        return np.where(alone, 1, found)

    def scored(
        self,
        text: str,
        own: NDArray[np.float64],
        unknown: int,
        sizes: NDArray[np.int64] | None,
    ) -> Score:
        """The score of all of `text`, and its end, from those of its tokens ``[tokens]``."""
        characters = len(text) + (self.ending is not None)
        tokens = None if self.by_character else len(own)
        total, known = math.fsum(own.tolist()), self.calibration
        return Score(total, characters, own, unknown, text, known, tokens, sizes)


def score_reader(
    engine: Engine, unknown: UnknownPolicy | None, rows: int, end: bool = False
) -> ScoreReader:
    """A reader of so many rows with the policy `unknown`; None takes the model's, skip for error.

    How it reads depends on all rows of a call, so that those beside a row change nothing of it.
    With `end`, texts end with the end token; in models without one, with a line end if they know
    it.
    """
    vocabulary = engine.vocabulary
    vocabulary.encode("", unknown)  # refuses a policy that does not exist
    policy = unknown or ("skip" if vocabulary.unknown == "error" else vocabulary.unknown)
    replacement = vocabulary.characters.index(vocabulary.replacement)
    ending = vocabulary.end_token
    if ending is None and LINE_END in vocabulary.characters:
        ending = vocabulary.characters.index(LINE_END)
    known = engine.calibration
    return ScoreReader(
        engine,
        policy,
        engine.config.separator_token,
        replacement if policy == "replace" else None,
        rows >= MANY_ROWS and engine.has_row_reader,
        ending if end else None,
        known if known and known.window is None and engine.config.end and end else None,
    )
