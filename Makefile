# Two commands matter: `make demo` and `make test`. Both set up all they need in .venv on a fresh machine.
# For contributors: `make check` (a minute) and `make quick` (under three, no SGLang) before each commit.
PYTHON ?= python3
# PyTorch's index of builds for CPUs: 0.2 GB instead of the 3 GB that the same version pulls with CUDA on Linux.
# `make TORCH_INDEX= demo` takes the ordinary index; so does a pip that is set up for an index of its own.
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check -q
DEMO_POLICY := truncate_older_than(n=2, max_chars=200)

.PHONY: demo test quick check docs fmt sglang-cpu soak adapters routers containers bench clean help

help:  ## Show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

demo: $(VENV)/.local  ## Run the bundled agent on a generated task, editing its context as it goes
	$(BIN)/leyline run --suite micro --tasks 5 --first-solved --policy "$(DEMO_POLICY)" --mode amortize

test: check $(VENV)/.sglang  ## Lint, type-check and run every test that needs no GPU (about 15 minutes on two cores)
	$(BIN)/python -m pytest -q -n 2 --dist loadgroup

quick: $(VENV)/.dev  ## The tests that start no server and take no long time (under three minutes)
	$(BIN)/python -m pytest -q -n 2 --dist loadgroup -m "not slow and not sglang and not container and not browser"

check: $(VENV)/.dev  ## Lint, format and type checks
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: $(VENV)/.dev  ## The documentation as a site, in build/site
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict -q

fmt: $(VENV)/.dev  ## Format and apply safe fixes
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

sglang-cpu: $(VENV)/.sglang  ## Install SGLang with the plain-torch CPU platform (about 3 GB)

soak: $(VENV)/.sglang  ## Ten thousand random directive requests against real servers (about 15 minutes on two cores)
	$(BIN)/python scripts/sglang_soak.py --requests 10000

adapters: $(VENV)/.dev  ## The tests that run other harnesses' own agents; installs these harnesses (about 500 MB)
	$(PIP) install -c constraints.txt -e '.[mini-swe-agent,langchain,openai-agents,pydantic-ai,litellm,inspect-ai,google-adk]'
	$(BIN)/python -m pytest -q -rs tests/harness/adapters tests/harness/matrix tests/harness/test_plugged_in.py

routers: $(VENV)/.sglang  ## Replicas behind nginx and smg, one of them killed; installs smg (37 MB)
	$(PIP) install smg==1.13.0
	$(BIN)/python -m pytest -q -rs -s tests/backends/sglang/plugin/test_routers.py

containers: $(VENV)/.dev  ## The tests that run containers, with podman from Debian where no engine is installed
	command -v podman >/dev/null || command -v docker >/dev/null || apt-get install -y podman runc
	$(BIN)/python -m pytest -q -rs -m container

bench: $(VENV)/.dev  ## Benchmarks, with the floor each is measured against
	$(BIN)/python benchmarks/directives.py
	$(BIN)/python benchmarks/local_splice.py

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "Leyline needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) -V 2>&1 | head -1)."; \
	  echo "Name another one: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 2; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo "$(PYTHON) cannot make environments; on Debian and Ubuntu: apt-get install python3-venv"; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(PIP) install -U pip

# pip's settings decide where there are any: an index, a mirror or a folder of wheels that somebody chose.
$(VENV)/.torch: $(BIN)/python constraints.txt
	@if [ "$$(uname -s)" = Linux ] && [ -n "$(TORCH_INDEX)" ] && ! $(PIP) config list | grep -qE 'index|find-links'; then \
	  echo "Installing PyTorch for the CPU (0.2 GB) ..."; \
	  $(PIP) install --timeout 20 --retries 1 --no-deps -c constraints.txt --index-url $(TORCH_INDEX) torch || \
	  echo "$(TORCH_INDEX) was not reached: the ordinary index follows, with 3 GB of CUDA on Linux."; fi
	@touch $@

$(VENV)/.local: $(VENV)/.torch pyproject.toml constraints.txt
	@echo "Installing leyline with its local backend: 1.3 GB in $(VENV), a few minutes the first time ..."
	$(PIP) install -c constraints.txt -e '.[local]'
	@touch $@

$(VENV)/.dev: $(VENV)/.local
	@echo "Installing the tools of the tests: 1 GB more in $(VENV) ..."
	$(PIP) install -c constraints.txt -e '.[local,report,swebench,ray,proxy,docs,dev]'
	@touch $@

$(VENV)/.sglang: $(VENV)/.dev platforms/torch_cpu/requirements.txt platforms/torch_cpu/pyproject.toml
	@echo "Installing SGLang for the CPU: 1.5 GB more in $(VENV), a few minutes the first time ..."
	$(PIP) install -c constraints.txt -r platforms/torch_cpu/requirements.txt
	$(PIP) install --no-deps sglang==0.5.23 -e platforms/torch_cpu
	@touch $@

clean:  ## Remove caches and build products
	rm -rf build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
