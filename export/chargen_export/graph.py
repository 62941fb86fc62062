"""The step as an ONNX graph, written node by node from the weights.

`torch.onnx.export` is an oracle of the tests, not the exporter: its graph has 50 nodes, is slower,
and carries paths of the machine that made it.
"""

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from chargen_ort import __version__
from chargen_ort.artifact import HIDDEN, IR_VERSION, LOGITS, NEXT_HIDDEN, OPSET, TOKEN
from chargen_train.model import CharGRU, gru_parameters

PRODUCER = "chargen"


def build_step_model(model: CharGRU) -> onnx.ModelProto:
    """The graph of `model`: token and hidden in, logits and next hidden out.

    The result depends on the weights alone; its serialisation is the same byte for byte every time.

    Raises:
        ValueError: a weight is not finite. (ONNX Runtime would turn it into finite logits.)
    """
    nodes = [
        helper.make_node(
            "Gather",
            ["embedding", TOKEN],
            ["embedded"],
            "embed",
            "token ids to vectors: [batch, time, embedding_dim]",
        ),
        helper.make_node(
            "Transpose",
            ["embedded"],
            ["layer_0_in"],
            "time_first",
            "the GRU wants time first: [time, batch, embedding_dim]",
            perm=[1, 0, 2],
        ),
        helper.make_node(
            "Transpose",
            [HIDDEN],
            ["hidden_by_layer"],
            "layer_first",
            "batch first outside, layer first inside: [num_layers, batch, hidden_size]",
            perm=[1, 0, 2],
        ),
    ]
    initializers = {"embedding": _array(model.embedding.weight), "direction": np.array([1])}
    initial = [f"layer_{index}_hidden" for index in range(model.num_layers)]
    final = [f"layer_{index}_next_hidden" for index in range(model.num_layers)]
    if model.num_layers == 1:
        initial = ["hidden_by_layer"]
    else:
        nodes.append(
            helper.make_node(
                "Split",
                ["hidden_by_layer"],
                initial,
                "split_hidden",
                "one state a layer: [1, batch, hidden_size] each",
                axis=0,
            )
        )
    for index, layer in enumerate(model.grus()):
        weights = gru_weights(layer)
        names = [f"layer_{index}_{part}" for part in ("W", "R", "B")]
        initializers.update(zip(names, weights, strict=True))
        nodes += [
            helper.make_node(
                "GRU",
                [f"layer_{index}_in", *names, "", initial[index]],
                [f"layer_{index}_out4", final[index]],
                f"layer_{index}_gru",
                "Y [time, 1, batch, hidden_size], Y_h [1, batch, hidden_size]",
                hidden_size=model.hidden_size,
                linear_before_reset=1,
            ),
            helper.make_node(
                "Squeeze",
                [f"layer_{index}_out4", "direction"],
                [f"layer_{index + 1}_in"],
                f"layer_{index}_squeeze",
                "one direction only: [time, batch, hidden_size]",
            ),
        ]
    by_layer = final[0]
    if model.num_layers > 1:
        by_layer = "next_hidden_by_layer"
        nodes.append(
            helper.make_node(
                "Concat",
                final,
                [by_layer],
                "join_hidden",
                "all layers' states: [num_layers, batch, hidden_size]",
                axis=0,
            )
        )
    initializers["output_weight"] = _array(model.output.weight.t())
    initializers["output_bias"] = _array(model.output.bias)
    nodes += [
        helper.make_node(
            "Transpose",
            [by_layer],
            [NEXT_HIDDEN],
            "batch_first_hidden",
            "[batch, num_layers, hidden_size]",
            perm=[1, 0, 2],
        ),
        helper.make_node(
            "Transpose",
            [f"layer_{model.num_layers}_in"],
            ["features"],
            "batch_first",
            "[batch, time, hidden_size]",
            perm=[1, 0, 2],
        ),
        helper.make_node(
            "MatMul", ["features", "output_weight"], ["scores"], "project", "to the vocabulary"
        ),
        helper.make_node(
            "Add",
            ["scores", "output_bias"],
            [LOGITS],
            "bias",
            "[batch, time, vocab_size], before temperature",
        ),
    ]
    return _wrap(model, nodes, initializers)


def gru_weights(layer: nn.GRU) -> tuple[NDArray[np.float32], ...]:
    """W ``[1, 3 hidden, input]``, R ``[1, 3 hidden, hidden]`` and B ``[1, 6 hidden]`` of one layer.

    PyTorch orders the gates reset, update, new; ONNX wants update, reset, new, and both biases.
    """
    order = _gate_slices(layer.hidden_size)
    w, r, b_ih, b_hh = (
        np.concatenate([_array(parameter)[gate] for gate in order])
        for parameter in gru_parameters(layer)
    )
    return w[None], r[None], np.concatenate([b_ih, b_hh])[None]


def _gate_slices(hidden_size: int) -> list[slice]:
    reset, update, new = (slice(i * hidden_size, (i + 1) * hidden_size) for i in range(3))
    return [update, reset, new]


def _wrap(
    model: CharGRU, nodes: list[onnx.NodeProto], initializers: dict[str, NDArray[np.generic]]
) -> onnx.ModelProto:
    for name, array in initializers.items():
        if not np.isfinite(array).all():
            raise ValueError(f"the weight {name} is not finite; train again with a lower rate")
    hidden_shape: list[str | int | None] = ["batch", model.num_layers, model.hidden_size]
    graph = helper.make_graph(
        nodes,
        "chargen_step",
        [
            helper.make_tensor_value_info(TOKEN, TensorProto.INT64, ["batch", "time"]),
            helper.make_tensor_value_info(HIDDEN, TensorProto.FLOAT, hidden_shape),
        ],
        [
            helper.make_tensor_value_info(
                LOGITS, TensorProto.FLOAT, ["batch", "time", model.vocab_size]
            ),
            helper.make_tensor_value_info(NEXT_HIDDEN, TensorProto.FLOAT, hidden_shape),
        ],
        [numpy_helper.from_array(array, name) for name, array in initializers.items()],
        doc_string="A character-level GRU language model: as many steps as it is fed.",
    )
    return helper.make_model(
        graph,
        producer_name=PRODUCER,
        producer_version=__version__,
        ir_version=IR_VERSION,
        opset_imports=[helper.make_opsetid("", OPSET)],
    )


def to_bytes(model: onnx.ModelProto) -> bytes:
    """The same bytes for the same model every time."""
    data: bytes = model.SerializeToString(deterministic=True)
    return data


def _array(tensor: Tensor) -> NDArray[np.float32]:
    return np.ascontiguousarray(tensor.detach().to("cpu", torch.float32).numpy())
