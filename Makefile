# make demo: first result. make test, make check: what CI runs. make test-all: before a release. Needs Python 3.11 to 3.14.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
NEXT := .venv-optuna-next
SITE := import sysconfig; print(sysconfig.get_path("purelib"))

.PHONY: install demo test test-all check docs optuna-next fix clean

install: $(STAMP)

$(STAMP): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.11")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[classifier,dev,ray]'
	touch $@

demo: install
	$(BIN)/python -m benchmarks.demo

# Two files of tests at a time: each starts a Postgres of its own.
test: install
	$(BIN)/pytest -n 2 --dist loadfile -m 'not release'

test-all: install
	$(BIN)/pytest -n 2 --dist loadfile

check: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pytest -q --no-header tests/unit/test_imports.py

# The tests of what Optuna does not promise, against its newest pre-release: a venv that finds .venv's packages behind
# its own.
optuna-next: install
	$(BIN)/python -m venv $(NEXT)
	echo "import site; site.addsitedir('$$($(BIN)/python -c '$(SITE)')')" > "$$($(NEXT)/bin/python -c '$(SITE)')/behind.pth"
	$(NEXT)/bin/python -m pip install --quiet --disable-pip-version-check --pre --upgrade optuna optuna-dashboard
	$(NEXT)/bin/python -c 'import optuna; print("optuna", optuna.__version__, "from", optuna.__path__[0])'
	$(NEXT)/bin/python -m pytest -q --no-header tests/unit/search tests/integration/test_start.py

# The documentation site, in site/; needs no network. A broken link or an unknown table fails the build.
docs: install
	$(BIN)/mkdocs build --strict --quiet

fix: install
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) $(NEXT) .mypy_cache .ruff_cache .pytest_cache .hypothesis
