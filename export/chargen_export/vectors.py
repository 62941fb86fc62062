"""Test vectors: what the exported graph computes, so that any other runtime can be held to it."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from chargen_ort.certificate import TestVector
from chargen_ort.stepper import Stepper

PROMPTS = (1, 16, 64)  # tokens
GREEDY_LENGTH = 32
_MAX_LOGITS = 256  # a vector; of a larger vocabulary every so many are kept


def first_tokens(
    tokens: NDArray[np.integer], count: int, end: int | None = None
) -> NDArray[np.int64]:
    """The first of a text ``[tokens]``, again and again if it is shorter, ``[count]``.

    Args:
        tokens: a text, at least one token.
        count: how many are wanted.
        end: the end token, which stands before the first document; None where there are none.
    """
    before = [] if end is None or tokens[0] == end else [end]
    return np.resize(np.append(before, tokens).astype(np.int64), count)


def make_vectors(
    new_stepper: Callable[[], Stepper], text: NDArray[np.int64], end: int | None = None
) -> tuple[TestVector, ...]:
    """A vector for each prompt, the first tokens of `text`, from a zero state.

    Of documents, a prompt ends with the first of them that is as long, or with the longest, and
    what follows it with that document.

    `verify_parity` compares the same steps with PyTorch, so that the numbers are those of both.

    Args:
        new_stepper: gives a stepper of one row over the graph, its state zero.
        text: tokens ``[characters]``.
        end: the end token, with which each document of `text` begins; None where there are none.
    """
    begins = np.zeros(1, int) if end is None else np.flatnonzero(text == end)
    documents = np.split(text, begins[1:])
    vectors = []
    for size in PROMPTS:
        enough = (document for document in documents if len(document) >= size)
        prompt = next(enough, max(documents, key=len))[:size]
        stepper = new_stepper()
        for token in prompt:
            stepper.step(token[None])
        logits = stepper.logits[0].copy()  # [vocab_size]
        stride = -(-len(logits) // _MAX_LOGITS)
        greedy: list[int] = []
        while len(greedy) < GREEDY_LENGTH and end not in greedy:
            greedy.append(int(stepper.logits[0].argmax()))
            stepper.step(np.array(greedy[-1:]))
        vectors.append(
            TestVector(
                tokens=tuple(prompt.tolist()),
                stride=stride,
                logits=tuple(float(str(value)) for value in logits[::stride]),  # digits it has
                greedy=tuple(greedy),
            )
        )
    return tuple(vectors)
