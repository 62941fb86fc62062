"""Test vectors: what the exported graph computes, so that any other runtime can be held to it."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from chargen_ort.engine import Stepper
from chargen_ort.records import TestVector

PROMPTS = (1, 16, 64)  # tokens
GREEDY_LENGTH = 32
_MAX_LOGITS = 256  # a vector; of a larger vocabulary every so many are kept


def make_vectors(
    new_stepper: Callable[[], Stepper], text: NDArray[np.int64]
) -> tuple[TestVector, ...]:
    """A vector for each prompt, the first tokens of `text`, from a zero state.

    `verify_parity` compares the same steps with PyTorch, so that the numbers are those of both.

    Args:
        new_stepper: gives a stepper of one row over the graph, its state zero.
        text: tokens ``[characters]``.
    """
    vectors = []
    for size in PROMPTS:
        stepper = new_stepper()
        for token in text[:size]:
            stepper.step(token[None])
        logits = stepper.logits[0].copy()  # [vocab_size]
        stride = -(-len(logits) // _MAX_LOGITS)
        greedy: list[int] = []
        while len(greedy) < GREEDY_LENGTH:
            greedy.append(int(stepper.logits[0].argmax()))
            stepper.step(np.array(greedy[-1:]))
        vectors.append(
            TestVector(
                tokens=tuple(text[:size].tolist()),
                stride=stride,
                logits=tuple(float(str(value)) for value in logits[::stride]),  # digits it has
                greedy=tuple(greedy),
            )
        )
    return tuple(vectors)
