"""Verification: the test vectors of the certificate, and an artifact against its model."""

import dataclasses
import shutil

import numpy as np
import pytest
import torch

from chargen_export.parity import verify_parity
from chargen_export.pipeline import export, make_artifact, train_and_export
from chargen_export.target import Origin, Target
from chargen_export.verify import verify_against_model
from chargen_ort import Vocabulary, parse_artifact
from chargen_ort.artifact import metadata_bytes, seal
from chargen_ort.config import Config
from chargen_ort.verify import verify_artifact, verify_vectors
from chargen_train.corpus import load_corpus
from chargen_train.history import describe_corpus
from tests.conftest import (
    ALPHABET,
    HELLO,
    PROPERTIES,
    TRAINING,
    model_bytes,
    random_model,
    train_export,
)


@pytest.fixture(scope="module")
def model():
    return random_model(num_layers=2, scale=1.0)


@pytest.fixture(scope="module")
def artifact(model):
    parity = verify_parity(model_bytes(model), model, np.arange(29))
    config = Config.of(Vocabulary(ALPHABET), 8, 16, 2, "\n")
    data = model_bytes(model) + metadata_bytes(config, TRAINING, parity, PROPERTIES)
    return parse_artifact(seal(data), "x.onnx")


def test_two_exports_of_one_model_are_the_same_file(model, tmp_path):
    text = tmp_path / "text.txt"
    text.write_text(ALPHABET * 3)
    corpus = load_corpus(text)
    target = Target(Origin(corpus.name, corpus.sha256))
    first, second = (
        export(model, corpus, TRAINING, target, tmp_path / f"{name}.onnx") for name in ("a", "b")
    )
    assert first.sha256 == second.sha256
    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()


def test_an_odd_file_name_is_told_in_one_line(model, tmp_path):
    text = tmp_path / "a\nb\x1b[2J.txt"
    text.write_text(ALPHABET * 3)
    corpus = load_corpus(text)
    made = make_artifact(model, corpus, describe_corpus(corpus))
    assert made.training.corpora[0].name.isprintable()
    assert made.properties["description"].isprintable()
    assert "b" in made.training.corpora[0].name


def with_vector(artifact, **changes):
    """The artifact with a change in its first test vector."""
    first, *others = artifact.certificate.vectors
    return with_vectors(artifact, (dataclasses.replace(first, **changes), *others))


def with_vectors(artifact, vectors):
    certificate = dataclasses.replace(artifact.certificate, vectors=vectors)
    return dataclasses.replace(artifact, certificate=certificate)


def test_vectors_hold_what_the_model_computes(model, artifact):
    vectors = artifact.certificate.vectors
    assert [len(vector.tokens) for vector in vectors] == [1, 16, 64]
    for vector in vectors:
        token = torch.tensor([vector.tokens])
        with torch.no_grad():
            logits, hidden = model(token, model.zero_hidden(1))
            np.testing.assert_allclose(logits[0, -1], vector.logits, atol=1e-5)
            for expected in vector.greedy:
                assert logits[0, -1].argmax() == expected
                logits, hidden = model(torch.tensor([[expected]]), hidden)


def test_vectors_of_a_large_vocabulary_keep_a_share_of_the_logits():
    model = random_model(vocab_size=5000)
    parity = verify_parity(model_bytes(model), model, np.arange(100))
    for vector in parity.vectors:
        assert vector.stride == 20
        assert len(vector.logits) == 250
        assert len(vector.dump()) < 10_000


def test_an_honest_artifact_passes(artifact):
    verdicts = verify_artifact(artifact)
    assert [v.what for v in verdicts] == ["seal", "graph", "weights", "vectors"]
    assert all(v.passed for v in verdicts)
    assert str(verdicts[1]) == (
        "graph    ok     13 nodes and 10 tensors, as train-export writes them for fp32"
    )
    assert "greedy text equal" in str(verdicts[3])


def test_a_file_without_vectors_says_so(artifact):
    verdict = verify_vectors(with_vectors(artifact, ()))
    assert verdict.passed is None
    assert "absent" in str(verdict)


def test_a_logit_that_differs_fails(artifact):
    logits = list(artifact.certificate.vectors[0].logits)
    logits[7] += 0.01
    verdict = verify_vectors(with_vector(artifact, logits=logits))
    assert verdict.passed is False
    assert "largest logit difference 1.0e-02 (limit 0.0001)" in str(verdict)


def test_greedy_text_that_differs_fails(artifact):
    greedy = list(artifact.certificate.vectors[0].greedy)
    greedy[5] = (greedy[5] + 1) % 29
    verdict = verify_vectors(with_vector(artifact, greedy=greedy))
    assert verdict.passed is False
    assert "greedy text within" in str(verdict)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tokens": [29]}, "vector 0: a token is not below 29"),
        ({"greedy": [29]}, "vector 0: a token is not below 29"),
        ({"logits": [0.0]}, "vector 0: 1 logits; the vocabulary and the stride ask for 29"),
        ({"stride": 2}, "29 logits; the vocabulary and the stride ask for 15"),
    ],
)
def test_vectors_that_do_not_fit_fail_before_they_run(artifact, changes, message):
    verdict = verify_vectors(with_vector(artifact, **changes))
    assert verdict.passed is False
    assert message in str(verdict)


