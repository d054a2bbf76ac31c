# What a newcomer types. Everything lands in .venv, .venv-localstripe and $(VAR_DIR), nothing elsewhere.

# The first one that really runs and is new enough (a shim may be on the path and lead nowhere).
PYTHON ?= $(shell for name in python3 python3.13 python3.12 python3.11 python3.14; do \
	"$$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo $$name; break; }; done)
PIP_FLAGS = --quiet --disable-pip-version-check --no-input --require-hashes
BIN = .venv/bin
export VAR_DIR ?= $(CURDIR)/var
# More processes than this wait for the one PostgreSQL more than they save.
TEST_PROCESSES ?= $(shell n=$$(nproc 2>/dev/null || echo 2); [ $$n -gt 4 ] && echo 4 || echo $$n)
ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help demo run test check format bench chaos lock clean

help:  ## what there is to type
	@awk -F ':.*## ' '/^[a-z]+:.*## /{printf "make %-8s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

demo: .venv/base.stamp  ## lives one month of a carrier, then serves it; EXIT=1 stops after the table
	$(BIN)/python manage.py demo $(if $(EXIT),--exit) $(ARGS)

run: .venv/base.stamp  ## the same services, migrated and with the catalogue loaded, for use
	$(BIN)/python manage.py run $(ARGS)

test: .venv/dev.stamp .venv-localstripe/stamp  ## the whole suite, on real PostgreSQL and a real broker
	$(BIN)/pytest -n $(TEST_PROCESSES) $(ARGS)

check: .venv/dev.stamp  ## format, lint, types, layers, migrations, API schema and translation drift
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy .
	$(BIN)/lint-imports
	$(BIN)/python manage.py check --fail-level WARNING
	$(BIN)/python manage.py makemigrations --check --dry-run
	$(BIN)/python manage.py check_drift

format: .venv/dev.stamp  ## formats the code, writes openapi.yaml and the compiled translations
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .
	$(BIN)/python manage.py check_drift --write

bench: .venv/dev.stamp  ## the benchmarks, as ratios with both sides measured in the same run; QUICK=1, ONLY=key
	$(BIN)/python -m tests.bench $(if $(QUICK),--quick) $(if $(ONLY),--only $(ONLY)) $(ARGS)

chaos: .venv/dev.stamp  ## kills servers, web and workers under load, then proves exactly-once; SECONDS=60, SEED=n
	$(BIN)/python -m tests.faults.chaos $(if $(SECONDS),--seconds $(SECONDS)) $(if $(SEED),--seed $(SEED)) $(ARGS)

lock: .venv/dev.stamp  ## resolves pyproject.toml anew into requirements/, with hashes
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	$(COMPILE) pyproject.toml -o requirements/base.txt
	$(COMPILE) pyproject.toml --group dev -c requirements/base.txt -o requirements/dev.txt
	$(COMPILE) requirements/localstripe.in -o requirements/localstripe.txt

# One release for all Pythons and machines; no address of a registry is written down.
COMPILE = UV_CUSTOM_COMPILE_COMMAND="make lock" $(BIN)/uv pip compile --quiet --upgrade --universal \
	--python-version 3.11 --fork-strategy fewest --generate-hashes --no-emit-index-url \
	--no-emit-find-links

clean:  ## removes environments and data of this checkout (stop what runs first)
	rm -rf .venv .venv-localstripe .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	@if [ -L "$(VAR_DIR)/postgres" ]; then rm -rf "$$(readlink "$(VAR_DIR)/postgres")"; fi
	@if [ -L "$(VAR_DIR)/test/postgres" ]; then rm -rf "$$(readlink "$(VAR_DIR)/test/postgres")"; fi
	rm -rf "$(VAR_DIR)"

.venv/bin/python:
	@test -n "$(PYTHON)" || { echo "Install Python 3.11 or later, or say PYTHON=/path/to/python"; exit 1; }
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "$(PYTHON) does not run or is older than 3.11; say PYTHON=/path/to/a/newer/python"; exit 1; }
	"$(PYTHON)" -m venv .venv

.venv/base.stamp: requirements/base.txt | .venv/bin/python
	@echo "installing from requirements/base.txt ..."
	@$(BIN)/python -m pip install $(PIP_FLAGS) -r requirements/base.txt
	@touch $@

# The development lock holds everything of the base lock at the same releases.
.venv/dev.stamp: requirements/dev.txt requirements/base.txt | .venv/bin/python
	@echo "installing from requirements/dev.txt ..."
	@$(BIN)/python -m pip install $(PIP_FLAGS) -r requirements/dev.txt
	@touch $@ .venv/base.stamp

.venv-localstripe/stamp: requirements/localstripe.txt | .venv/bin/python
	@echo "installing from requirements/localstripe.txt ..."
	@"$(PYTHON)" -m venv .venv-localstripe
	@.venv-localstripe/bin/python -m pip install $(PIP_FLAGS) -r requirements/localstripe.txt
	@touch $@
