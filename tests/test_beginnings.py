"""Texts of a batch go through the beginnings that they share; none of them is another for it."""

import threading
from dataclasses import replace

import numpy as np
import pytest

from chargen_export.graph import model_weights
from chargen_export.precision import build_variant
from chargen_export.seal import seal_artifact
from chargen_ort import CharGenerator, SamplingOptions, parse_artifact
from chargen_ort import beginnings as module
from chargen_ort.batch import write_texts
from chargen_ort.runs import Runs
from chargen_ort.sampling import Draws, Sampler, draw_sums
from chargen_ort.writer import RunWriter
from tests.conftest import ALPHABET, PROPERTIES, artifact_bytes, random_model
from tests.tools import units

ROWS, BATCH = 300, 64
UNITS = {"byte": units.byte, "bpe": units.bpe, "word": units.word}


def opened(precision="fp32", num_layers=1):
    """Random weights whose texts end after some eight characters."""
    model = random_model(len(ALPHABET) + 1, hidden_size=24, num_layers=num_layers)
    model.output.bias.data[-1] += 1.5  # the end token
    base = parse_artifact(artifact_bytes(model, end=True))
    if precision == "fp32":
        return CharGenerator(base)
    config = replace(base.config, precision=precision)
    data = build_variant(model_weights(model), precision)
    return CharGenerator(seal_artifact(data, config, base.training, base.certificate, PROPERTIES))


@pytest.fixture
def model():
    return opened()


def written(model, options, start="", length=30, rows=range(ROWS), size=BATCH):
    """Texts and why they ended, by row, of a batch."""
    starts = iter([start] * len(rows))
    texts = write_texts(model.engine, starts, length, options, size, None, iter(rows))
    return {each.index: (each.text, each.ended) for each in texts}


def alone(model, options, start="", length=30, rows=range(ROWS)):
    """The same, each text by itself."""
    return {row: written(model, options, start, length, [row], 1)[row] for row in rows}


def remembered(model):
    """Tokens of every beginning that a model remembers at a temperature of 1."""
    starts = model.engine.beginnings(SamplingOptions(), in_runs=True)._starts
    waiting = [((), at) for at in starts.values()]
    for tokens, at in waiting:
        waiting += [((*tokens, token), after) for token, after in at.following.items()]
    return dict(waiting)


@pytest.mark.parametrize("num_layers", [1, 2])
@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_each_text_is_the_one_that_it_is_alone(precision, num_layers):
    model, options = opened(precision, num_layers), SamplingOptions(seed=3)
    expected = alone(model, options)
    assert written(model, options) == expected
    assert len(remembered(model)) > 30
    assert written(model, options) == expected, "of a model that remembers beginnings"


@pytest.mark.parametrize(
    ("start", "length", "options"),
    [
        ("ab", 30, SamplingOptions(seed=1)),
        ("", 30, SamplingOptions(0.5, seed=1)),
        ("", 1, SamplingOptions(seed=1)),
        ("", 2, SamplingOptions(seed=1)),
        ("a", 5, SamplingOptions(2.0, seed=1)),
        ("", 30, SamplingOptions(seed=1, stop=["a", "bc"])),
        ("", 30, SamplingOptions(seed=1, top_k=3)),
        ("", 30, SamplingOptions(0.7, seed=1, top_p=0.9)),
        ("b", 30, SamplingOptions(1.3, seed=1, min_p=0.02, stop=["a"])),
        ("", 30, SamplingOptions(seed=1, repetition_penalty=1.3)),
        ("", 30, SamplingOptions(0, seed=1)),
        ("", 30, SamplingOptions(seed=1, min_length=2, max_length=9)),
    ],
    ids=str,
)
def test_so_it_is_whatever_the_options_are(model, start, length, options):
    expected = alone(model, options, start, length, range(150))
    for _ in range(2):
        assert written(model, options, start, length, range(150)) == expected


@pytest.mark.parametrize("unit", ["byte", "bpe", "word"])
def test_so_it_is_with_tokens_that_are_no_characters(unit):
    vocabulary = UNITS[unit](end=True)
    random = random_model(len(vocabulary), seed=3, scale=1.0)
    random.output.bias.data[vocabulary.end_token] += 2
    model = CharGenerator.from_bytes(artifact_bytes(random, vocabulary=vocabulary))
    for start, length in (("", 30), ("", 3), ("the", 30)):
        options = SamplingOptions(seed=5)
        expected = alone(model, options, start, length, range(150))
        for _ in range(2):
            assert written(model, options, start, length, range(150)) == expected
    assert len(remembered(model)) > 10
    options = SamplingOptions(seed=5, stop=["e", "rd"])
    assert written(model, options) == alone(model, options)


def test_a_stop_string_ends_a_text_within_what_others_went_through(model):
    written(model, SamplingOptions(seed=5), rows=range(1000))
    for stop in (["a"], ["bc", "e"], list("fghij")):
        options = SamplingOptions(seed=1, stop=stop)
        assert written(model, options) == alone(model, options)


def test_texts_of_different_starts_do_not_mix(model):
    options = SamplingOptions(seed=2)
    starts = ["", "a", "b", "ab"] * 50
    for _ in range(2):
        texts = write_texts(model.engine, iter(starts), 20, options, BATCH, None)
        found = {each.index: each.text for each in texts}
        for row in range(0, 200, 7):
            assert found[row] == alone(model, options, starts[row], 20, [row])[row][0]


