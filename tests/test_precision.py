"""fp16 and int8 artifacts: they compute what they say, and lose no more than they may."""

import hashlib
from dataclasses import replace

import numpy as np
import onnx
import pytest
import torch
from onnx.reference import ReferenceEvaluator
from typer.testing import CliRunner

from chargen_export import int8, int8_parity
from chargen_export.cli import app
from chargen_export.convert import convert
from chargen_export.int8 import WEIGHT_LEVELS, build_int8_model, quantise
from chargen_export.int8_parity import verify_int8
from chargen_export.precision import (
    GateText,
    build_fp16_model,
    derive_variant,
    load_gate_text,
    read_model,
    read_weights,
    rounded_to_half,
)
from chargen_export.variants import rehearse_variants, variant_path
from chargen_ort import CharGenerator, parse_artifact, read_artifact
from chargen_ort.artifact import HIDDEN, IR_VERSION, LOGITS, NEXT_HIDDEN, OPSET, TOKEN, seal
from chargen_ort.errors import ArtifactError, OptionError, ParityError, UnknownCharacterError
from chargen_ort.step import Stepper, open_session, run_steps
from tests.conftest import ALPHABET, HELLO, artifact_bytes, model_bytes, random_model
from tests.test_graph import SHAPES, assert_same, by_torch, inputs

TEXT = GateText("letters", np.arange(len(ALPHABET)).repeat(3), held_out=True)
NAN = ["--max-loss-increase", "nan"]
SMALL = [shape for shape in SHAPES if shape[2] <= 256]


def fp16_bytes(model):
    return build_fp16_model(artifact_bytes(model)).SerializeToString(deterministic=True)


def int8_bytes(model):
    weights = read_weights(model_bytes(model))
    return build_int8_model(weights).SerializeToString(deterministic=True)


BUILDERS = {"fp16": fp16_bytes, "int8": int8_bytes}


def derive(precision, max_loss_increase=0.1, **sizes):
    base = parse_artifact(artifact_bytes(random_model(**sizes)))
    return base, derive_variant(base, precision, TEXT, max_loss_increase)


# What they compute


def test_the_weights_of_an_artifact_are_those_of_its_model():
    model = random_model(num_layers=2)
    again = read_model(parse_artifact(artifact_bytes(model)))
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
    weights = read_weights(model_bytes(model))
    certificate = verify_int8(int8_bytes(model), weights, TEXT.tokens)
    assert 0 < certificate["largest_logits_difference"] < 1e-5
    assert 0 < certificate["largest_hidden_difference"] < 1e-5
    assert certificate["steps"] >= 250


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
    gate = variant.parity["gate"]
    assert variant.parity["fp32"] == {"sha256": base.sha256}
    assert gate["loss_increase"] == gate["nats_per_char"] - gate["fp32_nats_per_char"]
    assert 0 < abs(gate["loss_increase"]) < 0.1
    assert 0.5 < gate["greedy_agreement"] <= 1
    assert gate["characters"] == len(TEXT.tokens) - 1
    score = CharGenerator(base, threads=1).score(
        base.config.vocabulary.decode(TEXT.tokens), window=256
    )
    assert gate["fp32_nats_per_char"] == pytest.approx(score.nats_per_char, abs=1e-6)


def test_the_gate_refuses_what_costs_too_much(monkeypatch):
    for module in (int8, int8_parity):
        monkeypatch.setattr(module, "WEIGHT_LEVELS", 2)  # a graph that is right, and coarse
    with pytest.raises(ParityError, match=r"int8 raises the loss on letters by 0\.\d* nats"):
        derive("int8", max_loss_increase=0.005)


def test_parity_notices_a_wrong_integer():
    model = random_model(num_layers=2)
    weights = read_weights(model_bytes(model))
    exported = build_int8_model(weights)
    scan = next(node for node in exported.graph.node if node.op_type == "Scan")
    body = next(a.g for a in scan.attribute if a.name == "body")
    tensor = next(t for t in body.initializer if t.name == "layer_1_W")
    array = onnx.numpy_helper.to_array(tensor).copy()
    array[3, 4] += 1
    tensor.CopyFrom(onnx.numpy_helper.from_array(array, tensor.name))
    with pytest.raises(ParityError, match="differs from the quantised GRU in layer 1 at step"):
        verify_int8(exported.SerializeToString(), weights, TEXT.tokens)


