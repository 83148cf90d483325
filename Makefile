# Two commands matter: `make demo` and `make test`. Both set up all they need in .venv on a fresh machine.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check -q
DEMO_POLICY := truncate_older_than(n=2, max_chars=200)

.PHONY: demo test check fmt sglang-cpu soak adapters containers bench clean help

help:  ## Show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

demo: $(VENV)/.local  ## Run the bundled agent on a generated task, editing its context as it goes
	$(BIN)/leyline run --suite micro --tasks 5 --first-solved --policy "$(DEMO_POLICY)" --mode amortize

test: check $(VENV)/.sglang  ## Lint, type-check and run every test that needs no GPU
	$(BIN)/python -m pytest -q -n 2 --dist loadgroup

check: $(VENV)/.dev  ## Lint, format and type checks
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

fmt: $(VENV)/.dev  ## Format and apply safe fixes
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

sglang-cpu: $(VENV)/.sglang  ## Install SGLang with the plain-torch CPU platform (about 3 GB)

soak: $(VENV)/.sglang  ## Ten thousand random directive requests against real servers (about 15 minutes on two cores)
	$(BIN)/python scripts/sglang_soak.py --requests 10000

adapters: $(VENV)/.dev  ## The tests that run other harnesses' own agents; installs these harnesses (about 200 MB)
	$(PIP) install -c constraints.txt -e '.[mini-swe-agent,langchain,openai-agents]'
	$(BIN)/python -m pytest -q -rs tests/harness/adapters tests/harness/test_plugged_in.py

containers: $(VENV)/.dev  ## The tests that run containers, with podman from Debian where no engine is installed
	command -v podman >/dev/null || command -v docker >/dev/null || apt-get install -y podman runc
	$(BIN)/python -m pytest -q -rs -m container

bench: $(VENV)/.dev  ## Benchmarks, with the floor each is measured against
	$(BIN)/python benchmarks/directives.py
	$(BIN)/python benchmarks/local_splice.py

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)
	$(PIP) install -U pip

$(VENV)/.local: $(BIN)/python pyproject.toml constraints.txt
	@echo "Installing leyline with its local backend (PyTorch for the CPU; a few minutes the first time) ..."
	$(PIP) install -c constraints.txt -e '.[local]'
	@touch $@

$(VENV)/.dev: $(VENV)/.local
	$(PIP) install -c constraints.txt -e '.[local,report,swebench,ray,proxy,dev]'
	@touch $@

$(VENV)/.sglang: $(VENV)/.dev platforms/torch_cpu/requirements.txt platforms/torch_cpu/pyproject.toml
	$(PIP) install -c constraints.txt -r platforms/torch_cpu/requirements.txt
	$(PIP) install --no-deps sglang==0.5.23 -e platforms/torch_cpu
	@touch $@

clean:  ## Remove caches and build products
	rm -rf build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
