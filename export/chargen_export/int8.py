"""The weights of a step as 8-bit integers, for the graph in `chargen_ort.graphs.int8`.

How the numbers are chosen:

- States lie in -1 … 1, so that one fixed step of 1/127 serves all activations. A scale that is
  measured on the fly would make a row's text depend on the other rows of its batch.
- Weights have one scale per output channel and the integers -63 … 63. Processors without VNNI add
  pairs of products in 16 bits, and 2 * 255 * 63 is the most that fits: so every machine computes
  the same integers.
- The first layer's input product has only vocab_size results. ONNX Runtime computes this table
  once, on load, from the file's embedding and weights.
"""

import numpy as np
from numpy.typing import NDArray

from chargen_export.graph import StepWeights
from chargen_ort.errors import OptionError
from chargen_ort.graphs.int8 import ACTIVATION_LEVELS, MAX_TABLE

WEIGHT_LEVELS = 63


def quantise(
    matrix: NDArray[np.float32], axis: int, levels: int
) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """The nearest integers -levels … levels, one scale for each slice along the other axis.

    Returns:
        int8 of the matrix's shape, and the scales with `axis` reduced to 1.
    """
    largest = np.abs(matrix).max(axis=axis, keepdims=True)
    scale = np.where(largest > 0, largest / np.float32(levels), np.float32(1)).astype(np.float32)
    integers = np.clip(np.rint(matrix / scale), -levels, levels).astype(np.int8)
    return integers, scale


def int8_arrays(weights: StepWeights) -> dict[str, NDArray[np.generic]]:
    """The weights of the int8 graph, by name.

    Raises:
        OptionError: vocabulary and hidden size are too large for the table.
    """
    vocab_size, num_layers, hidden_size = weights.shape
    gates = 3 * hidden_size
    if vocab_size * gates > MAX_TABLE:
        raise OptionError(
            f"int8 keeps a table of vocabulary x 3 hidden = {vocab_size * gates} numbers, "
            f"the limit is {MAX_TABLE}; give --precision fp16"
        )
    # both biases of update and reset are added to the input side of the first layer, where they
    # are free, and to the recurrent side of the others; the new gate needs its two apart
    recurrent_scale = np.empty((num_layers, gates), dtype=np.float32)
    recurrent_bias = np.zeros((num_layers, gates), dtype=np.float32)
    arrays: dict[str, NDArray[np.generic]] = {}
    integers, scale = quantise(weights.embedding, 1, ACTIVATION_LEVELS)
    arrays["embedding"], arrays["embedding_scale"] = integers[:, None], scale[:, None]
    for index, (w, r, b) in enumerate(weights.layers):
        inner = b[:gates].copy()  # [3 hidden]
        inner[: 2 * hidden_size] += b[gates : gates + 2 * hidden_size]
        recurrent_bias[index, 2 * hidden_size :] = b[gates + 2 * hidden_size :]
        levels = WEIGHT_LEVELS if index else ACTIVATION_LEVELS  # the table is no integer product
        integers, scale = quantise(np.ascontiguousarray(w.T), 0, levels)
        arrays[f"layer_{index}_W"] = integers
        if index == 0:
            arrays["layer_0_W_scale"], arrays["layer_0_bias"] = scale[0], inner
        else:
            arrays[f"layer_{index}_W_scale"] = scale[0] / np.float32(ACTIVATION_LEVELS)
            recurrent_bias[index, : 2 * hidden_size] = inner[: 2 * hidden_size]
            arrays[f"layer_{index}_bias"] = inner[2 * hidden_size :]
        integers, scale = quantise(np.ascontiguousarray(r.T), 0, WEIGHT_LEVELS)
        arrays[f"layer_{index}_R"] = integers
        recurrent_scale[index] = scale[0] / np.float32(ACTIVATION_LEVELS)
    arrays["recurrent_scale"] = recurrent_scale.ravel()
    arrays["recurrent_bias"] = recurrent_bias.ravel()
    integers, scale = quantise(weights.output_weight, 0, WEIGHT_LEVELS)
    arrays["output_weight"] = integers
    arrays["output_scale"] = scale[0] / np.float32(ACTIVATION_LEVELS)
    arrays["output_bias"] = weights.output_bias
    return arrays
