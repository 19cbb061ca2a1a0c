# Everything a fresh machine with Python 3.11+ and make needs: the targets set up their own environment.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# The oldest versions of numpy and pandas that are allowed have wheels up to Python 3.12.
OLDEST_PYTHON ?= python3.11
OLDEST_VENV ?= .venv-oldest
DEMO_OUT ?= demo-out

.PHONY: demo test test-oldest lint docs clean

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(None if sys.version_info >= (3, 11) else "emoface needs Python 3.11 or newer: make PYTHON=...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --no-input --constraint constraints.txt --editable '.[dev]'
	touch $@

demo: $(VENV)/.installed
	$(BIN)/emoface demo --out $(DEMO_OUT)

test: $(VENV)/.installed
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses 2 --dist loadfile

# Reads and writes tables with the oldest versions that pyproject.toml allows; no network runs, so torch is left out.
$(OLDEST_VENV)/.installed: constraints-oldest.txt
	$(OLDEST_PYTHON) -m venv $(OLDEST_VENV)
	$(OLDEST_VENV)/bin/pip install --quiet --disable-pip-version-check --no-input --requirement constraints-oldest.txt
	touch $@

test-oldest: $(OLDEST_VENV)/.installed
	PYTHONPATH="$(CURDIR)" OMP_NUM_THREADS=1 $(OLDEST_VENV)/bin/python -m pytest tests/test_tables.py tests/test_faces.py tests/test_split.py

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: $(VENV)/.installed
	$(BIN)/python docs/generate_commands.py
	$(BIN)/python docs/draw_architecture.py

clean:
	rm -rf $(VENV) $(OLDEST_VENV) $(DEMO_OUT)
