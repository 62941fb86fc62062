"""The forms of the graphs, byte for byte, and the little protobuf that they are written in."""

import contextlib
import hashlib
import random
import tracemalloc

import numpy as np
import onnx
import pytest
from google.protobuf.message import DecodeError
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx.checker import check_model

from chargen_ort import protobuf
from chargen_ort.artifact import FORMAT_KEY, KEYS, parse_artifact, read_weights, seal
from chargen_ort.errors import ArtifactError
from chargen_ort.form import fill, fits, read, read_metadata, render
from chargen_ort.generator import CharGenerator
from chargen_ort.graphs import VARIANTS
from chargen_ort.graphs.spec import OPSET, Graph, Sizes
from tests.conftest import artifact_bytes, model_bytes, random_model
from tests.hostile.build import body, entry, of_precision, without_seal

SMALL = [(precision, layers) for precision in VARIANTS for layers in (1, 2)]

# SHA-256 over the literal bytes at 2 layers: who changes one of them changes the format
LITERALS = {
    "fp32": "dd43f9bee9a61634c445fbe75ab6cc2cbef19fcb631ca93c4a7ab9b9f090cad0",
    "fp16": "adebad606e9394a56426a771777f768b55828d9ad83671786ca66a605f931c9d",
    "int8": "c60981a2c704275524c1ed0f93b42b164351b2f967af7875781fc2065a93aa7f",
}


def form_of(precision, num_layers=2, sizes=(5, 2, 3)):
    return render(VARIANTS[precision].graph(Sizes(*sizes, num_layers)))


def zeros(form):
    return {hole.name: np.zeros(hole.shape, hole.dtype) for hole in form.holes}


def literal_bytes(form):
    """Where in a file the literal bytes lie."""
    at = 0
    for part in form.parts:
        size = len(part) if isinstance(part, bytes) else part.nbytes
        if isinstance(part, bytes):
            yield from range(at, at + size)
        at += size


# What is written


@pytest.mark.parametrize("precision", VARIANTS)
@pytest.mark.parametrize("num_layers", [1, 2, 3, 7])
def test_a_filled_form_is_what_protobuf_writes_and_onnx_accepts(precision, num_layers):
    form = form_of(precision, num_layers)
    data = fill(form, zeros(form))
    check_model(data, full_check=True)
    model = onnx.load_from_string(data)
    assert model.SerializeToString(deterministic=True) == data
    assert [(o.domain, o.version) for o in model.opset_import] == [("", OPSET)]
    assert (model.producer_name, model.producer_version) == ("chargen", "format 2")


@pytest.mark.parametrize("precision", VARIANTS)
def test_the_literals_are_those_of_the_format(precision):
    literals = [part for part in form_of(precision).parts if isinstance(part, bytes)]
    assert hashlib.sha256(b"".join(literals)).hexdigest() == LITERALS[precision]


@pytest.mark.parametrize(("precision", "num_layers"), SMALL)
def test_what_is_filled_in_is_read_again(precision, num_layers):
    form = form_of(precision, num_layers)
    rng = np.random.default_rng(0)
    arrays = {hole.name: rng.integers(-9, 9, hole.shape).astype(hole.dtype) for hole in form.holes}
    found = read(memoryview(fill(form, arrays)), form)
    assert list(found) == [hole.name for hole in form.holes]
    assert len(found) == len(form.holes)  # no name twice
    for name, array in found.items():
        assert (array.dtype, array.shape) == (arrays[name].dtype, arrays[name].shape)
        assert np.array_equal(array, arrays[name])
        assert not array.flags.writeable


@pytest.mark.parametrize(
    "change",
    [
        {"output_bias": np.zeros(6, "<f4")},
        {"output_bias": np.zeros(5, "<f8")},
        {"extra": np.zeros(1, "<f4")},
    ],
)
def test_only_the_weights_of_the_graph_are_filled_in(change):
    form = form_of("fp32")
    with pytest.raises(ValueError, match="the weights are not those of the graph: embedding, "):
        fill(form, zeros(form) | change)


