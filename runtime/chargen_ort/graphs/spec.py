"""How a graph is written down, and the literals that the graphs share."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

FORMAT = 2
PRODUCER, PRODUCER_VERSION = "chargen", f"format {FORMAT}"
OPSET, IR_VERSION = 17, 8
TOKEN, HIDDEN, LOGITS, NEXT_HIDDEN = "token", "hidden", "logits", "next_hidden"

_LARGE = 1 << 20  # bytes

# TensorProto.DataType
FLOAT, UINT8, INT8, INT64, BOOL, FLOAT16, DOUBLE, UINT64 = 1, 2, 3, 7, 9, 10, 11, 13
DTYPES: Mapping[int, np.dtype[np.generic]] = {
    FLOAT: np.dtype("<f4"),
    UINT8: np.dtype("u1"),
    INT8: np.dtype("i1"),
    INT64: np.dtype("<i8"),
    BOOL: np.dtype("?"),
    FLOAT16: np.dtype("<f2"),
    DOUBLE: np.dtype("<f8"),
    UINT64: np.dtype("<u8"),
}


@dataclass(frozen=True)
class Sizes:
    """What a graph's shapes follow from."""

    vocab_size: int
    embedding_dim: int
    hidden_size: int
    num_layers: int


@dataclass(frozen=True)
class Node:
    """A node; `doc` says for people what comes out of it."""

    name: str
    op: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, "Attribute"] = field(default_factory=dict)
    doc: str = ""


@dataclass(frozen=True)
class Tensor:
    """An initializer; `value` where it is part of the graph's meaning, None for weights."""

    name: str
    kind: int  # a key of DTYPES
    shape: tuple[int, ...]
    value: tuple[float, ...] | None = None

    @property
    def dtype(self) -> np.dtype[np.generic]:
        """NumPy's type of its numbers, little-endian."""
        return DTYPES[self.kind]

    @property
    def nbytes(self) -> int:
        """Size of its numbers in bytes."""
        return math.prod(self.shape) * self.dtype.itemsize


class Value(NamedTuple):
    """An input or output: its name, a key of DTYPES, and its dimensions by number or name."""

    name: str
    kind: int
    shape: tuple[str | int, ...]


@dataclass(frozen=True)
class Graph:
    """A graph, or the body of a node that has one: nodes and tensors in order.

    `opset` counts where the graph is a whole file's.
    """

    name: str
    doc: str
    nodes: tuple[Node, ...]
    tensors: tuple[Tensor, ...]
    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]
    opset: int = OPSET

    def with_bodies(self) -> "list[Graph]":
        """The graph itself and those in its nodes."""
        values = (value for node in self.nodes for value in node.attributes.values())
        bodies = (value.with_bodies() for value in values if isinstance(value, Graph))
        return sum(bodies, [self])


Attribute = int | str | tuple[int, ...] | Graph


def placed(tensors: Sequence[Tensor]) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """Which tensors to put into the body of a Scan, and which large ones beside it.

    ONNX Runtime keeps two copies of what is in a body, and to hand it what stands outside takes a
    tenth of a microsecond a step.
    """
    small, large = (
        tuple(tensor for tensor in tensors if (tensor.nbytes >= _LARGE) == is_large)
        for is_large in (False, True)
    )
    return small, large


def named_node(op: str, inputs: tuple[str, ...], *outputs: str, **attributes: Attribute) -> Node:
    """A node that is named after what comes out of it."""
    return Node(outputs[0], op, inputs, outputs, attributes)


@dataclass(frozen=True)
class Tolerance:
    """Largest absolute differences that count as equal. They are the format's, never a file's.

    Attributes:
        logits: between the graph and what it was exported from, at each compared step.
        hidden: the same of the hidden state.
        vectors: between the stored test vectors and what the graph computes on another machine.
    """

    logits: float = 1e-4
    hidden: float = 1e-4
    vectors: float = 1e-4


@dataclass(frozen=True)
class Variant:
    """A precision: its graph for given sizes, and what that may differ by."""

    graph: Callable[[Sizes], Graph]
    tolerance: Tolerance = field(default_factory=Tolerance)


def step_graph(sizes: Sizes, doc: str, nodes: list[Node], tensors: list[Tensor]) -> Graph:
    """A graph with the inputs and outputs that every model has."""
    hidden = ("batch", sizes.num_layers, sizes.hidden_size)
    inputs = Value(TOKEN, INT64, ("batch", "time")), Value(HIDDEN, FLOAT, hidden)
    logits = Value(LOGITS, FLOAT, ("batch", "time", sizes.vocab_size))
    outputs = logits, Value(NEXT_HIDDEN, FLOAT, hidden)
    return Graph("chargen_step", doc, tuple(nodes), tuple(tensors), inputs, outputs)
