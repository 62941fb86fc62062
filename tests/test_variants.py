"""Writing the other precisions: from an artifact, and after training, with the command."""

import hashlib
from dataclasses import replace

import numpy as np
import pytest

from chargen_export.convert import convert
from chargen_export.precision import GateText, derive_variant, load_gate_text
from chargen_export.variants import rehearse_variants, variant_path
from chargen_ort import CharGenerator, parse_artifact, read_artifact
from chargen_ort.errors import UnknownCharacterError
from chargen_ort.provenance import CorpusFacts, Split
from chargen_ort.rows import score_rows
from chargen_train.split import Part
from tests.conftest import ALPHABET, HELLO, TRAINING, artifact_bytes, random_model, train_export

# From an artifact, with a text


@pytest.mark.parametrize("precision", ["fp16", "int8"])
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


@pytest.mark.parametrize(("holdout", "held_out"), [("tail", "jj"), ("spread", "ef"), ("none", "")])
def test_of_the_corpus_only_the_held_out_part_counts(tmp_path, holdout, held_out):
    path = tmp_path / "c.txt"
    text = "".join(letter * 2 for letter in "abcdefghij")
    path.write_text(text)
    sha256 = hashlib.sha256(text.encode()).hexdigest()
    corpus = CorpusFacts(name="c", sha256=sha256, characters=20)
    split = Split(holdout=holdout)
    training = replace(TRAINING, corpora=(corpus,), characters=20, split=split)
    artifact = replace(parse_artifact(artifact_bytes(random_model())), training=training)
    gate = load_gate_text(artifact, path)
    assert artifact.config.vocabulary.decode(gate.part[:]) == (held_out or text)
    assert gate.held_out == bool(held_out)
    path.write_text("abcdefghijk")
    gate = load_gate_text(artifact, path)
    assert (len(gate.part), gate.held_out) == (11, False)


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


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--seed", "1"], "name the text to train on, for example: train-export corpus.txt"),
        (["--from", "m.onnx"], "name the text to train on, for example: train-export corpus.txt"),
        (["--verify", "m.onnx"], "the command is now: train-export verify FILE --checkpoint"),
        (
            ["convert", "m.onnx", "--text", "t.txt"],
            "m.onnx is fp32 already; give --precision fp16, int8 or all",
        ),
        (["convert", "m.onnx", "--precision", "int8"], "give one with --text"),
        (["convert", "no.onnx", "--precision", "int8"], "no such model file: no.onnx"),
        (["convert", "m.onnx", "--precision", "int8", "--text", "one.txt"], "at least 2"),
        (
            [
                "convert",
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
    result = train_export(*arguments)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert message in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert sorted(p.name for p in folder.iterdir()) == ["m.onnx", "one.txt", "t.txt"]


def test_a_variant_is_refused_as_a_source(folder):
    base = parse_artifact((folder / "m.onnx").read_bytes())
    text = GateText("letters", Part.of(np.arange(len(ALPHABET))), held_out=True)
    (folder / "m.onnx").write_bytes(derive_variant(base, "fp16", text).data)
    result = train_export("convert", "m.onnx", "--precision", "int8", "--text", "t.txt")
    assert result.exit_code == 2
    assert "m.onnx is fp16; give the fp32 file it was made of" in result.stderr


@pytest.mark.parametrize("name", ["convert", "verify", "train"])
def test_a_corpus_may_bear_the_name_of_a_command(folder, name):
    (folder / name).write_text(HELLO)
    result = train_export(name if name == "train" else f"./{name}", "--epochs", "0.01")
    assert (result.exit_code, result.stdout) == (0, f"artifacts/{name}.onnx\n")


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [(["-h"], "train-export [OPTIONS] [corpus]"), (["convert", "-h"], "train-export convert")],
)
def test_the_help_calls_each_command_by_its_name(arguments, shown):
    result = train_export(*arguments)
    assert result.exit_code == 0
    assert f"Usage: {shown}" in result.stdout


def test_a_variant_that_fails_is_not_written_and_the_status_is_1(folder, monkeypatch):
    def worse_in_int8(engine, *given, **kw):
        rows = score_rows(engine, *given, **kw)
        return replace(rows, scores=rows.scores - (engine.config.precision == "int8"))

    monkeypatch.setattr("chargen_export.precision.score_rows", worse_in_int8)
    result = train_export(
        *("convert", "m.onnx", "--precision", "int8", "--text", "t.txt", "--max-loss-increase", "0")
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
    message = "train-export: interrupted; written before: artifacts/t.onnx"
    assert result.stderr.splitlines()[-1] == message
    assert read_artifact(folder / "artifacts/t.onnx").training.steps > 0
    assert not (folder / "artifacts/t.int8.onnx").exists()


@pytest.mark.parametrize("length", [100, 10_000, 500_000, 3_000_000])
def test_the_time_that_variants_take_is_told_from_a_part_of_the_text(monkeypatch, length):
    clock = [0.0]

    def derive_slowly(base, precision, text, limit):
        read = min(len(text.part), 1_000_000)  # no gate reads more
        assert read < 20_000
        clock[0] += {"fp16": 2, "int8": 1}[precision] * (3 + read / 1000)

    monkeypatch.setattr("chargen_export.variants.derive_variant", derive_slowly)
    monkeypatch.setattr("time.monotonic", lambda: clock[0])
    text = GateText("letters", Part.of(np.zeros(length, dtype=np.uint8)), held_out=True)
    base = parse_artifact(artifact_bytes(random_model()))
    expected = 3 * (3 + min(length, 1_000_000) / 1000)
    assert rehearse_variants(base, ["fp16", "int8"], text) == pytest.approx(expected)
