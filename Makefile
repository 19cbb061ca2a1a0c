# Everything a fresh machine with Python 3.11+ and make needs: the targets set up their own environment.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# The oldest versions of numpy and pandas that are allowed have wheels up to Python 3.12.
OLDEST_PYTHON ?= python3.11
OLDEST_VENV ?= .venv-oldest
# Other versions of Python that make test-pythons uses, as far as they are installed.
OTHER_PYTHONS ?= python3.12 python3.13
# The tests of what is installed without torch.
LIGHT_TESTS := $(addprefix tests/test_,light_start.py tables.py faces.py split.py images.py text_files.py)
DEMO_OUT ?= demo-out

.PHONY: demo test test-oldest test-pythons lint docs clean

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(None if sys.version_info >= (3, 11) else "emoface needs Python 3.11 or newer: make PYTHON=...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --no-input --constraint constraints.txt --editable '.[dev]'
	touch $@

demo: $(VENV)/.installed
	$(BIN)/emoface demo --out $(DEMO_OUT)

test: $(VENV)/.installed
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses 2 --dist loadfile

# Builds and audits data sets with the oldest versions that pyproject.toml allows. Torch is left out: old versions of it
# are available only with gigabytes of CUDA libraries.
$(OLDEST_VENV)/.installed: constraints-oldest.txt
	$(OLDEST_PYTHON) -m venv $(OLDEST_VENV)
	$(OLDEST_VENV)/bin/pip install --quiet --disable-pip-version-check --no-input --requirement constraints-oldest.txt
	touch $@

test-oldest: $(OLDEST_VENV)/.installed
	PYTHONPATH="$(CURDIR)" OMP_NUM_THREADS=1 $(OLDEST_VENV)/bin/python -m pytest -p no:cacheprovider $(LIGHT_TESTS)

# The same with other versions of Python and the newest versions of all packages; a Python that is missing is named.
test-pythons:
	for python in $(OTHER_PYTHONS); do \
		$$python --version >/dev/null 2>&1 || { echo "$$python is not installed: not tested with it"; continue; }; \
		$$python -m venv .venv-$$python && \
		.venv-$$python/bin/pip install --quiet --disable-pip-version-check --no-input '.[heic]' datasets duckdb polars pytest && \
		OMP_NUM_THREADS=1 .venv-$$python/bin/python -m pytest -p no:cacheprovider $(wordlist 1,2,$(LIGHT_TESTS)) || exit 1; \
	done

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: $(VENV)/.installed
	$(BIN)/python docs/generate_commands.py
	$(BIN)/python docs/draw_architecture.py

clean:
	rm -rf $(VENV) $(OLDEST_VENV) $(addprefix .venv-,$(OTHER_PYTHONS)) $(DEMO_OUT)
