"""Every exception that chargen raises on purpose.

    ChargenError
    ├── ArtifactError            the model file is missing, damaged, foreign or of a newer format
    ├── UnknownCharacterError    a text has a character that the model's vocabulary lacks
    ├── OptionError              an option or argument is out of its range (also a ValueError)
    ├── CorpusError              a training corpus cannot be read or is too small
    ├── ParityError              the exported graph and the PyTorch model disagree
    └── TrainingError            training cannot go on (a loss that is not finite, for one)

The last three are raised by the training and export packages; they live here so that one
``except ChargenError`` covers all of them.
"""


class ChargenError(Exception):
    """Base of every error that chargen raises on purpose; its text is one line for a person."""


class ArtifactError(ChargenError):
    """The model file is missing, damaged, foreign, or of a format this version cannot read."""


class OptionError(ChargenError, ValueError):
    """An option or an argument is out of its range; the message names value, range and cure."""


class CorpusError(ChargenError):
    """A corpus cannot be read, is not UTF-8, or has too few characters to train on."""


class ParityError(ChargenError):
    """The exported graph does not compute what the PyTorch model computes."""


class TrainingError(ChargenError):
    """Training cannot go on."""


class UnknownCharacterError(ChargenError, ValueError):
    """A text has a character that the vocabulary lacks.

    Attributes:
        character: the character, one code point.
        position: its index in the text, counted in characters from 0.
    """

    def __init__(self, character: str, position: int, known: int) -> None:
        self.character = character
        self.position = position
        self._known = known
        super().__init__(
            f"the model does not know the character {character!r} (U+{ord(character):04X}) "
            f"at position {position}, only {known} others; leave it out, "
            "or set unknown to skip or replace"
        )

    def __reduce__(self) -> tuple[type, tuple[str, int, int]]:
        return type(self), (self.character, self.position, self._known)
