"""A model file as a form: literal bytes with holes for the weights, then the metadata.

The form follows from a graph of `graphs/`: the exporter fills it, and a reader accepts a file if
every literal byte is the form's. So no file can bring other operators, external data, functions,
or sizes that no bytes back. Fields stand in the order of their numbers in onnx.proto3, each once,
as protobuf itself writes them.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from chargen_ort.checks import shown_value
from chargen_ort.errors import ArtifactError
from chargen_ort.graphs.spec import (
    IR_VERSION,
    PRODUCER,
    PRODUCER_VERSION,
    Attribute,
    Graph,
    Node,
    Tensor,
    Value,
)
from chargen_ort.protobuf import Found, bytes_field, bytes_header, fields, integer_field

MAX_METADATA_BYTES = 2 << 20  # all entries together
MAX_WEIGHT = 1e6  # then no sum in the graph can overflow float32, so all logits are finite
MAX_METADATA_ENTRIES = 64
MAX_FIELDS = 128  # of a model, metadata entries included
_METADATA_FIELD = 14  # ModelProto.metadata_props
_INT, _STRING, _GRAPH, _INTS = 2, 3, 5, 7  # AttributeProto.AttributeType
_PIECE = 1 << 13  # weights that are looked at together
_SHOWN = 32  # bytes more of a text than were expected

Array = NDArray[np.generic]


class Field(NamedTuple):
    """A field of a message; `name` is for messages to people. A tensor stands for its numbers."""

    number: int
    name: str
    value: "int | str | Tensor | list[Field]"


@dataclass(frozen=True)
class Form:
    """The form of one graph: the fields of its ModelProto, and the same as a file has them.

    Attributes:
        fields: by their names, for messages.
        parts: literal bytes, and tensors where a file has its weights.
    """

    fields: list[Field]
    parts: list[bytes | Tensor]

    @property
    def holes(self) -> list[Tensor]:
        """The tensors that a file fills, in its order."""
        return [part for part in self.parts if isinstance(part, Tensor)]


def render(graph: Graph) -> Form:
    """The form of a file with this graph."""
    opset = [Field(1, "domain", ""), Field(2, "version", graph.opset)]
    model = [
        Field(1, "ir_version", IR_VERSION),
        Field(2, "producer_name", PRODUCER),
        Field(3, "producer_version", PRODUCER_VERSION),
        Field(7, "graph", _graph(graph)),
        Field(8, "opset_import", opset),
    ]
    return Form(model, _encode(model))


def fill(form: Form, arrays: Mapping[str, Array]) -> bytes:
    """The file with these weights, without metadata; the same for the same weights every time.

    Args:
        form: of the graph.
        arrays: a weight of the right type and shape for each of the form's holes, by name.

    Raises:
        ValueError: a weight is missing, not known, or of another type or shape.
    """
    wanted = {hole.name: (hole.dtype, hole.shape) for hole in form.holes}
    if wanted != {name: (array.dtype, array.shape) for name, array in arrays.items()}:
        raise ValueError(f"the weights are not those of the graph: {', '.join(wanted)}")
    contiguous = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    return b"".join(p if isinstance(p, bytes) else contiguous[p.name].data for p in form.parts)


def fits(data: memoryview, form: Form) -> bool:
    """Whether `data` has the form's length and all its literal bytes."""
    at = 0
    if len(data) != sum(map(_size, form.parts)):
        return False
    for part in form.parts:
        if isinstance(part, bytes) and data[at : at + len(part)] != part:
            return False
        at += _size(part)
    return True


def read(data: memoryview, form: Form) -> dict[str, Array]:
    """The weights in a file without its metadata, by name: read-only views, maybe unaligned.

    Raises:
        ArtifactError: the file is not this form, and where; or a weight is not finite or beyond
            `MAX_WEIGHT` either way.
    """
    if not fits(data, form):
        _explain(data, 0, len(data), form.fields, "model")
        raise ArtifactError("the graph is not the one that train-export writes")
    weights: dict[str, Array] = {}
    at = 0
    for part in form.parts:
        if isinstance(part, Tensor):
            array = np.frombuffer(data[at : at + part.nbytes], part.dtype).reshape(part.shape)
            if array.dtype.kind == "f":
                _check_finite(array, part.name)
            weights[part.name] = array
        at += _size(part)
    return weights


