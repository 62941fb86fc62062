"""How near the draws of a text came to other ones: there another machine may write otherwise."""

import math
from collections.abc import Collection
from typing import Any

import numpy as np

from chargen_ort import CharGenerator, SamplingOptions
from chargen_ort.sampling import uniform_draws
from tests.tools.rules import drawn_by_hand, kept_by_hand

NEAR = 1e-5  # a decision nearer than this to another one may fall the other way elsewhere


def nearest(
    model: CharGenerator, start: str, text: str, row: int, options: SamplingOptions, ended: bool
) -> dict[str, Any]:
    """How near the decisions behind a text came to others: the nearest, and those too near.

    Decisions are greedy choices, draws, and who passes top-k, top-p and min-p. Also asserts that
    the text is what the rules say, token by token, and with `ended` that its end was drawn.

    Returns:
        `margin`, and `near`: the characters of the text whose tokens are in doubt.
    """
    assert options.seed is not None
    vocabulary = model.vocabulary
    read, rest = vocabulary.encode_open(start)
    seen = set((read if len(read) else vocabulary.encode(model.config.separator)).tolist())
    state, decoder = model.state(options=options), vocabulary.decoder()
    state.feed_piece(read)
    written, margins, token = "", [], -1
    while len(written) < len(text) or (ended and token != vocabulary.end_token):
        logits = going_on(state.logits().tolist(), vocabulary.texts, rest)
        weights, margin = kept_by_hand(logits, seen, options)
        u = float(uniform_draws(options.seed, row, len(margins), 1)[0])
        token, margin_of_draw = drawn_by_hand(weights, u)
        margins.append((min(margin, margin_of_draw), len(written)))
        seen.add(token)
        if token == vocabulary.end_token:
            break
        state.feed_piece(np.array([token]))
        piece = vocabulary.texts[token]
        written += piece[len(rest) :] if rest else decoder.feed((token,))
        rest = rest[len(piece) :]
    assert (written if ended else written[: len(text)]) == text
    near = [place for margin, place in margins if margin < NEAR]
    return {"margin": float(f"{min(margins)[0]:.3g}"), "near": near}


def going_on(logits: list[float], texts: Collection[str], rest: str) -> list[float]:
    """Logits of the tokens that go on as `rest` does; of the others minus infinity."""
    if not rest:
        return logits
    return [
        logit if text and (text.startswith(rest) or rest.startswith(text)) else -math.inf
        for logit, text in zip(logits, texts, strict=True)
    ]
