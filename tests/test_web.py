"""runtime/web is what Python is: its tables are current, and it takes and refuses the same files.

`make test-web` has the tests that need more than Node.
"""

import gzip
import json
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

import chargen_ort
from chargen_ort.graphs import VARIANTS
from tests.conftest import artifact_bytes, random_model
from tests.fuzz.mutations import mutant
from tests.hostile.build import honest, of_precision, without_seal
from tests.hostile.cases import CASES
from tests.hostile.worker import attempt
from tests.tools import web
from tests.tools.browser import in_chromium, needs_browser

FOLDER = web.MODULE.parent
MUTANTS = int(os.environ.get("CHARGEN_MUTANTS", "200"))  # make test-web tries 2,000
LARGEST = 1 << 24  # bytes of a hostile file that JavaScript is given
TSC = FOLDER / "node_modules/.bin/tsc"
needs_node = pytest.mark.skipif(shutil.which("node") is None, reason="Node is not installed")


def test_the_tables_are_those_of_python():
    assert (web.SOURCE / "tables.js").read_text() == web.tables()


def test_the_one_file_is_made_of_the_folder():
    assert web.MODULE.read_text() == web.bundle()


@pytest.mark.skipif(not TSC.exists(), reason="TypeScript is not installed; make test-web brings it")
def test_the_types_are_those_of_the_comments(tmp_path):
    (tmp_path / "chargen.js").write_text(web.bundle(comments=True))
    flags = ["--noEmit", "false", "--declaration", "--emitDeclarationOnly", "--checkJs", "false"]
    settings = json.loads((FOLDER / "tsconfig.json").read_text())
    settings["include"] = ["chargen.js"]
    (tmp_path / "tsconfig.json").write_text(json.dumps(settings))
    subprocess.run([TSC, *flags, "--outDir", "out"], cwd=tmp_path, check=True)
    made = (tmp_path / "out/chargen.d.ts").read_text()
    assert (FOLDER / "chargen.d.ts").read_text() == made


def test_it_is_small():
    assert len(gzip.compress(web.MODULE.read_bytes(), 9)) < 23_000


def test_its_version_is_the_runtimes():
    package = json.loads((FOLDER / "package.json").read_text())
    assert package["version"] == chargen_ort.__version__
    assert package["sideEffects"] is False
    assert "dependencies" not in package


def verdicts(paths: list[Path]) -> list[list[str] | None]:
    """What JavaScript says of files: nothing, or the name and the message of an error."""
    result = subprocess.run(
        ["node", web.ROOT / "tests/hostile/verdicts.mjs"],
        input="".join(f"{path}\n" for path in paths),
        capture_output=True,
        text=True,
        check=True,
    )
    return [json.loads(line) for line in result.stdout.splitlines()]


@needs_node
def test_it_refuses_every_hostile_file_that_python_refuses(tmp_path):
    paths = [tmp_path / "honest.onnx"]
    paths[0].write_bytes(honest())
    for index, case in enumerate(CASES):
        (tmp_path / str(index)).mkdir()
        path = case.make(tmp_path / str(index))
        if os.path.isfile(path) and path.stat().st_size < LARGEST:  # not devices and bad names
            paths.append(path)
    assert len(paths) > 300
    found = verdicts(paths)
    assert found[0] is None
    assert [p for p, v in zip(paths[1:], found[1:], strict=True) if v is None] == []
    assert {verdict[0] for verdict in found if verdict} == {"ArtifactError"}
    assert all(verdict[1].isprintable() for verdict in found if verdict)


@needs_node
def test_it_takes_and_refuses_the_mutants_that_python_takes_and_refuses(tmp_path):
    models = [artifact_bytes(random_model(29, 3, 4, layers)) for layers in (1, 2, 3)]
    models += [of_precision(precision) for precision in VARIANTS if precision != "fp32"]
    bases = [without_seal(model) for model in models]
    paths, expected = [], []
    for seed in range(
        0, MUTANTS * 4, 4
    ):  # those with a seal, which the rest of a file is judged by
        paths.append(tmp_path / f"{seed}.onnx")
        paths[-1].write_bytes(mutant(seed, bases).data)
        expected.append(attempt(paths[-1].read_bytes())[0])
    found = ["refused" if verdict else "accepted" for verdict in verdicts(paths)]
    assert [p for p, f, e in zip(paths, found, expected, strict=True) if f != e] == []
    assert {"refused", "accepted"} == set(found)


@needs_node
def test_the_vectors_and_the_rest():
    result = subprocess.run(
        ["npm", "test"], cwd=FOLDER, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stdout


@needs_browser
def test_the_vectors_in_a_browser():
    found = in_chromium("golden.mjs")
    assert found["failed"] == []
    assert found["tests"] > 25


FUSED = "fma" in (CPU.read_text() if (CPU := Path("/proc/cpuinfo")).exists() else "").split()


@needs_node
@pytest.mark.skipif(not FUSED, reason="the processor has no fused multiply-add")
@pytest.mark.parametrize(("embedding_dim", "hidden_size"), [(8, 16), (200, 40)])
def test_int8_has_the_bits_of_onnxruntime(embedding_dim, hidden_size, tmp_path):
    """Where a state is rounded to another whole number, a text goes another way."""
    (tmp_path / "model.onnx").write_bytes(of_precision("int8", 2, 0.02, embedding_dim, hidden_size))
    text = "the quick brown fox jumps over the lazy dog.\n" * 3
    code = (
        f"import {{ load }} from {json.dumps(web.MODULE.as_uri())};"
        f"const model = await load({json.dumps((tmp_path / 'model.onnx').as_uri())});"
        f"console.log(JSON.stringify([...model.state({json.dumps(text)}).hidden()]));"
    )
    result = subprocess.run(
        ["node", "--input-type=module", "-e", code], capture_output=True, text=True, check=True
    )
    expected = chargen_ort.load(tmp_path / "model.onnx").state(text).hidden()
    assert np.array_equal(np.array(json.loads(result.stdout), dtype=np.float32), expected.ravel())


@needs_node
def test_what_npm_would_publish():
    result = subprocess.run(
        ["npm", "pack", "--dry-run", "--json"],
        cwd=FOLDER,
        capture_output=True,
        text=True,
        check=True,
    )
    files = {file["path"] for file in json.loads(result.stdout)[0]["files"]}
    assert files == {"chargen.js", "chargen.d.ts", "package.json"}
