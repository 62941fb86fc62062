"""Going on from a model: train-export new.txt --from base.onnx."""

import dataclasses

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from chargen_export.cli import app
from chargen_export.pipeline import (
    artifact_of_checkpoint,
    corpus_of_checkpoint,
    train_and_export,
)
from chargen_export.variants import GateText, derive_variant
from chargen_ort import CharGenerator, OptionError, read_artifact
from chargen_ort.config import Config
from chargen_ort.reports import describe_training
from chargen_ort.vocabulary import Vocabulary
from chargen_train.base import describe_start, load_base, take_weights
from chargen_train.checkpoint import load_checkpoint
from chargen_train.corpus import load_corpus
from chargen_train.events import Observer, TrainingStoppedError
from chargen_train.run_folder import RunFolder
from chargen_train.split import Part
from tests.conftest import ALPHABET, artifact_bytes, observing, random_model

NEW = "ÄÖ: it was the age of wisdom, it was the age of foolishness, ÄÄÖÖ 42.\n" * 160
SIZES = {"embedding_dim": 8, "hidden_size": 16, "num_layers": 2}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A base of random weights, its fp16 variant, and a text with characters that are new to it."""
    folder = tmp_path_factory.mktemp("base")
    (folder / "base.onnx").write_bytes(artifact_bytes(random_model(num_layers=2)))
    (folder / "new.txt").write_text(NEW)
    base = read_artifact(folder / "base.onnx")
    text = GateText("text", Part.of(np.arange(20)), held_out=False)
    (folder / "base.fp16.onnx").write_bytes(derive_variant(base, "fp16", text, 10.0).data)
    return folder


@pytest.fixture(scope="module")
def base(folder):
    return load_base(folder / "base.onnx")


def go_on(folder, out, observer=Observer(), **options):  # noqa: B008 - does nothing
    options = {"steps": 4, "batch_size": 4} | options
    base = folder / "base.onnx"
    return train_and_export(
        folder / "new.txt", folder / out, None, observer, base_path=base, **options
    )


@pytest.fixture(scope="module")
def finished(folder):
    """What a run of four steps wrote."""
    return go_on(folder, "whole.onnx")[0]


# The weights


@torch.no_grad()
def test_known_characters_keep_their_rows_and_new_ones_get_some(base):
    vocabulary = Vocabulary("Ä" + ALPHABET[::-1] + "Ö")
    model = random_model(vocab_size=31, num_layers=2, seed=5)
    drawn = model.embedding.weight.clone()
    take_weights(model, vocabulary, base)
    for name, layer in base.model.layers.state_dict().items():
        assert torch.equal(model.layers.state_dict()[name], layer)
    old = [ALPHABET.index(c) for c in vocabulary.characters[1:-1]]
    for new, given in (
        (model.embedding.weight, base.model.embedding.weight),
        (model.output.weight, base.model.output.weight),
        (model.output.bias, base.model.output.bias),
    ):
        assert torch.equal(new[1:-1], given[old])
    for row in (0, -1):
        assert torch.equal(model.embedding.weight[row], drawn[row])
        assert torch.allclose(model.output.weight[row], base.model.output.weight.mean(0))
        assert torch.allclose(model.output.bias[row], base.model.output.bias.mean())


@torch.no_grad()
def test_before_the_first_step_it_predicts_what_the_base_predicts(base):
    """But for what the new characters take, known ones have the same odds."""
    vocabulary = Vocabulary(ALPHABET + "ÄÖ")
    model = random_model(vocab_size=31, num_layers=2, seed=5)
    take_weights(model, vocabulary, base)
    token = torch.tensor([[3, 8, 2, 20]])
    before, _ = base.model(token, base.model.zero_hidden(1))
    after, _ = model(token, model.zero_hidden(1))
    assert torch.allclose(after[..., :29], before)


def test_the_corpus_gets_the_characters_of_the_base(folder, base):
    wide = load_corpus(folder / "new.txt", known=base.vocabulary)
    assert wide.vocabulary.characters == "".join(sorted({*ALPHABET, *NEW}))
    assert wide.vocabulary.decode(wide.tokens) == NEW
    many = Vocabulary("".join(map(chr, range(0x20, 0x20 + 300))))
    wider = load_corpus(folder / "new.txt", known=many)
    assert wider.vocabulary.decode(wider.tokens) == NEW
    assert len(wider.vocabulary) == len({*many.characters, *NEW})
    own = load_corpus(folder / "new.txt")
    assert load_corpus(folder / "new.txt", known=Vocabulary(" ")).vocabulary == own.vocabulary
    assert describe_start(base, wide) == (
        f"training goes on from the model base, sha256 {base.facts.sha256}, which does not know 6 "
        "of the characters: ',24:ÄÖ'"
    )
    (folder / "known.txt").write_text("abc")
    known = load_corpus(folder / "known.txt", known=base.vocabulary)
    assert describe_start(base, known).endswith("which knows all characters of the corpus")


# The run


def test_the_file_knows_both_texts_and_names_its_base(folder, base, finished):
    assert set(finished.config.tokens) == {*ALPHABET, *NEW}
    assert {name: getattr(finished.config, name) for name in SIZES} == SIZES
    training = finished.training
    assert training.base == base.facts
    assert (training.base.name, training.settings["teachers"]) == ("base", 0)
    sentence = f"training went on from the model base, sha256 {base.facts.sha256}"
    assert dict(describe_training(training))["base"] == sentence
    report = RunFolder(folder / "whole.onnx").report.read_text()
    assert f"<p>T{sentence[1:]}.</p>" in report
    text = CharGenerator.load(folder / "whole.onnx").generate("Ä zz", 20, seed=1)
    assert len(text) == 20


def test_it_begins_where_the_base_stood(folder, base):
    """After a step too small to change anything the weights are the base's."""
    artifact, _ = go_on(folder, "same.onnx", steps=1, learning_rate=1e-7)
    again = load_base(folder / "same.onnx")
    assert artifact.training.base == base.facts
    for name, layer in base.model.layers.state_dict().items():
        assert torch.allclose(again.model.layers.state_dict()[name], layer, atol=1e-6)
    assert load_base(folder / "same.onnx").facts.name == "same"