def test_weights_beyond_half_precision_are_refused():
    model = random_model()
    with torch.no_grad():
        model.output.bias[2] = 1e5
    with pytest.raises(OptionError, match="output_bias reaches 100000, half precision 65504"):
        build_fp16_model(artifact_bytes(model))


def test_a_table_that_is_too_large_is_refused(monkeypatch):
    monkeypatch.setattr("chargen_export.int8.MAX_TABLE", 1000)
    with pytest.raises(OptionError, match="= 1392 numbers, the limit is 1000; give --precision"):
        int8_bytes(random_model())


# From an artifact, with a text


@pytest.mark.parametrize("precision", BUILDERS)
def test_a_variant_of_an_artifact_needs_nothing_else(hello_path, tmp_path, precision):
    text = tmp_path / "text.txt"
    text.write_text(HELLO)
    out = tmp_path / "x.onnx"
    ((artifact, path),) = convert(hello_path, precision, text, out)
    assert path == out
    assert read_artifact(out).data == artifact.data
    assert CharGenerator.load(out).generate("hell", 9, temperature=0) == "o world h"


def test_all_are_written_side_by_side(tmp_path):
    base = tmp_path / "m.onnx"
    base.write_bytes(artifact_bytes(random_model()))
    text = tmp_path / "t.txt"
    text.write_text(ALPHABET)
    paths = [path for _, path in convert(base, "all", text, max_loss_increase=1)]
    assert paths == [variant_path(base, "fp16"), variant_path(base, "int8")]
    assert [path.name for path in paths] == ["m.fp16.onnx", "m.int8.onnx"]


def test_of_the_corpus_only_the_held_out_tail_counts(tmp_path):
    path = tmp_path / "c.txt"
    path.write_text("abcdefghij")
    corpus = {"sha256": hashlib.sha256(b"abcdefghij").hexdigest(), "training_characters": 7}
    artifact = replace(parse_artifact(artifact_bytes(random_model())), training={"corpus": corpus})
    assert load_gate_text(artifact, path).tokens.tolist() == [7, 8, 9]
    path.write_text("abcdefghijk")
    assert len(load_gate_text(artifact, path).tokens) == 11


def test_a_text_with_other_characters_is_refused(tmp_path):
    path = tmp_path / "t.txt"
    path.write_text("abc1")
    with pytest.raises(UnknownCharacterError):
        load_gate_text(parse_artifact(artifact_bytes(random_model())), path)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    (tmp_path / "m.onnx").write_bytes(artifact_bytes(random_model()))
    (tmp_path / "t.txt").write_text("abc abd")
    (tmp_path / "one.txt").write_text("a")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def train_export(*arguments):
    return CliRunner().invoke(app, arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give a corpus to train on, or --from"),
        (["t.txt", "--from", "m.onnx"], "one of them"),
        (["t.txt", "--text", "t.txt"], "--text goes with --from"),
        (
            ["--from", "m.onnx", "--text", "t.txt"],
            "m.onnx is fp32 already; give --precision fp16, int8 or all",
        ),
        (["--from", "m.onnx", "--precision", "int8"], "give one with --text"),
        (
            ["--from", "m.onnx", "--precision", "int8", "--epochs", "1"],
            "--epochs is of no use here",
        ),
        (["--from", "no.onnx", "--precision", "int8"], "no such model file: no.onnx"),
        (["--from", "m.onnx", "--precision", "int8", "--text", "one.txt"], "at least 2"),
        (
            [
                "--from",
                "m.onnx",
                "--precision",
                "all",
                "--text",
                "t.txt",
                "--max-loss-increase",
                "nan",
            ],
            "max_loss_increase is nan; give 0 to 10",
        ),
    ],
)
def test_the_command_refuses_with_one_line(folder, arguments, message):
    result = train_export(*(arguments or ["--seed", "1"]))
    assert result.exit_code == 2
    assert result.stdout == ""
    assert message in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert sorted(p.name for p in folder.iterdir()) == ["m.onnx", "one.txt", "t.txt"]


