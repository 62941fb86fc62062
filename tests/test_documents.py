"""Documents: texts of their own, whose beginning and end a model has learnt."""

import json
import math
import re

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from chargen_export.pipeline import train_and_export
from chargen_ort import CharGenerator, OptionError, Vocabulary
from chargen_ort.artifact import read_artifact
from chargen_ort.batch import write_texts
from chargen_ort.config import Config
from chargen_ort.documents import cut_documents
from chargen_ort.options import SamplingOptions
from chargen_ort.scoring import score_continuations
from chargen_ort.verify import verify_artifact
from chargen_train.checkpoint import load_checkpoint
from chargen_train.choosing import choose_recipe
from chargen_train.corpus import load_corpus
from chargen_train.events import Supervision, TrainingStoppedError
from chargen_train.reading import Reading
from chargen_train.training import train
from tests.conftest import (
    ALPHABET,
    artifact_bytes,
    observing,
    random_model,
    run_here,
)

END = len(ALPHABET)


@pytest.fixture(scope="module")
def model():
    return random_model(vocab_size=END + 1, num_layers=2)


@pytest.fixture(scope="module")
def writer(model):
    """Random weights over the letters, space, full stop, newline, and an end token."""
    return CharGenerator.from_bytes(artifact_bytes(model, end=True))


def by_torch(model, text):
    """Log probability of each character of a document and of its end."""
    tokens = [END, *(ALPHABET.index(c) for c in text), END]
    with torch.no_grad():
        logits, _ = model(torch.tensor([tokens[:-1]]), model.zero_hidden(1))
    return logits.log_softmax(-1)[0, range(len(tokens) - 1), tokens[1:]].numpy()


# The end token


def test_no_text_is_encoded_to_the_end_token_and_no_text_shows_it():
    vocabulary = Vocabulary("abc", end=True)
    assert (len(vocabulary), vocabulary.end_token) == (4, 3)
    assert vocabulary.characters == "abc"
    assert vocabulary.encode("abc").tolist() == [0, 1, 2]
    assert vocabulary.look_up("a\0d").tolist() == [0, -1, -1]
    assert vocabulary.decode([3, 0, 3, 1, 3]) == "ab"
    with pytest.raises(OptionError, match="from 0 to 3"):
        vocabulary.decode([4])
    assert Vocabulary("abc").end_token is None


def test_the_end_token_is_the_last_and_written_as_an_empty_text():
    config = Config.of(Vocabulary("abc", end=True), 4, 8, 1, separator="")
    assert config.tokens == ("a", "b", "c", "")
    assert (config.end, config.separator_token, config.sizes.vocab_size) == (True, 3, 4)
    assert config.vocabulary == Vocabulary("abc", end=True, replacement="a")


@pytest.mark.parametrize(
    "changes",
    [
        {"tokens": ("a", "b")},
        {"tokens": ("a", "", "b")},
        {"tokens": ("",)},
        {"separator": "a"},
        {"replacement": ""},
        {"end": False},
    ],
)
def test_a_configuration_without_its_end_is_refused(changes):
    sizes = {"embedding_dim": 4, "hidden_size": 8, "num_layers": 1}
    honest = {"tokens": ("a", "b", ""), "separator": "", "replacement": "a", "end": True}
    Config(**sizes, **honest)
    with pytest.raises(OptionError):
        Config(**sizes, **(honest | changes))


# Writing


def test_a_text_ends_where_the_model_ends_it(writer):
    stream = writer.stream(seed=1)
    text = "".join(stream)
    assert stream.ended == "end"
    assert "" not in text.split(ALPHABET)
    assert writer.generate(length=200, seed=1) == text
    short = writer.stream(length=len(text), seed=1)
    assert ("".join(short), short.ended) == (text, "length")


def test_each_row_of_a_batch_ends_by_itself_and_is_what_a_stream_writes(writer):
    starts = ["", "an", "b"] * 5
    options = SamplingOptions(seed=7)
    written = list(write_texts(writer.engine, iter(starts), 20, options, 4, None))
    assert {one.ended for one in written} == {"end", "length"}
    for one in written:
        stream = writer.stream(starts[one.index], 20, seed=7, row=one.index)
        assert ("".join(stream), stream.ended) == (one.text, one.ended)
    texts = [one.text for one in sorted(written, key=lambda one: one.index)]
    assert writer.generate_batch(starts, 20, seed=7, batch_size=3) == texts


