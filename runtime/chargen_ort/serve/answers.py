"""From pieces of texts to the JSON of the completions interface."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from chargen_ort.serve.requests import Completion
from chargen_ort.serve.texts import Piece, Prompt, Scores

Logprobs = dict[str, list[object]]


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
        characters: of the model, by token.
        asked: what was asked for.
        prompts: as they were read, one for each choice.
    """

    def __init__(self, characters: str, asked: Completion, prompts: Sequence[Prompt]) -> None:
        self._characters, self._asked, self._prompts = characters, asked, prompts
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
        offset = self._sent[index] or 0
        logprobs = _logprobs(self._characters, piece.text, piece.scores, offset)
        yield self._part(index, piece.text, logprobs if scored else None, piece.ended)

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
        prompts = sum(len(prompt.tokens) for prompt in self._prompts[:: self._asked.n])
        drawn = sum(self._drawn)
        return {
            "prompt_tokens": prompts,
            "completion_tokens": drawn,
            "total_tokens": prompts + drawn,
        }

    def _echo(self, index: int) -> tuple[str, Logprobs]:
        """The prompt of a choice; its first character has no log probability."""
        prompt = self._prompts[index]
        given = self._asked.prompts[index // self._asked.n]
        read = _decode(self._characters, prompt.tokens)
        first: Logprobs = {
            "tokens": list(read[:1]),
            "token_logprobs": [None] * len(read[:1]),
            "top_logprobs": [None] * len(read[:1]),
            "text_offset": [0] * len(read[:1]),
        }
        rest = _logprobs(self._characters, read[1:], prompt.scores, 1)
        return given if isinstance(given, str) else read, _joined(first, rest) or first


def _decode(characters: str, tokens: NDArray[np.int64]) -> str:
    return "".join([characters[token] for token in tokens.tolist()])


def _logprobs(characters: str, text: str, scores: Scores | None, offset: int) -> Logprobs:
    """Log probabilities of the characters of `text`, which stands at `offset`, in nats."""
    own: list[float] = [] if scores is None else scores.own.tolist()
    tops: list[object] = []
    if scores is not None:
        rows = zip(text, own, scores.top.tolist(), scores.top_scores.tolist(), strict=True)
        for character, score, tokens, values in rows:
            names = [characters[token] for token in tokens]
            tops.append(dict(zip(names, values, strict=True)) | {character: score})
    return {
        "tokens": list(text),
        "token_logprobs": list(own),
        "top_logprobs": tops,
        "text_offset": list(range(offset, offset + len(text))),
    }


def _joined(one: object, other: object) -> Logprobs | None:
    if not isinstance(one, dict) or not isinstance(other, dict):
        return None
    return {name: [*one[name], *other[name]] for name in one}
