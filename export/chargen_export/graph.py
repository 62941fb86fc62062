"""The weights of a step, from PyTorch or from a file, and the file's form filled with them."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from chargen_ort.artifact import Artifact, read_weights
from chargen_ort.form import fill, render
from chargen_ort.graphs import VARIANTS
from chargen_ort.graphs.spec import Sizes
from chargen_train.model import CharGRU, gru_parameters

Weight = NDArray[np.float32]


@dataclass(frozen=True)
class StepWeights:
    """The weights of a step as in the fp32 graph: gates in ONNX's order update, reset, new.

    Attributes:
        embedding: ``[vocab_size, embedding_dim]``.
        layers: per layer W ``[3 hidden, input]``, R ``[3 hidden, hidden]``, B ``[6 hidden]``.
        output_weight: ``[hidden, vocab_size]``.
        output_bias: ``[vocab_size]``.
    """

    embedding: Weight
    layers: tuple[tuple[Weight, ...], ...]
    output_weight: Weight
    output_bias: Weight

    @property
    def sizes(self) -> Sizes:
        """What the graph's shapes follow from."""
        vocab_size, num_layers, hidden_size = self.shape
        return Sizes(vocab_size, self.embedding.shape[1], hidden_size, num_layers)

    @property
    def shape(self) -> tuple[int, int, int]:
        """vocab_size, num_layers, hidden_size."""
        return len(self.embedding), len(self.layers), len(self.output_weight)

    def arrays(self) -> dict[str, Weight]:
        """The same by their names in the fp32 graph."""
        layers = {
            f"layer_{index}_{part}": weight[None]
            for index, layer in enumerate(self.layers)
            for part, weight in zip("WRB", layer, strict=True)
        }
        output = {"output_weight": self.output_weight, "output_bias": self.output_bias}
        return {"embedding": self.embedding, **layers, **output}


def render_step(model: CharGRU) -> bytes:
    """The fp32 graph of `model` without metadata; the same weights give the same bytes.

    Raises:
        ValueError: a weight is not finite. (ONNX Runtime would turn it into finite logits.)
    """
    weights = model_weights(model)
    for name, array in weights.arrays().items():
        if not np.isfinite(array).all():
            raise ValueError(f"the weight {name} is not finite; train again with a lower rate")
    return fill(render(VARIANTS["fp32"].graph(weights.sizes)), weights.arrays())


def model_weights(model: CharGRU) -> StepWeights:
    """The weights of a PyTorch model."""
    layers = tuple(gru_weights(layer) for layer in model.grus())
    output = _array(model.output.weight.t()), _array(model.output.bias)
    return StepWeights(_array(model.embedding.weight), layers, *output)


def artifact_weights(artifact: Artifact) -> StepWeights:
    """The weights of an fp32 artifact."""
    arrays = {name: array.astype(np.float32) for name, array in read_weights(artifact).items()}
    layers = tuple(
        tuple(arrays[f"layer_{index}_{part}"][0] for part in "WRB")
        for index in range(artifact.config.num_layers)
    )
    return StepWeights(arrays["embedding"], layers, arrays["output_weight"], arrays["output_bias"])


def gru_weights(layer: nn.GRU) -> tuple[Weight, ...]:
    """W ``[3 hidden, input]``, R ``[3 hidden, hidden]`` and B ``[6 hidden]`` of one layer.

    PyTorch orders the gates reset, update, new; ONNX wants update, reset, new, and both biases.
    """
    order = _gate_slices(layer.hidden_size)
    w, r, b_ih, b_hh = (
        np.concatenate([_array(parameter)[gate] for gate in order])
        for parameter in gru_parameters(layer)
    )
    return w, r, np.concatenate([b_ih, b_hh])


def _gate_slices(hidden_size: int) -> list[slice]:
    reset, update, new = (slice(i * hidden_size, (i + 1) * hidden_size) for i in range(3))
    return [update, reset, new]


def _array(tensor: Tensor) -> Weight:
    return np.ascontiguousarray(tensor.detach().to("cpu", torch.float32).numpy())
