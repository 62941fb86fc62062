"""A file that contradicts itself is refused, and what a certificate allows itself is ignored."""

import dataclasses
import json
import math

import numpy as np
import pytest
from typer.testing import CliRunner

from chargen_export.precision import GateText, derive_variant
from chargen_ort import Artifact, ArtifactError, CharGenerator, Vocabulary, parse_artifact
from chargen_ort.artifact import MAX_LAYERS, MAX_WIDTH, ModelConfig, metadata_bytes, seal
from chargen_ort.cli import app
from chargen_ort.graphs import VARIANTS
from chargen_ort.options import MAX_STOP_LENGTH, MAX_STOPS, MAX_TOP_K
from chargen_ort.strict_json import schema
from chargen_ort.verify import verify_vectors
from tests.conftest import (
    ALPHABET,
    PARITY,
    PROPERTIES,
    TRAINING,
    artifact_bytes,
    model_bytes,
    random_model,
)

CORPUS = {"name": "none", "sha256": "0" * 64, "characters": 100, "training_characters": 90}
NATS = 1.5
VALIDATION = {
    "nats_per_char": NATS,
    "bits_per_char": NATS / math.log(2),
    "characters": 10,
    "protocol": "none",
}
VECTOR = {"tokens": [0], "stride": 1, "logits": [0.0] * 29, "greedy": [0]}


def parse(training=TRAINING, parity=PARITY):
    config = ModelConfig(Vocabulary(ALPHABET), 8, 16, 1, "\n")
    data = model_bytes(random_model()) + metadata_bytes(config, training, parity, PROPERTIES)
    return parse_artifact(seal(data))


def history(corpus=(), validation=()):
    return TRAINING | {"corpus": CORPUS | dict(corpus), "validation": VALIDATION | dict(validation)}


@pytest.mark.parametrize(
    ("training", "message"),
    [
        (history(validation={"bits_per_char": 1.5}), "bits_per_char is 1.5, but 1.5 nats are 2.16"),
        (history(validation={"bits_per_char": 0}), "bits_per_char is 0"),
        (history(validation={"characters": 11}), "characters is 11, but 10 were held out"),
        (history(corpus={"training_characters": 101}), "is 101, but the corpus has 100"),
        (history(corpus={"training_characters": 100}), "is 10, but 0 were held out"),
        (history() | {"steps": -1}, "steps is -1"),
    ],
)
def test_a_training_record_that_contradicts_itself_is_refused(training, message):
    with pytest.raises(ArtifactError, match=message):
        parse(training)


@pytest.mark.parametrize("bits", [NATS / math.log(2) * (1 + 1e-7), round(NATS / math.log(2), 7)])
def test_bits_may_be_rounded(bits):
    assert parse(history(validation={"bits_per_char": bits})).training["validation"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tolerance": {"logits": 1e300, "hidden": 1e-4}}, "logits is 1e.300; the format allows"),
        ({"tolerance": {"logits": 1e-4, "hidden": 2e-4}}, "hidden is 0.0002; the format allows"),
        ({"tolerance": PARITY["tolerance"] | {"vectors": 0.1}}, "vectors is 0.1; the format allow"),
        ({"largest_logits_difference": 1.1e-4}, "logits_difference is 0.00011; the tolerance is"),
        ({"largest_hidden_difference": 1}, "largest_hidden_difference is 1; the tolerance is"),
        ({"largest_prefill_difference": 1}, "largest_prefill_difference is 1; the tolerance is"),
        (
            {"tolerance": {"logits": 1e-9, "hidden": 1e-4}, "largest_logits_difference": 1e-8},
            "is 1e-08; the tolerance is 1e-09",
        ),
        ({"greedy": PARITY["greedy"] | {"equal": False}}, "greedy: equal is False with 0 near"),
        (
            {"seeded": PARITY["seeded"] | {"near_ties": 1, "characters": 9}},
            "seeded: equal is True with 1",
        ),
        (
            {"seeded": PARITY["seeded"] | {"near_ties": 1, "equal": False}},
            "seeded: 1 near ties in 0 characters",
        ),
        ({"vectors": [VECTOR, VECTOR | {"tokens": [29]}]}, "vector 1: a token is not below 29"),
        ({"vectors": [VECTOR | {"greedy": [29]}]}, "vector 0: a token is not below 29"),
        ({"vectors": [VECTOR | {"logits": [0.0]}]}, "vector 0: 1 logits; the vocabulary"),
    ],
)
def test_a_certificate_that_contradicts_itself_is_refused(changes, message):
    with pytest.raises(ArtifactError, match=message):
        parse(parity=PARITY | changes)


def test_a_certificate_may_be_stricter_and_may_have_near_ties():
    ties = PARITY["greedy"] | {"characters": 9, "near_ties": 2, "equal": False}
    found = parse(
        parity=PARITY | {"greedy": ties, "tolerance": {"logits": 1e-6, "hidden": 0, "vectors": 0}}
    )
    assert found.parity["greedy"]["near_ties"] == 2


def forgiving(artifact: Artifact, tolerance: float) -> Artifact:
    """The artifact with test vectors that are a little off, and a certificate that allows it."""
    parity = json.loads(json.dumps(artifact.parity))
    model = CharGenerator(artifact)
    off = [float(x) + 0.01 for x in model.state("a").logits()]
    vector = {"tokens": [0], "stride": 1, "logits": off, "greedy": []}
    parity |= {"vectors": [vector], "tolerance": dict.fromkeys(parity["tolerance"], tolerance)}
    return dataclasses.replace(artifact, parity=parity)


def test_verify_applies_the_formats_tolerance_not_the_files():
    verdict = verify_vectors(forgiving(parse(), 1e300))
    assert verdict.passed is False
    assert "(limit 0.0001)" in str(verdict)


@pytest.fixture(scope="module")
def int8():
    base = parse_artifact(artifact_bytes(random_model()))
    text = GateText("letters", np.arange(len(ALPHABET)).repeat(3), held_out=True)
    return derive_variant(base, "int8", text, max_loss_increase=0.1)


def test_int8_has_a_tolerance_of_its_own(int8):
    assert VARIANTS["int8"].tolerance.vectors == int8.parity["tolerance"]["vectors"] == 0.1
    assert verify_vectors(forgiving(int8, 0)).passed


def test_info_tells_of_an_int8_file(int8, tmp_path):
    path = tmp_path / "x.int8.onnx"
    path.write_bytes(int8.data)
    result = CliRunner().invoke(app, ["info", str(path)])
    assert result.exit_code == 0, result.output
    assert "training    0 steps\n" in result.stdout
    assert "against the quantised GRU in NumPy" in result.stdout
    assert "greedy" not in result.stdout


def test_the_limits_of_the_schema_are_those_of_the_code():
    config = schema("config")["properties"]
    stop = config["sampling"]["properties"]["stop"]
    assert (stop["maxItems"], stop["items"]["maxLength"]) == (MAX_STOPS, MAX_STOP_LENGTH)
    assert config["sampling"]["properties"]["top_k"]["maximum"] == MAX_TOP_K
    assert config["num_layers"]["maximum"] == MAX_LAYERS
    assert config["hidden_size"]["maximum"] == config["embedding_dim"]["maximum"] == MAX_WIDTH
