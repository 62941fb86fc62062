"""The guard, its table of graphs, its JSON and its walker, each on its own."""

import contextlib
import dataclasses
import json

import numpy as np
import onnx
import pytest
from google.protobuf.message import DecodeError
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import numpy_helper

from chargen_ort import wire
from chargen_ort.artifact import FORMAT_KEY, KEYS, check_graph, parse_artifact, seal
from chargen_ort.errors import ArtifactError, OptionError
from chargen_ort.generator import CharGenerator
from chargen_ort.graph_spec import Graph, Node, Sizes, Tensor, Variant
from chargen_ort.guard import read_metadata
from chargen_ort.variants import VARIANTS
from tests.conftest import ALPHABET, artifact_bytes, model_bytes, random_model
from tests.hostile.build import body, changed, entry, from_table, without_seal

# The table is what the exporter writes


def exported_graph(precision, num_layers):
    model = random_model(11, 3, 5, num_layers)
    if precision == "fp32":
        data = model_bytes(model)
    else:
        # the precisions other than fp32 are made of an fp32 file
        module = pytest.importorskip("chargen_export.precision")
        base = artifact_bytes(model, ALPHABET[:11], "a")
        if precision == "fp16":
            data = module.build_fp16_model(base).SerializeToString()
        else:
            data = module.build_int8_model(module.read_weights(base)).SerializeToString()
    return onnx.load_from_string(data)


def spec_of(graph, like):
    """A graph of onnx in the words of the table; values of tensors where `like` has them."""
    arrays = {t.name: numpy_helper.to_array(t) for t in graph.initializer}
    values = {t.name: t.value for t in like.tensors}
    return Graph(
        tuple(
            Node(
                node.op_type,
                tuple(node.input),
                tuple(node.output),
                {a.name: attribute_of(a, other) for a in node.attribute},
                node.domain,
            )
            for node, other in zip(graph.node, like.nodes, strict=True)
        ),
        tuple(
            Tensor(
                t.name,
                t.data_type,
                tuple(t.dims),
                tuple(arrays[t.name].ravel().tolist()) if values.get(t.name) else None,
            )
            for t in graph.initializer
        ),
        tuple(map(value_info, graph.input)),
        tuple(map(value_info, graph.output)),
    )


def attribute_of(attribute, node):
    value = onnx.helper.get_attribute_value(attribute)
    if isinstance(value, onnx.GraphProto):
        return spec_of(value, node.attributes[attribute.name])
    return tuple(value) if isinstance(value, list) else value


def value_info(value):
    tensor = value.type.tensor_type
    return (
        value.name,
        tensor.elem_type,
        tuple(d.dim_param or d.dim_value for d in tensor.shape.dim),
    )


@pytest.mark.parametrize("precision", VARIANTS)
@pytest.mark.parametrize("num_layers", [1, 2, 3, 7])
def test_the_table_is_the_exporters_graph(precision, num_layers):
    exported = exported_graph(precision, num_layers)
    variant = VARIANTS[precision]
    expected = variant.graph(Sizes(11, 3, 5, num_layers))
    assert spec_of(exported.graph, expected) == expected
    assert exported.ir_version == variant.ir_version
    assert {o.domain: o.version for o in exported.opset_import} == variant.opsets
    for tensor, other in zip(exported.graph.initializer, expected.tensors, strict=True):
        assert len(tensor.raw_data) == other.nbytes


def assert_in_order(graph, opsets, outer=frozenset()):
    """Each value is made once, before it is used; each initializer is used."""
    own = {name for name, *_ in graph.inputs} | {tensor.name for tensor in graph.tensors}
    assert len(own) == len(graph.inputs) + len(graph.tensors)
    known, used = {"", *own, *outer}, set()
    for node in graph.nodes:
        assert set(node.inputs) <= known, node
        assert not set(node.outputs) & known, node
        assert node.domain in opsets
        for inner in node.attributes.values():
            if isinstance(inner, Graph):
                used |= assert_in_order(inner, opsets, known)
        used |= set(node.inputs)
        known |= set(node.outputs)
    assert {name for name, *_ in graph.outputs} <= known
    assert {tensor.name for tensor in graph.tensors} <= used
    return used


@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize("num_layers", [1, 2, 5])
def test_each_variant_is_a_graph_in_order(name, num_layers):
    variant = VARIANTS[name]
    assert_in_order(variant.graph(Sizes(11, 3, 5, num_layers)), variant.opsets)


@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize("num_layers", [1, 2])
def test_each_variant_runs(name, num_layers):
    generator = CharGenerator.from_bytes(from_table(name, num_layers))
    assert generator.generate("abc", 5, seed=1) == generator.generate("abc", 5, seed=1)
    assert np.isfinite(generator.state("abc").logits()).all()


def messages(message, path=()):
    """Every message in a protobuf message, by the path that leads to it."""
    yield path, message
    for field, value in message.ListFields():
        if field.message_type is not None:
            several = [value] if hasattr(value, "ListFields") else value
            for index, inner in enumerate(several):
                yield from messages(inner, (*path, field.name, index))


