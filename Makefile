# Every target makes the .venv that it needs; nothing has to be installed before.
PYTHON ?= python3.11
VENV   := .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/pip install --quiet --disable-pip-version-check
export OMP_NUM_THREADS ?= 2

.PHONY: demo test system check docs format bench soak audit clean

demo: $(VENV)/.demo
	$(BIN)/finseek demo

test: $(VENV)/.test
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist loadfile --no-loadscope-reorder

# Debian: apt-get install chromium npm slurm-wlm munge
system: $(VENV)/.test
	OMP_NUM_THREADS=1 $(BIN)/pytest -m system

check: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: $(VENV)/.test
	$(BIN)/python -m sphinx -W --keep-going -q -b html docs docs/_build

format: $(VENV)/.test
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(VENV)/.test
	@for script in benchmarks/*.py; do echo "== $$script"; $(BIN)/python $$script || exit 1; done

soak: $(VENV)/.test
	OMP_NUM_THREADS=1 $(BIN)/pytest -m soak

# Known vulnerabilities of the pinned versions, from PyPI's advisories; a version that cannot be asked about fails.
audit:
	test -x $(VENV)/audit/bin/pip-audit || { $(PYTHON) -m venv $(VENV)/audit && $(VENV)/audit/bin/pip install -q pip-audit; }
	$(VENV)/audit/bin/pip-audit --strict --no-deps --disable-pip -r constraints.txt

clean:
	rm -rf $(VENV) build dist docs/_build .pytest_cache .mypy_cache .ruff_cache .hypothesis

# torch goes first and alone: its wheel for this machine is then fixed before anything else asks for it.
$(VENV)/.torch: constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) -c constraints.txt torch
	touch $@

$(VENV)/.demo: $(VENV)/.torch pyproject.toml
	$(PIP) -c constraints.txt -e '.[train,stats,speed]'
	touch $@

$(VENV)/.test: $(VENV)/.torch pyproject.toml
	$(PIP) -c constraints.txt -e '.[train,stats,speed,nemo,trl,tracking,docs,test]'
	touch $(VENV)/.demo $@