def test_a_beginning_is_where_a_row_stands_that_wrote_it(model):
    options = SamplingOptions(seed=3)
    written(model, options, rows=range(1000))
    start = model.state("")
    start.begin()
    known = remembered(model)
    assert max(map(len, known)) >= 3
    met = 0
    for row in range(100):
        writer = RunWriter(model.engine, Draws(3, [row]), 1.0)
        writer.hidden[0], writer.logits[0] = start.hidden(), start.logits()
        tokens = []
        while tuple(tokens) in known:
            at = known[tuple(tokens)]
            assert writer.hidden[0].tobytes() == at.hidden.tobytes()
            assert writer.logits[0].tobytes() == at.logits.tobytes()
            tokens.append(writer.write(1).item())
            met += 1
    assert met > 200


def test_a_uniform_draws_there_what_the_writer_draws(model):
    random, vocab_size = np.random.default_rng(0), len(model.vocabulary)
    logits = random.normal(0, 4, (50, vocab_size)).astype(np.float32)
    for temperature in (0.3, 1.0, 1.7):
        sums = model.engine.draw_sums(logits, temperature)
        # beside each edge as well
        edges = sums / sums[:, -1:]
        beside = [np.nextafter(edges, way) for way in (0, 1)]
        near = np.concatenate([edges, *beside, random.random((50, 9))], axis=1)
        uniforms = np.minimum(near, 1 - 2.0**-53)  # [50, draws]
        runs = Runs(model.engine.config.sizes, 50)
        runs.begin(temperature)
        for column in uniforms.T:
            runs.logits[0][:] = logits
            np.nextafter(column, 1, out=runs.uniforms[0, :, 0])
            runs.run(lambda: model.engine.writer_session(False), 1, 0)
            for row, u in enumerate(column):
                assert drawn(sums[row], u, in_runs=True) == runs.tokens[0, row]


def drawn(sums, uniform, in_runs):
    """The token that a beginning with these sums goes on by."""
    at = module.Beginning(np.zeros(1), np.zeros(1), memoryview(sums))
    at.following = {token: replace(at, following={}) for token in range(len(sums))}
    _, tokens = module.Beginnings(lambda logits: logits, in_runs).walk(at, np.array([uniform]), 1)
    return tokens[0]


def test_a_uniform_draws_there_what_a_sampler_draws():
    random, size = np.random.default_rng(0), 12
    logits = random.normal(0, 2, (40, size)).astype(np.float32)
    for given in ({"top_k": 5}, {"top_p": 0.8}, {"min_p": 0.05, "temperature": 0.7}):
        options = SamplingOptions(seed=1, **given)
        sums = draw_sums(logits, options)
        edges = sums / sums[:, -1:]
        beside = [np.nextafter(edges, way) for way in (0, 1)]
        near = np.concatenate([edges, *beside, random.random((40, 9))], axis=1)
        for column in np.minimum(near, 1 - 2.0**-53).T:
            sampler = Sampler(options, size, range(40))
            sampler.column, sampler._uniforms = 0, np.repeat(column[:, None], 128, axis=1)
            expected = sampler.sample(logits)
            found = [drawn(own, u, in_runs=False) for own, u in zip(sums, column, strict=True)]
            assert found == expected.tolist()


def test_what_is_remembered_is_bounded(model, monkeypatch):
    options = SamplingOptions(seed=3)
    expected = written(model, options)
    monkeypatch.setattr(module, "_MOST_BYTES", 5000)
    model.engine._beginnings.clear()
    assert written(model, options) == expected
    kept = model.engine.beginnings(options, in_runs=True)
    assert kept.full
    assert 5000 <= kept._bytes < 5000 + BATCH * 1000
    for start in range(100):
        written(model, options, ALPHABET[start % 20], rows=range(40))
    assert kept._bytes < 5000 + BATCH * 1000
    for temperature in (0.1, 0.2, 0.3, 0.4, 0.5, 0.6):
        written(model, SamplingOptions(temperature, seed=1), rows=range(40))
    assert len(model.engine._beginnings) <= 4


@pytest.mark.parametrize("given", [{}, {"top_k": 5}, {"min_p": 0.01}], ids=str)
def test_each_way_to_draw_remembers_by_itself(model, given):
    written(model, SamplingOptions(0.9, seed=1), rows=range(100))
    before = dict(model.engine._beginnings)
    written(model, SamplingOptions(0.8, seed=1, **given), rows=range(100))
    (new,) = set(model.engine._beginnings) - set(before)
    assert new[0] == 0.8
    assert model.engine._beginnings[new]._bytes > 0
    written(model, SamplingOptions(0.8, seed=2, stop="b", **given), rows=range(100))
    assert set(model.engine._beginnings) == {*before, new}


def test_threads_share_what_is_remembered(model):
    options, found = SamplingOptions(seed=3), list[dict[int, tuple[str, str]]]()
    expected = alone(model, options)

    def write():
        found.append(written(model, options))

    threads = [threading.Thread(target=write) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [expected] * 4


def test_runs_of_the_model_are_saved(model, monkeypatch):
    written_rows = 0
    run = Runs.run

    def counted(self, open_session, steps, source):
        nonlocal written_rows
        written_rows += steps * len(self.inverse)
        run(self, open_session, steps, source)

    monkeypatch.setattr(Runs, "run", counted)
    options = SamplingOptions(seed=3)
    counts = []
    for rows in (range(2000), range(2000, 4000)):
        written_rows = 0
        texts = written(model, options, rows=rows)
        drawn = sum(len(text) + 1 for text, _ in texts.values())
        counts.append(written_rows / drawn)
    assert counts[1] < 0.9, "a good part is known beforehand"
    assert counts[1] < counts[0]
