"""Texts that are confined, and scores that are shown, of models whose tokens are no characters."""

import itertools
import json
import math
import re

import numpy as np
import pytest

from chargen_ort import CharGenerator, OptionError
from chargen_ort.batch import write_texts
from tests.conftest import artifact_bytes, random_model, run_here
from tests.tools.quantiles import with_quantiles
from tests.tools.serving import serving
from tests.tools.units import bpe, byte, word

UNITS = {"bpe": bpe, "word": word, "byte": byte}


def model_of(unit: str, end: bool, scale: float = 1.0) -> CharGenerator:
    vocabulary = UNITS[unit](end=end)
    model = random_model(len(vocabulary), seed=3, scale=scale)
    return CharGenerator.from_bytes(artifact_bytes(model, vocabulary=vocabulary))


@pytest.fixture(scope="module", params=itertools.product(["bpe", "word"], [False, True]), ids=str)
def writer(request: pytest.FixtureRequest) -> CharGenerator:
    """Random weights over a few characters and pieces, with and without an end."""
    return model_of(*request.param)


MIXTURES = [
    {"pattern": "[a-t]{2,6}( the[a-t]*)?"},
    {"pattern": "[a-t ]{3,}", "temperature": 0},
    {"pattern": "the.{2,}", "start": "the", "top_k": 9, "repetition_penalty": 1.4},
    {"pattern": "(?s:.*)", "ban": ["th", "  "], "stop": ["e", "st"], "start": "a h"},
    {"ban": ["the", "o"], "temperature": 0.5, "start": "a seal"},
    {"min_length": 6, "max_length": 7, "start": "ab"},
    {"pattern": "[a-t ]+", "exact": True, "stop": "b"},
]


def confined(model, start, length, **options):
    """What a stream has written, a row each, as (text, why it ended)."""
    found = []
    for row in range(8):
        stream = model.stream(start, length, row=row, seed=1, **options)
        found.append(("".join(stream), stream.ended))
    return found


@pytest.mark.parametrize("options", MIXTURES)
def test_the_same_seed_gives_the_same_text_on_every_path(writer, options):
    options, length = dict(options), 9
    start = options.pop("start", "")
    expected = confined(writer, start, length, **options)
    for text, ended in expected:
        whole = start + text
        assert len(text) == length or ended in ("end", "stop")
        if ended != "stop" and "pattern" in options:
            assert re.fullmatch(options["pattern"], whole)
        assert not any(each in whole[len(start) - 1 :] for each in options.get("stop", ()))
        if "pattern" in options or not start:
            assert not any(each in whole for each in options.get("ban", ()))
    read, resumed = [], []
    for row in range(8):
        stream = writer.stream(start, length, row=row, seed=1, **options)
        read.append((stream.read(), stream.ended))
        state = writer.restore(writer.state(start, row=row, seed=1, **options).snapshot())
        stream = writer.resume(state, length)
        resumed.append((stream.read(), stream.ended))
    assert read == resumed == expected
    chosen = writer.options(seed=1, **options)
    for size in (1, 3, 64):
        texts = write_texts(writer.engine, iter([start] * 8), length, chosen, size, None)
        written = {each.index: (each.text, each.ended) for each in texts}
        assert [written[row] for row in range(8)] == expected


def test_pieces_are_drawn_and_none_goes_beyond_what_was_asked_for(writer):
    """So that the masks are seen to be of tokens, not of characters."""
    texts = write_texts(
        writer.engine, iter([""] * 40), 8, writer.options(seed=1, ban="q", max_length=8), 40, None
    )
    drawn = [each.drawn for each in texts]
    tokens = writer.vocabulary.texts
    assert any(len(tokens[token]) > 1 for each in drawn for token in each)
    assert max(sum(len(tokens[token]) for token in each) for each in drawn) <= 8


def test_a_state_gives_the_characters_of_a_piece_one_by_one(writer):
    for row in range(6):
        state = writer.state("the", pattern="the[a-t ]{5,9}", seed=3, row=row)
        drawn = "".join(state.draw() for _ in range(2))
        other = state.fork()
        rest = [writer.resume(each, 7).read() for each in (state, other)]
        assert rest[0] == rest[1]
        assert re.fullmatch("[a-t ]{5,9}", drawn + rest[0])
        assert len(rest[0]) <= 7


def test_no_run_of_a_start_is_taken_back_from_a_confined_text(writer):
    state = writer.state("the", pattern="the[a-t]*", seed=3)
    assert state.logits().shape == (len(writer.vocabulary),)
    assert np.isfinite(state.logits()).all()
    with pytest.raises(OptionError, match="rest has 3 characters; give at most 0"):
        state.keep_back("the")


def test_the_log_weight_is_over_the_tokens_that_were_drawn():
    """Masks let through the sum of what may come; a language of three texts says which that is."""
    model = model_of("bpe", end=True)
    texts, engine = model.vocabulary.texts, model.engine
    language = ("the", "st", "a")
    for row in range(12):
        stream = model.stream("", 5, pattern="the|st|a", seed=1, row=row)
        assert stream.read() in language
        expected, written = 0.0, ""
        hidden, before = engine.zero_hidden(1), model.vocabulary.end_token
        state = model.state("", pattern="the|st|a", seed=1, row=row)
        "".join(iter(state.draw, ""))
        for token in [*state.tokens_after(0, True), model.vocabulary.end_token]:
            logits, hidden = engine.run_steps(np.array([[before]]), hidden)
            weights = np.exp(logits[0, -1].astype(float))
            allowed = [
                number
                for number, text in enumerate(texts)
                if (text and any(each.startswith(written + text) for each in language))
                or (not text and written in language)
            ]
            expected += math.log(weights[allowed].sum() / weights.sum())
            written, before = written + texts[token], token
        assert math.isclose(stream.log_weight, expected, abs_tol=1e-4)


