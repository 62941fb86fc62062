"""No file hurts: each is refused with one helpful line, quickly, in little memory, without a crash.

`make guard-old` runs these with the oldest ONNX Runtime that is supported.
"""

import random
import re
import signal
import subprocess
import sys
import tracemalloc

import numpy as np
import pytest

from chargen_ort.artifact import CONFIG_KEY, SEAL_KEY, parse_artifact, read_artifact, seal
from chargen_ort.errors import ArtifactError
from chargen_ort.form import metadata_entry, read_metadata
from chargen_ort.models import DEMO_MODEL
from tests.conftest import artifact_bytes, random_model
from tests.hostile.build import body, honest, without_seal
from tests.hostile.cases import CASES
from tests.hostile.worker import Elsewhere, attempt, measure
from tests.tools import golden

MAX_SECONDS, MAX_MEGABYTES = 2, 100


@pytest.fixture(scope="module")
def elsewhere():
    worker = Elsewhere()
    yield worker
    assert worker.close() == 0


def test_there_are_enough_of_them():
    assert len(CASES) >= 120
    assert len({case.name for case in CASES}) == len(CASES)


def test_the_honest_file_is_accepted(elsewhere, tmp_path):
    (tmp_path / "honest.onnx").write_bytes(honest())
    assert elsewhere.ask(tmp_path / "honest.onnx")["outcome"] == "accepted"
    assert seal(body()) == honest()


@pytest.fixture(scope="module")
def verdicts():
    return {case["name"]: case["reason"] for case in golden.read("hostile")["cases"]}


def test_each_has_a_verdict_for_other_languages(verdicts):
    assert list(verdicts) == [case.name for case in CASES]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_refused(case, elsewhere, tmp_path, verdicts):
    found = elsewhere.ask(case.make(tmp_path))
    assert found["outcome"] == "refused", found
    message = found["message"]
    assert case.message in re.sub(r" at byte \d+", "", message)
    assert golden.reason(message, tmp_path) == verdicts[case.name]
    if ": model" in message:  # where the form differs: the byte, and what was expected
        assert re.search(r" at byte \d+.*(; train-export writes .|; its shape has \d)", message)
    assert found["message"].isprintable()
    assert found["seconds"] < MAX_SECONDS
    assert found["growth"] < MAX_MEGABYTES


@pytest.mark.parametrize(
    "spoil",
    [
        pytest.param(lambda data: data[:-1] + b"?", id="seal"),
        pytest.param(lambda data: seal(without_seal(data)[:-9]), id="cut_off"),
        pytest.param(lambda data: seal(data[:20] + b"?" + without_seal(data)[21:]), id="literal"),
        pytest.param(lambda data: seal(with_last_weight_infinite(data)), id="weight"),
        pytest.param(lambda data: seal(with_other_sizes(data)), id="sizes_that_are_huge"),
    ],
)
def test_a_refusal_costs_no_more_memory_than_the_file(spoil, tmp_path):
    path = tmp_path / "hostile.onnx"
    path.write_bytes(spoil(artifact_bytes(random_model(29, 16, 512, 2))))
    tracemalloc.start()
    with pytest.raises(ArtifactError):
        read_artifact(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1.2 * path.stat().st_size


def with_last_weight_infinite(data: bytes) -> bytes:
    """A model without its seal, the last number before its metadata infinite."""
    data = without_seal(data)
    at = data.index(random_model(29, 16, 512, 2).output.bias.detach().numpy().tobytes())
    return data[:at] + np.float32(np.inf).tobytes() + data[at + 4 :]


def with_other_sizes(data: bytes) -> bytes:
    """A model without its seal whose configuration claims the largest sizes."""
    sizes = {b'"hidden_size":512': b'"hidden_size":65536', b'"num_layers":2': b'"num_layers":64'}
    metadata, end = read_metadata(memoryview(data))
    config = metadata[CONFIG_KEY].encode()
    for old, new in sizes.items():
        assert old in config
        config = config.replace(old, new)
    entries = {key: value for key, value in metadata.items() if key != SEAL_KEY}
    entries[CONFIG_KEY] = config.decode()
    return data[:end] + b"".join(metadata_entry(*each) for each in entries.items())


def test_a_refused_file_never_reaches_onnxruntime(tmp_path):
    for case in CASES[:: len(CASES) // 20]:
        (tmp_path / case.name).mkdir()
        case.make(tmp_path / case.name)
    code = (
        "import sys; from pathlib import Path\n"
        "from tests.hostile.worker import attempt\n"
        "paths = list(Path(sys.argv[1]).glob('*/*.onnx'))\n"
        "assert len(paths) > 10\n"
        "assert {attempt(str(path))[0] for path in paths} == {'refused'}\n"
        "assert 'onnxruntime' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True)


def test_that_check_can_fail(tmp_path):
    (tmp_path / "honest.onnx").write_bytes(honest())
    assert attempt(str(tmp_path / "honest.onnx")) == ("accepted", "")
    assert attempt(b"")[0] == "refused"
    assert attempt(None)[0] == "another error"
    with pytest.raises(RuntimeError, match=f"crash: -{int(signal.SIGABRT)}"):
        Elsewhere(sys.executable, "-c", "import os; input(); os.abort()").ask(tmp_path)
    with pytest.raises(RuntimeError, match="hang"):
        Elsewhere(sys.executable, "-c", "import time; time.sleep(60)").ask(tmp_path, seconds=0.1)
    _, seconds, growth = measure(lambda: len(bytearray(150 << 20)))
    assert seconds > 0
    assert growth > MAX_MEGABYTES


# Integrity: every bit and every byte counts


@pytest.fixture(scope="module")
def demo():
    return DEMO_MODEL.read_bytes()


def test_any_flipped_bit_is_refused(demo):
    rng = random.Random(0)
    bits = {*rng.sample(range(8 * len(demo)), 2_000), *range(8 * (len(demo) - 200), 8 * len(demo))}
    for bit in bits:
        flipped = bytearray(demo)
        flipped[bit // 8] ^= 1 << bit % 8
        with pytest.raises(ArtifactError):
            parse_artifact(bytes(flipped))


def test_any_truncation_is_refused(demo):
    rng = random.Random(0)
    for size in {
        *range(200),
        *range(len(demo) - 200, len(demo)),
        *rng.sample(range(len(demo)), 500),
    }:
        with pytest.raises(ArtifactError):
            parse_artifact(demo[:size])


def test_a_sealed_truncation_is_refused():
    data = body()
    for size in [*range(0, len(data), 37), *range(len(data) - 300, len(data))]:
        with pytest.raises(ArtifactError):
            parse_artifact(seal(data[:size]))
