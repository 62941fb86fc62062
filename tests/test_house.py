"""What holds of the code as a whole: who imports whom, and what the runtime does without."""

import ast
import graphlib
import inspect
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
    "chargen_train": {"numpy", "torch", "tokenizers", "chargen_ort", "chargen_train"},
    "chargen_export": {
        "numpy", "torch", "onnx", "typer", "rich", "chargen_ort", "chargen_train", "chargen_export",
    },
}  # fmt: skip
SERVER = {"starlette", "uvicorn", "h11", "prometheus_client"}  # in chargen_ort/serve alone
FORBIDDEN = ("torch", "onnx", "typer", "rich", "starlette")


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
        if path.parent.name == "serve":
            allowed |= SERVER
        if path.name in ("patterns.py", "places.py"):
            allowed.add("llguidance")
        if path.name == "faker.py":
            allowed.add("faker")
        assert set(imports_of(path)) <= allowed, path
        if package == "chargen_ort" and not path.name.startswith("cli"):
            assert "typer" not in set(imports_of(path)), path


def test_no_module_name_stands_in_two_packages():
    """But for the entry points, and those that are the other half of the runtime's module."""
    names = {
        package: {path.stem for path in next(ROOT.glob(f"*/{package}")).glob("*.py")}
        for package in ALLOWED
    }
    for one, other in itertools.combinations(names, 2):
        assert names[one] & names[other] <= {"__init__", "cli", "cli_options", "verify"}


# what a file may import of the runtime: what stands before it; the last three print
FLOORS = [
    "errors", "checks", "vocabulary", "sampling", "calibration", "artifact", "sessions", "runs",
    "stepper", "engine", "rows", "writer", "confined", "state", "stream", "batch", "score",
    "score_reader", "scoring", "generator", "lines", "workers", "reports", "scorer", "interactive",
    "serve", "cli",
]  # fmt: skip


def modules_of(package):
    """The files of a package by the names that they are imported by."""
    folder = next(ROOT.glob(f"*/{package}"))
    for path in folder.rglob("*.py"):
        parts = [package, *path.relative_to(folder).with_suffix("").parts]
        yield ".".join(part for part in parts if part != "__init__"), path


def imported_modules(path, modules):
    """Which of `modules` a file imports, anywhere in it: in functions and for types as well."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in modules)
        elif isinstance(node, ast.ImportFrom):
            inner = {f"{node.module}.{alias.name}" for alias in node.names} & modules
            yield from inner or {node.module} & modules


@pytest.mark.parametrize("package", ALLOWED)
def test_no_import_goes_round_in_a_circle(package):
    modules = dict(modules_of(package))
    graph = {name: set(imported_modules(path, set(modules))) for name, path in modules.items()}
    graphlib.TopologicalSorter(graph).prepare()  # CycleError names the circle


def test_nothing_in_the_runtime_imports_what_stands_above_it():
    modules = dict(modules_of("chargen_ort"))
    above = {f"chargen_ort.{name}" for name in FLOORS}
    for name in FLOORS:
        above.remove(f"chargen_ort.{name}")
        for module, path in modules.items():
            if f"{module}.".startswith(f"chargen_ort.{name}."):
                for found in imported_modules(path, set(modules)):
                    assert not any(f"{found}.".startswith(f"{each}.") for each in above), path


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("import p.a", {"p.a"}),
        ("from p.a import x", {"p.a"}),
        ("from p import a", {"p.a"}),
        ("from p import x", {"p"}),
        ("def f():\n    from p.a import x", {"p.a"}),
        ("if TYPE_CHECKING:\n    import p.b", {"p.b"}),
        ("import os", set()),
    ],
)
def test_an_import_is_found_wherever_it_stands(tmp_path, source, found):
    (tmp_path / "x.py").write_text(source)
    assert set(imported_modules(tmp_path / "x.py", {"p", "p.a", "p.b"})) == found


def test_no_file_of_the_tests_imports_a_test():
    folder = Path(__file__).parent
    tests = {f"tests.{path.stem}" for path in folder.glob("test_*.py")}
    for path in folder.rglob("*.py"):
        list(imports_of(path))  # which refuses relative ones
        assert not set(imported_modules(path, tests)), path


def public_things():
    """Every name in `__all__`, and every public method and property of its classes."""
    for name in chargen_ort.__all__:
        thing = getattr(chargen_ort, name)
        if callable(thing):
            yield name, thing
        if inspect.isclass(thing):
            for key, value in vars(thing).items():
                if not key.startswith("_") and (callable(value) or hasattr(value, "__get__")):
                    yield f"{name}.{key}", value


def test_every_public_name_says_in_sentences_what_it_is():
    for name, thing in public_things():
        first = (inspect.getdoc(thing) or "").split("\n\n")[0]
        assert first.endswith((".", ":")), f"{name}: {first}"


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
            "model.next_probabilities('hell'); model.restore(model.state('hell').snapshot())\n"
            "from chargen_ort.samplers import as_sampler; as_sampler(model.artifact)"
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
    (tmp_path / "x.txt").write_text("hello")
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


def test_without_the_serve_extra_the_server_says_what_to_install(tmp_path):
    code = (
        "import sys; sys.modules['starlette'] = None\n"
        "from chargen_ort.cli import main; sys.argv = ['chargen-ort', 'serve']; main()"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert result.returncode == 2
    assert result.stderr == (
        "chargen-ort serve: serving needs starlette, which is not installed; run: "
        "pip install 'chargen-ort[serve]'\n"
    )


def test_the_demo_model_is_in_the_package_and_writes():
    text = chargen_ort.load(DEMO_MODEL).generate("hell", 30, temperature=0.2, seed=1)
    assert text.startswith("o world hello world")


def test_the_readme_names_only_options_that_exist():
    packages = ROOT / "export/chargen_export", ROOT / "runtime/chargen_ort"
    commands = "".join(path.read_text() for each in packages for path in each.glob("cli*.py"))
    readme = (ROOT / "README.md").read_text()
    for option in set(re.findall(r"(?<![\w-])--([a-z][a-z-]+)", readme)) - {"upgrade", "help"}:
        assert option.replace("-", "_") in commands or f"--{option}" in commands, option
