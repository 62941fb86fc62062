"""Many steps in one run: the same text as one step at a time, whatever stands between its draws."""

import threading
from dataclasses import replace
from itertools import islice

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from chargen_export.graph import model_weights
from chargen_export.precision import build_variant
from chargen_export.seal import seal_artifact
from chargen_ort import CharGenerator, SamplingOptions, parse_artifact
from chargen_ort.engine import open_session
from chargen_ort.graphs.spec import Sizes
from chargen_ort.runs import steps_per_run
from chargen_ort.sampling import Draws, Sampler, uniform_draws
from chargen_ort.sessions import bind, run_bound
from chargen_ort.writer import RunWriter, StepWriter, open_writer
from tests.conftest import ALPHABET, PROPERTIES, artifact_bytes, random_model
from tests.tools.steps import assert_same, inputs

PRECISIONS = ("fp32", "fp16", "int8")


def opened(model, precision="fp32", threads=1):
    """A generator over `model` in a precision; no gate has a say about random weights."""
    base = parse_artifact(artifact_bytes(model))
    if precision == "fp32":
        return CharGenerator(base, threads)
    config = replace(base.config, precision=precision)
    data = build_variant(model_weights(model), precision)
    artifact = seal_artifact(data, config, base.training, base.certificate, PROPERTIES)
    return CharGenerator(artifact, threads)


@pytest.fixture(scope="module", params=[(p, n) for p in PRECISIONS for n in (1, 2)], ids=str)
def model(request):
    precision, num_layers = request.param
    return opened(random_model(hidden_size=24, num_layers=num_layers), precision)


def stands(writer):
    """All of the state of a writer's rows."""
    drawn = [writer.drawn(place) for place in range(len(writer.draws.rows))]
    return drawn, writer.hidden.tobytes(), writer.logits.tobytes()


def started(model, rows=(0,), temperature=0.9):
    """A writer whose rows have read different texts."""
    writer = RunWriter(model.engine, Draws(5, rows), temperature)
    for place, row in enumerate(rows):
        state = model.state(ALPHABET[row % 7 :][:9])
        writer.hidden[place], writer.logits[place] = state.hidden(), state.logits()
    return writer


# The graph


@pytest.mark.parametrize("temperature", [0, 0.7, 1.3])
def test_it_writes_what_the_sealed_graph_writes(model, temperature):
    options = SamplingOptions(temperature, seed=5)
    ours = started(model, temperature=temperature)
    theirs = StepWriter(model.engine, Sampler(options, len(ALPHABET)))
    theirs.hidden[:], theirs.logits[:] = ours.hidden, ours.logits
    assert ours.write(40)[:, 0].tolist() == [theirs.draw() for _ in range(40)]
    np.testing.assert_allclose(ours.logits, theirs.logits, atol=1e-4)
    np.testing.assert_allclose(ours.hidden, theirs.hidden, atol=1e-5)


@given(st.lists(st.integers(1, 64), min_size=1, max_size=5))
@settings(max_examples=20, deadline=None)
def test_runs_of_any_length_are_as_one(generator, sizes):
    whole, parts = started(generator), started(generator)
    written = [token for size in sizes for token in parts.write(size)[:, 0].tolist()]
    assert written == [whole.write(1).item() for _ in written]
    assert stands(parts) == stands(whole)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(("hidden_size", "num_layers"), [(16, 1), (33, 2), (256, 1)])
@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_a_row_is_the_same_alone_and_in_any_batch(precision, hidden_size, num_layers, threads):
    shape = {"hidden_size": hidden_size, "num_layers": num_layers, "scale": 1.5}
    model = opened(random_model(**shape), precision, threads)
    together = started(model, range(64))
    texts = together.write(12)  # [time, batch]
    for size in (1, 2, 3, 8, 31):
        rows = range(size - 1, 2 * size - 1)
        writer = started(model, rows)
        assert np.array_equal(writer.write(12), texts[:, rows])
        assert writer.hidden.tobytes() == together.hidden[rows].tobytes()
        assert writer.logits.tobytes() == together.logits[rows].tobytes()


@pytest.mark.parametrize("table", [True, False])
@pytest.mark.parametrize("precision", PRECISIONS)
def test_rows_are_read_as_the_sealed_graph_reads_them(precision, table, monkeypatch):
    if not table:
        monkeypatch.setattr("chargen_ort.graphs.cells.MAX_TABLE", 0)
    model = opened(random_model(hidden_size=24), precision)
    token, hidden = inputs(random_model(hidden_size=24), 5, 7)
    assert_same(model.engine.run_rows(token, hidden), model.engine.run_steps(token, hidden))


