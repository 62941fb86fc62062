"""From pieces of texts to the JSON of the completions interface."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate

from chargen_ort.serve.requests import Completion
from chargen_ort.serve.texts import Piece, Prompt, Scores

Logprobs = dict[str, list[object]]
_REASONS = {"end": "stop"}  # as the interface has it


@dataclass(frozen=True)
class Head:
    """What each part of an answer begins with; with the seed the texts can be had again."""

    id: str
    created: int
    model: str
    seed: int

    def to_json(self) -> dict[str, object]:
        """As it stands in the answer."""
        return {"object": "text_completion", **vars(self)}


class Choices:
    """The choices of an answer, from the pieces of their texts.

    Args:
        texts: of the model's tokens, by number.
        asked: what was asked for.
        prompts: as they were read, one for each choice.
    """

    def __init__(self, texts: Sequence[str], asked: Completion, prompts: Sequence[Prompt]) -> None:
        self._texts, self._asked, self._prompts = texts, asked, prompts
        self._sent: list[int | None] = [None] * len(prompts)  # characters; None: not begun
        self._drawn = [0] * len(prompts)

    def parts(self, index: int, piece: Piece) -> Iterator[dict[str, object]]:
        """What a piece adds to choice `index`: before its first one the prompt, with `echo`."""
        self._drawn[index] = piece.drawn
        scored = self._asked.logprobs is not None
        if self._sent[index] is None:
            self._sent[index] = 0
            if self._asked.echo:
                text, logprobs = self._echo(index)
                yield self._part(index, text, logprobs if scored else None)
        own: Logprobs | None = None
        if scored:
            offset = self._sent[index] or 0
            tokens = list(piece.text)
            if piece.scores is not None and len(piece.scores.own) > len(tokens):
                tokens.append("")  # the end, which lm-eval expects as the token that it asks for
            own = _logprobs(self._texts, tokens, piece.scores, offset)
        ended = _REASONS.get(piece.ended or "", piece.ended)
        yield self._part(index, piece.text, own, ended)

    def _part(
        self, index: int, text: str, logprobs: Logprobs | None, ended: str | None = None
    ) -> dict[str, object]:
        self._sent[index] = (self._sent[index] or 0) + len(text)
        return {"text": text, "index": index, "logprobs": logprobs, "finish_reason": ended}

    def whole(self, index: int, piece: Piece) -> dict[str, object]:
        """Choice `index` of an answer that is not streamed, from the one piece that there is."""
        first, *more = self.parts(index, piece)
        for part in more:
            logprobs = first["logprobs"]
            text = f"{first['text']}{part['text']}"
            first = {**part, "text": text, "logprobs": _joined(logprobs, part["logprobs"])}
        return first

    def usage(self) -> dict[str, int]:
        """Tokens of all prompts, each counted once, and of all texts."""
        prompts = sum(prompt.count for prompt in self._prompts[:: self._asked.n])
        drawn = sum(self._drawn)
        return {
            "prompt_tokens": prompts,
            "completion_tokens": drawn,
            "total_tokens": prompts + drawn,
        }

    def _echo(self, index: int) -> tuple[str, Logprobs]:
        """The prompt of a choice; of what is read first there is no log probability."""
        prompt, given = self._prompts[index], self._asked.prompts[index // self._asked.n]
        if isinstance(given, str) and self._asked.logprobs is None:
            return given, {}
        read = [self._texts[token] for token in prompt.tokens.tolist()]
        scored = 0 if prompt.scores is None else len(prompt.scores.own)
        first = read[: len(read) - scored]
        unscored: Logprobs = {
            "tokens": [*first],
            "token_logprobs": [None for _ in first],
            "top_logprobs": [None for _ in first],
            "text_offset": [0 for _ in first],
        }
        begin = len("".join(first))
        rest = _logprobs(self._texts, read[len(first) :], prompt.scores, begin)
        text = given if isinstance(given, str) else prompt.engine.vocabulary.decode(prompt.tokens)
        return text, _joined(unscored, rest) or rest


def _logprobs(
    texts: Sequence[str], tokens: list[str], scores: Scores | None, offset: int
) -> Logprobs:
    """Log probabilities, nats, of tokens by their texts, the first of which is at `offset`."""
    own: list[float] = [] if scores is None else scores.own.tolist()
    tops: list[object] = []
    if scores is not None:
        rows = zip(tokens, own, scores.top.tolist(), scores.top_scores.tolist(), strict=True)
        for token, score, likely, values in rows:
            names = [texts[each] for each in likely]
            tops.append(dict(zip(names, values, strict=True)) | {token: score})
    places = accumulate(map(len, tokens), initial=offset)
    return {
        "tokens": [*tokens],
        "token_logprobs": [*own],
        "top_logprobs": tops,
        "text_offset": [place for place, _ in zip(places, tokens, strict=False)],
    }


def _joined(one: object, other: object) -> Logprobs | None:
    if not isinstance(one, dict) or not isinstance(other, dict):
        return None
    return {name: [*one[name], *other[name]] for name in one}