def metadata_entry(key: str, value: str) -> bytes:
    """An entry of the metadata, as bytes that go after a form."""
    pair = bytes_field(1, key.encode()) + bytes_field(2, value.encode())
    return bytes_field(_METADATA_FIELD, pair)


def read_metadata(data: memoryview) -> tuple[dict[str, str], int]:
    """The metadata of a model in the file's order, and where the last field before it ends.

    Raises:
        ArtifactError: malformed, too large, too many, not UTF-8, or a key twice.
    """
    metadata: dict[str, str] = {}
    size = begin = 0
    for count, (number, value, _, end) in enumerate(fields(data), 1):
        if count > MAX_FIELDS:
            raise ArtifactError(f"the model has more than {MAX_FIELDS} fields")
        if number != _METADATA_FIELD or isinstance(value, int):
            begin = end
            continue
        size += len(value)
        if len(metadata) == MAX_METADATA_ENTRIES:
            raise ArtifactError(f"the metadata has more than {MAX_METADATA_ENTRIES} entries")
        if size > MAX_METADATA_BYTES:
            raise ArtifactError(f"the metadata has more than {MAX_METADATA_BYTES} bytes")
        where = f"metadata entry {len(metadata) + 1}"
        pair = [(part.number, part.value) for part in fields(data, end - len(value), end)]
        if [part[0] for part in pair] != [1, 2]:
            raise ArtifactError(f"{where} is not one key and then one value")
        try:
            key, text = (str(part[1], "utf-8") for part in pair if not isinstance(part[1], int))
        except ValueError:  # a number, or bytes that are no text
            raise ArtifactError(f"{where} is not UTF-8") from None
        if key in metadata:
            raise ArtifactError(f"the metadata key {shown_value(key)} appears twice")
        metadata[key] = text
    return metadata, begin


def _graph(graph: Graph) -> list[Field]:
    numbered = enumerate(graph.nodes)
    return [
        *(
            Field(1, f"node {index} {node.name} ({node.op})", _node(node))
            for index, node in numbered
        ),
        Field(2, "name", graph.name),
        *(Field(5, f"tensor {tensor.name}", _tensor(tensor)) for tensor in graph.tensors),
        Field(10, "doc_string", graph.doc),
        *(Field(11, f"input {value.name}", _value(value)) for value in graph.inputs),
        *(Field(12, f"output {value.name}", _value(value)) for value in graph.outputs),
    ]


def _node(node: Node) -> list[Field]:
    attributes = sorted(node.attributes.items())
    return [
        *(Field(1, f"input {index}", name) for index, name in enumerate(node.inputs)),
        *(Field(2, f"output {index}", name) for index, name in enumerate(node.outputs)),
        Field(3, "name", node.name),
        Field(4, "op_type", node.op),
        *(Field(5, f"attribute {name}", _attribute(name, value)) for name, value in attributes),
        *([Field(6, "doc_string", node.doc)] if node.doc else ()),
    ]


def _attribute(name: str, value: Attribute) -> list[Field]:
    named = Field(1, "name", name)
    if isinstance(value, Graph):
        return [named, Field(6, "g", _graph(value)), Field(20, "type", _GRAPH)]
    if isinstance(value, tuple):
        numbers = [Field(8, f"ints {index}", number) for index, number in enumerate(value)]
        return [named, *numbers, Field(20, "type", _INTS)]
    if isinstance(value, str):
        return [named, Field(4, "s", value), Field(20, "type", _STRING)]
    return [named, Field(3, "i", value), Field(20, "type", _INT)]


def _tensor(tensor: Tensor) -> list[Field]:
    return [
        *(Field(1, f"dims {index}", size) for index, size in enumerate(tensor.shape)),
        Field(2, "data_type", tensor.kind),
        Field(8, "name", tensor.name),
        Field(9, "raw_data", tensor),
    ]


def _value(value: Value) -> list[Field]:
    dims = [
        Field(1, f"dim {index}", [Field(1, "dim_value", dim)])
        if isinstance(dim, int)
        else Field(1, f"dim {index}", [Field(2, "dim_param", dim)])
        for index, dim in enumerate(value.shape)
    ]
    kind = [Field(1, "elem_type", value.kind), Field(2, "shape", dims)]
    return [Field(1, "name", value.name), Field(2, "type", [Field(1, "tensor_type", kind)])]


