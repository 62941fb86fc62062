"""The check of a model file's bytes before ONNX Runtime sees them.

A file passes if it is, field by field, what train-export writes for its configuration: the graph
of its precision in `variants`, weights of the right shapes and all finite, nothing else. So no
file can bring external data, functions, other operators or subgraphs, or sizes that no bytes back.
Field numbers are those of onnx.proto3. Nothing is copied or allocated on the word of the file.
"""

import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from chargen_ort.errors import ArtifactError
from chargen_ort.graph_spec import DTYPES, Graph, Node, Sizes, Tensor, Value, Variant
from chargen_ort.wire import BYTES, VARINT, Field, Message, fields

MAX_METADATA_BYTES = 2 << 20  # all entries together
MAX_WEIGHT = 1e6  # then no sum in the graph can overflow float32, so all logits are finite
_MAX_METADATA_ENTRIES = 64
_MAX_FIELDS = 128  # of a model, metadata entries included
_MAX_DOC_BYTES = 4096
_MAX_OPERANDS = 128  # inputs or outputs of a node, attributes, numbers of an attribute
_PIECE = 1 << 13  # weights that are looked at together
_METADATA_FIELD = 14
_METADATA = Field("metadata_props", BYTES, _MAX_METADATA_ENTRIES)

_MODEL = {
    1: Field("ir_version", VARINT),
    2: Field("producer_name", BYTES),
    3: Field("producer_version", BYTES),
    7: Field("graph", BYTES),
    8: Field("opset_import", BYTES, 4),
    _METADATA_FIELD: _METADATA,
}
_ENTRY = {1: Field("key", BYTES), 2: Field("value", BYTES)}
_OPSET = {1: Field("domain", BYTES), 2: Field("version", VARINT)}
_NODE = {
    1: Field("input", BYTES, _MAX_OPERANDS),
    2: Field("output", BYTES, _MAX_OPERANDS),
    3: Field("name", BYTES),
    4: Field("op_type", BYTES),
    5: Field("attribute", BYTES, _MAX_OPERANDS),
    6: Field("doc_string", BYTES),
    7: Field("domain", BYTES),
}
_ATTRIBUTE = {
    1: Field("name", BYTES),
    3: Field("i", VARINT),
    6: Field("g", BYTES),
    8: Field("ints", VARINT, _MAX_OPERANDS),
    20: Field("type", VARINT),
}
_INT, _GRAPH, _INTS = 2, 5, 7  # AttributeProto.AttributeType
_TENSOR = {
    1: Field("dims", VARINT, 8),
    2: Field("data_type", VARINT),
    8: Field("name", BYTES),
    9: Field("raw_data", BYTES),
}
_VALUE = {1: Field("name", BYTES), 2: Field("type", BYTES)}
_TYPE = {1: Field("tensor_type", BYTES)}
_TENSOR_TYPE = {1: Field("elem_type", VARINT), 2: Field("shape", BYTES)}
_SHAPE = {1: Field("dim", BYTES, 8)}
_DIM = {1: Field("dim_value", VARINT), 2: Field("dim_param", BYTES)}


@dataclass(frozen=True)
class Contents:
    """What a file was found to hold.

    Attributes:
        nodes, tensors: how many.
        weights: how many numbers the floating-point tensors have, all finite and within
            `MAX_WEIGHT`.
    """

    nodes: int
    tensors: int
    weights: int

    def __add__(self, other: "Contents") -> "Contents":
        return Contents(
            self.nodes + other.nodes, self.tensors + other.tensors, self.weights + other.weights
        )


def read_metadata(data: memoryview) -> dict[str, str]:
    """The metadata entries of a model, in the file's order; other fields are passed over.

    Raises:
        ArtifactError: malformed, too large, too many, not UTF-8, or a key twice.
    """
    metadata: dict[str, str] = {}
    size = 0
    for count, (number, wire_type, value) in enumerate(fields(data), 1):
        if count > _MAX_FIELDS:
            raise ArtifactError(f"the model has more than {_MAX_FIELDS} fields")
        if number != _METADATA_FIELD or wire_type != BYTES or isinstance(value, int):
            continue
        size += len(value)
        if len(metadata) == _MAX_METADATA_ENTRIES:
            raise ArtifactError(f"the metadata has more than {_MAX_METADATA_ENTRIES} entries")
        if size > MAX_METADATA_BYTES:
            raise ArtifactError(f"the metadata has more than {MAX_METADATA_BYTES} bytes")
        entry = Message.read(value, _ENTRY, f"metadata entry {len(metadata) + 1}")
        key = entry.text("key")
        if key in metadata:
            raise ArtifactError(f"the metadata key {shown(key)} appears twice")
        metadata[key] = entry.text("value")
    return metadata