def test_stop_strings_and_filters_work_beside_the_end(writer):
    options = {"seed": 3, "stop": "a", "top_k": 12, "repetition_penalty": 1.3}
    texts = writer.generate_batch([""] * 12, 60, **options)
    for row, text in enumerate(texts):
        stream = writer.stream("", 60, row=row, **options)
        assert "".join(stream) == text
        assert "a" not in text
        assert stream.ended in ("end", "stop", "length")


def test_a_text_begins_after_the_end_token_and_then_its_start(model, writer):
    for start in ("", "ab", "hello"):
        tokens = torch.tensor([[END, *(ALPHABET.index(c) for c in start)]])
        with torch.no_grad():
            expected = model(tokens, model.zero_hidden(1))[0][0, -1].softmax(-1).numpy()
        found = writer.next_probabilities(start)
        assert sum(found.values()) == pytest.approx(1)
        np.testing.assert_allclose([found[c] for c in (*ALPHABET, "")], expected, atol=1e-5)


def test_a_state_that_drew_the_end_stands_before_the_next_text(writer):
    state = writer.state("an", seed=5)
    while state.draw():
        pass
    drawn = state.drawn
    assert not state.hidden().any()
    again = writer.restore(state.snapshot())
    assert state.probabilities() == writer.state().probabilities()
    following = [state.draw() for _ in range(10)]
    assert [again.draw() for _ in range(10)] == following
    assert state.drawn == drawn + 10
    fed = writer.restore(again.snapshot())
    assert fed.draw() == again.draw()


def test_the_penalty_does_not_count_the_end_before_a_text(writer):
    plain, penalised = (writer.state("a", repetition_penalty=p, seed=1) for p in (1, 50))
    assert plain.logits().tolist() == penalised.logits().tolist()
    assert json.loads(penalised.snapshot().split(b"\n")[1])["seen"] == [ALPHABET.index("a")]


# Scoring


@pytest.mark.parametrize("text", ["", "a", "hello world", "the quick brown fox\n" * 30])
def test_a_document_is_scored_whole_with_its_end(model, writer, text):
    expected = by_torch(model, text)
    score = writer.score(text)
    assert score.characters == len(text) + 1
    np.testing.assert_allclose(score.log_probabilities, expected, atol=1e-4)
    [batched] = writer.score_batch([text], end=True)
    np.testing.assert_allclose(batched.log_probabilities, expected, atol=1e-4)
    if text:
        [without] = writer.score_batch([text], end=False)
        np.testing.assert_allclose(without.log_probabilities, expected[:-1], atol=1e-4)
    totals = score_continuations(writer.engine, text[:3], [text[3:]] * 2, None, [True, False])
    assert totals[0] == pytest.approx(expected[len(text[:3]) :].sum(), abs=1e-3)
    assert totals[1] == pytest.approx(expected[len(text[:3]) : -1].sum(), abs=1e-3)


def test_an_unknown_character_at_the_end_does_not_move_the_end(writer):
    known, unknown = writer.score_batch(["ab", "abé"], end=True)
    assert (unknown.characters, unknown.unknown) == (4, 1)
    assert unknown.log_probabilities[-1] == pytest.approx(known.log_probabilities[-1], abs=1e-5)


def test_a_window_is_for_running_text(writer):
    with pytest.raises(OptionError, match="window is for running text"):
        writer.score("hello", window=3)


# Cutting


TEXTS = st.lists(st.sampled_from(["a", "b", "\n", "\n\n", " \n", "ab\n", "\t"]), max_size=12)


@given(TEXTS, st.sampled_from(["lines", "blank"]))
def test_documents_do_not_depend_on_how_a_text_is_cut_into_pieces(pieces, kind):
    text = "".join(pieces)
    documents = list(cut_documents(pieces, kind))
    assert documents == list(cut_documents([text], kind))
    if kind == "lines":
        assert documents == [line for line in text.split("\n") if line]
    else:
        parts = re.split(r"(?:^|(?<=\n))\s*?(?:\n|$)", text)
        assert "".join(documents).replace("\n", "") == "".join(
            part.replace("\n", "") for part in parts if part.strip()
        )


# From a list to its names


@pytest.fixture(scope="module")
def names():
    """Two hundred names of three to eleven letters."""
    rng = np.random.default_rng(0)
    syllables = ["an", "be", "ca", "do", "el", "fi", "gu", "ha"]
    made = {"".join(rng.choice(syllables, rng.integers(2, 6))) for _ in range(2_600)}
    return sorted(made)[:1_500]