def test_where_a_table_would_be_large_the_products_are_computed(monkeypatch):
    network = random_model(num_layers=2)
    expected = opened(network).generate("ab", 60, seed=1)
    monkeypatch.setattr("chargen_ort.graphs.cells.MAX_TABLE", 0)
    assert opened(network).generate("ab", 60, seed=1) == expected


# The draw


def fixed(logits):
    """A model that finds the same logits wherever it stands."""
    network = random_model(len(logits))
    with torch.no_grad():
        network.output.weight.zero_()
        network.output.bias.copy_(torch.tensor(logits))
    characters = ALPHABET[: len(logits) - 1] + "\n"
    return CharGenerator.from_bytes(artifact_bytes(network, characters))


def test_the_first_token_whose_cumulative_sum_exceeds_the_draw_is_taken():
    model = fixed([0.0, 0.0])
    text = model.generate("a", 200, seed=3)
    assert text == "".join("a\n"[int(u >= 0.5)] for u in uniform_draws(3, 0, 0, 200))


@pytest.mark.parametrize("u", [0.0, 0.5, 1 - 2**-53])
def test_a_token_without_probability_is_never_drawn(monkeypatch, u):
    monkeypatch.setattr("chargen_ort.sampling.uniform_draws", lambda *_: np.full(128, u))
    for logits in ([-1e5, 0.0, 0.0, 0.3, -1e5], [0.0, -1e5, -1e5], [-1e5, -1e5, 1.0]):
        model = fixed(logits)
        likely = {c for c, x in zip(model.vocabulary.characters, logits, strict=True) if x > -1}
        assert set(model.generate("a", 3, seed=0)) <= likely


@pytest.mark.parametrize(
    ("logits", "taken"), [([1, 3, 3, 2], 1), ([2, 2, 2], 0), ([0, -0.0, 0], 0), ([1e-40, 2e-40], 1)]
)
def test_greedy_takes_the_lowest_index_among_equals(logits, taken):
    model = fixed([float(x) for x in logits])
    assert set(model.generate("a", 40, temperature=0)) == {model.vocabulary.characters[taken]}
    assert set(model.generate_batch(["a", "\n"], 5, temperature=0, top_k=2)) == {
        model.vocabulary.characters[taken] * 5
    }


@pytest.mark.parametrize(
    ("options", "kind"),
    [
        ({}, RunWriter),
        ({"temperature": 0, "top_k": 3, "top_p": 0.5, "min_p": 0.1}, RunWriter),
        ({"top_k": len(ALPHABET)}, RunWriter),
        ({"top_k": len(ALPHABET) - 1}, StepWriter),
        ({"top_p": 0.9}, StepWriter),
        ({"min_p": 0.1}, StepWriter),
        ({"temperature": 0, "repetition_penalty": 1.1}, StepWriter),
    ],
)
def test_filters_and_a_penalty_go_a_step_at_a_time(generator, options, kind):
    assert type(open_writer(generator.engine, SamplingOptions(**options), (0,))) is kind


# Whatever stands between the draws

counts = st.integers(1, 70)
deeds = st.one_of(
    st.tuples(st.just("draw"), counts),
    st.tuples(st.just("feed"), st.text("ab .", max_size=3)),
    st.tuples(st.sampled_from(["fork", "restore", "look"]), st.just(0)),
    st.tuples(st.just("stream"), counts, st.integers(0, 80), st.sampled_from(["", "e", "zq"])),
)


def do(model, state, deed, *facts):
    """The state after a deed, and what the deed drew."""
    if deed == "draw":
        return state, "".join(state.draw() for _ in range(facts[0]))
    if deed == "stream":
        length, read, _ = facts
        stream = model.resume(state, length)
        text = "".join(islice(stream, read))
        if read % 2:
            stream.close()
            return state, text
        return state, text + stream.read()
    if deed == "feed":
        state.feed(facts[0])
    elif deed == "restore":
        return model.restore(state.snapshot()), ""
    elif deed == "fork":
        fork = state.fork()
        state.draw()
        return fork, ""
    else:
        state.probabilities(2)
    return state, ""


