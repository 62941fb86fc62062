# make demo and make test work on a fresh clone with Python 3.11+ and make alone.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.PHONY: help demo test check format bench soak bare demo-model clean

help:
	@echo "make demo    install, train on 'hello world', write text"
	@echo "make test    install, run the tests"
	@echo "make soak    a million steps and 1,000 loads; 30 training runs killed and resumed"
	@echo "make check   lint, format and types"
	@echo "make bench   the benchmarks"
	@echo "make bare    build the wheel, use it in an environment without torch"

$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed, this is " + sys.version.split()[0] + "; name another: make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $@

demo: $(INSTALLED)
	$(BIN)/train-export train/hello.txt
	$(BIN)/chargen-ort --start hell --length 40
	@echo
	@echo "Try next:"
	@echo "  $(BIN)/train-export your-own-text.txt"
	@echo "  $(BIN)/chargen-ort --start hell --length 200 --temperature 1.2"

test: $(INSTALLED)
	$(BIN)/python -m pytest

check: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(INSTALLED)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(INSTALLED)
	$(BIN)/python -m tests.benchmarks

soak: $(INSTALLED)
	SOAK_STEPS=1000000 SOAK_LOADS=1000 $(BIN)/python -m pytest tests/test_robustness.py -k memory
	$(BIN)/python -m tests.soak 30

bare: $(INSTALLED)
	rm -rf build/wheel build/bare
	$(BIN)/pip wheel --quiet --disable-pip-version-check --no-deps --wheel-dir build/wheel .
	$(PYTHON) -m venv build/bare
	build/bare/bin/pip install --quiet --disable-pip-version-check --constraint constraints.txt build/wheel/*.whl
	cd build && bare/bin/python ../tests/bare_install.py bare/bin/chargen-ort

demo-model: $(INSTALLED)
	$(BIN)/train-export train/hello.txt --out runtime/chargen_ort/demo.onnx

clean:
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