@pytest.fixture(scope="module")
def folder(tmp_path_factory, names):
    """names.txt, and names.onnx that was trained on it."""
    folder = tmp_path_factory.mktemp("names")
    (folder / "names.txt").write_text("\n".join(names) + "\n")
    sizes = {"hidden_size": 48, "embedding_dim": 16, "num_layers": 1, "learning_rate": 0.02}
    out = folder / "names.onnx"
    train_and_export(folder / "names.txt", out, precision="int8", steps=250, **sizes)
    return folder


def test_a_list_becomes_its_names_one_a_line(folder, names):
    result = run_here(
        "chargen-ort", "--model", "names.onnx", "--num", "40", "--seed", "2", cwd=folder
    )
    lines = result.stdout.splitlines()
    assert len(lines) == 40
    assert all(re.fullmatch("(an|be|ca|do|el|fi|gu|ha)*", line) for line in lines[:30])
    assert {len(line) for line in lines} <= set(range(2, 15))
    objects = run_here(
        "chargen-ort", "--model", "names.onnx", "--num", "3", "--json", "--start", "an", cwd=folder
    )
    for line in map(json.loads, objects.stdout.splitlines()):
        assert line["ended"] == "end"
        generator = CharGenerator.load(folder / "names.onnx")
        whole = generator.score("an" + line["text"])
        [start] = generator.score_batch(["an"], end=False)
        assert line["log_probability"] == pytest.approx(whole.total - start.total, abs=1e-3)


def test_the_record_says_what_the_documents_are_and_what_was_held_out(folder, names):
    training = read_artifact(folder / "names.onnx").training
    split, validation, quantiles = training.split, training.validation, training.score_quantiles
    assert (split.documents, split.count, split.holdout) == ("lines", len(names), "spread")
    assert validation.documents == round(0.1 * len(names))
    assert training.training_characters + validation.characters == sum(map(len, names))
    assert validation.protocol == (
        "mean over all characters and ends of held-out documents chosen by a hash of their "
        "content, each document from its own beginning"
    )
    assert (quantiles.window, quantiles.count) == (None, validation.documents)
    held_out = load_corpus(folder / "names.txt").validation
    texts = [
        CharGenerator.load(folder / "names.onnx").vocabulary.decode(held_out.tokens[a:b])
        for a, b in held_out.ranges
    ]
    scores = CharGenerator.load(folder / "names.onnx").score_batch(texts, end=True)
    total = -math.fsum(score.total for score in scores)
    assert validation.nats_per_char == pytest.approx(
        total / sum(score.characters for score in scores), abs=1e-5
    )
    median = np.median([score.nats_per_char for score in scores])
    assert quantiles.nats_per_char[quantiles.levels.index(0.5)] == pytest.approx(median, abs=1e-5)


def test_a_smaller_precision_is_judged_by_the_documents(folder):
    gate = read_artifact(folder / "names.int8.onnx").certificate.gate
    fp32 = read_artifact(folder / "names.onnx").training.validation
    assert gate.held_out
    assert gate.fp32_nats_per_char == pytest.approx(fp32.nats_per_char, abs=1e-4)
    assert gate.characters == fp32.characters + fp32.documents
    assert gate.protocol == "mean over documents, their ends too, each from its own beginning"


def test_commands_know_documents(folder, names):
    assert all(verdict.passed for verdict in verify_artifact(read_artifact(folder / "names.onnx")))
    info = run_here("chargen-ort", "info", "names.onnx", cwd=folder).stdout
    assert f"documents   {len(names):,}, each line is one\n" in info
    assert "separator   the end token\n" in info
    score = ["chargen-ort", "score", "names.txt", "--model", "names.onnx"]
    whole = json.loads(run_here(*score, "--json", cwd=folder).stdout)
    lines = [
        json.loads(x) for x in run_here(*score, "--json", "--lines", cwd=folder).stdout.splitlines()
    ]
    assert whole["documents"] == len(lines) == len(names)
    assert whole["log_probability"] == pytest.approx(
        sum(line["log_probability"] for line in lines), abs=1e-2
    )
    assert lines[0]["characters"] == len(names[0]) + 1
    assert f"documents      {len(names):,}\n" in run_here(*score, cwd=folder).stdout
    refused = run_here(*score, "--window", "3", cwd=folder)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "window is for running text" in refused.stderr
    verify = ["train-export", "verify", "names.onnx", "--checkpoint", "names.run/checkpoint.pt"]
    verified = run_here(*verify, cwd=folder)
    assert "and an end in the artifact" in verified.stdout
    assert verified.returncode == 0


