# One line per task. Set PYTHON to use an environment of your own: make test PYTHON=python
PYTHON ?= .venv/bin/python
EXTRAS := dev,train,data,demo,eval,datasets,docs

.PHONY: setup fix lint types test-fast test docs

setup:  ## environment in .venv with all extras, at the pinned versions
	python3 -m venv .venv
	.venv/bin/pip install -q -c constraints.txt -e ".[$(EXTRAS)]"

fix:  ## format, and repair what ruff can repair
	$(PYTHON) -m ruff check --fix .
	$(PYTHON) -m ruff format .

lint:  ## ruff, without changes
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .

types:  ## mypy, strict
	$(PYTHON) -m mypy

test-fast:  ## no training, no export, no development data
	$(PYTHON) -m pytest -q -m "not slow and not data"

test:  ## everything
	$(PYTHON) -m pytest -q -n 2 --dist loadfile --no-loadscope-reorder

docs:  ## the site, into site/; a broken link is an error
	NO_MKDOCS_2_WARNING=1 $(PYTHON) -m mkdocs build --strict