def check_model(data: memoryview, variant: Variant, sizes: Sizes) -> Contents:
    """Check that a model is the graph of `variant` at `sizes`, with finite weights.

    Raises:
        ArtifactError: it is not; the message says where.
    """
    model = Message.read(data, _MODEL, "model")
    require("model: ir_version", model.number("ir_version"), variant.ir_version)
    for name in ("producer_name", "producer_version"):
        _check_short_text(model, name)
    imported: dict[str, int] = {}
    for part in model.parts("opset_import"):
        opset = Message.read(part, _OPSET, "model: opset_import")
        if opset.text("domain") in imported:
            raise ArtifactError(f"the domain {shown(opset.text('domain'))} is imported twice")
        imported[opset.text("domain")] = opset.number("version")
    require("model: operator sets", imported, dict(variant.opsets))
    return _check_graph(model.part("graph"), variant.graph(sizes), "graph")


def _check_graph(data: memoryview, expected: Graph, where: str) -> Contents:
    nodes, tensors = expected.nodes, expected.tensors
    known = {
        1: Field("node", BYTES, len(nodes)),
        2: Field("name", BYTES),
        5: Field("initializer", BYTES, len(tensors)),
        10: Field("doc_string", BYTES),
        11: Field("input", BYTES, len(expected.inputs)),
        12: Field("output", BYTES, len(expected.outputs)),
    }
    graph = Message.read(data, known, where)
    for name in ("name", "doc_string"):
        _check_short_text(graph, name)
    _check_values(graph, "input", expected.inputs)
    _check_values(graph, "output", expected.outputs)
    _require_count(graph, "node", len(nodes))
    _require_count(graph, "initializer", len(tensors))
    found = Contents(len(nodes), len(tensors), 0)
    names: set[str] = set()
    for index, (part, node) in enumerate(zip(graph.parts("node"), nodes, strict=True)):
        name, inner = _check_node(part, node, f"{where}: node {index}")
        if name in names:
            raise ArtifactError(f"{where}: the name {shown(name)} of node {index} appears twice")
        names.add(name)
        found += inner
    for part, tensor in zip(graph.parts("initializer"), tensors, strict=True):
        found += Contents(0, 0, _check_tensor(part, tensor))
    if not graph.part("name"):  # ONNX Runtime refuses such a graph
        raise ArtifactError(f"{where} has no name; train-export writes one")
    return found


def _check_node(data: memoryview, expected: Node, place: str) -> tuple[str, Contents]:
    """Check one node; returns its name, and what the graphs in its attributes hold."""
    node = Message.read(data, _NODE, place)
    where = f"{place} ({expected.op})"
    require(f"{where}: domain", node.text("domain"), expected.domain)
    require(f"{where}: operator", node.text("op_type"), expected.op)
    require(f"{where}: inputs", node.texts("input"), expected.inputs)
    require(f"{where}: outputs", node.texts("output"), expected.outputs)
    attributes: dict[str, Message] = {}
    for part in node.parts("attribute"):
        attribute = Message.read(part, _ATTRIBUTE, f"{where}: attribute")
        name = attribute.text("name")
        if name in attributes:
            raise ArtifactError(f"{where}: the attribute {shown(name)} appears twice")
        attributes[name] = attribute
    require(f"{where}: attributes", sorted(attributes), sorted(expected.attributes))
    found = Contents(0, 0, 0)
    for name, value in expected.attributes.items():
        if isinstance(value, Graph):
            found += _check_body(attributes[name], value, f"{where}: {name}")
        else:
            number = _read_numbers(attributes[name], f"{where}: attribute {name}")
            require(f"{where}: attribute {name}", number, value)
    for name in ("name", "doc_string"):
        _check_short_text(node, name)
    return node.text("name"), found


def _check_body(attribute: Message, expected: Graph, where: str) -> Contents:
    if attribute.number("type") != _GRAPH or {"i", "ints"} & set(attribute.values):
        raise ArtifactError(f"{where} is no graph")
    return _check_graph(attribute.part("g"), expected, where)


def _read_numbers(attribute: Message, where: str) -> int | tuple[int, ...]:
    kind, present = attribute.number("type"), set(attribute.values) & {"i", "ints", "g"}
    if kind == _INT and present <= {"i"}:
        return attribute.number("i")
    if kind == _INTS and present <= {"ints"}:
        return attribute.numbers("ints")
    raise ArtifactError(f"{where} is no integer and no list of them")


