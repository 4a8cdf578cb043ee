# make demo   set up .venv, sweep on whatever this machine has, build the report
# make test   the tests that need no GPU and no patience
# make check  everything that CI runs before the slow tests
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Two test processes, each file in one of them: many tests wait, and few need a core to themselves.
PARALLEL := -n 2 --dist loadfile
# What runs in an implementation's own environment, whose Python may be older than ours; mypy knows 3.10 at the oldest.
WORKER := $(addprefix src/attnsweep/,worker.py zygote.py impls frameworks timing kernels)
# CUPTI shows which kernels ran; it is of use only where a driver is.
EXTRAS := dev,cluster,envs,hub,jax$(shell command -v nvidia-smi >/dev/null 2>&1 && printf ',cupti')

.PHONY: demo test check lint slow gpu docs reliability clean

$(VENV)/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "attnsweep needs Python 3.11 or newer; this is $$($(PYTHON) --version). Try make PYTHON=python3.12"; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[$(EXTRAS)]'
	@touch $@

demo: $(VENV)/.installed
	$(BIN)/attnsweep study=quickstart
	$(BIN)/attnsweep-report outputs/quickstart
	@echo
	@echo "The report: $(CURDIR)/outputs/quickstart/report/report.html"

test: $(VENV)/.installed
	$(BIN)/python -m pytest -q $(PARALLEL)

lint: $(VENV)/.installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/mypy --python-version 3.10 $(WORKER)
	$(BIN)/lint-imports

check: lint test

slow: $(VENV)/.installed
	$(BIN)/python -m pytest -q -m slow $(PARALLEL)

gpu: $(VENV)/.installed
	$(BIN)/python -m pytest -q -m gpu tests

docs: $(VENV)/.installed
	$(BIN)/python -c 'from attnsweep import records; print(records.columns_markdown(), end="")' > docs/columns.md
	$(BIN)/python -c 'from attnsweep import capabilities; print(capabilities.markdown(), end="")' > docs/implementations.md

# Every fault of tests/faults that needs no GPU, and the table of what was seen
reliability: $(VENV)/.installed
	$(BIN)/python -m pytest -q -m 'not gpu' tests/faults --faults-table docs/reliability.md

clean:
	rm -rf $(VENV) build dist
