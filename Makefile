# The two commands are `make bench` and `make test`. Each makes .venv when it is missing, installs what it
# needs, and does its job; a second call installs nothing. `make help` lists the rest.

# What to install and with which Python. All three may be given on the command line:
#   make test PYTHON=python3.12
#   make bench TORCH_INDEX=<address of PyTorch's CPU wheel index>   the small build, for machines without a GPU
#   make test TORCH=                                               no PyTorch: NumPy is the only baseline
PYTHON ?= $(or $(shell for p in python3 python3.13 python3.12 python3.11; do \
	$$p -c '$(SUPPORTED)' >/dev/null 2>&1 && { echo $$p; break; }; done),python3)
TORCH ?= torch==2.13.0
TORCH_INDEX ?=
SUITE ?= quick
ARGS ?=
JOBS ?= 2
# Triton and CuPy, for the proofs of the CUDA kernels, which need no GPU:   make test GPU= leaves them out
GPU ?= gpu
# A folder for copies of what `make gpu` records, such as one that comes back from the machine with the GPU
OUT ?=
# A Python that has torch with CUDA, triton and cupy already, for `make gpu` on a machine without a network
GPU_PYTHON ?=

SUPPORTED := import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))
VENV := .venv
BIN := $(VENV)/bin
# The stamp's name holds everything that an installation depends on, so a change of any of it installs again.
KEY := $(shell { cat pyproject.toml; echo '$(TORCH) $(TORCH_INDEX) $(GPU) $(CURDIR)'; } | cksum | cut -d' ' -f1)
STAMP := $(VENV)/installed-$(KEY)
LINK := build/typing/kernelwright

.DEFAULT_GOAL := help
.PHONY: help bench gate gpu tables pytest-bench test lint format typecheck install clean distclean

help:
	@echo 'make bench         race the kernels against the vendor libraries (SUITE=quick, ARGS="--threads 1")'
	@echo 'make gate          hold the tree against the commit before: AGAINST=HEAD~1 THRESHOLD=25%'
	@echo 'make gpu           on a GPU: prove every CUDA kernel, race it, keep a record in bench/records/'
	@echo 'make tables        bring the tables in the documents up to date with the records'
	@echo 'make test          run the tests (ARGS="-k matmul"; JOBS=2 processes, 0: in this one)'
	@echo 'make pytest-bench  the quick suite in the table of pytest-benchmark'
	@echo 'make lint          ruff, its formatter, and mypy: what CI asks'
	@echo 'make format        let ruff format and mend what it can'
	@echo 'make install       only make .venv and install into it'
	@echo 'make clean         remove build/ and the caches of the tools; distclean removes .venv too'

bench: $(STAMP)
	@$(BIN)/kernelwright bench $(SUITE) $(ARGS)

# What passes all the same is what could not be told: other work on the machine is no fault of the change.
AGAINST ?= HEAD~1
THRESHOLD ?= 25%
gate: export KERNELWRIGHT_CACHE_DIR ?= $(CURDIR)/build/test-cache
gate: $(STAMP)
	@$(BIN)/kernelwright gate $(SUITE) --against '$(AGAINST)' --threads 1 --threshold '$(THRESHOLD)' \
		--allow inconclusive --markdown build/gate.md --junit build/gate.xml --json build/gate.json $(ARGS)

# One run of less than nine minutes; `kernelwright bench --device cuda --suite all --check` is the same.
gpu: $(if $(GPU_PYTHON),,$(STAMP)) | $(LINK)
	@PYTHONPATH='$(CURDIR)/$(dir $(LINK))' $(or $(GPU_PYTHON),$(BIN)/python) -m kernelwright.bench.cuda \
		--suite all --check $(if $(OUT),--out '$(OUT)') $(ARGS)

tables: $(STAMP)
	@$(BIN)/python -m kernelwright.bench.cuda --tables

# Compiled kernels are kept in build/, so that a second run compiles nothing. In the first, compiling is most of the
# work: two processes share it, a file of tests each.
test: export KERNELWRIGHT_CACHE_DIR ?= $(CURDIR)/build/test-cache
test: $(STAMP)
	@$(BIN)/python -m pytest -n $(JOBS) --dist loadfile $(ARGS)

lint: $(STAMP)
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(MAKE) --no-print-directory typecheck

format: $(STAMP)
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

# mypy, and pytest for tests inside the package, name a package after its folder. This folder may have any
# name, so they look at it through a link that has the right one.
$(LINK):
	@mkdir -p $(@D) && ln -sfn ../.. $@

pytest-bench: $(STAMP) | $(LINK)
	@$(BIN)/python -m pytest $(LINK)/bench/test_matmul.py $(ARGS)

typecheck: $(STAMP) | $(LINK)
	@cd $(dir $(LINK)) && '$(CURDIR)/$(BIN)/mypy' --config-file ../../pyproject.toml \
		--cache-dir ../../.mypy_cache kernelwright

install: $(STAMP)

$(STAMP):
	@$(PYTHON) -c '$(SUPPORTED)' || { echo >&2 \
	'Kernelwright needs Python 3.11, 3.12 or 3.13, and "$(PYTHON)" is not one of them (or is missing).' \
	'Install one, for example with: apt-get install python3 python3-venv; or name it: make PYTHON=python3.12'; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo >&2 \
	'"$(PYTHON)" cannot make a virtual environment. Install the missing part: apt-get install python3-venv'; exit 1; }
	@test -x $(BIN)/pip || { echo 'making $(VENV)'; $(PYTHON) -m venv $(VENV); }
	@echo 'installing into $(VENV): the first time takes a few minutes'
	@$(BIN)/python -m pip install $(if $(TORCH_INDEX),--extra-index-url '$(TORCH_INDEX)') \
		$(if $(TORCH),'$(TORCH)') --editable '.[dev,ray$(if $(TORCH),$(comma)torch$(if $(GPU),$(comma)gpu))]'
	@rm -f $(VENV)/installed-* && touch $@

comma := ,

clean:
	rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .benchmarks
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +

distclean: clean
	rm -rf $(VENV)
