# `make demo` and `make test` need nothing but make and a python3; the rest is set up first.
VENV := .venv/bin

.PHONY: help demo test long clients next check fmt bench fuzz soak fleet breaks kills contract setup clean
.DEFAULT_GOAL := help

help:
	@echo "make demo   set up, then show inject, block and scrub with real requests"
	@echo "make test   set up, then run the checks and all tests"
	@echo "make clients  install other clients, and send each through coatcheck and a load balancer"
	@echo "make long   the same, with the variants that take long; half an hour"
	@echo "make next   the tests of the engine once more, on the next mitmproxy"
	@echo "make check  lint, format and types only"
	@echo "make fmt    put the code into shape"
	@echo "make bench  coatcheck and others side by side, a quarter of an hour; BENCH_ARGS=--quick"
	@echo "make soak   2,500 hostile connections, then workers that are killed; SOAK_MINUTES=1 for less"
	@echo "make fleet  three replicas on one PostgreSQL, while all of it fails; FLEET_SECONDS=300 for more"
	@echo "make fuzz   an hour of inputs that nobody thought of; FUZZ_SECONDS=60 FUZZ_CASES=9999 for less"
	@echo "make breaks break each security check by hand; a test has to see it; takes long"
	@echo "make kills  kill a writer, a key rotation and a move of the store 2,000 times; KILLS=200 for less"
	@echo "make contract  ask the management API at random, by its own description, for ten minutes"
	@echo "make setup  only make .venv; the program is then .venv/bin/coatcheck"
	@echo "make clean  remove .venv and caches"

setup:
	@python3 scripts/bootstrap.py

demo: setup
	@$(VENV)/coatcheck demo

check: setup
	@echo "check: ruff check";      $(VENV)/ruff check .
	@echo "check: ruff format";     $(VENV)/ruff format --check .
	@echo "check: mypy --strict";   $(VENV)/mypy --strict src

test: check
	@echo "test: pytest";           $(VENV)/python -m pytest -n 4 \
	    --dist loadfile --no-loadscope-reorder $(PYTEST_ARGS)

# Toolchains and SDKs of half a gigabyte, which nothing else needs: into build/clients.
CLIENTS_ARGS :=
clients: setup
	@$(VENV)/python -m tests.e2e.clients $(CLIENTS_ARGS)

long: setup
	@COATCHECK_LONG=1 $(MAKE) --no-print-directory test

next: setup
	@$(VENV)/python scripts/next_mitmproxy.py

fmt: setup
	@$(VENV)/ruff check --fix .
	@$(VENV)/ruff format .

# One of those that are measured is no part of the setup. Where it cannot be had it is left out.
BENCH_ARGS :=
bench: setup
	-@$(VENV)/python -m pip install -q --no-input --disable-pip-version-check \
	    --no-build-isolation -c constraints.txt -e ".[bench]"
	@$(VENV)/python -m bench $(BENCH_ARGS)

SOAK_MINUTES := 20
soak: setup
	@$(VENV)/python bench/soak.py $(SOAK_ARGS)
	@$(VENV)/python bench/soak_workers.py --minutes $(SOAK_MINUTES)

FLEET_SECONDS := 120
FLEET_ARGS :=
fleet: setup
	@COATCHECK_LONG=1 $(VENV)/python -m pytest -q tests/bench/test_fleet.py
	@PYTHONPATH=. $(VENV)/python bench/soak_fleet.py --seconds $(FLEET_SECONDS) $(FLEET_ARGS)

# Its engine is no part of the setup: nothing else needs it.
FUZZ_SECONDS := 1800
FUZZ_CASES := 10000000
FUZZ_ARGS :=
fuzz: setup
	@$(VENV)/python -m pip install -q --no-input --disable-pip-version-check --no-build-isolation \
	    -c constraints.txt -e ".[fuzz]"
	@$(VENV)/python -m tests.fuzz --seconds $(FUZZ_SECONDS) $(FUZZ_ARGS)
	@$(VENV)/python -m tests.fuzz.redactor $(FUZZ_CASES)

breaks: setup
	@$(VENV)/python -m tests.breaks $(BREAKS_ARGS)

KILLS := 2000
kills: setup
	@$(VENV)/python -m tests.store.kills --kills $(KILLS) $(KILLS_ARGS)

CONTRACT_SECONDS := 600
contract: setup
	@$(VENV)/python -m tests.admin.contract --seconds $(CONTRACT_SECONDS)

clean:
	rm -rf .venv build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
