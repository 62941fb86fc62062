"""A score: how likely the model found a text, as a program and a notebook see it."""

import math
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from chargen_ort.calibration import Calibration


@dataclass(frozen=True)
class Score:
    """Log probability of a text.

    Attributes:
        total: log probability of all scored characters together, nats (0 or less).
        characters: how many were scored, unknown ones included, at least one.
        log_probabilities: nats, one for each token, which of the unit char is a character, float64
            ``[tokens]``; None if not kept.
        unknown: how many of them the model does not know. Each counts as likely as the character
            that the model finds least likely at that place.
        text: what was scored, to show it; None if not kept.
        calibration: how odd such a score is; None where the model's file says nothing of its like.
        tokens: how many tokens were scored; None where each is a character.
        sizes: how many characters each token is, int64 ``[tokens]``, to show them; of bytes, those
            are one that begin a character. None where each is a character, or if not kept.
    """

    total: float
    characters: int
    log_probabilities: NDArray[np.float64] | None = None
    unknown: int = 0
    text: str | None = field(default=None, repr=False, compare=False)
    calibration: Calibration | None = field(default=None, repr=False, compare=False)
    tokens: int | None = None
    sizes: NDArray[np.int64] | None = field(default=None, repr=False, compare=False)

    @property
    def nats_per_char(self) -> float:
        """Mean negative log probability, nats: the loss of training."""
        return -self.total / self.characters

    @property
    def nats_per_token(self) -> float:
        """The same a token."""
        return -self.total / (self.tokens or self.characters)

    @property
    def bits_per_char(self) -> float:
        """The same in bits."""
        return self.nats_per_char / math.log(2)

    @property
    def perplexity(self) -> float:
        """Exp of `nats_per_char`: between so many characters the model hesitates on average."""
        try:
            return math.exp(self.nats_per_char)
        except OverflowError:
            return math.inf

    @property
    def character_log_probabilities(self) -> NDArray[np.float64] | None:
        """Nats of each character, float64 ``[characters]``, to show them; None if not kept.

        Those of a token are spread evenly over its characters; those of bytes that go on with a
        character are added to it.
        """
        own, sizes = self.log_probabilities, self.sizes
        if own is None or sizes is None:
            return own
        owner = np.cumsum(sizes > 0) - 1  # the last token so far that has a character
        within = owner >= 0  # the first character is not scored, and so none of its bytes is shown
        begins = sizes > 0
        summed = np.bincount(owner[within], weights=own[within], minlength=int(begins.sum()))
        counts = sizes[begins]
        return np.repeat(summed / counts, counts)

    @property
    def percentile(self) -> float | None:
        """Percent of held-out texts that are less odd than this one, 0 to 100.

        It is known of whole texts, their ends included, where the model was trained on documents;
        and where it was trained on running text by characters, of as many as its held-out windows
        have. Otherwise, and where the file has no quantiles, it is None. See `Calibration`.
        """
        if self.calibration is None:
            return None
        return self.calibration.percentile(self.nats_per_char, self.characters)

    def _repr_html_(self) -> str:
        """What a notebook shows: the text, each character shaded by its surprise, and figures."""
        from chargen_ort.shading import score_html  # here, as few programs show a score

        nats = self.character_log_probabilities
        return score_html(self.text, nats, self.bits_per_char, self.percentile)
