"""Each unit with each kind of document, from a text to a model that writes and scores it."""

import json
import mmap

import numpy as np
import pytest

from chargen_export.pipeline import train_and_export
from chargen_export.verify import verify_against_checkpoint
from chargen_ort import CharGenerator
from chargen_train import ids, list_split, together, units
from chargen_train.checkpoint import load_checkpoint
from chargen_train.corpus import load_corpus
from chargen_train.events import TrainingStoppedError
from chargen_train.ids import TokenStore
from chargen_train.reading import Reading
from chargen_train.run_folder import RunFolder
from chargen_train.units import in_unit, load_in_unit
from tests.conftest import SMALL, assert_refused, observing, run_here, train_export

NAMES = [f"{a}{b}{c}" for a in ("an", "mar", "jó") for b in ("na", "li", "el") for c in "aeiouy"]
PROSE = "It was the best of times – it was the worst of times.\n" * 30
TEXTS = {
    "none": PROSE,
    "lines": "\n".join(NAMES) + "\n",
    "blank": "\n\n".join(f"X:{i}\nthe {name} went\nto the sea" for i, name in enumerate(NAMES)),
}
TRAINED = {**SMALL, "steps": 6, "seed": 1}


@pytest.mark.parametrize("documents", TEXTS)
@pytest.mark.parametrize("unit", ["byte", "word", "bpe"])
def test_a_text_becomes_a_model_that_writes_and_scores_it(tmp_path, unit, documents):
    path = tmp_path / "text.txt"
    path.write_text(TEXTS[documents])
    reading = Reading(documents, holdout="spread", unit=unit)
    artifact, out = train_and_export(path, reading=reading, out=tmp_path / "m.onnx", **TRAINED)
    generator, vocabulary = CharGenerator.load(out), artifact.config.vocabulary
    assert artifact.config.unit == unit
    assert artifact.config.end == (documents != "none")
    has_pieces = unit == "bpe" or (
        unit == "word" and documents != "lines"
    )  # no name stands 5 times
    assert bool(vocabulary.pieces) == has_pieces
    known = TEXTS[documents] if documents != "lines" else "".join(NAMES)
    assert vocabulary.decode(vocabulary.encode(known, "error")) == known
    text = generator.generate("th", 40, seed=3, unknown="skip")
    assert "".join(generator.stream("th", 40, seed=3, unknown="skip")) == text
    assert generator.generate_batch(["th"], 40, seed=3, unknown="skip") == [text]
    assert 0 < generator.score(PROSE[:20], unknown="skip").bits_per_char < 20
    facts = artifact.training
    assert facts.validation is not None
    assert facts.baseline is not None
    assert facts.samples is not None
    assert facts.samples.count == 1000
    # the same text is held out whatever the unit, and counted in characters
    held_out = load_corpus(path, Reading(documents, None, "spread")).validation
    blocks = 0 if documents != "none" else len(held_out.ranges)
    assert held_out.characters - 12 * blocks <= facts.validation.characters <= held_out.characters
    checkpoint = tmp_path / "m.run" / "checkpoint.pt"
    assert all(each.passed for each in verify_against_checkpoint(out, checkpoint))


@pytest.mark.parametrize("unit", ["byte", "word", "bpe"])
@pytest.mark.parametrize("documents", TEXTS)
@pytest.mark.parametrize("is_large", [False, True], ids=["small", "large"])
def test_tokens_of_each_part_are_its_text(tmp_path, monkeypatch, unit, documents, is_large):
    path = tmp_path / "text.txt"
    path.write_text(TEXTS[documents])
    if is_large:  # in a file, in pieces, and several documents in a range
        monkeypatch.setattr(ids, "IN_MEMORY", 0)
        monkeypatch.setattr(units, "_CHUNK", 17)
        monkeypatch.setattr(list_split, "_MOST", 20)
        monkeypatch.setattr(list_split, "_MOST_HELD_OUT", 3)
    corpus = load_corpus(path, Reading(documents, None, "spread"))
    assert (len(corpus.training.ranges) < corpus.training.documents) == (
        is_large and documents != "none"
    )
    other = in_unit(corpus, unit, None)
    assert isinstance(base_of(other.tokens), mmap.mmap) == is_large
    for part in ("training", "validation"):
        ours, theirs = getattr(corpus, part), getattr(other, part)
        assert theirs.characters == ours.characters
        for (a, b), (c, d) in zip(ours.ranges.tolist(), theirs.ranges.tolist(), strict=True):
            text = corpus.vocabulary.decode(corpus.tokens[a:b])
            assert other.vocabulary.decode(other.tokens[c:d]) == text
    assert other.tokens.dtype.itemsize <= 2