def test_a_line_after_the_end_begins_a_new_text_in_the_prompt(folder):
    keys = "be\nbe\n/quit\n"
    options = ["--model", "names.onnx", "--interactive", "--temperature", "0"]
    result = run_here("chargen-ort", *options, cwd=folder, stdin=keys)
    first, second = re.findall(r"> ([a-z]*)\n", result.stdout + "\n")[:2]
    assert (
        first == second == CharGenerator.load(folder / "names.onnx").generate("be", temperature=0)
    )


def test_what_was_trained_is_converted_again(folder):
    convert = ["train-export", "convert", "names.run/checkpoint.pt", "--text", "names.txt"]
    result = run_here(*convert, "--out", "again.onnx", cwd=folder)
    assert result.returncode == 0, result.stderr
    assert (folder / "again.onnx").read_bytes() == (folder / "names.onnx").read_bytes()
    result = run_here(
        "train-export", "convert", "names.onnx", "--precision", "fp16", "--text", "names.txt",
        "--out", "half.onnx", cwd=folder,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert read_artifact(folder / "half.onnx").certificate.gate.held_out


@pytest.mark.parametrize("steps", [1, 5, 9])
def test_a_stopped_run_of_documents_goes_on_bit_for_bit(folder, tmp_path, steps):
    corpus = load_corpus(folder / "names.txt")
    sizes = {"hidden_size": 16, "seq_length": 9, "batch_size": 90, "dropout": 0.1}
    recipe = choose_recipe(
        corpus.training.characters, documents=len(corpus.training.ranges), steps=40, **sizes
    )
    assert recipe.batch_size * 9 * 30 > len(corpus.training)  # 40 steps are more than an epoch
    whole = train(corpus, recipe)
    asked = iter(range(1, 100))
    stop = observing(should_stop=lambda: next(asked) >= 4 * steps)
    path = tmp_path / "checkpoint.pt"
    with pytest.raises(TrainingStoppedError):
        train(corpus, recipe, stop, Supervision(path))
    resumed = train(corpus, recipe, resume=load_checkpoint(path))
    assert resumed.summary == whole.summary
    for name, weights in whole.model.state_dict().items():
        assert torch.equal(weights, resumed.model.state_dict()[name])


def test_a_run_of_documents_is_resumed_with_its_reading(tmp_path, names):
    (tmp_path / "t.csv").write_text(
        "id,name\n" + "".join(f"{i},{n}\n" for i, n in enumerate(names))
    )
    asked = iter(range(100))
    stop = observing(should_stop=lambda: next(asked) >= 3)
    reading, out = Reading(column="name", holdout="tail"), tmp_path / "m.onnx"
    sizes = {"hidden_size": 8, "embedding_dim": 4, "num_layers": 1, "steps": 8}
    with pytest.raises(TrainingStoppedError):
        train_and_export(tmp_path / "t.csv", out, None, stop, reading=reading, **sizes)
    for other, name in ((Reading(column="id"), "column"), (Reading(holdout="none"), "holdout")):
        with pytest.raises(OptionError, match=f"cannot resume: {name} is .*; leave --{name} out"):
            train_and_export(tmp_path / "t.csv", out, resume=True, reading=other)
    artifact, _ = train_and_export(tmp_path / "t.csv", out, resume=True)
    assert artifact.training.settings["column"] == "name"
    assert artifact.training.split.holdout == "tail"
    assert artifact.config.vocabulary.characters == "abcdefghilnou"


def test_tunes_between_blank_lines_begin_with_their_number(tmp_path):
    rng = np.random.default_rng(1)
    tunes = []
    for number in range(60):
        bars = ["".join(rng.choice(list("ABcdef2"), 4)) for _ in range(4)]
        tunes.append(f"X:{number % 10}\nK:D\n|:{'|'.join(bars)}:|\n")
    (tmp_path / "tunes.txt").write_text("\n".join(tunes))
    artifact, _ = train_and_export(
        tmp_path / "tunes.txt", tmp_path / "tunes.onnx", reading=Reading("blank"),
        steps=150, hidden_size=32, embedding_dim=16, num_layers=1, learning_rate=0.02,
    )  # fmt: skip
    generator = CharGenerator(artifact)
    written = generator.generate_batch([""] * 200, length=12, seed=1)
    assert sum(text.startswith("X:") for text in written) == 200
