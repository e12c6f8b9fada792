# `make demo` and `make test` install what they need into .venv; nothing else is touched.

.DEFAULT_GOAL := help
SHELL := /bin/sh

SEED ?= 0
MINUTES ?= 20
DEMO ?= demo
# Seeds 0 to 5 made the record that the demo corrects its promise by; these test it.
SEEDS ?= 6 7 8 9 10 11

# The first Python of the path that is new enough and can make virtual environments.
PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11; do \
	"$$p" -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
	&& echo "$$p" && break; done)

BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check -q

.PHONY: help
help:
	@echo "make demo   from text to a served model, with every promise scored ($(MINUTES) minutes)"
	@echo "make test   everything that must hold: style, types, layers, tests"
	@echo "make check  style, types and layers alone"
	@echo "make bench  every comparison with other tools, into docs/benchmarks.md (hours)"
	@echo "make bench-demo  the demo with seeds $(SEEDS), as a table"
	@echo "make audit  licences and known vulnerabilities of everything that is installed"
	@echo "make faults kills, full disks, damaged files: the slow proof that nothing is lost"
	@echo "make docs   the manual as HTML, English and 中文, in build/docs"

.PHONY: demo
demo: .venv/.installed
	$(BIN)/isoflop demo --out $(DEMO) --minutes $(MINUTES) --seed $(SEED)

.PHONY: test
test: check
	$(BIN)/python -m pytest -n 2 --dist loadfile

.PHONY: check
check: .venv/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

.PHONY: bench
bench: .venv/.installed-dev
	$(BIN)/python benchmarks/all.py

# Ten minutes a seed, of pre-training alone, on an otherwise idle machine. A missed promise is a row
# of the table.
.PHONY: bench-demo
bench-demo: .venv/.installed
	@for seed in $(SEEDS); do \
		$(BIN)/isoflop demo --out build/demo-$$seed --minutes 10 --seed $$seed; \
		test $$? -le 1 || exit 2; done
	@$(BIN)/python benchmarks/demo_table.py $(SEEDS:%=build/demo-%)

.PHONY: audit
audit: .venv/.installed-dev
	@$(PIP) install -c constraints.txt -e '.[audit]'
	$(BIN)/python tools/audit.py

.PHONY: faults
faults: .venv/.installed-dev
	$(BIN)/python -m pytest tests/faults -m slow

.PHONY: docs
docs: .venv/.installed-docs
	$(BIN)/python -m sphinx -q -W --keep-going -b html docs build/docs
	@echo "build/docs/index.html"

# torch comes first and alone: it is the one large package, and its build is the registry's
# choice (or that of PIP_EXTRA_INDEX_URL: README.md).
.venv/.torch:
	@test -n "$(PYTHON)" || { echo "Isoflop needs Python 3.11 or newer with venv" \
		"(Debian, Ubuntu: apt install python3-venv)" >&2; exit 1; }
	@echo "Installing PyTorch into .venv (once; minutes on a slow line) ..."
	@$(PYTHON) -m venv .venv
	@$(PIP) install torch==2.13.0
	@touch $@

.venv/.installed: .venv/.torch pyproject.toml constraints.txt
	@echo "Installing Isoflop and its libraries into .venv ..."
	@$(PIP) install -c constraints.txt -e '.[serve]'
	@touch $@

.venv/.installed-dev: .venv/.installed
	@echo "Installing the test tools into .venv ..."
	@$(PIP) install -c constraints.txt -e '.[dev,text,serve]'
	@touch $@

.venv/.installed-docs: .venv/.installed
	@echo "Installing the manual's tools into .venv ..."
	@$(PIP) install -c constraints.txt -e '.[docs]'
	@touch $@
