"""The exported graph computes what the PyTorch model computes, by three other accounts."""

import copy
import io
import warnings

import numpy as np
import onnx
import pytest
import torch
from onnx.reference import ReferenceEvaluator

from chargen_export import graph, parity
from chargen_export.parity import verify_parity
from chargen_ort.engine import open_session
from chargen_ort.errors import ParityError
from chargen_ort.graphs.spec import HIDDEN, IR_VERSION, LOGITS, NEXT_HIDDEN, OPSET, TOKEN
from chargen_ort.options import SamplingOptions
from chargen_ort.stepper import run_steps
from tests.conftest import model_bytes, random_model
from tests.tools.steps import SHAPES, assert_same, by_torch, inputs


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_onnxruntime_agrees_with_pytorch(shape):
    *sizes, batch, time = shape
    model = random_model(*sizes, scale=1.0)
    token, hidden = inputs(model, batch, time)
    session = open_session(model_bytes(model), threads=1)
    assert_same(run_steps(session, token, hidden), by_torch(model, token, hidden))


@pytest.mark.parametrize("num_layers", [1, 2, 3])
def test_single_steps_add_up_to_one_long_call(num_layers):
    model = random_model(num_layers=num_layers)
    token, hidden = inputs(model, 4, 20)
    session = open_session(model_bytes(model), threads=1)
    whole_logits, whole_hidden = run_steps(session, token, hidden)
    for time in range(20):
        logits, hidden = run_steps(session, token[:, time : time + 1], hidden)
        np.testing.assert_allclose(logits[:, 0], whole_logits[:, time], atol=1e-5)
    np.testing.assert_allclose(hidden, whole_hidden, atol=1e-5)


@pytest.mark.parametrize("num_layers", [1, 2])
def test_onnx_reference_agrees(num_layers):
    # the reference GRU takes one step and one layer at a time well enough
    model = random_model(num_layers=num_layers)
    token, hidden = inputs(model, 2, 1)
    reference = ReferenceEvaluator(onnx.load_from_string(model_bytes(model)))
    result = reference.run([LOGITS, NEXT_HIDDEN], {TOKEN: token, HIDDEN: hidden})
    assert_same(result, by_torch(model, token, hidden))


@pytest.mark.parametrize("num_layers", [1, 2])
def test_pytorchs_own_exporter_agrees(num_layers):
    model = random_model(num_layers=num_layers)
    token, hidden = inputs(model, 2, 3)
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own deprecations
        torch.onnx.export(
            model,
            (torch.from_numpy(token), torch.from_numpy(hidden)),
            buffer,
            input_names=[TOKEN, HIDDEN],
            output_names=[LOGITS, NEXT_HIDDEN],
            dynamo=False,
            opset_version=OPSET,
        )
    theirs = run_steps(open_session(buffer.getvalue(), threads=1), token, hidden)
    ours = run_steps(open_session(model_bytes(model), threads=1), token, hidden)
    assert_same(ours, theirs)


@pytest.mark.parametrize("num_layers", [1, 3])
def test_the_graph_is_the_contract(num_layers):
    model = random_model(num_layers=num_layers)
    exported = onnx.load_from_string(model_bytes(model))
    onnx.checker.check_model(exported, full_check=True)

    def shapes(values):
        return {
            v.name: (
                v.type.tensor_type.elem_type,
                [d.dim_param or d.dim_value for d in v.type.tensor_type.shape.dim],
            )
            for v in values
        }

    hidden = (onnx.TensorProto.FLOAT, ["batch", num_layers, 16])
    assert shapes(exported.graph.input) == {
        TOKEN: (onnx.TensorProto.INT64, ["batch", "time"]),
        HIDDEN: hidden,
    }
    assert shapes(exported.graph.output) == {
        LOGITS: (onnx.TensorProto.FLOAT, ["batch", "time", 29]),
        NEXT_HIDDEN: hidden,
    }
    assert exported.ir_version == IR_VERSION
    assert [(o.domain, o.version) for o in exported.opset_import] == [("", OPSET)]
    assert all(node.name and node.doc_string and not node.domain for node in exported.graph.node)
    assert not any(tensor.external_data for tensor in exported.graph.initializer)
    assert not exported.metadata_props


def test_rebuilding_gives_the_same_bytes():
    assert model_bytes(random_model(num_layers=2)) == model_bytes(random_model(num_layers=2))


def test_weights_that_are_not_finite_are_refused():
    model = random_model()
    with torch.no_grad():
        model.output.weight[3, 4] = float("nan")
    with pytest.raises(ValueError, match="output_weight is not finite"):
        graph.render_step(model)


# A wrong graph must not pass: the same checks, on graphs that are wrong in known ways.


def test_parity_notices_a_wrong_gate_order():
    model = random_model()
    exported = onnx.load_from_string(model_bytes(model))
    for tensor in exported.graph.initializer:
        if tensor.name in ("layer_0_W", "layer_0_R", "layer_0_B"):
            weights = onnx.numpy_helper.to_array(tensor)
            gates = weights.reshape(-1, 3, model.hidden_size, *weights.shape[2:])
            swapped = gates[:, [1, 0, 2]].reshape(weights.shape)  # r, z, n as they are in PyTorch
            tensor.CopyFrom(onnx.numpy_helper.from_array(swapped, tensor.name))
    with pytest.raises(ParityError, match="differs from the PyTorch model in logits at step 0"):
        verify_parity(exported.SerializeToString(), model, np.arange(29))