def base_of(array):
    """What holds the numbers of an array."""
    while getattr(array, "base", getattr(array, "obj", None)) is not None:
        array = array.base if hasattr(array, "base") else array.obj
    return array


def test_our_pieces_are_those_of_the_library_that_learnt_them(tmp_path):
    from tokenizers import Tokenizer
    from tokenizers.models import BPE

    path = tmp_path / "text.txt"
    path.write_text(PROSE)
    vocabulary = in_unit(load_corpus(path, Reading("none")), "bpe", 60).vocabulary
    texts = vocabulary.texts
    pairs = zip(vocabulary.merges[::2], vocabulary.merges[1::2], strict=True)
    theirs = Tokenizer(
        BPE({t: i for i, t in enumerate(texts)}, [(texts[a], texts[b]) for a, b in pairs])
    )
    for word in sorted({*PROSE.split(), " theasttimes", "wofoft", " iiwas"}):
        assert vocabulary.encode(word).tolist() == theirs.encode(word).ids


def test_a_stopped_run_of_pieces_goes_on_and_is_converted(tmp_path):
    (tmp_path / "text.txt").write_text(PROSE)
    arguments = ["text.txt", "--out", "m.onnx"]
    sizes = ["--hidden-size", 16, "--num-layers", 1, "--unit", "bpe", "--epochs", 1]
    result = run_here("train-export", *arguments, *sizes, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    resumed = run_here("train-export", *arguments, "--resume", cwd=tmp_path)
    assert resumed.returncode == 0, resumed.stderr
    other = run_here("train-export", *arguments, "--resume", "--unit", "word", cwd=tmp_path)
    assert_refused(other, "cannot resume: unit is word, the run has bpe")
    smaller = run_here(
        "train-export", "convert", "m.onnx", "--precision", "int8", "--text", "text.txt",
        "--max-loss-increase", 1, cwd=tmp_path,
    )  # fmt: skip
    assert smaller.returncode == 0, smaller.stderr
    facts = json.loads(run_here("chargen-ort", "info", "m.onnx", "--json", cwd=tmp_path).stdout)
    assert facts["config"]["unit"] == "bpe"
    shown = run_here("chargen-ort", "info", "m.onnx", cwd=tmp_path).stdout
    assert "unit        bpe, one of" in shown
    page = run_here("chargen-ort", "web", "m.onnx", "page.html", cwd=tmp_path)
    assert page.returncode == 0, page.stderr


def test_a_run_goes_on_from_a_model_of_the_same_unit(tmp_path):
    (tmp_path / "text.txt").write_text(PROSE)
    (tmp_path / "more.txt").write_text("the wörst times of the sea\n" * 40)
    reading = Reading("none", unit="bpe")
    base, path = train_and_export(
        tmp_path / "text.txt", tmp_path / "base.onnx", reading=reading, **TRAINED
    )
    more, _ = train_and_export(
        tmp_path / "more.txt", tmp_path / "more.onnx", reading=reading, base_path=path, steps=2
    )
    assert set(base.config.tokens) < set(more.config.tokens)
    assert len(more.config.merges) == len(base.config.merges)
    refused = run_here(
        "train-export", tmp_path / "more.txt", "--from", path, "--out", tmp_path / "x.onnx"
    )
    assert_refused(refused, "whose unit is bpe", "--unit char")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--vocab-size", 60], "--vocab-size is for --unit word and bpe"),
        (["--unit", "bpe", "--vocab-size", 10], "leaves no room for pieces"),
        (["--unit", "word", "--vocab-size", 70_000], "--vocab-size is 70000; give 2 to 65536"),
        (["--unit", "byte", "--vocab-size", 256], "the unit is byte; leave it out"),
    ],
)
def test_sizes_that_cannot_be_are_refused(tmp_path, options, message):
    (tmp_path / "text.txt").write_text(PROSE)
    assert_refused(run_here("train-export", tmp_path / "text.txt", *options), message)


