"""The graphs that train-export writes, one for each precision, node by node.

This table is the allow-list of the guard: a file may hold the graph that its precision and sizes
give here, and no other. A new precision is one more entry in `VARIANTS`.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

TOKEN, HIDDEN, LOGITS, NEXT_HIDDEN = "token", "hidden", "logits", "next_hidden"
OPSET, IR_VERSION = 17, 8

# TensorProto.DataType
FLOAT, UINT8, INT8, INT64, FLOAT16 = 1, 2, 3, 7, 10
DTYPES: Mapping[int, np.dtype[np.generic]] = {
    FLOAT: np.dtype("<f4"),
    UINT8: np.dtype("u1"),
    INT8: np.dtype("i1"),
    INT64: np.dtype("<i8"),
    FLOAT16: np.dtype("<f2"),
}

Attribute = int | tuple[int, ...]


@dataclass(frozen=True)
class Sizes:
    """What a graph's shapes follow from."""

    vocab_size: int
    embedding_dim: int
    hidden_size: int
    num_layers: int


@dataclass(frozen=True)
class Node:
    """A node: all that decides what it computes, so neither its name nor its doc string."""

    op: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Attribute] = field(default_factory=dict)
    domain: str = ""


@dataclass(frozen=True)
class Tensor:
    """An initializer; `value` where it is part of the graph's meaning and not a weight."""

    name: str
    dtype: int
    shape: tuple[int, ...]
    value: tuple[int, ...] | None = None

    @property
    def nbytes(self) -> int:
        """Size of its raw data."""
        return math.prod(self.shape) * DTYPES[self.dtype].itemsize


@dataclass(frozen=True)
class Variant:
    """The graph of one precision.

    Attributes:
        nodes: the nodes for given sizes, in order.
        tensors: the initializers for given sizes, in order.
        opsets: version of each operator domain that is imported; "" is ONNX's own.
        ir_version: of the file.
    """

    nodes: Callable[[Sizes], list[Node]]
    tensors: Callable[[Sizes], list[Tensor]]
    opsets: Mapping[str, int] = field(default_factory=lambda: {"": OPSET})
    ir_version: int = IR_VERSION


def fp32_nodes(sizes: Sizes) -> list[Node]:
    """Embedding, one GRU a layer, projection; see `chargen_export.graph`."""
    layers = range(sizes.num_layers)
    swap = {"perm": (1, 0, 2)}
    nodes = [
        Node("Gather", ("embedding", TOKEN), ("embedded",)),
        Node("Transpose", ("embedded",), ("layer_0_in",), swap),
        Node("Transpose", (HIDDEN,), ("hidden_by_layer",), swap),
    ]
    initial = tuple(f"layer_{layer}_hidden" for layer in layers)
    final = tuple(f"layer_{layer}_next_hidden" for layer in layers)
    by_layer = "next_hidden_by_layer"
    if sizes.num_layers == 1:
        initial, by_layer = ("hidden_by_layer",), final[0]
    else:
        nodes.append(Node("Split", ("hidden_by_layer",), initial, {"axis": 0}))
    for layer in layers:
        weights = (f"layer_{layer}_{part}" for part in ("W", "R", "B"))
        out = f"layer_{layer}_out4"
        nodes += [
            Node(
                "GRU",
                (f"layer_{layer}_in", *weights, "", initial[layer]),
                (out, final[layer]),
                {"hidden_size": sizes.hidden_size, "linear_before_reset": 1},
            ),
            Node("Squeeze", (out, "direction"), (f"layer_{layer + 1}_in",)),
        ]
    if sizes.num_layers > 1:
        nodes.append(Node("Concat", final, (by_layer,), {"axis": 0}))
    return [
        *nodes,
        Node("Transpose", (by_layer,), (NEXT_HIDDEN,), swap),
        Node("Transpose", (f"layer_{sizes.num_layers}_in",), ("features",), swap),
        Node("MatMul", ("features", "output_weight"), ("scores",)),
        Node("Add", ("scores", "output_bias"), (LOGITS,)),
    ]


def fp32_tensors(sizes: Sizes) -> list[Tensor]:
    """The weights as they are, and the axis of the GRU's one direction."""
    hidden = sizes.hidden_size
    tensors = [
        Tensor("embedding", FLOAT, (sizes.vocab_size, sizes.embedding_dim)),
        Tensor("direction", INT64, (1,), (1,)),
    ]
    for layer in range(sizes.num_layers):
        width = hidden if layer else sizes.embedding_dim
        tensors += [
            Tensor(f"layer_{layer}_W", FLOAT, (1, 3 * hidden, width)),
            Tensor(f"layer_{layer}_R", FLOAT, (1, 3 * hidden, hidden)),
            Tensor(f"layer_{layer}_B", FLOAT, (1, 6 * hidden)),
        ]
    return [
        *tensors,
        Tensor("output_weight", FLOAT, (hidden, sizes.vocab_size)),
        Tensor("output_bias", FLOAT, (sizes.vocab_size,)),
    ]


VARIANTS: Mapping[str, Variant] = {"fp32": Variant(fp32_nodes, fp32_tensors)}
