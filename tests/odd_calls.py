"""Odd calls on every public name: a documented exception, or an answer, and the process lives.

Run by test_public_calls.py in a process of its own, with the number of calls.
"""

import collections
import copy
import io
import sys
import warnings
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

import chargen_ort
from chargen_ort import (
    Artifact,
    CharGenerator,
    ChargenError,
    Config,
    SamplingOptions,
    Score,
    TextState,
    TextStream,
    Vocabulary,
)
from chargen_ort.engine import Engine
from chargen_ort.models import DEMO_MODEL
from chargen_ort.sampling import Sampler
from chargen_ort.stepper import Stepper, run_steps

warnings.simplefilter("error")
model = chargen_ort.load(DEMO_MODEL)
data, snapshot = model.artifact.data, model.state("hell", repetition_penalty=1.1).snapshot()
plain = SamplingOptions()
NOTHING = np.zeros(0, np.int64)
scalars = st.sampled_from(
    [
        np.int8(3),
        np.uint8(200),
        np.int16(-2),
        np.int64(5),
        np.uint64(2**64 - 1),
        np.float16(0.5),
        np.float32(0.7),
        np.float32("nan"),
        np.longdouble(1.5),
        np.bool_(True),
        np.str_("hell"),
        np.array(3),
        np.array(0.5),
        np.array(-1),
        np.array("a"),
        np.complex64(1j),
        np.datetime64("2020-01-01"),
    ]
)
arrays = st.sampled_from(
    [
        np.zeros(3),
        np.zeros((0, 1), np.int64),
        NOTHING,
        np.array([-1]),
        np.array([99]),
        np.array([1, 2]),
        np.array([1], dtype=">i8"),
        np.array([[1, 2]]),
        np.array([[]], np.int64),
        np.array(["a"]),
        np.array([None]),
        np.zeros((1, 1, 64), np.float32),
        np.ones((2, 3, 4)),
    ]
)
things = st.sampled_from(
    [
        {},
        {"a": 1},
        (),
        set(),
        object(),
        range(3),
        io.BytesIO(b"a"),
        Path("no such file"),
        int,
        plain,
        model,
        model.artifact,
        model.vocabulary,
        model.config,
        SamplingOptions(stop="lo"),
    ]
)
texts = st.one_of(
    st.text("helo wrd", max_size=9),
    st.text(max_size=4),
    st.sampled_from(["\ud800", "hell\ud800", "X", "\0", "a\nb", "error", "skip", "fp32"]),
)
numbers = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 50),
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.sampled_from([10**400, -(10**400), 10**4000, float("nan"), float("inf"), -0.0, 1e-320]),
    scalars,
)
odd = st.one_of(
    numbers,
    numbers,
    texts,
    st.binary(max_size=5),
    arrays,
    things,
    st.lists(st.one_of(texts, st.integers(-9, 9)), max_size=3),
    st.lists(texts, max_size=40),
)
# not too long: everything but a valid length above 50
length = odd.filter(
    lambda v: (
        not (isinstance(v, (int, np.integer)) and 50 < v <= 1 << 40)
        and not (
            isinstance(v, np.ndarray) and v.size == 1 and v.dtype.kind in "iu" and v.max() > 50
        )
    )
).filter(lambda v: v is not None)
SAMPLING = ("temperature", "top_k", "top_p", "min_p", "repetition_penalty", "stop", "seed")
NAMES = (*SAMPLING, "row", "unknown", "timeout", "options", "batch_size", "no_such_option")
good = st.sampled_from(
    [
        ("temperature", 0),
        ("top_k", 2),
        ("top_p", 0.5),
        ("min_p", 0.1),
        ("repetition_penalty", 1.3),
        ("stop", "o"),
        ("seed", 7),
        ("row", 2),
        ("unknown", "skip"),
        ("unknown", "replace"),
    ]
)
keywords = st.one_of(
    st.dictionaries(st.sampled_from(NAMES), odd, max_size=2),
    st.lists(good, max_size=3).map(dict),
)
found = collections.Counter()