@pytest.mark.parametrize("name", VARIANTS)
def test_without_any_one_field_a_file_is_refused_or_runs(name):
    """What the guard lets a file leave out, neither onnx nor ONNX Runtime misses."""
    honest = onnx.load_from_string(without_seal(from_table(name, 1)))
    fields = [
        (path, field.name)
        for path, message in messages(honest)
        for field, _ in message.ListFields()
        if "metadata_props" not in path
    ]
    left_out = set()
    for path, field in fields:
        proto = onnx.ModelProto()
        proto.CopyFrom(honest)
        next(message for at, message in messages(proto) if at == path).ClearField(field)
        try:
            artifact = parse_artifact(seal(proto.SerializeToString(deterministic=True)))
        except ArtifactError:
            continue
        onnx.checker.check_model(proto)
        assert CharGenerator(artifact).generate("a", 2)
        left_out.add(field)
    assert left_out <= {"name", "domain", "producer_name", "i"}  # of nodes; an integer of 0


def test_a_table_of_int8_that_would_fill_the_memory_is_refused():
    with pytest.raises(ArtifactError, match="numbers; the limit is 67108864"):
        VARIANTS["int8"].graph(Sizes(65536, 1, 512, 1))


@pytest.mark.parametrize(
    "sizes", [(2, 1, 1, 1), (29, 8, 16, 3), (300, 4, 8, 64), (5000, 3, 2, 1)], ids=str
)
def test_every_size_passes(sizes):
    characters = "".join(map(chr, range(0x4E00, 0x4E00 + sizes[0])))
    data = artifact_bytes(random_model(*sizes), characters, characters[0])
    artifact = parse_artifact(data)
    found = check_graph(artifact)
    assert found.weights == sum(p.numel() for p in random_model(*sizes).parameters())


def test_another_variant_has_its_own_rules(monkeypatch):
    fp32 = VARIANTS["fp32"]
    later = dataclasses.replace(fp32, opsets={"": 21, "com.microsoft": 1})
    assert isinstance(later, Variant)
    monkeypatch.setattr("chargen_ort.artifact.VARIANTS", {"fp32": later})
    with pytest.raises(ArtifactError, match="model: operator sets is"):
        parse_artifact(artifact_bytes(random_model()))


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


def test_the_refusal_names_the_number_that_is_not_finite():
    model = random_model()
    data = bytearray(model_bytes(model))
    weights = model.output.bias.detach().numpy().tobytes()
    at = data.index(weights) + 4 * 3
    data[at : at + 4] = np.float32(np.inf).tobytes()
    whole = artifact_bytes(model).replace(model_bytes(model), bytes(data))
    with pytest.raises(
        ArtifactError, match="tensor output_bias: number 3 is inf; a weight is finite"
    ):
        parse_artifact(seal(whole[: whole.rindex(KEYS[-1].encode()) - 4]))


# Before the graph is looked at


def test_only_bytes_are_a_model():
    with pytest.raises(OptionError, match="a model is bytes, got bytearray"):
        parse_artifact(bytearray(body()))


def test_a_file_that_grows_too_large_is_refused(monkeypatch):
    monkeypatch.setattr("chargen_ort.artifact.MAX_FILE_BYTES", 1000)
    with pytest.raises(ArtifactError, match="bytes; the limit is 1000"):
        parse_artifact(body())


def test_changed_helper_takes_keys_out():
    assert "unit" not in json.loads(changed("chargen.config", unit=...))


# The walker

values = st.one_of(st.integers(0, (1 << 64) - 1), st.binary(max_size=20))


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(1, (1 << 29) - 1), values), max_size=8))
def test_what_is_written_is_read(written):
    data = b"".join(
        wire.write_bytes_field(number, value)
        if isinstance(value, bytes)
        else wire.write_varint(number << 3) + wire.write_varint(value)
        for number, value in written
    )
    read = [
        (number, bytes(value) if isinstance(value, memoryview) else value)
        for number, _, value in wire.fields(memoryview(data))
    ]
    assert read == written


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=60))
def test_any_bytes_are_fields_or_an_artifact_error(data):
    with contextlib.suppress(ArtifactError):
        for _, _, value in wire.fields(memoryview(data)):
            assert value < 1 << 64 if isinstance(value, int) else len(value) <= len(data)


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 3_000), st.binary(min_size=1, max_size=3))
def test_metadata_that_the_walker_accepts_is_what_protobuf_reads(offset, change):
    data = bytearray(body())
    at = max(0, len(data) - 1 - offset)
    data[at : at + len(change)] = change
    try:
        ours = read_metadata(memoryview(bytes(data)))
    except ArtifactError:
        return
    theirs = onnx.ModelProto()
    try:
        theirs.ParseFromString(bytes(data))
    except DecodeError:  # in the graph, which is not looked at here
        return
    assert ours == {p.key: p.value for p in theirs.metadata_props}