@settings(max_examples=60, deadline=None)
@given(
    st.lists(deeds, min_size=1, max_size=8),
    st.sampled_from([{}, {"temperature": 0}, {"temperature": 0.7}, {"top_k": 5}]),
    st.integers(0, 2**64 - 1),
)
def test_any_deeds_between_the_draws_leave_the_text_as_it_is(generator, done, options, seed):
    state = generator.state("ab", seed=seed, row=3, **options)
    plain = generator.state("ab", seed=seed, row=3, **options)
    drawn = 0
    for deed in done:
        state, text = do(generator, state, *deed)
        drawn += len(text)
        assert state.drawn == drawn
        assert text == generator.resume(plain, len(text)).read()
        if deed[0] == "feed":
            plain.feed(deed[1])
    assert state.snapshot() == plain.snapshot()
    if not any(deed[0] == "feed" for deed in done):
        whole = generator.generate("ab", drawn + 3, seed=seed, row=3, **options)
        assert whole[drawn:] == "".join(state.draw() for _ in range(3))


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.sampled_from(["", "a", "hello ", "z."]), min_size=1, max_size=9),
    st.integers(1, 9),
    st.integers(0, 150),
    st.sampled_from([(), ("e",), ("qu", "a.", "zz")]),
    st.sampled_from([0, 0.8, 1]),
)
def test_a_batch_of_any_size_writes_what_single_calls_write(
    generator, starts, size, length, stop, temperature
):
    options = SamplingOptions(temperature, stop=stop, seed=4)
    texts = generator.generate_batch(starts, length, options=options, batch_size=size)
    for row, (start, text) in enumerate(zip(starts, texts, strict=True)):
        assert text == generator.generate(start, length, options=options, row=row)
        assert text == "".join(generator.stream(start, length, options=options, row=row))


# How far it runs ahead


def test_no_run_goes_beyond_a_length_that_is_known(generator, monkeypatch):
    steps = []

    def noted(session, binding):
        steps.append(binding.get_outputs()[-1].shape()[0])  # tokens [time, batch]
        run_bound(session, binding)

    monkeypatch.setattr("chargen_ort.runs.run_bound", noted)
    generator.generate("a", 100)
    assert sum(steps) == 100
    assert steps[0] == 1
    steps.clear()
    generator.generate_batch(["a"] * 3, 100, batch_size=2)
    assert sum(steps) == 200
    for stop in ("", "\n\n"):
        for length in (None, 60) if stop else (None,):
            steps.clear()
            assert len(list(islice(generator.stream("a", length, stop=stop, seed=1), 40))) == 40
            assert 40 <= sum(steps) <= 50


@pytest.mark.parametrize("rows", [1, 64, 1 << 16])
def test_a_run_of_a_large_model_has_few_steps(rows):
    sizes = Sizes(vocab_size=100, embedding_dim=64, hidden_size=1024, num_layers=2)
    assert 1 <= steps_per_run(sizes, rows) <= 5
    assert steps_per_run(replace(sizes, hidden_size=32), 1) == 64


# Sessions


def test_many_threads_open_the_writer_once(generator, monkeypatch):
    sessions = []
    monkeypatch.setattr(
        "chargen_ort.engine.open_session", lambda *a: sessions.append(a) or open_session(*a)
    )
    model = CharGenerator(generator.artifact)
    assert len(sessions) == 1, "the writer is opened at the first draw"
    gate, texts = threading.Barrier(64), {}

    def write(row):
        gate.wait()
        texts[row] = model.generate("a", 20, seed=1, row=row)

    threads = [threading.Thread(target=write, args=(row,)) for row in range(64)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(sessions) == 2
    assert texts == {row: generator.generate("a", 20, seed=1, row=row) for row in range(64)}


def test_what_a_text_was_written_with_serves_the_next(generator, monkeypatch):
    model, bound = CharGenerator(generator.artifact), []
    monkeypatch.setattr("chargen_ort.runs.bind", lambda *a: bound.append(a) or bind(*a))
    first = model.generate("a", 100, seed=1)
    count = len(bound)
    assert model.generate("a", 100, seed=1) == first
    assert len(bound) == count
    state, other = model.state("a", seed=1), model.state("b", seed=2)  # at the same time
    assert "".join(state.draw() + other.draw() for _ in range(100))[::2] == first


@pytest.mark.parametrize("late", [False, True])
def test_a_look_that_is_interrupted_changes_nothing(generator, monkeypatch, late):
    state = generator.state("hello", seed=1)
    state.expect(60, certain=True)  # so it runs far ahead
    expected = generator.generate("hello", 60, seed=1)
    text = "".join(state.draw() for _ in range(27))

    def interrupted(*arguments):
        if late:
            run_bound(*arguments)
        raise KeyboardInterrupt

    for look in (state.logits, state.snapshot, lambda: state.feed("x")):
        with monkeypatch.context() as patch:
            patch.setattr("chargen_ort.runs.run_bound", interrupted)
            with pytest.raises(KeyboardInterrupt):
                look()
        assert state.drawn == len(text)
        text += state.draw() + state.draw()
    state = generator.restore(state.snapshot())
    assert text + "".join(state.draw() for _ in range(27)) == expected
