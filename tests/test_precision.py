"""fp16 and int8 artifacts: they compute what they say, and lose no more than they may."""

import numpy as np
import onnx
import pytest
import torch
from onnx.reference import ReferenceEvaluator

from chargen_export import int8, int8_parity
from chargen_export.graph import model_weights
from chargen_export.int8 import WEIGHT_LEVELS, quantise
from chargen_export.int8_parity import verify_int8
from chargen_export.precision import (
    GateText,
    build_variant,
    derive_variant,
    rounded_to_half,
)
from chargen_ort import CharGenerator, parse_artifact
from chargen_ort.artifact import seal
from chargen_ort.engine import open_session
from chargen_ort.errors import ArtifactError, OptionError, ParityError
from chargen_ort.graphs.spec import HIDDEN, IR_VERSION, LOGITS, NEXT_HIDDEN, OPSET, TOKEN
from chargen_ort.stepper import Stepper, run_steps
from chargen_train.model import CharGRU
from chargen_train.split import Part
from tests.conftest import ALPHABET, artifact_bytes, model_bytes, random_model
from tests.tools.steps import SHAPES, assert_same, by_torch, inputs

TEXT = GateText("letters", Part.of(np.arange(len(ALPHABET)).repeat(3)), held_out=True)
SMALL = [shape for shape in SHAPES if shape[2] <= 256]


def fp16_bytes(model):
    return build_variant(model_weights(model), "fp16")


def int8_bytes(model):
    return build_variant(model_weights(model), "int8")


BUILDERS = {"fp16": fp16_bytes, "int8": int8_bytes}


def derive(precision, max_loss_increase=0.1, **sizes):
    base = parse_artifact(artifact_bytes(random_model(**sizes)))
    return base, derive_variant(base, precision, TEXT, max_loss_increase)


# What they compute


def test_the_weights_of_an_artifact_are_those_of_its_model():
    model = random_model(num_layers=2)
    again = CharGRU.from_artifact(parse_artifact(artifact_bytes(model)))
    for (name, a), (_, b) in zip(model.named_parameters(), again.named_parameters(), strict=True):
        assert torch.equal(a, b), name


@pytest.mark.parametrize("shape", SMALL, ids=str)
def test_fp16_is_pytorch_with_rounded_weights(shape):
    *sizes, batch, time = shape
    model = random_model(*sizes, scale=1.0)
    token, hidden = inputs(model, batch, time)
    session = open_session(fp16_bytes(model), threads=1)
    expected = by_torch(rounded_to_half(model), token, hidden)
    assert_same(run_steps(session, token, hidden), expected)


@pytest.mark.parametrize("shape", SMALL, ids=str)
def test_int8_stays_near_pytorch(shape):
    # measured on these shapes: 0.0104 at most
    *sizes, batch, time = shape
    model = random_model(*sizes, scale=1.0)
    token, hidden = inputs(model, batch, time)
    session = open_session(int8_bytes(model), threads=1)
    logits, next_hidden = run_steps(session, token, hidden)
    assert_same((logits, next_hidden), by_torch(model, token, hidden), tolerance=0.03)


@pytest.mark.parametrize("num_layers", [1, 2, 3])
def test_int8_is_exactly_the_quantised_gru(num_layers):
    model = random_model(num_layers=num_layers, hidden_size=24)
    weights = model_weights(model)
    certificate = verify_int8(int8_bytes(model), weights, TEXT.part.tokens)
    assert 0 < certificate.largest_logits_difference < 1e-5
    assert 0 < certificate.largest_hidden_difference < 1e-5
    assert certificate.steps >= 250


def test_onnx_reference_agrees_with_int8():
    model = random_model(num_layers=2)
    token, hidden = inputs(model, 2, 1)
    reference = ReferenceEvaluator(onnx.load_from_string(int8_bytes(model)))
    result = reference.run([LOGITS, NEXT_HIDDEN], {TOKEN: token, HIDDEN: hidden})
    assert_same(run_steps(open_session(int8_bytes(model), 1), token, hidden), result)


@pytest.mark.parametrize("precision", BUILDERS)
@pytest.mark.parametrize("num_layers", [1, 2])
def test_single_steps_are_one_long_call(precision, num_layers):
    model = random_model(num_layers=num_layers, hidden_size=33)
    token, hidden = inputs(model, 3, 40)
    session = open_session(BUILDERS[precision](model), threads=1)
    logits, last = run_steps(session, token, hidden)
    stepper = Stepper(session, 3, (model.vocab_size, num_layers, 33))
    stepper.hidden[:] = hidden
    for time in range(40):
        stepper.step(token[:, time])
        np.testing.assert_allclose(stepper.logits, logits[:, time], rtol=0, atol=1e-5)
    np.testing.assert_allclose(stepper.hidden, last, rtol=0, atol=1e-5)


def test_a_row_of_int8_does_not_depend_on_its_batch():
    model = random_model(num_layers=2, hidden_size=33)
    token, hidden = inputs(model, 5, 20)
    session = open_session(int8_bytes(model), threads=1)
    logits, last = run_steps(session, token, hidden)
    for row in range(5):
        alone = run_steps(session, token[row : row + 1], hidden[row : row + 1])
        np.testing.assert_allclose(alone[0][0], logits[row], rtol=0, atol=1e-5)
        np.testing.assert_allclose(alone[1][0], last[row], rtol=0, atol=1e-5)


