# Everything a fresh machine with Python 3.11+ and make needs: the targets set up their own environment.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# The oldest versions of numpy and pandas that are allowed have wheels up to Python 3.12.
OLDEST_PYTHON ?= python3.11
OLDEST_VENV ?= .venv-oldest
# Other versions of Python that make test-light uses, as far as they are installed.
OTHER_PYTHONS ?= python3.12 python3.13
LIGHT_PACKAGES := datasets duckdb polars pytest pytest-xdist
LIGHT_TESTS := $(addprefix tests/test_,light_start.py tables.py split.py)
# Processes of the tests, which take the files in the order of tests/conftest.py; each needs up to 1.5 GB of memory.
TEST_PROCESSES ?= 2
DEMO_OUT ?= demo-out
SITE_VENV ?= .venv-site

.PHONY: demo test test-gpu light-environments test-light test-docs lint docs site clean

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(None if sys.version_info >= (3, 11) else "emoface needs Python 3.11 or newer: make PYTHON=...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --no-input --constraint constraints.txt --editable '.[dev]'
	touch $@

demo: $(VENV)/.installed
	$(BIN)/emoface demo --out $(DEMO_OUT)

test: $(VENV)/.installed
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses $(TEST_PROCESSES) --dist loadfile \
		--no-loadscope-reorder

# Everything that runs on a GPU, in one process. Without CUDA the tests are skipped with the reason;
# EMOFACE_GPU_TESTS_DEVICE=cpu runs the same tests on the CPU.
test-gpu: $(VENV)/.installed
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/gpu -r s

# Environments without torch, of which old versions are available only with gigabytes of CUDA libraries: the oldest
# versions that pyproject.toml allows, and the newest ones with other versions of Python. A Python that is missing is named.
$(OLDEST_VENV)/.installed: constraints-oldest.txt
	$(OLDEST_PYTHON) -m venv $(OLDEST_VENV)
	$(OLDEST_VENV)/bin/pip install --quiet --disable-pip-version-check --no-input --requirement constraints-oldest.txt
	touch $@

light-environments: $(OLDEST_VENV)/.installed
	for python in $(OTHER_PYTHONS); do \
		$$python --version >/dev/null 2>&1 || { echo "$$python is not installed: not tested with it"; continue; }; \
		test -e .venv-$$python/.installed || { $$python -m venv .venv-$$python && \
		.venv-$$python/bin/pip install --quiet --disable-pip-version-check --no-input '.[heic]' $(LIGHT_PACKAGES) && \
		touch .venv-$$python/.installed; } || exit 1; \
	done

# What is installed without torch, in each of these environments.
test-light: light-environments
	for venv in $(OLDEST_VENV) $(addprefix .venv-,$(OTHER_PYTHONS)); do \
		test -e $$venv/.installed || continue; \
		PYTHONPATH="$(CURDIR)" OMP_NUM_THREADS=1 $$venv/bin/python -m pytest -p no:cacheprovider \
		--numprocesses $(TEST_PROCESSES) --dist loadfile $(LIGHT_TESTS) || exit 1; \
	done

# The commands of the tutorial, in an environment made by its own install line.
test-docs:
	$(PYTHON) docs/check_commands.py

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: $(VENV)/.installed
	$(BIN)/python docs/generate_commands.py
	$(BIN)/python docs/draw_architecture.py

# The pages of docs/ as a site with search, in site/; any warning stops it. Its environment has neither emoface nor torch:
# the reference of the Python API is read from the source code.
$(SITE_VENV)/.installed: pyproject.toml
	$(PYTHON) -m venv $(SITE_VENV)
	$(SITE_VENV)/bin/pip install --quiet --disable-pip-version-check --no-input $$($(PYTHON) -c \
		'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"]["docs"])')
	touch $@

site: $(SITE_VENV)/.installed
	NO_MKDOCS_2_WARNING=1 $(SITE_VENV)/bin/mkdocs build --quiet --strict --site-dir site

clean:
	rm -rf site $(SITE_VENV) $(VENV) $(OLDEST_VENV) $(addprefix .venv-,$(OTHER_PYTHONS)) $(DEMO_OUT)
