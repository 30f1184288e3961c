# make demo    receive a mail and bounce it on this machine, with each step printed
# make serve   run it (SERVE_FLAGS="--outbound smtp://…")
# make test    lint and all tests, on both databases; make lint alone for the quick part
# make bench   measurements; no pass or fail
#
# Needs python3 (3.11 or newer) and make; everything else is installed into .venv.

PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed
# Processes that run the tests at once: one more than processors, as many tests wait.
WORKERS ?= $(shell expr $$(getconf _NPROCESSORS_ONLN) + 1)

# What is tested on PostgreSQL too: the store and all that decides on it. The other folders use it as
# these do; what is ignored is on PostgreSQL in the first run, or about conversations with others.
ON_POSTGRESQL := $(addprefix tests/,store service delivery) $(addprefix --ignore=tests/,\
	store/postgresql $(patsubst %,delivery/test_%.py,awkward_peers dane domain_concurrency refusals))

# The tests start hundreds of commands: without cached bytecode each compiles what it imports.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: setup demo serve test partners lint format bench fuzz lock clean
.DEFAULT_GOAL := setup

setup: $(STAMP)

$(STAMP): requirements-dev.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit("sendback needs Python 3.11 or newer, this is " + sys.version.split()[0]) if sys.version_info < (3, 11) else 0'
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv || { rm -rf .venv; echo "python3 cannot make a virtual environment: install its venv package (Debian: apt-get install python3-venv)" >&2; exit 1; }
	@test -x $(BIN)/uv || $(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	$(BIN)/uv pip install --quiet --python $(BIN)/python --require-hashes -r requirements-dev.lock
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --editable .
	@touch $@

demo: setup
	@$(BIN)/sendback demo

serve: setup
	@$(BIN)/sendback serve $(SERVE_FLAGS)

lint: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python tools/man_page.py --check
	$(BIN)/python tools/plain_words.py src docs examples README.md CHANGELOG.md CONTRIBUTING.md SECURITY.md

format: setup
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# The whole suite with SQLite, then with PostgreSQL what uses the store. `pytest -m sqlite` lists what
# the second run skips.
test: lint partners
	$(BIN)/pytest -n $(WORKERS)
	TEST_DATABASE=postgresql $(BIN)/pytest -n $(WORKERS) $(ON_POSTGRESQL)

# Postfix, swaks and the like, where root and apt-get allow.
partners:
	@bash tests/partners/install.sh

# 20,000 examples of each property; `make test` runs a few hundred.
fuzz: setup
	HYPOTHESIS_PROFILE=fuzz $(BIN)/pytest -m fuzz --timeout 3600

bench: setup
	$(BIN)/uv pip install --quiet --python $(BIN)/python --group bench
	$(BIN)/python -m bench.run

# Newer versions of everything, within pyproject.toml's bounds.
lock: setup
	$(BIN)/uv pip compile --quiet --upgrade --universal --generate-hashes --no-emit-index-url --all-extras pyproject.toml -o requirements.lock
	$(BIN)/uv pip compile --quiet --upgrade --universal --generate-hashes --no-emit-index-url pyproject.toml --group dev -c requirements.lock -o requirements-dev.lock

clean:
	rm -rf .venv .pytest_cache .mypy_cache .ruff_cache .hypothesis dist