def _check_tensor(data: memoryview, expected: Tensor) -> int:
    """Check one initializer; returns how many floating-point numbers it has."""
    where = f"tensor {expected.name}"
    tensor = Message.read(data, _TENSOR, where)
    require(f"{where}: name", tensor.text("name"), expected.name)
    require(f"{where}: data type", tensor.number("data_type"), expected.dtype)
    require(f"{where}: shape", tensor.numbers("dims"), expected.shape)
    raw = tensor.part("raw_data")
    if len(raw) != expected.nbytes:
        raise ArtifactError(f"{where}: {len(raw)} bytes of data; its shape has {expected.nbytes}")
    array = np.frombuffer(raw, dtype=DTYPES[expected.dtype])
    if expected.value is not None:
        require(f"{where}: value", tuple(array.tolist()), expected.value)
    if array.dtype.kind != "f":
        return 0
    # NaN and infinities show in the extremes too, and looking for those needs no memory
    low, high = float(array.min()), float(array.max())
    if not -MAX_WEIGHT <= low <= high <= MAX_WEIGHT:
        index = _first_wrong(array)
        raise ArtifactError(
            f"{where}: number {index} is {array[index]}; "
            f"a weight is finite and at most {MAX_WEIGHT:g} either way"
        )
    return array.size


def _first_wrong(array: NDArray[np.generic]) -> int:
    """Index of the first number that is no weight; in pieces, so that it needs little memory."""
    for begin in range(0, array.size, _PIECE):
        piece = array[begin : begin + _PIECE].astype(np.float64)
        fits = np.abs(piece) <= MAX_WEIGHT
        if not fits.all():
            return begin + int(fits.argmin())
    return 0


def _check_values(graph: Message, kind: str, expected: Sequence[Value]) -> None:
    _require_count(graph, kind, len(expected))
    where = f"{graph.where} {kind}"
    for part, wanted in zip(graph.parts(kind), expected, strict=True):
        require(where, _read_value(part, where), wanted)


def _read_value(data: memoryview, where: str) -> Value:
    value = Message.read(data, _VALUE, where)
    kind = Message.read(value.part("type"), _TYPE, where)
    tensor = Message.read(kind.part("tensor_type"), _TENSOR_TYPE, where)
    dims: list[str | int] = []
    for part in Message.read(tensor.part("shape"), _SHAPE, where).parts("dim"):
        dim = Message.read(part, _DIM, where)
        if len(dim.values) != 1:
            raise ArtifactError(f"{where}: a dimension is not one number or one name")
        dims.append(dim.number("dim_value") if "dim_value" in dim.values else dim.text("dim_param"))
    return value.text("name"), tensor.number("elem_type"), tuple(dims)


def _require_count(message: Message, name: str, expected: int) -> None:
    count = len(message.values.get(name, ()))
    require(f"{message.where}: number of {name}s", count, expected)


def _check_short_text(message: Message, name: str) -> None:
    size = len(message.part(name))
    if size > _MAX_DOC_BYTES:
        raise ArtifactError(f"{message.where}: {name} has {size} bytes; at most {_MAX_DOC_BYTES}")
    message.text(name)


def require(what: str, found: object, expected: object) -> None:
    """Refuse a value that is not the expected one.

    Raises:
        ArtifactError: naming both.
    """
    if found != expected:
        raise ArtifactError(f"{what} is {shown(found)}; train-export writes {shown(expected)}")


def shown(value: object) -> str:
    """A short printable account of a value that a file brought; never its control characters."""
    if isinstance(value, str) and len(value) > 80:
        value = value[:80] + "…"
    text = ascii(value)
    return text if len(text) <= 160 else text[:160] + "…"


def describe_foreign(head: bytes, tail: bytes, seal_key: str) -> str:
    """One helpful sentence about a file that does not end with a seal, from its two ends."""
    start = head.lstrip()[:64].lower()
    if not head:
        return "the file is empty; copy or export it again"
    if head.startswith(b"version https://git-lfs"):
        return "this is a Git LFS pointer, not the model; run: git lfs pull"
    if start.startswith(b"<"):
        return "this is an HTML or XML page, not a model; download the raw file"
    for magic, what in _FOREIGN.items():
        if head.startswith(magic):
            return f"this is {what}, not an .onnx file; export one with train-export"
    if seal_key.encode() in tail:
        return "the seal is not the last thing in the file: it is cut off or was added to"
    if _looks_like_onnx(memoryview(head)):
        return (
            "no seal: an ONNX model of another program, or one that was cut off or saved again; "
            "train-export writes the models that run here"
        )
    return "no seal: not a model that train-export wrote, or cut off; export it with train-export"


_FOREIGN: Mapping[bytes, str] = {
    b"PK\x03\x04": "a ZIP archive or PyTorch checkpoint",
    b"\x80\x02": "a Python pickle",
    b"\x80\x04": "a Python pickle",
    b"GGUF": "a GGUF model",
    b"\x1f\x8b": "gzip data",
    b"\x89PNG": "a picture",
    b"%PDF": "a PDF document",
}


def _looks_like_onnx(head: memoryview) -> bool:
    try:
        first = list(itertools.islice(((n, w) for n, w, _ in fields(head)), 2))
    except ArtifactError:
        first = [(1, VARINT)] if re.match(rb"\x08[\x01-\x20][\x12\x1a\x22\x3a\x42]", head) else []
    return first[:1] == [(1, VARINT)]
