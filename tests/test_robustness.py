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
