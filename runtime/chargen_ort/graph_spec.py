"""How the guard's table of graphs is written down: nodes, initializers, contract."""

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

Value = tuple[str, int, tuple[str | int, ...]]  # name, element type, dimensions


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
    attributes: Mapping[str, "Attribute"] = field(default_factory=dict)
    domain: str = ""


@dataclass(frozen=True)
class Tensor:
    """An initializer; `value` where it is part of the graph's meaning and not a weight."""

    name: str
    dtype: int
    shape: tuple[int, ...]
    value: tuple[float, ...] | None = None

    @property
    def nbytes(self) -> int:
        """Size of its raw data."""
        return math.prod(self.shape) * DTYPES[self.dtype].itemsize


@dataclass(frozen=True)
class Graph:
    """A graph, or the body of a node that has one: nodes and initializers in order."""

    nodes: tuple[Node, ...]
    tensors: tuple[Tensor, ...]
    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]


Attribute = int | tuple[int, ...] | Graph


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
    """The graphs of one precision.

    Attributes:
        graph: the graph for given sizes.
        tolerance: what it may differ by.
        opsets: version of each operator domain that is imported; "" is ONNX's own.
        ir_version: of the file.
    """

    graph: Callable[[Sizes], Graph]
    tolerance: Tolerance = field(default_factory=Tolerance)
    opsets: Mapping[str, int] = field(default_factory=lambda: {"": OPSET})
    ir_version: int = IR_VERSION


def with_contract(sizes: Sizes, nodes: list[Node], tensors: list[Tensor]) -> Graph:
    """A graph with the inputs and outputs that every model has."""
    hidden = ("batch", sizes.num_layers, sizes.hidden_size)
    return Graph(
        tuple(nodes),
        tuple(tensors),
        ((TOKEN, INT64, ("batch", "time")), (HIDDEN, FLOAT, hidden)),
        ((LOGITS, FLOAT, ("batch", "time", sizes.vocab_size)), (NEXT_HIDDEN, FLOAT, hidden)),
    )
