"""The beginnings that texts share: where a text stands after them is computed once.

Short texts from one start have few different beginnings: half a million names begin with 27
letters, and with some 400 pairs of them. So a batch remembers where texts stand after beginnings
that came often, and the next text goes through those without a run of the model.

What it goes through is what it would have written, bit for bit. The state of a row follows from the
tokens of that row alone, whatever stands beside it (see `chargen_ort.writer`), and the sums that a
token is drawn by come from the writer's own operators.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

DrawSums = Callable[[NDArray[np.float32]], NDArray[np.float64]]

LONGEST = 16  # tokens of a beginning; few that are longer come often
_OFTEN = 4  # texts that went through a beginning before what follows it is remembered
_MOST_BYTES = 1 << 24  # of all that draw alike
_OWN_BYTES = 512  # of one beside its arrays
_MOST_STARTS = 64


@dataclass(slots=True, eq=False)
class Beginning:
    """Where texts stand after a start and some tokens.

    Attributes:
        hidden, logits: ``[num_layers, hidden_size]`` and ``[vocab_size]``.
        sums: of the probabilities of the first tokens, of which the next one follows from a
            uniform, float64 ``[vocab_size]``.
        following: what was remembered of what follows, by the next token.
        passed: how many texts came here.
    """

    hidden: NDArray[np.float32]
    logits: NDArray[np.float32]
    sums: memoryview  # of which single numbers are read sooner than of an array
    following: "dict[int, Beginning]" = field(default_factory=dict)
    passed: int = 0

    @property
    def often(self) -> bool:
        """Whether so many texts came here that what follows is worth remembering."""
        return self.passed >= _OFTEN


class Beginnings:
    """What is remembered of the texts that one engine writes by options that draw alike.

    Threads may share it: what two of them compute at the same time is the same.

    Args:
        draw_sums: from logits to the sums that tokens are drawn by, ``[rows, vocab_size]`` each.
        in_runs: whether a run draws, see `chargen_ort.graphs.writer`; else a `Sampler` does.
    """

    def __init__(self, draw_sums: DrawSums, in_runs: bool) -> None:
        self._draw_sums = draw_sums
        # a run takes the first sum that reaches what the number after the uniform seeks, a sampler
        # the first that exceeds what the uniform does
        self._in_runs, self._find = in_runs, bisect_left if in_runs else bisect_right
        self._starts: dict[object, Beginning] = {}
        self._bytes = 0

    @property
    def full(self) -> bool:
        """Whether there is no room for another beginning."""
        return self._bytes >= _MOST_BYTES

    def start(
        self, key: object, hidden: NDArray[np.float32], logits: NDArray[np.float32]
    ) -> Beginning:
        """The beginning without a token, of texts whose start `key` tells from others.

        Args:
            key: the start, and what else its state follows from.
            hidden, logits: after the start, ``[num_layers, hidden_size]`` and ``[vocab_size]``.

        Raises:
            ArtifactError: ONNX Runtime does not run the graph.
        """
        found = self._starts.get(key)
        if found is None:
            if self.full or len(self._starts) >= _MOST_STARTS:
                self._starts, self._bytes = {}, 0
            found = self._starts[key] = self._new(hidden[None], logits[None])[0]
        return found

    def walk(
        self,
        start: Beginning,
        uniforms: NDArray[np.float64],
        most: int,
        ending: Container[int] = (),
    ) -> tuple[Beginning, list[int]]:
        """Go from `start` as far as is remembered, at most `most` tokens.

        Args:
            start: where the text begins.
            uniforms: of the text, ``[LONGEST]``.
            most: tokens.
            ending: tokens that may end this text, which it stands before; others may have gone on.

        Returns:
            where the text then stands, and the tokens up to there.
        """
        at, tokens = start, list[int]()
        at.passed += 1
        uniforms = np.nextafter(uniforms[:most], 1) if self._in_runs else uniforms[:most]
        for uniform in uniforms.tolist():
            token = self._find(at.sums, uniform * at.sums[-1])
            following = at.following.get(token)
            if following is None or token in ending:
                break
            at = following
            at.passed += 1
            tokens.append(token)
        return at, tokens

    def remember(
        self,
        origins: Sequence[Beginning],
        tokens: Sequence[int],
        hidden: NDArray[np.float32],
        logits: NDArray[np.float32],
    ) -> list[Beginning | None]:
        """Where texts stand that have just gone on from `origins`, remembered as far as fits.

        Args:
            origins: beginnings, one for each text.
            tokens: that they drew there.
            hidden, logits: after those, ``[texts, num_layers, hidden_size]`` and
                ``[texts, vocab_size]``.

        Returns:
            the beginning of each text; None where it is not remembered.

        Raises:
            ArtifactError: ONNX Runtime does not run the graph.
        """
        steps = list(zip(origins, tokens, strict=True))
        # of texts that went the same way, one stands for all of them
        places = {
            (at, token): i for i, (at, token) in enumerate(steps) if token not in at.following
        }
        if places and not self.full:
            chosen = list(places.values())
            new = self._new(hidden[chosen], logits[chosen])
            for (origin, token), beginning in zip(places, new, strict=True):
                origin.following[token] = beginning
        reached = [origin.following.get(token) for origin, token in steps]
        for at in reached:
            if at is not None:
                at.passed += 1
        return reached

    def _new(self, hidden: NDArray[np.float32], logits: NDArray[np.float32]) -> list[Beginning]:
        """Beginnings of ``[new, num_layers, hidden_size]`` and ``[new, vocab_size]``, copied."""
        sums = self._draw_sums(logits)  # [new, vocab_size]
        self._bytes += hidden.nbytes + logits.nbytes + sums.nbytes + _OWN_BYTES * len(sums)
        rows = zip(hidden.copy(), logits.copy(), sums, strict=True)
        return [Beginning(state, scores, memoryview(own)) for state, scores, own in rows]