def test_a_run_without_a_base_has_none_in_its_record(hello_path):
    assert read_artifact(hello_path).training.base is None


@pytest.mark.parametrize("again", [True, False], ids=["base named again", "base not named"])
def test_stopped_and_resumed_is_as_never_stopped(folder, finished, again):
    asked = iter(range(1, 100))
    stop = observing(should_stop=lambda: next(asked) == 2)
    with pytest.raises(TrainingStoppedError):
        go_on(folder, "resumed.onnx", stop)
    saved = load_checkpoint(RunFolder(folder / "resumed.onnx").checkpoint)
    assert (saved.step, saved.base) == (2, finished.training.base)
    base = folder / "base.onnx" if again else None
    train_and_export(folder / "new.txt", folder / "resumed.onnx", resume=True, base_path=base)
    assert (folder / "resumed.onnx").read_bytes() == finished.data


def test_a_checkpoint_is_exported_with_its_base(folder, finished):
    checkpoint = load_checkpoint(RunFolder(folder / "whole.onnx").checkpoint)
    corpus = corpus_of_checkpoint(checkpoint, folder / "new.txt")
    assert artifact_of_checkpoint(checkpoint, corpus).data == finished.data


def test_another_base_cannot_resume_the_run(folder, base, tmp_path):
    other = tmp_path / "other.onnx"
    other.write_bytes(artifact_bytes(random_model(num_layers=2, seed=3)))
    began = f"the run began with the model base, sha256 {base.facts.sha256}; leave --from out"
    with pytest.raises(OptionError, match=began):
        train_and_export(folder / "new.txt", folder / "whole.onnx", resume=True, base_path=other)


