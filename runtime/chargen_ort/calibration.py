"""Where a score stands among the scores of held-out texts: its percentile."""

import math
from bisect import bisect_left
from dataclasses import dataclass

from chargen_ort.provenance import Quantiles

_SAME = 1e-5  # nats a character: what PyTorch, which measured the quantiles, and this may differ by


@dataclass(frozen=True)
class Calibration:
    """How oddness is told from nats a character, by the quantiles that a file carries.

    The k-th lowest of n held-out scores stands for the percentile 100 k / (n + 1): whatever the
    scores are like, a fresh text of the same kind is odder than that with the probability
    1 - k / (n + 1) (Weibull 1939). Between two quantiles the log odds of the level are interpolated
    over the nats. So no percentile is below 100 / (n + 1) or above 100 n / (n + 1): n texts tell no
    rarer ones apart.

    Short texts score worse than long ones, and differ more. Where the file says what is usual for a
    length, a score is held against that: first what it exceeds the mean by, in standard deviations,
    both interpolated over the length, and then where that stands among the held-out texts.

    Attributes:
        window: characters of each text that was scored; None for whole documents.
        count: how many texts were scored.
        usual: length in characters, mean score and standard deviation, by rising length; it may
            have none.
        edges: the quantiles, rising: nats a character, or with `usual` standard deviations.
        log_odds: of the level of each.
    """

    window: int | None
    count: int
    usual: tuple[tuple[float, float, float], ...]
    edges: tuple[float, ...]
    log_odds: tuple[float, ...]

    @classmethod
    def of(cls, quantiles: Quantiles) -> "Calibration":
        """What follows from a file's record."""
        least = 1 / (quantiles.count + 1)
        levels = [min(max(level, least), 1 - least) for level in quantiles.levels]
        return cls(
            quantiles.window,
            quantiles.count,
            tuple(
                (each.characters, each.nats_per_char, each.spread) for each in quantiles.by_length
            ),
            tuple(quantiles.oddness or quantiles.nats_per_char),
            tuple(math.log(level / (1 - level)) for level in levels),
        )

    @property
    def highest(self) -> float:
        """The highest percentile that there is, below 100."""
        return 100 * self.count / (self.count + 1)

    def oddness(self, nats_per_char: float, characters: int) -> float:
        """What the percentile is told by: it goes on where that cannot be told any more.

        Returns:
            how many standard deviations the score is above the mean of its length; where the file
            does not know those, the score itself, nats a character.
        """
        if not self.usual:
            return nats_per_char
        mean, spread = self._usual(characters)
        return (nats_per_char - mean) / spread

    def percentile(self, nats_per_char: float, characters: int) -> float:
        """Percent of held-out texts that are less odd than one with this score, 0 to 100.

        A text that is as odd as many others counts as the least odd of them.

        Args:
            nats_per_char: mean negative log probability of its characters.
            characters: how many those are, its end included if it has one.
        """
        score = self.oddness(nats_per_char - _SAME, characters)
        place = bisect_left(self.edges, score)
        odds = self.log_odds[min(place, len(self.edges) - 1)]
        if 0 < place < len(self.edges):
            low, high = self.edges[place - 1], self.edges[place]
            before = self.log_odds[place - 1]
            odds = before + (odds - before) * (score - low) / (high - low)
        return 100 / (1 + math.exp(-odds))

    def _usual(self, characters: int) -> tuple[float, float]:
        """Mean score and standard deviation of texts of a length."""
        place = bisect_left(self.usual, (characters, 0.0, 0.0))
        if place in (0, len(self.usual)):
            _, mean, spread = self.usual[min(place, len(self.usual) - 1)]
            return mean, spread
        shorter, longer = self.usual[place - 1 : place + 1]
        share = (characters - shorter[0]) / (longer[0] - shorter[0])
        return (
            shorter[1] + share * (longer[1] - shorter[1]),
            shorter[2] + share * (longer[2] - shorter[2]),
        )
