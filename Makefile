# demo      install what the demo and README need (SIZE_DEMO below) and run it: a model learns to tell apart brand marks that it never saw
# test      install what the tests need and run all but the slow ones; check: linters, types, layers
# docs      the documentation site, into site/; index.html there is its first page
# test-browser  the reports in a Chromium: $CHROMIUM, the PATH's, or (as root on Debian) one that apt installs
# test-all  the slow sweeps too, with branch coverage by package; bench DATA=photographs: measurements beside peers (minutes to hours)
VENV ?= .venv
PYTHON ?= python3
BIN := $(VENV)/bin
# The tests start some hundreds of processes: bytecode is written, whatever the environment says.
export PYTHONDONTWRITEBYTECODE :=
PIP := $(BIN)/python -m pip
# What is installed, said before pip begins. Measured 2026-11-29 on two cores: see README.
SIZE_DEMO := some 2 GB of Python packages in $(VENV): two to five minutes with a quick connection
SIZE_TEST := some 3 GB of Python packages in $(VENV): three to six minutes with a quick connection
# On Linux, PyPI's torch is built for CUDA and brings gigabytes of NVIDIA libraries. Without an NVIDIA driver torch's own index is
# asked for the CPU build; where that cannot be reached, PyPI's is taken. "make TORCH_INDEX= ..." does not ask.
TORCH_INDEX ?= $(if $(shell command -v nvidia-smi),,$(if $(filter Linux,$(shell uname -s)),https://download.pytorch.org/whl/cpu))

.PHONY: demo test test-browser screenshots test-all check bench docs clean

demo: $(VENV)/.installed-demo
	$(BIN)/unalike demo --overwrite $(DEMO)

test: $(VENV)/.installed-test
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -x -q -n 3 --dist worksteal -m "not slow and not browser" $(TESTS)

test-browser: $(VENV)/.installed-test
	chromium="$$($(BIN)/python -m tests.support.chromium)" && CHROMIUM="$$chromium" BROWSER_TESTS=required \
	    OMP_NUM_THREADS=1 $(BIN)/python -m pytest -x -q -n 3 --dist loadfile --no-loadscope-reorder -m browser tests/browser

screenshots: $(VENV)/.installed-test
	$(BIN)/python docs/generate_screenshots.py

test-all: $(VENV)/.installed-slow
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2 --dist worksteal -m "not browser" --cov --cov-report=json:coverage.json $(TESTS)
	$(BIN)/python tests/coverage_by_package.py coverage.json

check: $(VENV)/.installed-test
	$(BIN)/ruff check src tests benchmarks examples docs
	$(BIN)/ruff format --check src tests benchmarks examples docs
	$(BIN)/mypy
	$(BIN)/python -m pytest -q tests/unit/test_layers.py

bench: $(VENV)/.installed-test
	@for script in metrics training_step; do echo "== $$script"; $(BIN)/python benchmarks/$$script.py || exit 1; done
	@for script in loading files_to_vectors engines grocery; do echo "== $$script"; \
	    $(BIN)/python benchmarks/$$script.py $(if $(DATA),--data $(DATA)) || exit 1; done

# Strict: a link that leads nowhere is an error. Pages load nothing from the network (docs/site_hooks.py checks it).
docs: $(VENV)/.installed-docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict
	@echo 'site/index.html; the search works where the site is served: python -m http.server -d site'

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

# torch for this machine, where the virtual environment has none yet.
$(VENV)/.torch: constraints.txt | $(BIN)/python
	@if [ -z "$(TORCH_INDEX)" ] || $(PIP) show -q torch 2>/dev/null; then :; else \
	    echo "no NVIDIA driver: asking $(TORCH_INDEX) for the CPU build of torch (some 200 MB)"; \
	    $(PIP) install -q --disable-pip-version-check --retries 0 --timeout 15 --no-deps -c constraints.txt --index-url $(TORCH_INDEX) torch torchvision \
	        2>/dev/null || echo "not reachable, or without this version: torch comes from the usual index"; fi
	@touch $@

# Stamps: pip runs again only when the requirements change. The demo needs less than the tests.
$(VENV)/.installed-demo: pyproject.toml constraints.txt $(VENV)/.torch | $(BIN)/python
	@echo "installing $(SIZE_DEMO)"
	$(PIP) install -q -c constraints.txt -e '.[train,demo,vision,serve]'
	@touch $@

$(VENV)/.installed-test: pyproject.toml constraints.txt $(VENV)/.torch | $(BIN)/python
	@echo "installing $(SIZE_TEST)"
	$(PIP) install -q -c constraints.txt -e '.[train,demo,vision,dev]'
	@touch $@ $(VENV)/.installed-demo

# Building the pages needs no torch: the Python reference is read from the source.
$(VENV)/.installed-docs: pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install -q -c constraints.txt -e '.[docs]'
	@touch $@

# The slow tests also start a Ray cluster, and a server of Milvus Lite.
$(VENV)/.installed-slow: $(VENV)/.installed-test
	$(PIP) install -q -c constraints.txt -e '.[train,demo,vision,dev,cluster,milvus-lite]'
	@touch $@

clean:
	rm -rf build dist site coverage.json .coverage .coverage.* .pytest_cache .mypy_cache .ruff_cache .hypothesis