def test_parity_notices_a_missing_linear_before_reset():
    model = random_model()
    with torch.no_grad():
        model.layers[0].bias_hh_l0.add_(0.5)
    exported = onnx.load_from_string(model_bytes(model))
    gru = next(node for node in exported.graph.node if node.op_type == "GRU")
    gru.attribute.remove(next(a for a in gru.attribute if a.name == "linear_before_reset"))
    with pytest.raises(ParityError, match="logits at step"):
        verify_parity(exported.SerializeToString(), model, np.arange(29))


def test_parity_notices_one_weight_that_is_a_thousandth_off():
    model = random_model()
    exported = onnx.load_from_string(model_bytes(model))
    tensor = next(t for t in exported.graph.initializer if t.name == "layer_0_R")
    weights = onnx.numpy_helper.to_array(tensor).copy()
    weights[0, 0, 0] += 1e-2
    tensor.CopyFrom(onnx.numpy_helper.from_array(weights, "layer_0_R"))
    with pytest.raises(ParityError):
        verify_parity(exported.SerializeToString(), model, np.arange(29))


@pytest.mark.parametrize("temperature", [0, 1])
def test_parity_notices_a_text_that_the_model_would_not_write(temperature):
    text, limits = np.zeros(parity.COMPARED, dtype=np.int64), parity.FLOAT32_TOLERANCE
    other = model_bytes(random_model(seed=1))
    comparison = parity._Comparison.of(other, random_model(), text, limits, None)
    options = SamplingOptions(temperature=temperature)
    with pytest.raises(ParityError, match=f"text at temperature {temperature}, character"):
        comparison._text(options)


@pytest.fixture(scope="module")
def unsteady():
    """A model in which a rounding error grows about tenfold in ten steps."""
    model = random_model(seed=2, hidden_size=64)
    with torch.no_grad():
        for layer in model.grus():
            layer.weight_hh_l0.mul_(8)
            layer.bias_hh_l0[64:128].sub_(2)  # new states rather than old ones
    return model


def test_a_model_in_which_rounding_errors_grow_is_compared_step_by_step(unsteady):
    certificate = verify_parity(model_bytes(unsteady), unsteady, np.arange(29))
    assert certificate.against == (
        "the PyTorch model, each step from the graph's own state, as rounding errors grow"
    )
    assert 0 < certificate.largest_logits_difference <= 1e-4
    assert 0 < certificate.largest_hidden_difference <= 1e-4
    assert certificate.greedy.equal
    assert certificate.seeded.equal


def test_a_wrong_weight_of_such_a_model_is_noticed(unsteady):
    exported = onnx.load_from_string(model_bytes(unsteady))
    tensor = next(t for t in exported.graph.initializer if t.name == "layer_0_R")
    weights = onnx.numpy_helper.to_array(tensor).copy()
    weights[0, 0, 0] += 1e-1
    tensor.CopyFrom(onnx.numpy_helper.from_array(weights, "layer_0_R"))
    with pytest.raises(ParityError, match="hidden after step 1, batch 1"):
        verify_parity(exported.SerializeToString(), unsteady, np.arange(29))


@pytest.mark.parametrize("end", [None, 7])
def test_texts_in_rows_begin_with_their_end_tokens(end):
    rows = np.array([[7, 1, 2, 7, 3], [1, 7, 7, 2, 2]])
    expected = [(0, 0, 5), (1, 0, 5)]
    if end is not None:
        expected = [(0, 0, 3), (0, 3, 2), (1, 0, 1), (1, 1, 1), (1, 2, 3)]
    found = parity.texts_of(rows, end)
    assert sorted(found) == expected
    assert [size for *_, size in found] == sorted(size for *_, size in found)


def test_documents_are_compared_each_from_its_beginning(unsteady):
    """A state that is carried across them, as no text is written, would let errors grow."""
    rng = np.random.default_rng(0)
    text = rng.integers(0, 29, 1_200)
    text[::6] = 28
    carried = verify_parity(model_bytes(unsteady), unsteady, text)
    assert "as rounding errors grow" in carried.against
    model = copy.deepcopy(unsteady)
    with torch.no_grad():
        model.output.bias[28] += 8  # so that what it writes has ends too
    certificate = verify_parity(model_bytes(model), model, text, end=28)
    assert certificate.against == "the PyTorch model"
    assert 0 < certificate.largest_prefill_difference <= 1e-4
    vectors = certificate.vectors
    assert [len(vector.tokens) for vector in vectors] == [1, 6, 6]
    for vector in vectors:
        assert vector.tokens[0] == 28
        assert 28 not in (*vector.tokens[1:], *vector.greedy[:-1])


def test_the_certificate_states_what_was_compared():
    model = random_model()
    certificate = verify_parity(model_bytes(model), model, np.arange(29))
    assert certificate.steps >= 1000
    assert certificate.batches == (1, 8)
    assert 0 < certificate.largest_logits_difference <= 1e-4
    assert 0 < certificate.largest_hidden_difference <= 1e-4
    assert certificate.greedy.equal
    assert certificate.seeded.equal
