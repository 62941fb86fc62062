"""Which tokens are likeliest: logits as probabilities in order."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from chargen_ort.checks import whole_number
from chargen_ort.options import MAX_LENGTH


def rank_probabilities(
    logits: NDArray[np.float32], texts: Sequence[str], top: int | None
) -> dict[str, float]:
    """Softmax of logits ``[vocab_size]`` as a dict, likeliest first, ties by token.

    The keys are `texts`, those of the tokens; the end token's is the empty string.

    Raises:
        OptionError: `top` is not a whole number of 1 or more.
    """
    top = check_top(top)
    weights = np.exp(logits.astype(np.float64) - logits.max())  # [vocab_size]
    weights /= weights.sum()
    order = np.argsort(-weights, kind="stable")[:top]
    return {texts[i]: float(weights[i]) for i in order}


def check_top(top: object) -> int | None:
    """How many probabilities are asked for, None for all.

    Raises:
        OptionError: not a whole number of 1 or more.
    """
    return None if top is None else whole_number("top", top, 1, MAX_LENGTH, "1 or more, or None")