def test_a_variant_is_refused_as_a_source(folder):
    (folder / "m.onnx").write_bytes(derive("fp16")[1].data)
    result = train_export("--from", "m.onnx", "--precision", "int8", "--text", "t.txt")
    assert result.exit_code == 2
    assert "m.onnx is fp16; give --from the fp32 file it was made of" in result.stderr


def test_a_variant_that_fails_is_not_written_and_the_status_is_1(folder, monkeypatch):
    monkeypatch.setattr("chargen_export.precision._loss", lambda logits, _: float(logits.sum()))
    result = train_export(
        *("--from", "m.onnx", "--precision", "int8", "--text", "t.txt", "--max-loss-increase", "0")
    )
    assert result.exit_code == 1
    assert "nothing of it was written" in result.stderr
    assert not (folder / "m.int8.onnx").exists()


def test_the_command_trains_and_writes_every_precision(folder):
    result = train_export("t.txt", "--epochs", "1", "--hidden-size", "8", "--precision", "all")
    assert result.exit_code == 0, result.stderr
    assert result.stdout == "artifacts/t.int8.onnx\n"
    names = sorted(path.name for path in (folder / "artifacts").iterdir())
    assert names == ["t.fp16.onnx", "t.int8.onnx", "t.onnx", "t.run"]
    assert "the likeliest character is the same at" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--max-loss-increase", "nan"], "max_loss_increase is nan; give 0 to 10"),
        ([], "cannot write artifacts/t.int8.onnx: it is a directory"),
    ],
)
def test_what_cannot_be_written_is_refused_before_training(folder, arguments, message):
    (folder / "artifacts/t.int8.onnx").mkdir(parents=True)
    result = train_export("t.txt", "--epochs", "1", "--precision", "int8", *arguments)
    assert result.exit_code == 2
    assert result.stderr.startswith(f"train-export: {message}")
    assert len(result.stderr.splitlines()) == 1
    assert [path.name for path in (folder / "artifacts").iterdir()] == ["t.int8.onnx"]


def test_an_interruption_between_two_files_names_the_one_that_is_there(folder, monkeypatch):
    rehearsed = []

    def derive_then_interrupt(*arguments):
        if len(rehearsed) == 2:
            raise KeyboardInterrupt
        rehearsed.append(arguments)
        return derive_variant(*arguments)

    monkeypatch.setattr("chargen_export.variants.derive_variant", derive_then_interrupt)
    result = train_export("t.txt", "--epochs", "1", "--hidden-size", "8", "--precision", "int8")
    assert result.exit_code == 130
    message = "train-export: interrupted; artifacts/t.onnx was written before"
    assert result.stderr.splitlines()[-1] == message
    assert read_artifact(folder / "artifacts/t.onnx").training["steps"] > 0
    assert not (folder / "artifacts/t.int8.onnx").exists()


@pytest.mark.parametrize("length", [100, 10_000, 500_000, 3_000_000])
def test_the_time_that_variants_take_is_told_from_a_part_of_the_text(monkeypatch, length):
    clock = [0.0]

    def derive_slowly(base, precision, text, limit):
        read = min(len(text.tokens), 1_000_000)  # no gate reads more
        assert read < 20_000
        clock[0] += {"fp16": 2, "int8": 1}[precision] * (3 + read / 1000)

    monkeypatch.setattr("chargen_export.variants.derive_variant", derive_slowly)
    monkeypatch.setattr("time.monotonic", lambda: clock[0])
    text = GateText("letters", np.zeros(length, dtype=np.uint8), held_out=True)
    base = parse_artifact(artifact_bytes(random_model()))
    expected = 3 * (3 + min(length, 1_000_000) / 1000)
    assert rehearse_variants(base, ["fp16", "int8"], text) == pytest.approx(expected)
