# Each target sets up .venv by itself; PYTHON picks the interpreter (3.11 or later).
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test lint docs notebooks outputs picture

demo: .venv/installed
	$(BIN)/flaxnets demo

test: .venv/installed
	$(BIN)/python -m pytest -n auto --dist loadgroup

lint: .venv/installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/codespell

# Runs every notebook from top to bottom, each in a kernel of its own.
notebooks: .venv/notebooks
	$(BIN)/python -m pytest -n auto --nbmake --nbmake-timeout=180 notebooks

# The same, and keeps what they show; LESSONS=notebooks/05_parity.ipynb does one.
LESSONS ?= notebooks/*.ipynb
outputs: .venv/notebooks
	$(BIN)/jupyter nbconvert --to notebook --execute --inplace \
	  --ClearMetadataPreprocessor.enabled=True \
	  --ClearMetadataPreprocessor.clear_notebook_metadata=False $(LESSONS)

# The site is in site/; a link that leads nowhere is an error (--quiet would let it pass).
docs: .venv/docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict -f .docs/mkdocs.yml

# The README's picture: the page of `flaxnets parity` for a few networks. Takes Chromium.
NETWORKS = autoencoder char_rnn feedforward image_autoencoder lenet linear_network lstm_tagger mlp
picture: .venv/installed
	$(BIN)/flaxnets parity $(NETWORKS) --html runs/parity.html
	for scheme in light dark; do chromium --headless --no-sandbox --hide-scrollbars \
	  --window-size=1480,842 --blink-settings=preferredColorScheme=$$([ $$scheme = dark ]; echo $$?) \
	  --screenshot=.docs/parity-$$scheme.png file://$(CURDIR)/runs/parity.html; done

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit("python 3.11 or later is needed, this is " + sys.version.split()[0] if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[torch,data,dev]'
	touch $@

.venv/notebooks: .venv/installed
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[notebooks]'
	touch $@

.venv/docs: .venv/installed
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[docs]'
	touch $@
