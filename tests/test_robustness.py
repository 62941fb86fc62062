"""What no call may do: end the process, hang, leak, or raise what is not documented."""

import gc
import multiprocessing
import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

import chargen_ort
from chargen_ort import CharGenerator
from chargen_ort.models import DEMO_MODEL
from tests.conftest import artifact_bytes, random_model

ROOT = Path(__file__).parent.parent

CALLS = """
import sys
from hypothesis import HealthCheck, given, settings, strategies as st
import numpy as np
import chargen_ort
from chargen_ort import ChargenError, SamplingOptions
from chargen_ort.models import DEMO_MODEL

model = chargen_ort.load(DEMO_MODEL)
snapshot = model.state("hell").snapshot()
odd = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**70), 2**70), st.floats(), st.text(max_size=5),
    st.binary(max_size=5), st.lists(st.integers(-9, 9), max_size=3),
    st.sampled_from(["hell", "", "hello wor", "\\ud800", "X", float("nan"), float("inf"), -1]),
    st.sampled_from([
        np.zeros(3), np.zeros((0, 1), np.int64), np.array([-1]), np.array([99]),
        np.array([1], dtype=">i8"), np.float32("nan"), np.int64(3), {}, (), object(),
    ]),
)
names = ("temperature", "top_k", "top_p", "min_p", "repetition_penalty", "stop", "seed", "row",
         "unknown", "timeout", "options", "batch_size", "no_such_option")
small = {"length": st.one_of(odd.filter(lambda v: not isinstance(v, int) or v < 50))}
keywords = st.dictionaries(st.sampled_from(names), odd, max_size=3)
made = set()

def attempt(call):
    try:
        return call()
    except (ChargenError, TypeError) as error:
        if isinstance(error, TypeError) and "keyword" not in str(error):
            raise
        made.add(type(error).__name__)

@settings(max_examples=int(sys.argv[1]), deadline=None, database=None, derandomize=True,
          suppress_health_check=list(HealthCheck))
@given(st.integers(0, 9), odd, small["length"], keywords)
def test(which, value, length, kw):
    attempt([
        lambda: model.generate(value, length, **kw),
        lambda: "".join(c for c, _ in zip(model.stream(value, **kw), range(9))),
        lambda: model.generate_batch([value, value], length, **kw),
        lambda: model.generate_batch(value, length, **kw),
        lambda: model.score(value, **{k: kw[k] for k in kw if k in ("unknown",)}),
        lambda: model.score_batch([value]),
        lambda: model.next_probabilities(value, kw.get("top_k", 2)),
        lambda: model.restore(snapshot[: value % 400] if type(value) is int else value).draw(),
        lambda: model.state(value, **kw).draw(),
        lambda: SamplingOptions(**{k: v for k, v in kw.items() if k in names[:7]}),
    ][which])

test()
assert model.generate("hell", 30, temperature=0.2, seed=1).startswith("o world")
print("survived", sorted(made))
"""


def survive(calls):
    result = subprocess.run(
        [sys.executable, "-c", CALLS, str(calls)],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )
    assert result.returncode == 0, result.stderr[-3000:]
    raised = ["ArtifactError", "OptionError", "UnknownCharacterError"]
    assert result.stdout == f"survived {raised}\n"


def test_10_000_odd_calls_give_the_documented_exceptions():
    survive(10_000)


def test_64_threads_write_what_one_writes():
    model = chargen_ort.load(DEMO_MODEL)
    expected = [model.generate("hell", 100, seed=3, row=row) for row in range(64)]
    texts = [""] * 64
    gate = threading.Barrier(64)

    def write(row):
        gate.wait()
        texts[row] = model.generate("hell", 100, seed=3, row=row)

    threads = [threading.Thread(target=write, args=(row,)) for row in range(64)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert texts == expected


@pytest.mark.parametrize("threads", [1, 4])
def test_a_forked_child_writes_with_an_inherited_model(threads):
    # the child ends as multiprocessing's do, with os._exit: ONNX Runtime itself does not survive
    # a forked child's way through its own destructors, whoever loaded it
    code = (
        "import os, chargen_ort; from chargen_ort.models import DEMO_MODEL\n"
        f"model = chargen_ort.load(DEMO_MODEL, threads={threads})\n"
        "expected = model.generate('hell', 40, seed=1)\n"
        "child = os.fork()\n"
        "if not child:\n"
        "    same = model.generate('hell', 40, seed=1) == expected\n"
        "    del model\n"
        "    os._exit(0 if same else 5)\n"
        "status = os.waitpid(child, 0)[1]\n"
        "assert status == 0, status\n"
        "assert model.generate('hell', 40, seed=1) == expected\n"
    )
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True, timeout=60)


def resident():
    """Resident memory of this process, bytes."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def soak(steps, loads, queue):
    data = artifact_bytes(random_model())
    model = CharGenerator.from_bytes(data)

    def work(steps, loads):
        for _ in model.stream("a", steps, seed=1):
            pass
        for _ in range(loads):
            CharGenerator.from_bytes(data).generate("a", 2, seed=1)
        gc.collect()

    work(steps // 10, max(20, loads // 10))
    before = resident()
    work(steps, loads)
    queue.put(resident() - before)


@pytest.mark.parametrize(
    ("steps", "loads"),
    [(int(os.environ.get("SOAK_STEPS", "50000")), int(os.environ.get("SOAK_LOADS", "100")))],
)
def test_memory_does_not_grow(steps, loads):
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    process = context.Process(target=soak, args=(steps, loads, queue))
    process.start()
    grown = queue.get(timeout=600)
    process.join()
    assert grown < 4 << 20, f"{grown:,} bytes more"


def test_a_stepper_takes_arrays_of_any_layout():
    # what reaches ONNX Runtime is always its own array: int64, native, contiguous
    model = chargen_ort.load(DEMO_MODEL)
    stepper, reference = model.new_stepper(3), model.new_stepper(3)
    reference.step(np.array([1, 2, 3]))
    for tokens in (
        np.array([1, 2, 3], dtype=">i8"),
        np.array([1, 9, 2, 9, 3], dtype=np.int32)[::2],
        np.array([1, 2, 3], dtype=np.uint8),
    ):
        stepper.hidden[:] = 0
        stepper.step(tokens)
        assert np.array_equal(stepper.logits, reference.logits)
