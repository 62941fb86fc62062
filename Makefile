# make demo and make test work on a fresh clone with Python 3.11+ and make alone.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.PHONY: help demo test test-distributed test-engines test-web web-tools check format bench bench-control bench-scores bench-serve bench-web soak soak-serve bare demo-model fuzz fuzz-walker guard-old crash clean

help:
	@echo "make demo    install, train on 'hello world', write text"
	@echo "make test    install, run the tests (WORKERS=n of them at once; 2)"
	@echo "make test-distributed    torchrun with two processes: killed, stopped, resumed, given more"
	@echo "make test-web    the JavaScript and the page, in Node and in Chromium, which this installs"
	@echo "make test-engines  the examples for Ray Data, Spark and Dask on this machine (Spark needs Java 17)"
	@echo "make bench-scores  made-up domain names against real ones, and a stream of lines (DOMAINS=folder)"
	@echo "make soak    a million steps and 1,000 loads; 30 training runs killed and resumed"
	@echo "make soak-serve  64 clients x 20, 10,000 fuzzed bodies, 10 minutes of mixed load (SOAK=n)"
	@echo "make check   lint, format and types"
	@echo "make bench   the benchmarks"
	@echo "make bench-control  a million confined texts (COUNT=n MODEL=file CORPUS=file), what they cost"
	@echo "make bench-serve  the server against the example, clients on the same machine"
	@echo "make bench-web   JavaScript in Chromium beside onnxruntime-web and Python"
	@echo "make bare    build the wheel, use it in an environment without torch"
	@echo "make fuzz    spoilt model files by the million (COUNT=n, SECONDS=n), resumable"
	@echo "make fuzz-walker  the protobuf walker and the form under atheris"
	@echo "make crash   kill the exporter at 1,000 moments, fill the disk"
	@echo "make guard-old    the hostile files with the oldest supported ONNX Runtime"

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

# A file's tests stay together, since they share what they train; those that measure time come last.
WORKERS ?= 2
test: $(INSTALLED)
	$(BIN)/python -m pytest --numprocesses $(WORKERS) --dist loadfile --no-loadscope-reorder -m "not alone"
	$(BIN)/python -m pytest -m alone

WEB := runtime/web
web-tools: $(INSTALLED)
	@command -v node > /dev/null || { echo "Node 20 or newer is needed, and npm"; exit 1; }
	@node -e 'process.exit(+(process.versions.node.split(".")[0] < 20))' || { echo "Node 20 or newer is needed, this is $$(node --version)"; exit 1; }
	@command -v chromium > /dev/null || { apt-get update -qq && apt-get install -qq -y chromium; } || { echo "Chromium is needed; install it, and try again"; exit 1; }
	cd $(WEB) && npm install --ignore-scripts --no-package-lock --no-audit --no-fund

test-distributed: $(INSTALLED)
	CHARGEN_DISTRIBUTED=1 $(BIN)/python -m pytest tests/test_distributed.py

test-web: web-tools
	cd $(WEB) && node kernel.mjs --check && npx tsc
	CHARGEN_MUTANTS=2000 $(BIN)/python -m pytest tests/test_web.py tests/test_web_units.py tests/test_page.py tests/test_serve_page.py

ENGINES := build/engines
test-engines: $(INSTALLED)
	@command -v java > /dev/null || { echo "Spark needs Java 17 or newer; on Debian: apt-get install openjdk-17-jre-headless"; exit 1; }
	$(PYTHON) -m venv $(ENGINES)
	$(ENGINES)/bin/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[engines]'
	$(ENGINES)/bin/python -m tests.engines

DOMAINS ?= domains
LINES ?= 1000000
bench-scores: $(INSTALLED)
	@test -f $(DOMAINS)/benign.txt || { echo "name a folder with benign.txt, choose.csv and report.csv: make bench-scores DOMAINS=folder"; exit 1; }
	$(BIN)/python -m tests.benchmarks.scores $(DOMAINS) $(MODEL)
	$(BIN)/python -m tests.benchmarks.lines $(or $(MODEL),build/domains.onnx) $(DOMAINS)/benign.txt $(LINES)

bench-web: web-tools
	$(BIN)/python -m tests.benchmarks web

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

COUNT ?= 1000000
bench-control: $(INSTALLED)
	$(BIN)/python -m tests.benchmarks.control --count $(COUNT) $(if $(MODEL),--model $(MODEL)) $(if $(CORPUS),--corpus $(CORPUS))

bench-serve: $(INSTALLED)
	$(BIN)/python -m tests.benchmarks serve

SOAK ?= 600
soak-serve: $(INSTALLED)
	SERVE_REPEATS=20 SERVE_FUZZED=10000 $(BIN)/python -m pytest tests/test_serve_batch.py tests/test_serve_limits.py
	$(BIN)/python -m tests.soak_serve $(SOAK)

bare: $(INSTALLED)
	rm -rf build/wheel build/bare
	$(BIN)/pip wheel --quiet --disable-pip-version-check --no-deps --wheel-dir build/wheel .
	$(PYTHON) -m venv build/bare
	build/bare/bin/pip install --quiet --disable-pip-version-check --constraint constraints.txt build/wheel/*.whl
	cd build && bare/bin/python ../tests/bare_install.py bare/bin/chargen-ort

SECONDS ?= 1e9
fuzz: $(INSTALLED)
	$(BIN)/python -m tests.fuzz --count $(COUNT) --seconds $(SECONDS)

fuzz-walker: $(INSTALLED)
	$(PYTHON) -m venv build/atheris
	build/atheris/bin/pip install --quiet --disable-pip-version-check --constraint constraints.txt atheris numpy
	mkdir -p build/walker
	PYTHONPATH=runtime:. build/atheris/bin/python -m tests.fuzz.walker build/walker -max_total_time=60 -print_final_stats=1

crash: $(INSTALLED)
	CHARGEN_CRASH_MOMENTS=1000 $(BIN)/python -m pytest tests/test_crash.py
	mkdir -p build/full
	mount -t tmpfs -o size=8m tmpfs build/full || { echo "the full disk needs root to mount a small one; not tried"; exit 1; }
	CHARGEN_FULL_FOLDER=build/full $(BIN)/python -m pytest tests/test_crash.py -k really_full; status=$$?; umount build/full; exit $$status

OLDEST := 1.23.2
guard-old: $(INSTALLED)
	$(PYTHON) -m venv build/guard-old
	sed 's/^onnxruntime==.*/onnxruntime==$(OLDEST)/' constraints.txt > build/constraints-old.txt
	build/guard-old/bin/pip install --quiet --disable-pip-version-check --constraint build/constraints-old.txt --editable '.[dev]'
	build/guard-old/bin/python -c 'import onnxruntime as o; assert o.__version__ == "$(OLDEST)", o.__version__'
	build/guard-old/bin/python -m pytest tests/test_hostile.py

demo-model: $(INSTALLED)
	$(BIN)/train-export train/hello.txt --out build/demo.onnx
	cp build/demo.onnx runtime/chargen_ort/demo.onnx
	$(BIN)/python -m tests.tools.golden

clean:
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
