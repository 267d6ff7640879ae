# Each target sets up VENV by itself; PYTHON picks the interpreter (3.11 or later).
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: demo test lint attacks docs notebooks outputs picture

demo: $(VENV)/installed
	$(BIN)/flaxnets demo

test: $(VENV)/installed
	$(BIN)/python -m pytest -n auto --dist loadgroup

# A hundred times as many wrong inputs as the suite tries; the table is printed at the end.
attacks: $(VENV)/installed
	FLAXNETS_FUZZ=100 $(BIN)/python -m pytest -n auto -m attack parity_tests

lint: $(VENV)/installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/codespell

# Runs every notebook from top to bottom, each in a kernel of its own.
notebooks: $(VENV)/notebooks
	$(BIN)/python -m pytest -n auto --nbmake --nbmake-timeout=180 notebooks

# The same, and keeps what they show; LESSONS=notebooks/05_parity.ipynb does one.
LESSONS ?= notebooks/*.ipynb
outputs: $(VENV)/notebooks
	$(BIN)/jupyter nbconvert --to notebook --execute --inplace \
	  --ClearMetadataPreprocessor.enabled=True \
	  --ClearMetadataPreprocessor.clear_notebook_metadata=False $(LESSONS)

# The site is in site/; a link that leads nowhere is an error (--quiet would let it pass).
docs: $(VENV)/docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict -f .docs/mkdocs.yml

# The README's picture: the page of `flaxnets parity` for a few networks. Takes Chromium.
NETWORKS = autoencoder char_rnn feedforward image_autoencoder lenet linear_network lstm_tagger mlp
picture: $(VENV)/installed
	$(BIN)/flaxnets parity $(NETWORKS) --html runs/parity.html
	for scheme in light dark; do chromium --headless --no-sandbox --hide-scrollbars \
	  --window-size=1480,842 --blink-settings=preferredColorScheme=$$([ $$scheme = dark ]; echo $$?) \
	  --screenshot=.docs/parity-$$scheme.png file://$(CURDIR)/runs/parity.html; done

$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit("python 3.11 or later is needed, this is " + sys.version.split()[0] if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[torch,data,dev]'
	touch $@

$(VENV)/notebooks: $(VENV)/installed
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[notebooks]'
	touch $@

$(VENV)/docs: $(VENV)/installed
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[docs]'
	touch $@
