# make conformance   verify refgrad: journal and HTML page under reports/
# make test          the tests
# make lint          ruff and mypy
# make report        all pages that are published, from the journal
# make bench         the backward pass of every workload, engines side by side (pytest-benchmark)
# make peers         install the engines that refgrad is timed against: jax, mygrad, autograd, tinygrad
# make clean         remove .venv and caches
#
# Long ones, of a quarter of an hour to an hour on two cores, each with a verdict of its own:
# make full          verify refgrad at second order, ten times the generated graphs
# make torch         judge PyTorch itself, by refgrad and by derivatives without rules
# make half          what PyTorch loses in float16 and bfloat16
# make edges         elementwise derivatives of both engines at the edges, against mpmath
# make coverage      which classes of operands the generated graphs meet
# make explore       the tests that draw their examples, with others each time
# make selftest      the harness measured: wrong rules, oracles, single entries, false alarms, shrinking, speed
#
# The environment is made from nothing on the first call. Options for pip: make test PIP_ARGS='--index-url ...'
# Options for the run or for pytest: make conformance ARGS='--source opinfo -j 4', make test ARGS='-k softmax'

PYTHON   ?= python3
VENV     ?= .venv
PIP_ARGS ?=
ARGS     ?=
RUNS     := reports/runs
PROFILE  ?= ci

BIN     := $(VENV)/bin
STAMP   := $(VENV)/.installed
JOURNAL := reports/conformance.jsonl
PAGE    := reports/conformance.html

.DEFAULT_GOAL := help
.PHONY: help install conformance report test lint bench peers clean full torch half edges coverage explore selftest

help:
	@sed -n '/^#/!q; s/^# \{0,1\}//p' Makefile

install: $(STAMP)

# One stamp for the whole environment: made again when what it was made from changes.
$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or later is needed: make PYTHON=/path/to/python3.11 ...")'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet $(PIP_ARGS) -c constraints.txt -e '.[bench,models,test,lint]'
	@touch $@

# The page is made whatever the run found; make's status is the run's.
conformance: $(STAMP)
	@rm -f $(JOURNAL)
	@status=0; $(BIN)/conformance run --engine refgrad --profile $(PROFILE) --journal $(JOURNAL) $(ARGS) || status=$$?; \
	test ! -s $(JOURNAL) || $(BIN)/conformance report $(JOURNAL) --quiet --html $(PAGE) || test $$status -ne 0 || status=$$?; \
	exit $$status

report: $(STAMP)
	@$(BIN)/conformance report $(JOURNAL) --html $(PAGE) --markdown $(PAGE:.html=.md) --badge $(PAGE:.html=.svg)

test: $(STAMP)
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto $(ARGS)

lint: $(STAMP)
	@status=0; \
	$(BIN)/ruff check . || status=1; \
	$(BIN)/mypy || status=1; \
	exit $$status

full: $(STAMP)
	$(BIN)/conformance run --profile full --order 2 --source corpus,captured,opinfo,generated,pairs --journal $(RUNS)/full-$$(date +%Y%m%d-%H%M%S).jsonl $(ARGS)

torch: $(STAMP)
	$(BIN)/conformance run --engine torch --order 2 --source corpus,opinfo,generated --journal $(RUNS)/torch-$$(date +%Y%m%d-%H%M%S).jsonl $(ARGS)

half: $(STAMP)
	$(BIN)/conformance run --engine torch --check half,half2 --source captured,opinfo,generated --journal $(RUNS)/half-$$(date +%Y%m%d-%H%M%S).jsonl $(ARGS)

edges: $(STAMP)
	@status=0; for engine in refgrad torch; do \
		$(BIN)/conformance run --engine $$engine --source edges --journal $(RUNS)/edges-$$engine-$$(date +%Y%m%d-%H%M%S).jsonl $(ARGS) || status=$$?; \
	done; exit $$status

coverage: $(STAMP)
	$(BIN)/conformance coverage --profile full -j 2 $(ARGS)

explore: $(STAMP)
	HYPOTHESIS_PROFILE=explore OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto -m hypothesis $(ARGS)

MEASUREMENTS := mutants oracles entries alarms shrinking rates

selftest: $(STAMP)
	@status=0; for one in $(MEASUREMENTS); do \
		echo "=== conformance selftest $$one"; $(BIN)/conformance selftest $$one $(ARGS) || status=$$?; \
	done; exit $$status

bench: $(STAMP)
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/benchmarks -p no:xdist --benchmark-only --benchmark-group-by=group \
		--benchmark-sort=name --benchmark-columns=min,median,iqr,rounds $(ARGS)

peers: $(STAMP)
	$(BIN)/python -m pip install --quiet $(PIP_ARGS) -c constraints.txt -e '.[peers]'

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .benchmarks build dist
