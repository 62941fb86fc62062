"""Test vectors: what the exported graph computes, so that any other runtime can be held to it."""

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from chargen_ort.step import run_steps

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

PROMPTS = (1, 16, 64)  # tokens
GREEDY_LENGTH = 32
_MAX_LOGITS = 256  # a vector; of a larger vocabulary every so many are kept


def make_vectors(
    session: "InferenceSession", shape: tuple[int, int, int], text: NDArray[np.int64]
) -> list[dict[str, Any]]:
    """A vector for each prompt, the first tokens of `text`, from a zero state.

    `verify_parity` compares the same steps with PyTorch, so that the numbers are those of both.

    Args:
        session: of the graph.
        shape: vocab_size, num_layers, hidden_size.
        text: tokens ``[characters]``.
    """
    vocab_size, num_layers, hidden_size = shape
    stride = -(-vocab_size // _MAX_LOGITS)
    vectors = []
    for size in PROMPTS:
        prompt = text[:size]
        hidden = np.zeros((1, num_layers, hidden_size), dtype=np.float32)
        logits, hidden = run_steps(session, prompt[None], hidden)  # [1, time, vocab_size]
        kept = logits[0, -1, ::stride]
        greedy: list[int] = []
        while len(greedy) < GREEDY_LENGTH:
            greedy.append(int(logits[0, -1].argmax()))
            logits, hidden = run_steps(session, np.array([greedy[-1:]]), hidden)
        vectors.append(
            {
                "tokens": prompt.tolist(),
                "stride": stride,
                "logits": [float(str(value)) for value in kept],  # no more digits than it has
                "greedy": greedy,
            }
        )
    return vectors