def some(kw, *names):
    return {key: kw[key] for key in kw if key in names}


def state():
    return model.state("hell", seed=1)


def stepper():
    return model.new_stepper(2)


# each takes three values and keywords
PUBLIC = [
    lambda a, b, n, kw: model.generate(a, n, **kw),
    lambda a, b, n, kw: "".join(islice(model.stream(a, **kw), 9)),
    lambda a, b, n, kw: "".join(islice(model.stream("hell", b, **kw), 9)),
    lambda a, b, n, kw: model.generate_batch([a, b], n, **kw),
    lambda a, b, n, kw: model.generate_batch(a, n, **kw),
    lambda a, b, n, kw: list(islice(model.iterate_batch(a, n, **kw), 3)),
    lambda a, b, n, kw: model.score(a, window=b, **some(kw, "unknown")),
    lambda a, b, n, kw: model.score_batch(a, batch_size=b),
    lambda a, b, n, kw: model.score_batch([a, b], **some(kw, "unknown", "batch_size")),
    lambda a, b, n, kw: list(islice(model.iterate_scores(a, batch_size=b, end=n), 3)),
    lambda a, b, n, kw: model.next_probabilities(a, b, **some(kw, "unknown")),
    lambda a, b, n, kw: model.options(a, **some(kw, *SAMPLING, "no_such_option")),
    lambda a, b, n, kw: model.options(**some(kw, *SAMPLING)),
    lambda a, b, n, kw: "".join(islice(model.resume(a, b), 9)),
    lambda a, b, n, kw: "".join(model.resume(state(), n, **some(kw, "timeout"))),
    lambda a, b, n, kw: model.restore(a),
    lambda a, b, n, kw: model.restore(snapshot[: b % 500] if type(b) is int else b).draw(),
    lambda a, b, n, kw: model.restore(snapshot.replace(b"1.1", str(b).encode("utf-8", "replace"))),
    lambda a, b, n, kw: model.state(a, **kw).draw(),
    lambda a, b, n, kw: model.new_stepper(b),
    lambda a, b, n, kw: stepper().step(a),
    lambda a, b, n, kw: run_steps(model.session, a, b),
    lambda a, b, n, kw: run_steps(a, np.array([[1]]), b),
    lambda a, b, n, kw: state().feed(a),
    lambda a, b, n, kw: state().feed_piece(a),
    lambda a, b, n, kw: state().probabilities(a),
    lambda a, b, n, kw: (state().expect(a, b), state().draw_piece(n)),
    lambda a, b, n, kw: model.stream(a, n, **kw).read(),
    lambda a, b, n, kw: (copy.copy(state()).fork().snapshot(), state().logits(), state().hidden()),
    lambda a, b, n, kw: chargen_ort.load(a, b),
    lambda a, b, n, kw: chargen_ort.load(DEMO_MODEL if b is None else a, b),
    lambda a, b, n, kw: chargen_ort.read_artifact(a),
    lambda a, b, n, kw: chargen_ort.parse_artifact(a, b),
    lambda a, b, n, kw: chargen_ort.parse_artifact(data[: b % len(data)] if type(b) is int else b),
    lambda a, b, n, kw: CharGenerator.from_bytes(a, b),
    lambda a, b, n, kw: CharGenerator(a, b),
    lambda a, b, n, kw: Artifact(a, b, n, a, b, n),
    lambda a, b, n, kw: Artifact(data, "", model.config, a, b, {}),
    lambda a, b, n, kw: Config.of(a, b, n, a, b, n, a),
    lambda a, b, n, kw: Config.of(model.vocabulary, b, 2, 3, a, plain, "fp32"),
    lambda a, b, n, kw: Config.of(model.vocabulary, 1, n, b, " ", a, b),
    lambda a, b, n, kw: replace(model.config, tokens=a, end=b, merges=n),
    lambda a, b, n, kw: replace(model.config, unit=a, replacement=b, sampling=n),
    lambda a, b, n, kw: replace(model.artifact.training, corpora=a, seed=b, settings=n),
    lambda a, b, n, kw: replace(model.artifact.training, validation=a, epochs=b, notes=n),
    lambda a, b, n, kw: replace(model.artifact.certificate, vectors=a, greedy=b, against=n),
    lambda a, b, n, kw: SamplingOptions(**some(kw, *SAMPLING)),
    lambda a, b, n, kw: SamplingOptions(a, b, n, a, b, n),
    lambda a, b, n, kw: Vocabulary(a, b, n),
    lambda a, b, n, kw: Vocabulary("helo", "skip", "", a),
    lambda a, b, n, kw: Vocabulary("hello"[:4], a, b),
    lambda a, b, n, kw: Vocabulary.from_texts(a, b),
    lambda a, b, n, kw: Vocabulary.from_texts([a]),
    lambda a, b, n, kw: model.vocabulary.encode(a, b),
    lambda a, b, n, kw: model.vocabulary.decode(a),
    lambda a, b, n, kw: TextState(a, b, n, a),
    lambda a, b, n, kw: Engine(a, b),
    lambda a, b, n, kw: TextState(model.engine, plain, a, b).draw(),
    lambda a, b, n, kw: TextState.restore(a, snapshot),
    lambda a, b, n, kw: TextStream(a, b, n, a, b),
    lambda a, b, n, kw: list(islice(TextStream(state(), a, n, b, a), 9)),
    lambda a, b, n, kw: list(islice(TextStream(state(), NOTHING, n, a, b), 9)),
    lambda a, b, n, kw: Stepper(a, b, n),
    lambda a, b, n, kw: Stepper(model.session, b, a),
    lambda a, b, n, kw: Stepper(model.session, 1, (a, b, n)),
    lambda a, b, n, kw: Sampler(a, b, n),
    lambda a, b, n, kw: Sampler(plain, 3, a),
    lambda a, b, n, kw: Score(a, b, n),
    lambda a, b, n, kw: getattr(chargen_ort, a if isinstance(a, str) and a.isalpha() else "load"),
    lambda a, b, n, kw: model.stream("hell", 3, no_such=a),
    lambda a, b, n, kw: model.score("hell", b),
    lambda a, b, n, kw: SamplingOptions(**kw),
]


