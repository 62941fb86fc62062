"""Texts that are written for clients: what was asked for, where each stands, what is to be sent."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from chargen_ort.engine import Engine
from chargen_ort.healing import heal, new_healer
from chargen_ort.options import SamplingOptions
from chargen_ort.sampling import Sampler, StopFinder
from chargen_ort.stream import Ended
from chargen_ort.writer import RowState, is_plain

if TYPE_CHECKING:
    from chargen_ort.places import Place

MOST_UNREAD = 4096  # characters that wait for a slow reader before its text stands still
FEW_UNREAD = 1024  # and so many when it goes on
_SHORT = 4  # characters that a text with a stop string is expected to have at least


@dataclass(frozen=True)
class Scores:
    """How likely the model found tokens, in nats, before temperature and filters.

    Attributes:
        own: of each token, float64 ``[time]``.
        top: the likeliest tokens at each place, int64 ``[time, k]``, and `top_scores` theirs.
    """

    own: NDArray[np.float64]
    top: NDArray[np.int64]
    top_scores: NDArray[np.float64]

    def part(self, begin: int, end: int) -> "Scores":
        """Those of some of the tokens."""
        return Scores(self.own[begin:end], self.top[begin:end], self.top_scores[begin:end])


def join_scores(parts: Sequence[Scores]) -> Scores:
    """The scores of one text from those of its parts, of which there is at least one."""
    return Scores(
        np.concatenate([part.own for part in parts]),
        np.concatenate([part.top for part in parts]),
        np.concatenate([part.top_scores for part in parts]),
    )


def score_tokens(logits: NDArray[np.float32], tokens: NDArray[np.int64], top: int) -> Scores:
    """Scores of `tokens` ``[time]``, each after its row of logits ``[time, vocab_size]``."""
    shifted = logits - logits.max(axis=1, keepdims=True).astype(np.float64)  # [time, vocab_size]
    logs = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    best = np.argsort(-logs, axis=1, kind="stable")[:, :top]  # [time, k]
    own = np.take_along_axis(logs, tokens[:, None], axis=1)[:, 0]
    return Scores(own, best, np.take_along_axis(logs, best, axis=1))


@dataclass(frozen=True)
class Wanted:
    """What is asked for of one text.

    Attributes:
        options: how it draws; the seed is given.
        row: its number in the seed's family of texts.
        length: characters at most.
        top: how many of the likeliest tokens to score at each place; None scores nothing.
        bias: what is added to the logits of tokens.
        presence: what is taken from the logit of each token that was written, and
        frequency: what is taken for each time that it was.
        whole: the text is wanted at its end, not as it comes.
    """

    options: SamplingOptions
    row: int
    length: int
    top: int | None = None
    bias: Mapping[int, float] = field(default_factory=dict)
    presence: float = 0
    frequency: float = 0
    whole: bool = False

    @property
    def adjusted(self) -> bool:
        """Whether logits are changed before the options have their say."""
        return bool(self.bias or self.presence or self.frequency)

    def bias_array(self, vocab_size: int) -> NDArray[np.float32] | None:
        """The bias of each token, ``[vocab_size]``; None where logits stay as they are."""
        if not self.adjusted:
            return None
        bias = np.zeros(vocab_size, dtype=np.float32)
        bias[list(self.bias)] = list(self.bias.values())
        return bias

    def is_plain(self, vocab_size: int) -> bool:
        """Whether temperature alone decides, so that many steps go in one run."""
        free = not self.adjusted and not self.options.controlled
        return free and is_plain(self.options, vocab_size)


@dataclass(frozen=True)
class Piece:
    """Some more of a text.

    Attributes:
        text: the characters.
        scores: of them, where asked for, and of the end, where the model ended the text.
        drawn: how many tokens the text has drawn so far, those of a stop string included.
        ended: why the text has ended; None where it goes on.
        failure: why it could not be written, in one line, where that is so.
    """

    text: str
    scores: Scores | None = None
    drawn: int = 0
    ended: Ended | None = None
    failure: str = ""


class Prompt:
    """A text to go on from, which is read once for all texts that do.

    Args:
        engine: the model that is open.
        tokens: of the text, int64 ``[time]``; none begin a text.
        top: how many of the likeliest tokens to score at each place; None scores nothing.
        rest: the run that was taken back, with which each text is to begin, see
            `chargen_ort.healing`.

    Attributes:
        engine, tokens, rest: as given.
        fed: what the model reads: where texts have an end, the end token comes first; else the
            separator that stands before a text is read where there are no tokens.
        seen: those of them that a repetition penalty counts.
        may_end: whether the model ends texts.
    """

    def __init__(
        self, engine: Engine, tokens: NDArray[np.int64], top: int | None = None, rest: str = ""
    ) -> None:
        separator = np.array([engine.config.separator_token])
        self.tokens, self.may_end = tokens, engine.config.end
        begun = len(tokens) and (not self.may_end or tokens[0] == separator[0])
        self.fed = tokens if begun else np.concatenate([separator, tokens])
        self.seen = tokens if self.may_end else self.fed
        self.engine, self.rest = engine, rest
        self._top = top
        self._position = 0
        self._scores: list[Scores] = []
        self._hidden = engine.zero_hidden(1)  # [1, num_layers, hidden_size]
        self._logits = np.zeros(len(engine.vocabulary), dtype=np.float32)  # [vocab_size]

    @property
    def is_read(self) -> bool:
        """Whether all of it was read."""
        return self._position == len(self.fed)

    @property
    def count(self) -> int:
        """How many tokens it has, those of the run that was taken back among them."""
        rest = self.engine.vocabulary.encode(self.rest, "error") if self.rest else ()
        return len(self.tokens) + len(rest)

    @property
    def state(self) -> RowState:
        """Where a row stands that has read it."""
        return RowState(self._hidden[0], self._logits, 0)

    @property
    def scores(self) -> Scores | None:
        """Of all tokens but the first that is read; None where there are none, or not wanted."""
        return join_scores(self._scores) if self._scores else None

    def read_piece(self) -> None:
        """Read on, so much as takes no long time."""
        begin, end = self._position, self._position + self.engine.steps_per_call()
        piece = self.fed[begin:end]
        logits, self._hidden = self.engine.run_steps(piece[None], self._hidden)
        self._logits = logits[0, -1].copy()
        following = self.fed[begin + 1 : end + 1]
        if self._top is not None and len(following):
            self._scores.append(score_tokens(logits[0, : len(following)], following, self._top))
        self._position += len(piece)


def confine(prompt: Prompt, wanted: Wanted) -> "Place | None":
    """The place of a text that is confined, before its first draw; None for others.

    Raises:
        OptionError: a pattern that is none, or no text of the language goes on from the prompt.
    """
    if not wanted.options.controlled:
        return None
    from chargen_ort.places import Place  # here, because few texts are confined

    control, tokens = prompt.engine.control(wanted.options), prompt.tokens.tolist()
    begun = int(control.lengths[tokens].sum()) if tokens else 0
    return Place(control, tokens, begun, begun + wanted.length)


class Writing:
    """A text in the making. The batcher's thread has it, but for what is said to be the client's.

    Args:
        prompt: what it goes on from.
        wanted: what is asked for.
        deadline: the moment of the monotonic clock when it ends at the latest.
        deliver: hears of each piece, in the client's thread.

    Attributes:
        prompt, wanted, deadline, deliver: as given.
        state: where it stands while it is in no lane; None before its prompt was read.
        sampler: of its row, in a lane that goes step by step; `counts` how often it has written
            each token, int64 ``[vocab_size]``, where that matters.
        place: where it stands in the language that it is confined to; None where it is not.
        written: how many tokens it has drawn.
        healed: those of them that cover the run that was taken back from its prompt.
        turn: how many it may draw before it makes room for others that wait.
        ended: why it has ended.
        cancelled: the client's: it wants no more.
        read: the client's: how many characters it has taken.
    """

    def __init__(
        self, prompt: Prompt, wanted: Wanted, deadline: float, deliver: Callable[[Piece], None]
    ) -> None:
        self.prompt, self.wanted = prompt, wanted
        self.deadline, self.deliver = deadline, deliver
        self.state: RowState | None = None
        self.sampler: Sampler | None = None
        self.counts: NDArray[np.int64] | None = None
        self.place = confine(prompt, wanted)
        self.written = self.turn = self.read = self._sent = self._made = 0
        self.healed: list[int] = []
        self._decoder = prompt.engine.vocabulary.decoder()
        self.ended: Ended | None = None
        self.cancelled = False
        stops = wanted.options.stops
        self._finder = StopFinder(stops) if stops else None
        self._beginnings = {stop[0] for stop in stops}
        self._held = ""  # may yet become a stop string
        self._out: list[str] = []
        self._scores: list[Scores] = []  # of what is in `_out` and `_held`

    @property
    def left(self) -> int:
        """How many characters it may have yet."""
        return self.wanted.length - self._made

    @property
    def expected(self) -> int:
        """How many it is likely to draw yet."""
        sure = self.place is None and self.prompt.engine.vocabulary.unit == "char"
        if self._finder is None and not self.prompt.may_end and sure:
            return self.left
        return min(self.left, max(_SHORT, self.written))

    @property
    def unread(self) -> int:
        """How many characters the client has not taken."""
        return self._sent - self.read

    def is_over(self, now: float) -> bool:
        """Whether nobody waits for it any more."""
        return self.cancelled or now >= self.deadline

    def begin(self) -> None:
        """Stand where the prompt ends, and cover the run that was taken back from it."""
        self.state, rest = self.prompt.state, self.prompt.rest
        if not rest or not self.left:
            return
        engine, options = self.prompt.engine, self.wanted.options
        size = len(engine.vocabulary)
        sampler = new_healer(options, options.seed or 0, self.wanted.row, 0, size)
        sampler.see(0, self.prompt.seen)
        hidden, logits = self.state.hidden[None], self.state.logits
        healed = heal(engine, sampler, hidden, logits, rest, self.wanted.bias_array(size))
        self.state = RowState(healed.hidden[0], healed.logits, len(healed.tokens))
        self.healed, self.written = healed.tokens, len(healed.tokens)
        self._take_characters(healed.text)

    def take_tokens(self, tokens: list[int], end: int | None, ends: bool = False) -> None:
        """Hear of the tokens that were drawn next, of any unit, some perhaps beyond the end.

        Args:
            tokens: that were drawn.
            end: the token by which the model ends a text.
            ends: the text has ended after them, by another token.
        """
        for token in tokens:
            if self.ended is not None:
                return
            self.written += 1
            self.turn -= 1
            if token == end:
                self._close("end")
            else:
                self._take_characters(self._decoder.feed((token,)))
        if ends and self.ended is None:
            self.written += 1
            self._close("end")

    def _take_characters(self, text: str) -> None:
        """Hear of the next characters."""
        for character in text[: self.left]:
            self._made += 1
            self._held += character
            pending = 0
            if self._finder is not None:
                self._finder.read(character)
                if self._finder.ended:
                    self._held = self._held[: len(self._held) - self._finder.ended]
                    self._close("stop")
                    return
                pending = self._finder.pending
            passed = len(self._held) - pending
            self._out.append(self._held[:passed])
            self._held = self._held[passed:]
        if not self.left:
            self._close("length")

    def _close(self, reason: Ended) -> None:
        self.ended = reason
        self._out.append(self._held)
        self._held = ""

    def take(self, text: str, scores: Scores | None, ends: bool = False) -> None:
        """Hear what was drawn next, some of it perhaps beyond the end.

        Args:
            text: a character a token.
            scores: of them, where they are asked for, and perhaps of more.
            ends: the model ended the text after them, with a token of its own.
        """
        ends = ends and len(text) < self.left
        text = text[: self.left]
        if scores is not None:
            self._scores.append(scores.part(0, len(text) + ends))
        before, whole = len(self._held), self._held + text
        keep = len(whole)  # characters that may be sent
        if self._finder is not None and not self._cannot_stop(text):
            for place, character in enumerate(text, 1):
                self._finder.read(character)
                if self._finder.ended:
                    self.ended, text = "stop", text[:place]
                    keep = before + place - self._finder.ended
                    break
            else:
                keep -= self._finder.pending
        ends = ends and self.ended is None
        self.written += len(text) + ends
        self._made += len(text)
        self.turn -= len(text)
        if self.ended is None and (ends or not self.left):
            self.ended, keep = "end" if ends else "length", len(whole)
        self._out.append(whole[:keep])
        self._held = whole[keep:]

    def _cannot_stop(self, text: str) -> bool:
        return not self._held and self._beginnings.isdisjoint(text)

    def end(self, reason: Ended) -> None:
        """End it, if it has not ended; what was held back is part of it."""
        if self.ended is None:
            self.ended = reason
            self._out.append(self._held)

    def piece(self) -> Piece | None:
        """What is to be sent now, if anything is."""
        if self.ended is None and (self.wanted.whole or not any(self._out)):
            return None
        text = "".join(self._out)
        scores = None
        if self._scores:
            joined = join_scores(self._scores)
            told = len(text) + (self.ended == "end")  # the end has a score too
            scores = joined.part(0, told)
            self._scores = [joined.part(told, len(joined.own))]
        self._out = []
        self._sent += len(text)
        return Piece(text, scores, self.written, self.ended)