def test_the_command_writes_confined_texts_by_pieces(tmp_path, writer):
    path = tmp_path / "model.onnx"
    path.write_bytes(writer.artifact.data)
    options = ["--pattern", "the[a-t ]*", "--start", "the", "--seed", 1, "--length", 7]
    run = run_here("chargen-ort", "--model", path, *options, "--num", 3, "--json")
    for row, line in enumerate(run.stdout.splitlines()):
        stream = writer.stream("the", 7, pattern="the[a-t ]*", seed=1, row=row)
        assert json.loads(line)["text"] == stream.read()
        assert math.isclose(json.loads(line)["log_weight"], stream.log_weight, abs_tol=1e-6)


def test_the_server_writes_what_the_generator_does(tmp_path, writer):
    path = tmp_path / "model.onnx"
    path.write_bytes(writer.artifact.data)
    asked = {"prompt": "the", "max_tokens": 7, "seed": 1}
    with serving(path) as server:
        for _ in range(2):  # the prompt without its last run is not taken for the whole one
            server.complete(**asked)
            choices = server.complete(n=6, pattern="the[a-t ]*", **asked)["choices"]
            for row, choice in enumerate(choices):
                stream = writer.stream("the", 7, pattern="the[a-t ]*", seed=1, row=row)
                assert choice["text"] == stream.read()


@pytest.mark.parametrize("options", [{"pattern": "a+"}, {"ban": "a"}, {"max_length": 3}])
def test_a_model_of_bytes_is_not_confined(options):
    model = model_of("byte", end=True)
    with pytest.raises(OptionError, match="this model's unit is byte; leave them out"):
        model.generate("", 5, **options)


# What is shown of scores


@pytest.mark.parametrize("end", [False, True])
@pytest.mark.parametrize("unit", UNITS)
def test_the_surprise_of_a_token_is_spread_over_its_characters(unit, end):
    model, text = model_of(unit, end), "the rest. the other\n"
    if unit == "byte":
        text = "thé rest of 大"
    scores = [model.score(text), *model.score_batch([text, text[1:]], end=True)]
    for score, whole in zip(scores, (text, text, text[1:]), strict=True):
        nats = score.character_log_probabilities
        assert score.text == whole
        assert len(nats) == score.characters
        if unit != "byte" or end:
            assert math.isclose(nats.sum(), score.total, rel_tol=1e-9)
        assert whole[1:4] in re.sub("<[^>]+>", "", score._repr_html_())
    tokens = model.vocabulary.encode(text).tolist()
    if unit == "word" and end:  # "the" is the first token
        third = scores[0].log_probabilities[0] / 3
        assert tokens[0] == model.vocabulary.texts.index("the")
        assert scores[0].character_log_probabilities[:3].tolist() == pytest.approx([third] * 3)
    if unit == "byte" and end:  # "é" is the third and fourth
        both = scores[0].log_probabilities[2:4].sum()
        assert scores[0].character_log_probabilities[2] == pytest.approx(both)


@pytest.mark.parametrize("unit", UNITS)
def test_lines_are_shaded_whatever_the_unit(tmp_path, unit):
    path, lines = tmp_path / "model.onnx", tmp_path / "lines.txt"
    path.write_bytes(model_of(unit, end=True).artifact.data)
    lines.write_text("the rest\nother\n")
    command = ["--model", path, "score", lines, "--colour", "always", "--lines"]
    shown = run_here("chargen-ort", *command).stdout
    plain = re.sub("\x1b\\[[0-9;]*m", "", shown)
    assert [line.split("\t")[-1].strip() for line in plain.splitlines()[-2:]] == [
        "the rest",
        "other",
    ]


@pytest.mark.parametrize("unit", UNITS)
def test_a_document_is_held_against_held_out_ones_by_its_characters(unit):
    plain = model_of(unit, end=True)
    texts = plain.generate_batch([""] * 300, 40, seed=1)
    scores = plain.score_batch(texts)
    weights = random_model(len(plain.vocabulary), seed=3, scale=1.0)
    data = with_quantiles(weights, scores, vocabulary=plain.vocabulary)
    found = [each.percentile for each in CharGenerator.from_bytes(data).score_batch(texts)]
    # they are the very texts that it is told by, so their percentiles lie evenly
    assert np.median(found) == pytest.approx(50, abs=5)
    assert np.quantile(found, 0.9) == pytest.approx(90, abs=5)


def test_windows_of_running_text_are_odd_only_by_characters(tmp_path):
    plain = model_of("bpe", end=False)
    text = plain.generate("", 200, seed=1)
    weights = random_model(len(plain.vocabulary), seed=3, scale=1.0)
    data = with_quantiles(
        weights, [plain.score(text)] * 9, documents=False, vocabulary=plain.vocabulary
    )
    model = CharGenerator.from_bytes(data)
    assert model.score(text).percentile is None
    (tmp_path / "model.onnx").write_bytes(data)
    (tmp_path / "text.txt").write_text(text)
    command = ["chargen-ort", "--model", tmp_path / "model.onnx", "score", tmp_path / "text.txt"]
    assert "percentile" not in run_here(*command, "--window", 199).stdout
    refused = run_here(*command, "--above", 50)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "of models of characters, and this model's unit is bpe" in refused.stderr
