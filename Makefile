.PHONY: demo install test check format clean

PYTHON ?= python3
PIP = .venv/bin/pip --disable-pip-version-check install --quiet -c constraints.txt

demo: install  ## train, evaluate and save a model of the bundled Adult table
	.venv/bin/attfm train adult

install: .venv/installed  ## .venv with attfm and all that its development needs

# The build runs in an isolated environment too, so the pin must reach it through the variable.
.venv/installed: pyproject.toml constraints.txt
	test -x .venv/bin/python || $(PYTHON) -m venv .venv
	PIP_CONSTRAINT=constraints.txt $(PIP) -e ".[dev]"
	touch $@

test: install  ## the tests
	.venv/bin/python -m pytest

check: install  ## format, lint, types, layers, tests
	.venv/bin/ruff format --check .
	.venv/bin/ruff check .
	.venv/bin/mypy
	.venv/bin/lint-imports
	.venv/bin/python -m pytest

format: install
	.venv/bin/ruff format .
	.venv/bin/ruff check --fix .

clean:
	rm -rf .venv build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