def outcome(call, *arguments):
    """The name of the documented exception that came, or that an answer did; else what is wrong."""
    try:
        call(*arguments)
    except ChargenError as error:
        text = str(error)
        whole = len(text.splitlines()) == 1 and len(text) < 1000
        return type(error).__name__ if whole else f"not one short line: {text!r}"
    except TypeError as error:
        # Python's own, of a wrong number of arguments or a keyword that is none: from the call
        own = error.__traceback__.tb_next.tb_next is None and "argument" in str(error)
        return "TypeError" if own else f"not of the call: {error!r}"
    except AttributeError as error:
        own = str(error).startswith("module 'chargen_ort' has no attribute")
        return "answer" if own else f"not of the module: {error!r}"
    return "answer"


AT_ONCE = 4  # calls with the same values, as making values up takes longest
KINDS = {"ArtifactError", "OptionError", "TypeError", "UnknownCharacterError", "answer"}


chosen = st.lists(st.sampled_from(PUBLIC), min_size=AT_ONCE, max_size=AT_ONCE)


@settings(
    max_examples=int(sys.argv[1]) // AT_ONCE,
    deadline=None,
    database=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.generate],
)
@given(
    st.lists(st.sampled_from(PUBLIC), min_size=AT_ONCE, max_size=AT_ONCE),
    odd,
    odd,
    length,
    keywords,
)
def test(calls, a, b, n, kw):
    for call in calls:
        result = outcome(call, a, b, n, kw)
        assert result in KINDS, result
        found[result] += 1


if __name__ == "__main__":
    test()
    assert model.generate("hell", 30, temperature=0.2, seed=1).startswith("o world")
    print(sum(found.values()), sorted(found))
