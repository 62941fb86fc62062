"""The example in C: one run of ONNX Runtime's C API writes the text that Python writes.

It is compiled against the library of the installed wheel, and against its header where there is
one (`$ORT_INCLUDE` names its folder); the wheel brings none, so that a short stand-in serves.
"""

import os
import shutil
import subprocess
from pathlib import Path

import onnxruntime
import pytest

from chargen_ort import CharGenerator, parse_artifact
from chargen_ort.samplers import as_sampler
from tests.conftest import artifact_bytes, random_model
from tests.hostile.build import of_precision

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "runtime/examples/c/write.c"
STAND_IN = ROOT / "tests/tools/c"
COMPILER = shutil.which("cc")
FOLDER = Path(onnxruntime.__file__).parent / "capi"
LIBRARY = next(iter(sorted(FOLDER.glob("libonnxruntime.so.*"))), None)

pytestmark = pytest.mark.skipif(
    COMPILER is None or LIBRARY is None, reason="no C compiler, or no library in the wheel"
)


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    folder = tmp_path_factory.mktemp("c")
    for name in ("libonnxruntime.so", "libonnxruntime.so.1"):
        (folder / name).symlink_to(LIBRARY)
    include = os.environ.get("ORT_INCLUDE", STAND_IN)
    flags = ["-std=c11", "-O1", "-Wall", "-Wextra", "-Werror", "-fsanitize=undefined"]
    places = ["-I", include, "-L", folder, f"-Wl,-rpath,{folder}", "-lonnxruntime"]
    out = folder / "write"
    subprocess.run([COMPILER, *flags, "-o", out, SOURCE, *places], check=True)
    return out


def written(program, *arguments, status=0):
    result = subprocess.run(
        [program, *map(str, arguments)], capture_output=True, text=True, check=False
    )
    assert result.returncode == status, result.stderr
    return result.stdout if status == 0 else result.stderr


MODELS = {
    "fp32": lambda: of_precision("fp32", 2, 0.75),
    "int8": lambda: of_precision("int8", 1, 0.02),
    "with ends": lambda: artifact_bytes(random_model(30), end=True),
    "other scripts": lambda: artifact_bytes(
        random_model(8), characters="\naéß€漢\U0001f600\U00010000"
    ),
}


@pytest.mark.parametrize("name", MODELS)
def test_it_writes_what_python_writes(name, program, tmp_path):
    artifact = parse_artifact(MODELS[name]())
    path = tmp_path / "x.sampler.onnx"
    path.write_bytes(as_sampler(artifact).data)
    model = CharGenerator(artifact)
    given = "é€漢\U0001f600\U00010000a" if name == "other scripts" else "the fox. "
    for start, seed, temperature in (("", 7, 0.8), (given, (1 << 64) - 1, 1.3), ("a", 0, 0.0)):
        text = model.generate(start, 80, seed=seed, temperature=temperature)
        assert written(program, path, start, 80, seed, temperature) == f"{text}\n"


@pytest.mark.parametrize(
    ("arguments", "status", "told"),
    [
        ([], 2, "write: give FILE START LENGTH SEED TEMPERATURE"),
        (["none.onnx", "a", 5, 1, 1], 1, "write: Load model from none.onnx failed"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(arguments, status, told, program):
    assert written(program, *arguments, status=status).startswith(told)


def test_a_character_that_the_model_does_not_know_is_an_error(program, tmp_path):
    path = tmp_path / "x.sampler.onnx"
    path.write_bytes(as_sampler(parse_artifact(MODELS["fp32"]())).data)
    assert "out of data bounds" in written(program, path, "X", 5, 1, 1, status=1)
