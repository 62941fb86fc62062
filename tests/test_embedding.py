"""What a program that embeds the runtime may do to it, and what an interruption leaves behind."""

import copy
import io
import json
import pickle
import subprocess
import sys
import time

import numpy as np
import pytest

import chargen_ort
from chargen_ort import (
    Artifact,
    ArtifactError,
    CharGenerator,
    Config,
    OptionError,
    SamplingOptions,
    TextState,
    TextStream,
    Vocabulary,
)
from chargen_ort.artifact import seal
from chargen_ort.engine import Engine, open_session
from chargen_ort.models import DEMO_MODEL
from chargen_ort.sampling import Sampler, StopFinder
from chargen_ort.snapshots import MAGIC
from chargen_ort.stepper import Stepper, run_steps
from chargen_ort.stream import hold_back
from tests.conftest import ALPHABET, artifact_bytes, random_model

SIZE = len(ALPHABET)
NOTHING = np.zeros(0, dtype=np.int64)

# Numbers of NumPy


def test_numbers_of_numpy_are_as_good_as_pythons(generator):
    expected = generator.generate("a", 9, seed=7, row=3, temperature=0.5, top_k=5)
    numbers = {"seed": np.int8(7), "row": np.array(3), "top_k": np.uint8(5)}
    given = generator.generate(
        "a", np.int16(9), temperature=np.float32(0.5), timeout=np.float32(60), **numbers
    )
    assert given == expected
    ranked = generator.next_probabilities("a", np.int64(2))
    assert ranked == generator.next_probabilities("a", 2)
    assert generator.generate_batch(["a"] * 3, np.int8(4), batch_size=np.int8(2), seed=np.int8(1))


def test_a_state_with_numbers_of_numpy_forks_and_is_saved(generator):
    options = {"seed": np.int8(7), "temperature": np.float32(0.5), "repetition_penalty": np.half(2)}
    state = generator.state("a", row=np.int8(100), **options)
    fork, restored = state.fork(), generator.restore(state.snapshot())
    texts = {"".join(s.draw() for _ in range(200)) for s in (state, fork, restored)}
    assert len(texts) == 1


# Tokens


def test_a_piece_without_tokens_feeds_nothing(generator):
    state = generator.state("ab")
    before = state.snapshot()
    state.feed_piece(NOTHING)
    assert state.snapshot() == before
    fresh = generator.state()
    fresh.feed_piece(NOTHING)
    assert np.array_equal(fresh.logits(), generator.state("\n").logits())


BAD_TOKENS = [
    np.array([-1]),
    np.array([SIZE]),
    np.array([1.0]),
    np.array([[1]]),
    np.array(1.5),
    np.array([1 << 63], dtype=np.uint64),
    [1, "a"],
    "a",
    None,
    10**400,
]


def one_row(tokens):
    return tokens[None] if isinstance(tokens, np.ndarray) else tokens


@pytest.mark.parametrize("tokens", BAD_TOKENS, ids=repr)
def test_tokens_that_the_model_lacks_never_reach_onnxruntime(generator, tokens):
    state, stepper = generator.state("ab"), generator.new_stepper(1)
    before = state.snapshot()
    with pytest.raises(OptionError):
        state.feed_piece(tokens)
    with pytest.raises(OptionError):
        stepper.step(tokens)
    with pytest.raises(OptionError):
        run_steps(generator.session, one_row(tokens), stepper.hidden)
    assert state.snapshot() == before
    assert not stepper.logits.any()


def test_a_step_takes_one_token_for_each_row(generator):
    stepper = generator.new_stepper(2)
    with pytest.raises(OptionError, match=r"shape \(2,\), got \(1,\)"):
        stepper.step(np.array([1]))
    stepper.step(np.array(3))
    assert stepper.logits[0].tolist() == stepper.logits[1].tolist()


@pytest.mark.parametrize("shape", [(0, 1), (1, 0), (0, 0)])
def test_a_call_without_tokens_is_refused(generator, shape):
    hidden = np.zeros((shape[0], 1, 16), dtype=np.float32)
    with pytest.raises(OptionError, match="give at least one"):
        run_steps(generator.session, np.zeros(shape, dtype=np.int64), hidden)


@pytest.mark.parametrize(
    "hidden",
    [
        np.zeros((1, 1, 16)),
        np.zeros((2, 1, 16), dtype=np.float32),
        np.zeros((1, 1, 15), dtype=np.float32),
        np.zeros(16, dtype=np.float32),
        None,
    ],
)
def test_a_hidden_state_of_another_shape_is_refused(generator, hidden):
    with pytest.raises(OptionError, match="hidden must"):
        run_steps(generator.session, np.array([[1]]), hidden)


