"""The rules of sampling once more, one token at a time, in plain Python."""

import math
from collections.abc import Collection, Sequence
from itertools import pairwise

from chargen_ort import SamplingOptions


def kept_by_hand(
    logits: Sequence[float], seen: Collection[int], options: SamplingOptions
) -> tuple[dict[int, float], float]:
    """The tokens that may be drawn, in their order, with their weights before they are summed.

    Args:
        logits: minus infinity where a token may not come.
        seen: tokens, each counted once.
        options: how it is drawn.

    Returns:
        the weights, and how near another logit came to changing who is kept: a difference of
        logits for greedy and top-k, a share of probability for top-p and min-p.
    """
    scores = [float(x) for x in logits]
    if options.repetition_penalty != 1:
        for token in seen:
            p = options.repetition_penalty
            scores[token] = scores[token] / p if scores[token] > 0 else scores[token] * p
    ranking = [*sorted(scores, reverse=True), -math.inf]
    if options.temperature == 0:
        return {scores.index(ranking[0]): 1.0}, ranking[0] - ranking[1]
    scores = [x / options.temperature for x in scores]
    keep, margin = set(range(len(scores))), math.inf
    if 0 < options.top_k < len(scores):
        *_, kth, below = sorted(scores, reverse=True)[: options.top_k + 1]
        keep = {i for i in keep if scores[i] >= kth}
        margin = kth - below if kth > -math.inf else math.inf
    weight = {i: math.exp(scores[i] - max(scores)) for i in keep}
    if options.top_p < 1:
        ranked = sorted(keep, key=lambda i: (-weight[i], i))
        total, above, kept = sum(weight[i] for i in ranked), 0.0, set()
        for i in ranked:
            if not kept or above < options.top_p * total:
                kept.add(i)
            margin = min(margin, abs(above / total - options.top_p))
            above += weight[i]
        keep = kept
    likeliest = max(weight[i] for i in keep)
    if options.min_p:
        margin = min(margin, *(abs(weight[i] / likeliest - options.min_p) for i in keep))
        keep = {i for i in keep if not weight[i] < options.min_p * likeliest}
    return {i: weight[i] for i in sorted(keep)}, margin


def drawn_by_hand(weights: dict[int, float], u: float) -> tuple[int, float]:
    """The token that `u` draws, and how near `u` came to the draw of another one."""
    bounds, running = [0.0], 0.0
    for weight in weights.values():
        running += weight
        bounds.append(running)
    margin = min((abs(bound / running - u) for bound in bounds[1:-1]), default=math.inf)
    for token, (_, bound) in zip(weights, pairwise(bounds), strict=True):
        if bound > u * running:
            return token, margin
    raise AssertionError("no token was drawn")