def test_no_pair_of_products_exceeds_sixteen_bits():
    # what processors without VNNI add in 16 bits: two of 0 … 255 times a weight
    matrix = np.random.default_rng(0).standard_normal((50, 20)).astype(np.float32)
    integers, scale = quantise(matrix, 0, WEIGHT_LEVELS)
    assert np.abs(integers).max() == WEIGHT_LEVELS
    assert 2 * 255 * WEIGHT_LEVELS < 1 << 15
    assert scale.shape == (1, 20)
    assert np.abs(integers * scale - matrix).max() <= scale.max() / 2 * 1.001


def test_a_column_of_zeros_stays_zeros():
    integers, scale = quantise(np.zeros((3, 2), dtype=np.float32), 0, WEIGHT_LEVELS)
    assert not integers.any()
    assert (scale == 1).all()


# The contract


def signature(data):
    graph = onnx.load_from_string(data).graph
    return [
        (v.name, v.type.tensor_type.elem_type, str(v.type.tensor_type.shape))
        for v in (*graph.input, *graph.output)
    ]


@pytest.mark.parametrize("precision", BUILDERS)
@pytest.mark.parametrize("num_layers", [1, 3])
def test_names_and_shapes_are_those_of_fp32(precision, num_layers):
    model = random_model(num_layers=num_layers)
    data = BUILDERS[precision](model)
    assert signature(data) == signature(model_bytes(model))
    exported = onnx.load_from_string(data)
    onnx.checker.check_model(exported, full_check=True)
    assert exported.ir_version == IR_VERSION
    assert [(o.domain, o.version) for o in exported.opset_import] == [("", OPSET)]
    assert not exported.metadata_props
    assert all(node.name and not node.domain for node in exported.graph.node)


@pytest.mark.parametrize("precision", BUILDERS)
def test_rebuilding_gives_the_same_bytes(precision):
    assert derive(precision)[1].data == derive(precision)[1].data


@pytest.mark.parametrize(("precision", "share"), [("fp16", 0.52), ("int8", 0.30)])
def test_sizes(precision, share):
    model = random_model(65, 64, 256, 2, scale=1.0)
    assert len(BUILDERS[precision](model)) <= share * len(model_bytes(model))


@pytest.mark.parametrize("precision", BUILDERS)
def test_the_runtime_need_not_know(precision):
    base, variant = derive(precision)
    assert variant.config.precision == precision
    assert variant.training == base.training
    one, other = (CharGenerator(artifact, threads=1) for artifact in (base, variant))
    assert len(other.generate("ab", 20, seed=1)) == 20
    text = "the quick brown fox"
    assert other.score(text).nats_per_char == pytest.approx(one.score(text).nats_per_char, abs=0.05)
    state = other.state("ab", seed=3)
    again = other.restore(state.snapshot())
    assert [state.draw() for _ in range(9)] == [again.draw() for _ in range(9)]


def test_an_unknown_precision_is_refused():
    data = artifact_bytes(random_model())
    changed = seal(data.replace(b'"precision":"fp32"', b'"precision":"fp99"')[: -len(seal(b""))])
    with pytest.raises(ArtifactError, match="precision"):
        parse_artifact(changed)


# The gate


def test_the_certificate_states_the_cost():
    base, variant = derive("int8")
    gate = variant.certificate.gate
    assert gate.fp32_sha256 == base.sha256
    assert gate.loss_increase == gate.nats_per_char - gate.fp32_nats_per_char
    assert 0 < abs(gate.loss_increase) < 0.1
    assert 0.5 < gate.greedy_agreement <= 1
    assert gate.characters == len(TEXT.part.tokens) - 1
    score = CharGenerator(base, threads=1).score(
        base.config.vocabulary.decode(TEXT.part.tokens), window=256
    )
    assert gate.fp32_nats_per_char == pytest.approx(score.nats_per_char, abs=1e-6)


def test_the_gate_refuses_what_costs_too_much(monkeypatch):
    for module in (int8, int8_parity):
        monkeypatch.setattr(module, "WEIGHT_LEVELS", 2)  # a graph that is right, and coarse
    with pytest.raises(ParityError, match=r"int8 raises the loss on letters by 0\.\d* nats"):
        derive("int8", max_loss_increase=0.005)


def test_parity_notices_a_wrong_integer():
    model = random_model(num_layers=2)
    weights = model_weights(model)
    exported = onnx.load_from_string(build_variant(weights, "int8"))
    scan = next(node for node in exported.graph.node if node.op_type == "Scan")
    body = next(a.g for a in scan.attribute if a.name == "body")
    tensor = next(t for t in body.initializer if t.name == "layer_1_W")
    array = onnx.numpy_helper.to_array(tensor).copy()
    array[3, 4] += 1
    tensor.CopyFrom(onnx.numpy_helper.from_array(array, tensor.name))
    with pytest.raises(ParityError, match="differs from the quantised GRU in layer 1 at step"):
        verify_int8(exported.SerializeToString(), weights, TEXT.part.tokens)


def test_weights_beyond_half_precision_are_refused():
    model = random_model()
    with torch.no_grad():
        model.output.bias[2] = 1e5
    with pytest.raises(OptionError, match="output_bias reaches 100000, half precision 65504"):
        fp16_bytes(model)


def test_a_table_that_is_too_large_is_refused(monkeypatch):
    monkeypatch.setattr("chargen_export.int8.MAX_TABLE", 1000)
    with pytest.raises(OptionError, match="= 1392 numbers, the limit is 1000; give --precision"):
        int8_bytes(random_model())