@pytest.mark.parametrize("batch", [0, -1, 1.5, True, None, 10**400])
def test_a_stepper_has_at_least_one_row(generator, batch):
    with pytest.raises(OptionError, match="batch"):
        generator.new_stepper(batch)
    with pytest.raises(OptionError, match="batch"):
        Stepper(generator.session, batch, (SIZE, 1, 16))


# Things of another kind


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (b"PK", "got bytes; CharGenerator.from_bytes"),
        (io.BytesIO(b"PK"), "got BytesIO; CharGenerator.from_bytes"),
        (None, "got NoneType"),
        (123, "got int"),
    ],
)
def test_only_a_path_is_loaded(source, message):
    for load in (chargen_ort.load, CharGenerator.load, chargen_ort.read_artifact):
        with pytest.raises(OptionError, match=message):
            load(source)


def test_a_path_with_a_line_end_is_named_in_one_line():
    with pytest.raises(ArtifactError) as caught:
        chargen_ort.load("no\nfile")
    assert str(caught.value).isprintable()


def test_only_bytes_are_a_model():
    with pytest.raises(OptionError, match=r"got str; for a file use chargen_ort\.load"):
        CharGenerator.from_bytes("model.onnx")


@pytest.mark.parametrize(
    "make",
    [
        lambda g: CharGenerator(None),
        lambda g: CharGenerator(DEMO_MODEL),
        lambda g: CharGenerator(g.artifact, threads=10**400),
        lambda g: Artifact(1, 2, 3, 4, 5, 6),
        lambda g: Config.of("abc", 1, 1, 1, "a"),
        lambda g: Config.of(Vocabulary("abc"), 0, 1, 1, "a"),
        lambda g: Config.of(Vocabulary("abc"), 1, 1, 1, "x"),
        lambda g: Config.of(Vocabulary("abc"), 1, 1, 1, "a", precision="fp8"),
        lambda g: Config.of(Vocabulary("abc"), 1, 1, 1, "a", SamplingOptions(stop="x")),
        lambda g: Vocabulary(5),
        lambda g: Vocabulary("abc", None),
        lambda g: Vocabulary("abc", np.zeros(3)),
        lambda g: Vocabulary("abc", replacement=3),
        lambda g: Vocabulary.from_texts(3),
        lambda g: Vocabulary.from_texts([3]),
        lambda g: g.vocabulary.decode([[1], [1, 2]]),
        lambda g: Sampler(None, 3),
        lambda g: Sampler(SamplingOptions(), 0),
        lambda g: Sampler(SamplingOptions(), 3, ()),
        lambda g: Sampler(SamplingOptions(), 3, (-1,)),
        lambda g: Sampler(SamplingOptions(), 3, 5),
        lambda g: Stepper(None, 1, (SIZE, 1, 16)),
        lambda g: Stepper(g.session, 1, (SIZE, 1, 17)),
        lambda g: Stepper(g.session, 1, None),
        lambda g: Engine(None),
        lambda g: TextState(None, SamplingOptions()),
        lambda g: TextState(g, SamplingOptions()),
        lambda g: TextState(g.engine, {}),
        lambda g: TextState(g.engine, SamplingOptions(), row=1.5),
        lambda g: TextState(g.engine, SamplingOptions(), unknown="bogus"),
        lambda g: TextState(g.engine, SamplingOptions(stop="X")),
        lambda g: TextState.restore(None, b""),
        lambda g: TextStream(None, NOTHING, 1, (), None),
        lambda g: TextStream(g.state("a"), None, 1, (), None),
        lambda g: TextStream(g.state("a"), NOTHING, 1.5, (), None),
        lambda g: TextStream(g.state("a"), NOTHING, 1, 5, None),
        lambda g: g.resume(None),
        lambda g: g.iterate_batch(["a"], unknown="bogus"),
        lambda g: g.iterate_batch(b"abc"),
        lambda g: g.iterate_batch(np.array(3)),
        lambda g: g.generate("a", timeout=float("inf")),
    ],
)
def test_what_is_of_another_kind_is_refused_at_once(generator, make):
    with pytest.raises(OptionError) as caught:
        make(generator)
    assert "\n" not in str(caught.value)


# Snapshots


def forged(state, **changes):
    header, _, floats = state.snapshot().removeprefix(MAGIC).partition(b"\n")
    value = json.loads(header)
    options = {key: changes.pop(key) for key in list(changes) if key in value["options"]}
    value |= changes | {"options": value["options"] | options}
    value = {key: item for key, item in value.items() if item is not ...}
    return MAGIC + json.dumps(value).encode() + b"\n" + floats