def _encode(wanted: Sequence[Field]) -> list[bytes | Tensor]:
    """The fields as they stand in a file, neighbouring literals joined."""
    parts: list[bytes | Tensor] = []
    for number, _, value in wanted:
        if isinstance(value, int):
            parts.append(integer_field(number, value))
            continue
        inner = _encode(value) if isinstance(value, list) else [_literal(value)]
        parts += [bytes_header(number, sum(map(_size, inner))), *inner]
    return list(_joined(parts))


def _literal(value: str | Tensor) -> bytes | Tensor:
    if isinstance(value, str):
        return value.encode()
    return value if value.value is None else np.array(value.value, value.dtype).tobytes()


def _joined(parts: Sequence[bytes | Tensor]) -> Iterator[bytes | Tensor]:
    for kind, group in groupby(parts, type):
        if kind is bytes:
            yield b"".join(part for part in group if isinstance(part, bytes))
        else:
            yield from group


def _size(part: bytes | Tensor) -> int:
    return len(part) if isinstance(part, bytes) else part.nbytes


def _explain(data: memoryview, begin: int, end: int, wanted: Sequence[Field], where: str) -> None:
    """Raise what tells a person where the message from `begin` to `end` first is not `wanted`.

    This judges nothing: it is for a file that was already found to differ somewhere.
    """
    walk = fields(data, begin, end)
    for want in (*wanted, None):
        name = want.name if want else "nothing more"
        try:
            found = next(walk, None)
        except ArtifactError as error:
            raise ArtifactError(f"{where}: {error}; train-export writes {name} there") from None
        if found is None:
            what = f"{where} ends at byte {end}"
        elif want is None or not _alike(found, want):
            what = f"{where}: field {found.number} at byte {found.begin}"
        elif isinstance(want.value, list) and not isinstance(found.value, int):
            begin = found.end - len(found.value)
            _explain(data, begin, found.end, want.value, f"{where}: {name}")
            continue
        elif problem := _misfit(found.value, want.value):
            raise ArtifactError(f"{where}: {name} at byte {found.begin} {problem}")
        else:
            continue
        if found or want:
            raise ArtifactError(f"{what}; train-export writes {name} there")


def _alike(found: Found, want: Field) -> bool:
    both = isinstance(found.value, int), isinstance(want.value, int)
    return found.number == want.number and both[0] == both[1]


def _misfit(found: int | memoryview, value: "int | str | Tensor | list[Field]") -> str:
    """What is wrong with a value that is no message; empty where nothing is."""
    told: object = found
    wanted: object = value
    if isinstance(found, int):
        told = found - (1 << 64) if found >> 63 else found
    elif isinstance(value, str):
        told = str(found[: len(value) + _SHOWN], "utf-8", "replace")
    elif isinstance(value, Tensor) and len(found) != value.nbytes:
        return f"has {len(found)} bytes; its shape has {value.nbytes}"
    elif isinstance(value, Tensor):
        told = wanted = None
        if value.value is not None:
            told, wanted = tuple(np.frombuffer(found, value.dtype).tolist()), value.value
    return "" if told == wanted else f"is {told!a:.160}; train-export writes {wanted!a:.160}"


@np.errstate(invalid="ignore")  # a signalling NaN would make NumPy print a warning
def _check_finite(array: Array, name: str) -> None:
    # NaN and infinities show in the extremes too, and looking for those needs no memory
    low, high = float(array.min()), float(array.max())
    if -MAX_WEIGHT <= low <= high <= MAX_WEIGHT:
        return
    flat = array.reshape(-1)  # of contiguous numbers: a view
    for begin in range(0, flat.size, _PIECE):
        wrong = ~(np.abs(flat[begin : begin + _PIECE].astype(np.float64)) <= MAX_WEIGHT)
        if wrong.any():
            index = begin + int(wrong.argmax())
            raise ArtifactError(
                f"tensor {name}: number {index} is {flat[index]}; "
                f"a weight is finite and at most {MAX_WEIGHT:g} either way"
            )