def assert_in_order(graph, outer=frozenset()):
    """Each value is made once, before it is used; each tensor is used."""
    own = {value.name for value in graph.inputs} | {tensor.name for tensor in graph.tensors}
    assert len(own) == len(graph.inputs) + len(graph.tensors)
    assert len({node.name for node in graph.nodes}) == len(graph.nodes)
    known, used = {"", *own, *outer}, set()
    for node in graph.nodes:
        assert set(node.inputs) <= known, node
        assert not set(node.outputs) & known, node
        for inner in node.attributes.values():
            if isinstance(inner, Graph):
                used |= assert_in_order(inner, known)
        used |= set(node.inputs)
        known |= set(node.outputs)
    assert {value.name for value in graph.outputs} <= known
    assert {tensor.name for tensor in graph.tensors} <= used
    return used


@pytest.mark.parametrize("precision", VARIANTS)
@pytest.mark.parametrize("num_layers", [1, 2, 5])
def test_each_graph_is_in_order(precision, num_layers):
    assert_in_order(VARIANTS[precision].graph(Sizes(11, 3, 5, num_layers)))


@pytest.mark.parametrize(("precision", "num_layers"), SMALL)
def test_each_graph_runs(precision, num_layers):
    generator = CharGenerator.from_bytes(of_precision(precision, num_layers))
    assert generator.generate("abc", 5, seed=1) == generator.generate("abc", 5, seed=1)
    assert np.isfinite(generator.state("abc").logits()).all()


# What is refused


@pytest.mark.parametrize(("precision", "num_layers"), SMALL)
def test_every_flipped_bit_is_refused_unless_it_lies_in_a_weight(precision, num_layers):
    form = form_of(precision, num_layers)
    data = bytearray(fill(form, zeros(form)))
    view, literal = memoryview(data), set(literal_bytes(form))
    assert fits(view, form)
    for at in range(len(data)):
        for bit in range(8):
            data[at] ^= 1 << bit
            assert fits(view, form) == (at not in literal), (at, bit)
            data[at] ^= 1 << bit


@pytest.mark.parametrize(("precision", "num_layers"), SMALL)
def test_the_refusal_of_a_flipped_bit_says_where_it_lies(precision, num_layers):
    form = form_of(precision, num_layers)
    data = bytearray(fill(form, zeros(form)))
    rng = random.Random(0)
    for at in rng.sample(list(literal_bytes(form)), 300):
        bit = 1 << rng.randrange(8)
        data[at] ^= bit
        with pytest.raises(ArtifactError, match=r"^model.*byte \d") as caught:
            read(memoryview(data), form)
        assert str(caught.value).isprintable()
        data[at] ^= bit


@pytest.mark.parametrize(("precision", "num_layers"), SMALL)
def test_a_sealed_file_with_a_flipped_bit_is_refused_unless_it_lies_in_a_weight(
    precision, num_layers
):
    honest = without_seal(of_precision(precision, num_layers))
    _, end = read_metadata(memoryview(honest))
    form = form_of(precision, num_layers, (29, 8, 16))
    literal, rng = set(literal_bytes(form)), random.Random(0)
    for at in rng.sample(range(end), 250):
        data = bytearray(honest)
        data[at] ^= 1 << rng.randrange(8)
        if at in literal:
            with pytest.raises(ArtifactError):
                parse_artifact(seal(bytes(data)))
        else:
            with contextlib.suppress(ArtifactError):  # a weight may become too large
                parse_artifact(seal(bytes(data)))


def messages(message, path=()):
    """Every message in a protobuf message, by the path that leads to it."""
    yield path, message
    for field, value in message.ListFields():
        if field.message_type is not None:
            several = [value] if hasattr(value, "ListFields") else value
            for index, inner in enumerate(several):
                yield from messages(inner, (*path, field.name, index))


@pytest.mark.parametrize("precision", VARIANTS)
def test_without_any_one_field_a_file_is_refused(precision):
    honest = onnx.load_from_string(without_seal(of_precision(precision, 1)))
    fields = [
        (path, field.name)
        for path, message in messages(honest)
        for field, _ in message.ListFields()
        if "metadata_props" not in path
    ]
    for path, field in fields:
        proto = onnx.ModelProto()
        proto.CopyFrom(honest)
        next(message for at, message in messages(proto) if at == path).ClearField(field)
        with pytest.raises(ArtifactError):
            parse_artifact(seal(proto.SerializeToString(deterministic=True)))