@pytest.mark.parametrize(
    "changes",
    [
        {"row": 1.5},
        {"row": -1},
        {"row": True},
        {"row": ...},
        {"seen": [-1]},
        {"seen": [SIZE]},
        {"seen": [1, 1]},
        {"seen": [0.5]},
        {"seen": "abc"},
        {"unknown": "bogus"},
        {"unknown": 3},
        {"drawn": -1},
        {"drawn": 10**400},
        {"drawn": 10**19},
        {"drawn": 1.0},
        {"fed": "yes"},
        {"fed": 1},
        {"fed": False},
        {"model": 3},
        {"extra": 1},
        {"seed": None},
        {"seed": -1},
        {"seed": 2**64},
        {"temperature": "hot"},
        {"temperature": True},
        {"temperature": 1e300},
        {"top_k": 1.5},
        {"stop": "abc"},
        {"stop": [""]},
        {"stop": ["X"]},
        {"stop": [3]},
        {"stop": ["a"] * 17},
    ],
    ids=repr,
)
def test_a_snapshot_with_another_value_is_refused(generator, changes):
    state = generator.state("ab", repetition_penalty=1.5)
    with pytest.raises(ArtifactError, match="the snapshot is damaged: "):
        generator.restore(forged(state, **changes))


def test_an_unchanged_snapshot_is_restored(generator):
    state = generator.state("ab", repetition_penalty=1.5, stop="abc", seed=2**64 - 1)
    assert generator.restore(forged(state)).snapshot() == state.snapshot()


@pytest.mark.parametrize(
    "copied", [copy.copy, copy.deepcopy, lambda s: pickle.loads(pickle.dumps(s))]
)
def test_a_copy_of_a_state_is_a_fork(generator, copied):
    state = generator.state("hello", seed=1, repetition_penalty=1.2)
    state.draw()
    other = copied(state)
    assert other.snapshot() == state.snapshot()
    other.feed("zzz")
    reference = generator.state("hello", seed=1, repetition_penalty=1.2)
    reference.draw()
    assert [state.draw() for _ in range(20)] == [reference.draw() for _ in range(20)]


def test_a_model_that_is_pickled_with_its_states_is_opened_once(generator, monkeypatch):
    opened = []
    monkeypatch.setattr(
        "chargen_ort.engine.open_session", lambda *given: opened.append(1) or open_session(*given)
    )
    saved = pickle.dumps((generator, generator.state("a", seed=1), generator.state("b")))
    model, state, _ = pickle.loads(saved)
    assert len(opened) == 1
    assert state.draw() == model.generate("a", 1, seed=1)


# Interruptions


@pytest.fixture
def interruptible(generator, monkeypatch):
    """A model, and a list: an (exception, late) that is appended to it comes in the next step."""
    interrupt = []

    class Session:
        def __init__(self, session):
            self.session = session

        def __getattr__(self, name):
            return getattr(self.session, name)

        def run_with_iobinding(self, binding):
            raised, late = interrupt.pop() if interrupt else (None, True)
            if late:  # what an interrupt in the middle of native code looks like
                self.session.run_with_iobinding(binding)
            if raised:
                raise raised

    monkeypatch.setattr(
        "chargen_ort.engine.open_session", lambda *given: Session(open_session(*given))
    )
    return CharGenerator(generator.artifact), interrupt


@pytest.mark.parametrize("raised", [KeyboardInterrupt, RuntimeError, MemoryError])
@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("penalty", [1.0, 1.3])
@pytest.mark.parametrize("drawn", [0, 5, 128])
def test_a_draw_that_is_interrupted_was_not_made(interruptible, raised, late, penalty, drawn):
    generator, interrupt = interruptible
    state = generator.state("hello", seed=1, repetition_penalty=penalty)
    for _ in range(drawn):
        state.draw()
    before, expected = state.snapshot(), [state.fork().draw() for _ in range(2)]
    interrupt.append((raised, late))
    wanted = ArtifactError if raised is RuntimeError else raised
    with pytest.raises(wanted):
        state.draw()
    assert state.snapshot() == before
    assert [state.draw()] == expected[:1]
    assert state.drawn == drawn + 1


def test_a_feed_that_is_interrupted_fed_nothing(generator, monkeypatch):
    state = generator.state("hello", seed=1, repetition_penalty=1.3)
    state.piece_size = 2
    before = state.snapshot()
    calls = []

    def interrupted(*arguments):
        calls.append(arguments)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return run_steps(generator.session, *arguments)

    monkeypatch.setattr(generator.engine, "run_steps", interrupted)
    with pytest.raises(KeyboardInterrupt):
        state.feed("world")
    assert state.snapshot() == before
    state.feed("world")
    assert len(calls) == 5


# ONNX Runtime


