"""What holds of the code as a whole: who imports whom, and what the runtime does without."""

import ast
import itertools
import re
import subprocess
import sys
from pathlib import Path

import pytest

import chargen_ort
from chargen_ort.models import DEMO_MODEL

ROOT = Path(__file__).parent.parent
ALLOWED = {
    "chargen_ort": {"numpy", "onnxruntime", "typer", "chargen_ort"},
    "chargen_train": {"numpy", "torch", "chargen_ort", "chargen_train"},
    "chargen_export": {
        "numpy", "torch", "onnx", "typer", "rich", "chargen_ort", "chargen_train", "chargen_export",
    },
}  # fmt: skip
FORBIDDEN = ("torch", "onnx", "typer", "rich")


def imports_of(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield (node.module or "").split(".")[0]


@pytest.mark.parametrize("package", ALLOWED)
def test_imports_run_one_way(package):
    folder = next(ROOT.glob(f"*/{package}"))
    for path in folder.rglob("*.py"):
        allowed = ALLOWED[package] | set(sys.stdlib_module_names)
        assert set(imports_of(path)) <= allowed, path
        if package == "chargen_ort" and path.name != "cli.py":
            assert "typer" not in set(imports_of(path)), path


def test_no_module_name_stands_in_two_packages():
    """But for the entry points, and those that are the other half of the runtime's module."""
    names = {
        package: {path.stem for path in next(ROOT.glob(f"*/{package}")).glob("*.py")}
        for package in ALLOWED
    }
    for one, other in itertools.combinations(names, 2):
        assert names[one] & names[other] <= {"__init__", "cli", "verify", "variants"}


def loaded_after(code):
    """Which of the forbidden modules a fresh interpreter has loaded after `code`."""
    report = f"\nimport sys; print([m for m in {FORBIDDEN!r} if m in sys.modules])"
    result = subprocess.run(
        [sys.executable, "-c", code + report], capture_output=True, text=True, check=True
    )
    return ast.literal_eval(result.stdout.splitlines()[-1])


def test_using_the_runtime_loads_neither_torch_nor_onnx_nor_typer():
    assert (
        loaded_after(
            "import chargen_ort\n"
            f"model = chargen_ort.load({str(DEMO_MODEL)!r})\n"
            "model.generate('hell', 5); model.generate_batch(['hell'], 5); model.score('hello')\n"
            "model.next_probabilities('hell'); model.restore(model.state('hell').snapshot())"
        )
        == []
    )


@pytest.mark.parametrize("module", FORBIDDEN)
def test_that_check_can_fail(module):
    assert module in loaded_after(f"import chargen_ort, {module}")


@pytest.mark.parametrize("command", ["chargen_ort", "chargen_export"])
def test_help_loads_no_heavy_module(command):
    loaded = loaded_after(
        f"import sys; from {command}.cli import app\n"
        "try: app(['--help'])\nexcept SystemExit: pass\n"
        "assert 'onnxruntime' not in sys.modules and 'numpy' not in sys.modules"
    )
    assert not {"torch", "onnx"} & set(loaded)


def test_without_the_train_extra_train_export_says_what_to_install(tmp_path):
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from chargen_export.cli import main; sys.argv = ['train-export', 'x.txt']; main()"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert result.returncode == 2
    assert result.stderr == (
        "train-export: training needs torch, which is not installed; run: "
        "pip install 'chargen-ort[train]' (without a GPU, run this first, as it is much smaller: "
        "pip install torch --index-url https://download.pytorch.org/whl/cpu)\n"
    )


def test_the_demo_model_is_in_the_package_and_writes():
    text = chargen_ort.load(DEMO_MODEL).generate("hell", 30, temperature=0.2, seed=1)
    assert text.startswith("o world hello world")


def test_the_readme_names_only_options_that_exist():
    commands = (ROOT / "export/chargen_export/cli.py").read_text() + (
        ROOT / "runtime/chargen_ort/cli.py"
    ).read_text()
    readme = (ROOT / "README.md").read_text()
    for option in set(re.findall(r"(?<![\w-])--([a-z][a-z-]+)", readme)) - {"upgrade", "help"}:
        assert option.replace("-", "_") in commands or f"--{option}" in commands, option