def test_a_text_without_spaces_has_no_words_to_speak_of(tmp_path):
    (tmp_path / "names.txt").write_text("".join(NAMES) * 4)
    result = train_export(
        tmp_path / "names.txt", "--unit", "word", "--epochs", 0.1, "--hidden-size", 16,
        "--num-layers", 1, "--out", tmp_path / "m.onnx",
    )  # fmt: skip
    assert result.exit_code == 0
    warnings = [line for line in result.stderr.splitlines() if "hardly a space" in line]
    assert warnings
    assert "--unit bpe suits it better" in result.stderr


@pytest.mark.parametrize("unit", ["byte", "word", "bpe"])
@pytest.mark.parametrize("documents", ["none", "lines"])
def test_characters_in_a_file_become_the_tokens_that_those_in_memory_do(
    tmp_path, monkeypatch, unit, documents
):
    paths = [tmp_path / "a.txt", tmp_path / "b.txt"]
    for path in paths:
        path.write_text(TEXTS[documents] + "q" * (path.stem == "b"))
    reading = Reading(documents, holdout="spread", min_count=2, unit=unit)
    whole = load_in_unit(paths, reading)
    monkeypatch.setattr(ids, "IN_MEMORY", 0)
    monkeypatch.setattr(ids, "PIECE", 64)
    monkeypatch.setattr("chargen_train.units._CHUNK", 64)
    with TokenStore() as store:
        other = load_in_unit(paths, reading, store, whole.vocabulary)
        assert store.in_file
        assert np.array_equal(other.tokens, whole.tokens)
    assert other.vocabulary == whole.vocabulary
    assert other.counts.tolist() == np.bincount(whole.tokens, minlength=len(whole.counts)).tolist()
    assert ("\ufffd" in whole.vocabulary.characters) == (unit != "byte")


@pytest.mark.parametrize(("unit", "has_base"), [("bpe", False), ("word", True), ("char", True)])
def test_a_stopped_run_finds_the_characters_that_it_has_left(tmp_path, monkeypatch, unit, has_base):
    text, out = tmp_path / "text.txt", tmp_path / "m.onnx"
    text.write_text(PROSE)
    base, reading = None, Reading("none", min_count=2, unit=unit)
    if has_base:
        (tmp_path / "more.txt").write_text("the zoo of the six times\n" * 20)
        known = Reading("none", unit=unit)
        _, base = train_and_export(
            tmp_path / "more.txt", tmp_path / "more.onnx", reading=known, **TRAINED
        )
    monkeypatch.setattr(ids, "IN_MEMORY", 0)
    after = iter([False, True])
    with pytest.raises(TrainingStoppedError):
        train_and_export(
            text, out, None, observing(should_stop=lambda: next(after)), reading=reading,
            base_path=base, steps=3,
        )  # fmt: skip
    vocabulary = load_checkpoint(RunFolder(out).checkpoint).vocabulary

    def collect(*arguments):
        raise AssertionError("the text was read again")

    monkeypatch.setattr("chargen_train.corpus.collect", collect)
    artifact, _ = train_and_export(text, out, resume=True, base_path=base)
    assert artifact.config.vocabulary == vocabulary
    assert artifact.config.unit == unit


def test_pieces_are_trained_together_and_exported_with_what_is_rare(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.txt").write_text(PROSE + "zß\n" + PROSE)
    options = ["--unit", "bpe", "--vocab-size", "90", "--min-count", "2", "--epochs", "0.2"]
    sizes = ["--hidden-size", "16", "--num-layers", "1", "--holdout", "tail"]
    assert together.main(["text.txt", *options, *sizes, "--documents", "none"]) == 0
    saved = "artifacts/text.run/checkpoint.pt"
    made = run_here(
        "train-export", "convert", saved, "--text", "text.txt", "--out", "m.onnx",
    )  # fmt: skip
    assert made.returncode == 0, made.stderr
    # the gate reads what is rare as the model has learnt it
    smaller = run_here(
        "train-export", "convert", "m.onnx", "--text", "text.txt", "--precision", "fp16",
        "--out", "again.onnx",
    )  # fmt: skip
    assert smaller.returncode == 0, smaller.stderr
    vocabulary = CharGenerator.load("again.onnx").vocabulary
    assert len(vocabulary) <= 90
    assert vocabulary.unknown == "replace"
    assert vocabulary.pieces