def test_a_list_goes_on_from_running_text_and_its_end_is_new(folder, tmp_path):
    (tmp_path / "list.txt").write_text("".join(f"name {n * n}\n" for n in range(80)))
    path = folder / "base.onnx"
    out = tmp_path / "list.onnx"
    artifact, _ = train_and_export(tmp_path / "list.txt", out, steps=1, base_path=path)
    assert artifact.config.end
    assert set(artifact.config.tokens) == {*ALPHABET, *"0123456789", ""}
    train_and_export(
        tmp_path / "list.txt", tmp_path / "again.onnx", steps=1, learning_rate=1e-7, base_path=out
    )
    one, other = load_base(out).model.state_dict(), load_base(tmp_path / "again.onnx").model
    for name, tensor in other.state_dict().items():
        assert torch.allclose(tensor, one[name], atol=1e-6), "the end's rows are kept too"


# What is refused


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--from", "base.fp16.onnx"], "is fp16; give the fp32 file that it was made of"),
        (["--from", "no.onnx"], "no such model file: no.onnx"),
        (["--from", "new.txt"], "new.txt: "),
        (["--hidden-size", "32"], "hidden_size is 32, the model base has 16; leave --hidden-size"),
        (["--num-layers", "1"], "num_layers is 1, the model base has 2; leave --num-layers out"),
        (["--embedding-dim", "9"], "embedding_dim is 9, the model base has 8"),
        (["--preset", "lesson"], "--preset lesson has sizes of its own; leave it or --from out"),
        (["--out", "base.onnx"], "it is the file base.onnx, which this command reads"),
    ],
)
def test_what_contradicts_a_base_is_refused_with_one_line(folder, monkeypatch, options, message):
    monkeypatch.chdir(folder)
    before = {path.name: path.stat().st_size for path in folder.iterdir()}
    from_base = [] if "--from" in options else ["--from", "base.onnx"]
    result = CliRunner().invoke(app, ["new.txt", "--epochs", "1", *from_base, *options])
    assert (result.exit_code, result.stdout) == (2, "")
    assert message in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert {path.name: path.stat().st_size for path in folder.iterdir()} == before


def test_teachers_and_a_base_of_another_unit_are_refused(folder, monkeypatch):
    with pytest.raises(OptionError, match="goes on from a model has no teachers"):
        go_on(folder, "x.onnx", teachers=2)
    artifact = read_artifact(folder / "base.onnx")
    monkeypatch.setattr(Config, "contradiction", lambda self: "")
    other = dataclasses.replace(artifact, config=dataclasses.replace(artifact.config, unit="byte"))
    monkeypatch.setattr("chargen_train.base.read_artifact", lambda path: other)
    with pytest.raises(OptionError, match="whose unit is byte, with --unit char; give"):
        load_base(folder / "base.onnx")


def test_a_size_that_is_given_as_the_base_has_it_is_no_contradiction(folder):
    assert go_on(folder, "y.onnx", steps=1, **SIZES)[0].config.hidden_size == 16


@pytest.mark.parametrize(
    ("lines", "options", "lengths"),
    [
        (160, {}, (None, 12.0, None)),
        (160, {"epochs": 3.0}, (None, 3.0, None)),
        (160, {"steps": 9}, (9, None, None)),
        (320, {}, (None, None, 1.0)),
    ],
)
def test_a_short_text_is_read_a_few_times(folder, tmp_path, lines, options, lengths):
    """A base has the best of it soon; of a longer one the time says how often it is read."""
    (tmp_path / "text.txt").write_text(NEW[: NEW.index("\n") + 1] * lines)
    begun = []

    def stop(corpus, recipe):
        begun.append((recipe.steps, recipe.epochs, recipe.minutes))
        raise TrainingStoppedError("stopped")

    with pytest.raises(TrainingStoppedError):
        train_and_export(
            tmp_path / "text.txt", tmp_path / "text.onnx", None, observing(on_begin=stop),
            base_path=folder / "base.onnx", **options,
        )  # fmt: skip
    assert begun == [lengths]