def test_a_table_of_int8_that_would_fill_the_memory_is_refused():
    with pytest.raises(ArtifactError, match="numbers; the limit is 67108864"):
        VARIANTS["int8"].graph(Sizes(65536, 1, 512, 1))


def test_sizes_that_no_bytes_back_cost_no_memory():
    data = memoryview(model_bytes(random_model()))
    tracemalloc.start()
    with pytest.raises(ArtifactError, match="node 3 split_hidden"):
        read(data, render(VARIANTS["fp32"].graph(Sizes(65536, 65536, 65536, 64))))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1 << 20


@pytest.mark.parametrize(
    "sizes", [(2, 1, 1, 1), (29, 8, 16, 3), (300, 4, 8, 64), (5000, 3, 2, 1)], ids=str
)
def test_every_size_passes(sizes):
    characters = "".join(map(chr, range(0x4E00, 0x4E00 + sizes[0])))
    model = random_model(*sizes)
    weights = read_weights(parse_artifact(artifact_bytes(model, characters, characters[0])))
    count = sum(array.size for array in weights.values())
    assert count == sum(parameter.numel() for parameter in model.parameters())


def test_a_newer_format_is_refused_by_name_and_says_what_to_get():
    proto = onnx.load_from_string(body())
    entries = {p.key: p.value for p in proto.metadata_props} | {
        FORMAT_KEY: "3",
        "author": "train-export (chargen-ort 7.1.0)",
    }
    del proto.metadata_props[:]
    proto.training_info.add()  # a newer format may have fields that this one does not know
    data = proto.SerializeToString() + b"".join(entry(k, v) for k, v in entries.items())
    with pytest.raises(ArtifactError) as caught:
        parse_artifact(seal(data))
    assert str(caught.value) == (
        "the model: format '3' is not known to this version, which reads format 2; "
        "update with: pip install --upgrade 'chargen-ort>=7.1.0'"
    )


@pytest.mark.parametrize(
    ("bits", "shown"), [(0x7F800000, "inf"), (0x7FC00000, "nan"), (0x7F800001, "nan")]
)
def test_the_refusal_names_the_number_that_is_not_finite(bits, shown):
    """Also a signalling NaN, of which NumPy alone would print a warning."""
    model = random_model()
    data = bytearray(model_bytes(model))
    weights = model.output.bias.detach().numpy().tobytes()
    at = data.index(weights) + 4 * 3
    data[at : at + 4] = bits.to_bytes(4, "little")
    whole = artifact_bytes(model).replace(model_bytes(model), bytes(data))
    with pytest.raises(
        ArtifactError, match=f"tensor output_bias: number 3 is {shown}; a weight is finite"
    ):
        parse_artifact(seal(whole[: whole.rindex(KEYS[-1].encode()) - 4]))


# Protobuf

values = st.one_of(st.integers(0, (1 << 64) - 1), st.binary(max_size=20))


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(1, (1 << 29) - 1), values), max_size=8))
def test_what_is_written_is_read(written):
    parts = [
        protobuf.bytes_field(number, value)
        if isinstance(value, bytes)
        else protobuf.integer_field(number, value)
        for number, value in written
    ]
    data = b"".join(parts)
    found = list(protobuf.fields(memoryview(data)))
    assert [
        (field.number, field.value if isinstance(field.value, int) else bytes(field.value))
        for field in found
    ] == written
    assert [data[field.begin : field.end] for field in found] == parts


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=60))
def test_any_bytes_are_fields_or_an_artifact_error(data):
    with contextlib.suppress(ArtifactError):
        for field in protobuf.fields(memoryview(data)):
            value = field.value
            assert value < 1 << 64 if isinstance(value, int) else len(value) <= len(data)


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 3_000), st.binary(min_size=1, max_size=3))
def test_metadata_that_is_accepted_is_what_protobuf_reads(offset, change):
    data = bytearray(body())
    at = max(0, len(data) - 1 - offset)
    data[at : at + len(change)] = change
    try:
        ours, end = read_metadata(memoryview(bytes(data)))
    except ArtifactError:
        return
    theirs = onnx.ModelProto()
    try:
        theirs.ParseFromString(bytes(data))
    except DecodeError:  # in the graph, which is not looked at here
        return
    assert ours == {p.key: p.value for p in theirs.metadata_props}
    assert end <= len(data)