def test_what_onnxruntime_refuses_is_one_of_our_errors(generator, monkeypatch, tmp_path):
    with pytest.raises(ArtifactError, match="ONNX Runtime does not open the model") as caught:
        open_session(b"no model", 1)
    assert str(caught.value).isprintable()
    path = tmp_path / "x.onnx"
    path.write_bytes(generator.artifact.data)
    monkeypatch.setattr("chargen_ort.engine.open_session", lambda *_: open_session(b"", 1))
    with pytest.raises(ArtifactError, match=r"x\.onnx: ONNX Runtime does not open"):
        CharGenerator.load(path)


def test_a_run_that_fails_is_one_of_our_errors(generator, monkeypatch):
    class Broken:
        def __getattr__(self, name):
            return getattr(generator.session, name)

        def run(self, *_):
            raise RuntimeError("[ONNXRuntimeError] : 6 : no\nmore")

    hidden = np.zeros((1, 1, 16), dtype=np.float32)
    with pytest.raises(ArtifactError, match=r"does not run the model: .*no'$"):
        run_steps(Broken(), np.array([[1]]), hidden)


EXIT = """
import sys, threading, time, chargen_ort
from chargen_ort.models import DEMO_MODEL
model = chargen_ort.load(DEMO_MODEL)
begun = threading.Semaphore(0)
def stream():
    for number, _ in enumerate(model.stream("hell")):
        if number == 3: begun.release()
def read():
    while True:
        model.score("hello world" * 300)
        begun.release()
def batch():
    for _ in model.iterate_batch(iter(lambda: "hell", 0), 50, batch_size=32):
        begun.release()
work = [stream, stream, read, batch]
for target in work:
    threading.Thread(target=target, daemon=True).start()
for _ in range(20): begun.acquire()
print("end", flush=True)
"""


def test_daemon_threads_that_write_do_not_abort_the_process_at_its_exit():
    for _ in range(3):
        result = subprocess.run(
            [sys.executable, "-c", EXIT], capture_output=True, text=True, timeout=60, check=False
        )
        assert (result.returncode, result.stdout, result.stderr) == (0, "end\n", "")


def test_the_main_thread_may_write_until_the_very_end():
    code = (
        "import atexit, chargen_ort; from chargen_ort.models import DEMO_MODEL\n"
        "atexit.register(lambda: print(model.generate('hell', 3, temperature=0)))\n"
        "model = chargen_ort.load(DEMO_MODEL)\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert (result.stdout, result.stderr) == ("o w\n", "")


# Stop strings


def test_a_stop_string_that_the_model_cannot_write_is_refused(generator):
    with pytest.raises(OptionError, match=r"stop has the character 'X' .U\+0058.*does not know"):
        generator.stream("a", stop=["ab", "aXb"])
    with pytest.raises(OptionError, match="stop has the character"):
        generator.generate_batch(["a"], stop="\ud800")


@pytest.mark.parametrize("text", ["l" * 100_000, ("l" * 255 + "x") * 400, "hello" * 20_000])
def test_the_longest_stop_strings_cost_next_to_nothing(text):
    stops = tuple("l" * 254 + a + b for a in "abcd" for b in "abcd")
    begun = time.perf_counter()
    assert "".join(hold_back(iter(text), stops)) == text
    assert time.perf_counter() - begun < 2  # of 0.1; comparing with each prefix takes 30


def test_a_finder_of_stop_strings_knows_what_may_yet_come():
    finder = StopFinder(["abab", "bc"])
    found = []
    for character in "ababc":
        finder.read(character)
        found.append((finder.pending, finder.ended))
    assert found == [(1, 0), (2, 0), (3, 0), (4, 4), (2, 2)]


# Memory


@pytest.mark.parametrize("poison", [None, "nan", "3e38"])
def test_reading_a_large_file_takes_no_more_memory_than_the_file(tmp_path, poison):
    model, marker = random_model(hidden_size=512), np.float32(12345.678)
    model.grus()[0].weight_hh_l0.data[-1, -1] = float(marker)
    data = artifact_bytes(model)
    assert data.count(marker.tobytes()) == 1
    if poison:
        data = seal(data[:-84].replace(marker.tobytes(), np.float32(poison).tobytes()))
    path = tmp_path / "x.onnx"
    path.write_bytes(data)
    code = (
        "import sys, tracemalloc, chargen_ort\n"
        "from chargen_ort.models import DEMO_MODEL\n"
        "chargen_ort.read_artifact(DEMO_MODEL)\n"
        "tracemalloc.start()\n"
        "try: chargen_ort.read_artifact(sys.argv[1])\n"
        "except chargen_ort.ArtifactError as error: print(error)\n"
        "print(tracemalloc.get_traced_memory()[1])\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True
    )
    *refusal, peak = result.stdout.splitlines()
    assert bool(refusal) == bool(poison)
    assert int(peak) < 1.2 * path.stat().st_size
