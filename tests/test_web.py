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
from chargen_ort import CharGenerator
from chargen_ort.graphs import VARIANTS
from tests.conftest import artifact_bytes, random_model
from tests.fuzz.mutations import config_mutant, mutant
from tests.hostile.build import honest, of_precision, without_seal
from tests.hostile.cases import CASES
from tests.hostile.worker import attempt
from tests.tools import golden_sampler, golden_units, web
from tests.tools.browser import in_chromium, needs_browser

FOLDER = web.MODULE.parent
MUTANTS = int(os.environ.get("CHARGEN_MUTANTS", "200"))  # make test-web tries 2,000
LARGEST = 1 << 24  # bytes of a hostile file that JavaScript is given
TSC = FOLDER / "node_modules/.bin/tsc"
needs_node = pytest.mark.skipif(shutil.which("node") is None, reason="Node is not installed")


def test_the_tables_are_those_of_python():
    assert (web.SOURCE / "tables.js").read_text() == web.tables()


def test_the_one_file_is_made_of_the_folder():
    assert web.MODULE.read_text().startswith(web.head())


@pytest.mark.skipif(not web.TERSER.exists(), reason="terser is not installed; make test-web does")
def test_the_one_file_is_the_folder_shortened():
    assert web.MODULE.read_text() == web.shortened()


@pytest.mark.skipif(not TSC.exists(), reason="TypeScript is not installed; make test-web brings it")
def test_the_types_are_those_of_the_comments(tmp_path):
    (tmp_path / "chargen.js").write_text(web.bundle())
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
    return [json.loads(line) for line in result.stdout.split("\n")[:-1]]


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
def test_it_says_of_a_sampler_what_it_is(tmp_path):
    paths = [tmp_path / f"{kind}.onnx" for kind in golden_sampler.KINDS]
    for path in paths:
        path.write_bytes(golden_sampler.rendered(path.stem))
    found = verdicts(paths)
    told = "the file is a sampler, for other programs; give the model that it was made of"
    assert found == [["ArtifactError", told]] * 2


def assert_same_verdicts(folder: Path, files: list[bytes]) -> None:
    """Python and JavaScript take some of these files and refuse the others, the same ones."""
    paths = [folder / f"{index}.onnx" for index in range(len(files))]
    for path, data in zip(paths, files, strict=True):
        path.write_bytes(data)
    expected = [attempt(data) for data in files]
    found = ["refused" if verdict else "accepted" for verdict in verdicts(paths)]
    differing = [
        (path, *told)
        for path, found_here, told in zip(paths, found, expected, strict=True)
        if found_here != told[0]
    ]
    assert differing == []
    assert {"refused", "accepted"} == set(found)


@needs_node
def test_it_takes_and_refuses_the_mutants_that_python_takes_and_refuses(tmp_path):
    models = [artifact_bytes(random_model(29, 3, 4, layers)) for layers in (1, 2, 3)]
    models += [of_precision(precision) for precision in VARIANTS if precision != "fp32"]
    models += [golden_units.model_bytes(path) for path in golden_units.MODELS]
    bases = [without_seal(model) for model in models]
    seeds = range(0, MUTANTS * 4, 4)  # those with a seal, which the rest of a file is judged by
    assert_same_verdicts(tmp_path, [mutant(seed, bases).data for seed in seeds])


@needs_node
def test_it_takes_and_refuses_the_vocabularies_that_python_takes_and_refuses(tmp_path):
    bases = [without_seal(golden_units.model_bytes(path)) for path in golden_units.MODELS]
    assert_same_verdicts(tmp_path, [config_mutant(seed, bases) for seed in range(MUTANTS)])


@needs_node
def test_the_vectors_and_the_rest():
    result = subprocess.run(
        ["npm", "test"], cwd=FOLDER, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stdout


@pytest.mark.skipif(shutil.which("deno") is None, reason="Deno is not installed")
def test_the_vectors_and_the_rest_in_deno():
    """It needs leave to read files, and none other."""
    flags = ["--allow-read", "--no-check", "--no-lock", "--no-config"]
    result = subprocess.run(
        ["deno", "test", *flags, "test/"], cwd=FOLDER, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stdout


@needs_browser
def test_the_vectors_in_a_browser():
    found = in_chromium("golden.mjs")
    assert found["failed"] == []
    assert found["tests"] > 25


FUSED = "fma" in (CPU.read_text() if (CPU := Path("/proc/cpuinfo")).exists() else "").split()


TEXT = "the quick brown fox jumps over the lazy dog.\n" * 3
SIZES = [(2, 8, 16), (1, 1, 1), (3, 5, 33), (1, 200, 40), (64, 3, 5)]  # layers, embedding, hidden
PRINT_STATES = """
import { load } from %s;
for (const path of %s) {
  const state = (await load(new URL(path))).state(%s);
  console.log(JSON.stringify([[...state.logits()], [...state.hidden()]]));
}
"""


@needs_node
@pytest.mark.parametrize("precision", VARIANTS)
def test_states_are_those_of_python_whatever_the_sizes(precision, tmp_path):
    """int8 has the bits of ONNX Runtime where the processor fuses products and sums.

    Where a state is rounded to another whole number, a text goes another way.
    """
    scale = 0.02 if precision == "int8" else 0.3
    models = [of_precision(precision, layers, scale, *widths) for layers, *widths in SIZES]
    paths = [tmp_path / f"{index}.onnx" for index in range(len(models))]
    for path, model in zip(paths, models, strict=True):
        path.write_bytes(model)
    given = web.MODULE.as_uri(), [path.as_uri() for path in paths], TEXT
    result = subprocess.run(
        ["node", "--input-type=module", "-e", PRINT_STATES % tuple(map(json.dumps, given))],
        capture_output=True,
        text=True,
        check=True,
    )
    exact = precision == "int8" and FUSED
    tolerance = 0.0 if exact else VARIANTS[precision].tolerance.vectors / 10
    for model, line in zip(models, result.stdout.splitlines(), strict=True):
        state = CharGenerator.from_bytes(model).state(TEXT)
        logits, hidden = map(np.float32, json.loads(line))
        assert np.abs(logits - state.logits()).max() <= tolerance
        assert np.abs(hidden - state.hidden().ravel()).max() <= tolerance


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
