# make demo   runs the whole thing against a local stand-in for the API: no credentials needed
# make test   lint, types, import layers, tests, coverage
# make quick  the same without the tests that start the command: a minute
# make hours  the tests at hours and dates that have broken tests before, under a foreign time zone and locale;
#             needs faketime; HOURS="2026-12-01T02:10 …" for others (UTC)
# make soak   kill the command 200 times under faults and resume it, judged by what the stand-in made (15 minutes);
#             KILLS=60 for fewer, SEED=4711 to play the same trials again
#
# All create .venv from the hash-locked requirements by themselves. Python >= 3.11 is all they need. The lock is
# complete, so pip resolves nothing (--no-deps): no newer release can turn a working lock into a failing one.

PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11 python; do \
	"$$p" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo "$$p" && break; done)
BIN := .venv/bin
READY := .venv/.ready

# Most tests wait for a process or a server; a core serves four of them.
PYTEST := $(BIN)/pytest -n 8 --dist worksteal
# The tests start Python a hundred times: it must not compile everything each time.
unexport PYTHONDONTWRITEBYTECODE
DOCUMENTS := $(wildcard *.md docs/*.md docs/adr/*.md examples/*.md)
# An hour at night, midnight at the end of a month while the tests run, a leap day, the night when summer time begins.
HOURS ?= 2026-12-01T02:10 2026-11-30T23:58 2028-02-29T12:00 2027-03-28T00:59

.PHONY: demo test quick hours soak lint types layers cover fmt docs lock clean

demo: $(READY)
	$(BIN)/wpe-backup demo

test: lint types layers cover

quick: lint types layers
	$(PYTEST) tests/unit tests/property tests/contract

hours: $(READY)
	@command -v faketime >/dev/null || { echo "make hours needs faketime: apt-get install faketime" >&2; exit 1; }
	@set -e; for at in $(HOURS); do \
		echo "$$at UTC, TZ=Pacific/Kiritimati, LC_ALL=C"; \
		TZ=Pacific/Kiritimati LC_ALL=C faketime "$$at UTC" $(PYTEST) -q; \
	done

soak: $(READY)
	$(BIN)/python tests/kills.py --kills $(or $(KILLS),200) $(if $(SEED),--seed $(SEED))

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/codespell
	@echo $(BIN)/proselint check …; $(BIN)/proselint check --config docs/proselint.json $(DOCUMENTS)

types: $(READY)
	$(BIN)/mypy

layers: $(READY)
	$(BIN)/lint-imports

cover: $(READY)
	$(PYTEST) --cov --cov-report=term-missing:skip-covered

fmt: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

$(READY): requirements/dev.txt pyproject.toml
	@test -n "$(PYTHON)" || { echo "No Python >= 3.11 found: install one, or name it with make PYTHON=/path/to/python3" >&2; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r requirements/dev.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

docs: $(READY)
	$(BIN)/python docs/generate.py

lock:
	uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-strip-extras --no-header pyproject.toml -o requirements/run.txt
	uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-strip-extras --no-header --group dev pyproject.toml -o requirements/dev.txt

clean:
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .coverage* dist