def verdicts_of(artifact, model, characters=ALPHABET):
    found = verify_against_model(artifact, model, Vocabulary(characters))
    return {verdict.what: verdict for verdict in found}


def test_the_model_that_was_exported_passes(artifact, model):
    found = verdicts_of(artifact, model)
    assert list(found) == [
        "seal", "graph", "weights", "vectors", "vocab", "sizes", "bytes", "parity",
    ]  # fmt: skip
    assert all(verdict.passed for verdict in found.values())


def test_other_weights_fail(artifact):
    found = verdicts_of(artifact, random_model(num_layers=2, scale=1.0, seed=1))
    failed = [what for what, verdict in found.items() if not verdict.passed]
    assert failed == ["bytes", "parity"]
    assert "logits at step 0" in str(found["parity"])
    assert "nothing was written" not in str(found["parity"])


def test_one_weight_that_is_a_millionth_off_shows_in_the_bytes(artifact):
    other = random_model(num_layers=2, scale=1.0)
    with torch.no_grad():
        other.output.weight[3, 4] += 1e-6
    found = verdicts_of(artifact, other)
    assert [what for what, verdict in found.items() if not verdict.passed] == ["bytes"]


def test_other_sizes_fail_and_end_the_comparison(artifact):
    found = verdicts_of(artifact, random_model(num_layers=1), ALPHABET[::-1])
    failed = [what for what, verdict in found.items() if not verdict.passed]
    assert failed == ["vocab", "sizes"]
    assert "hidden 16, layers 2; checkpoint" in str(found["sizes"])
    assert "bytes" not in found


# Files: a checkpoint and what was exported from it


@pytest.fixture(scope="module")
def run_of_hello(tmp_path_factory):
    """A folder with a corpus, its artifact and the checkpoint that the artifact came from."""
    folder = tmp_path_factory.mktemp("run")
    corpus = folder / "t.txt"
    corpus.write_text(HELLO * 3)
    train_and_export(corpus, folder / "t.onnx", hidden_size=16, num_layers=2, steps=3)
    return folder


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_a_checkpoint_exports_to_what_it_verifies(run_of_hello, tmp_path, precision):
    out, checkpoint = tmp_path / "x.onnx", run_of_hello / "t.run/checkpoint.pt"
    options = ("--precision", precision, "--text", run_of_hello / "t.txt", "--out", out)
    made = train_export("convert", checkpoint, *options, "--max-loss-increase", 1)
    assert made.exit_code == 0, made.stderr
    assert made.stdout == f"{out}\n"
    if precision == "fp32":
        assert out.read_bytes() == (run_of_hello / "t.onnx").read_bytes()
    verified = train_export("verify", out, "--checkpoint", checkpoint)
    assert verified.exit_code == 0, verified.stdout
    assert [line.split()[:2] for line in verified.stdout.splitlines()] == [
        [check, "ok"]
        for check in ("seal", "graph", "weights", "vectors", "vocab", "sizes", "bytes", "parity")
    ]


def test_all_of_a_checkpoint_go_beside_its_artifact(run_of_hello, tmp_path):
    shutil.copytree(run_of_hello, tmp_path / "run")
    (tmp_path / "run/t.onnx").unlink()
    checkpoint, text = tmp_path / "run/t.run/checkpoint.pt", tmp_path / "run/t.txt"
    options = ("--precision", "all", "--text", text, "--max-loss-increase", 1)
    assert train_export("convert", checkpoint, *options).exit_code == 0
    names = {path.name for path in (tmp_path / "run").glob("*.onnx")}
    assert names == {"t.onnx", "t.fp16.onnx", "t.int8.onnx"}


def test_another_checkpoint_fails_with_status_1(run_of_hello, tmp_path):
    corpus = run_of_hello / "t.txt"
    train_and_export(corpus, tmp_path / "u.onnx", hidden_size=16, num_layers=2, steps=3, seed=1)
    checkpoint = tmp_path / "u.run/checkpoint.pt"
    result = train_export("verify", run_of_hello / "t.onnx", "--checkpoint", checkpoint)
    assert result.exit_code == 1
    assert "bytes    FAILED" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["verify", "t.onnx"], "chargen-ort verify"),
        (["verify", "--checkpoint", "t.run/checkpoint.pt"], "Missing argument"),
        (["verify", "t.onnx", "--checkpoint", "t.onnx"], "t.onnx is not a checkpoint"),
        (["verify", "t.txt", "--checkpoint", "t.run/checkpoint.pt"], "t.txt: no seal"),
        (["verify", "t.onnx", "--checkpoint", "c", "--steps"], "No such option"),
        (["t.txt", "--checkpoint", "c"], "No such option"),
        (["convert", "t.run/checkpoint.pt"], "name the corpus with --text"),
        (["convert", "t.run/checkpoint.pt", "--text", "t.onnx"], "t.onnx"),
        (["convert", "t.run/config.json", "--text", "t.txt"], "t.run/config.json"),
    ],
)
def test_a_wrong_call_is_one_line_and_status_2(run_of_hello, monkeypatch, arguments, message):
    monkeypatch.chdir(run_of_hello)
    result = train_export(*arguments)
    assert result.exit_code == 2
    assert message in result.stderr
    assert result.stdout == ""
