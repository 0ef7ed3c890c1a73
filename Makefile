# make demo: the whole chain at laptop scale. make test: the tests. Both set everything up first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
VERSION := $(shell $(PYTHON) -c 'import sys; print("%d%d" % sys.version_info[:2])' 2>/dev/null)
LOCK := requirements/py$(VERSION).txt
UV := $(or $(shell command -v uv 2>/dev/null),.uv/bin/uv)
PEERS := .venv-peers
PEERS_LOCK := requirements/peers-py$(VERSION).txt
TUNIX := .venv-tunix
TUNIX_LOCK := requirements/tunix-py$(VERSION).txt
DOCS := .venv-docs
DEMO := runs/demo
# Those of the chain (DSMATH_RUN names it, else it is DEMO), and those of the sweeps that are there.
NOTEBOOKS ?= $(addprefix notebooks/,$(addsuffix .ipynb,demo corpus training checkpoint rl evaluation \
	$(foreach name,fig5 fig6 fig7 table1,$(if $(wildcard $(or $(DSMATH_SWEEPS),runs)/$(name)/results.json),$(name)))))
# A worker more than the two cores that tests are sized for: some wait for browsers, kills and servers.
PYTEST_FLAGS ?= -n 3 --dist=worksteal -q

.DEFAULT_GOAL := help
.PHONY: help setup demo test slow lint format lock peers notebooks docs clean

help: ## list the targets
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

setup: $(VENV)/.ready ## create .venv with the locked packages

# The checks come first, each one line: the compiler is fastText's, which has no wheels.
$(VENV)/.ready: setup.py $(wildcard requirements/py*.txt)
	@command -v $(PYTHON) >/dev/null || { echo "make: no $(PYTHON) here; install Python 3.11 or newer, or name one: make $(MAKECMDGOALS) PYTHON=/path/to/python3.11" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "make: $(PYTHON) is older than 3.11; install Python 3.11 or newer, or name one: make $(MAKECMDGOALS) PYTHON=/path/to/python3.11" >&2; exit 1; }
	@command -v $${CXX:-c++} >/dev/null || { echo "make: no C++ compiler here (fastText is compiled from source); install one: apt-get install g++" >&2; exit 1; }
	@printf '#include <Python.h>\n' | $${CXX:-c++} -x c++ -fsyntax-only -I"$$($(PYTHON) -c 'import sysconfig; print(sysconfig.get_path("include"))')" - 2>/dev/null || { echo "make: the headers of $(PYTHON) are missing (fastText is compiled from source); install them: apt-get install python3-dev" >&2; exit 1; }
	@command -v $(UV) >/dev/null || $(PYTHON) -m pip install --quiet --target .uv uv || { echo "make: uv is absent and pip could not install it; install pip (apt-get install python3-pip) or uv" >&2; exit 1; }
	@$(UV) venv --quiet --clear --seed --python "$$($(PYTHON) -c 'import sys; print(sys.executable)')" $(VENV)
	@if [ -f $(LOCK) ]; then $(UV) pip install --quiet --compile-bytecode --python $(BIN)/python --require-hashes -r $(LOCK); \
	else echo "make: no lock file for this Python ($(LOCK)); installing the newest versions that setup.py allows" >&2; \
	$(UV) pip install --quiet --python $(BIN)/python '.[dev]'; fi
	@$(UV) pip install --quiet --python $(BIN)/python --no-deps --editable .
	@touch $@

demo: setup ## run the whole chain into runs/demo (the same line resumes it)
	$(BIN)/python -m experiments.pipeline --config=configs/pipeline.py:nano --workdir=$(DEMO)

test: setup ## run the tests
	$(BIN)/python -m pytest $(PYTEST_FLAGS) tests

slow: setup ## run the tests that take minutes
	$(BIN)/python -m pytest -q -m slow tests

lint: setup ## check style and formatting
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: setup ## mend style and formatting
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# pip rather than uv: it takes a wheel that lies on the disk (PIP_FIND_LINKS), and plain pip is what PyTorch documents.
peers: $(PEERS)/.ready $(TUNIX)/.ready ## create .venv-peers and .venv-tunix, what we are compared with (PyTorch is large)

$(PEERS)/.ready: $(wildcard $(PEERS_LOCK)) | $(VENV)/.ready
	@$(UV) venv --quiet --clear --seed --python "$$($(PYTHON) -c 'import sys; print(sys.executable)')" $(PEERS)
	@if [ -f $(PEERS_LOCK) ]; then $(PEERS)/bin/python -m pip install --quiet -r $(PEERS_LOCK); \
	else echo "make: no lock file for this Python ($(PEERS_LOCK)); installing torch 2.13.0 with the newest of the rest" >&2; \
	$(PEERS)/bin/python -m pip install --quiet torch==2.13.0 transformers numpy trl tyro; fi
	@$(PEERS)/bin/python -m pip install --quiet --no-deps --target $(PEERS)/trl-0.11 trl==0.11.4
	@touch $@

# Tunix has an environment of its own: it wants an older safetensors.
$(TUNIX)/.ready: $(wildcard $(TUNIX_LOCK)) | $(VENV)/.ready
	@$(UV) venv --quiet --clear --python "$$($(PYTHON) -c 'import sys; print(sys.executable)')" $(TUNIX)
	@$(UV) pip install --quiet --python $(TUNIX)/bin/python $(if $(wildcard $(TUNIX_LOCK)),-r $(TUNIX_LOCK),google-tunix==0.1.7)
	@touch $@

notebooks: setup ## execute the notebooks and render them as pages, into runs/notebooks (see NOTEBOOKS)
	@mkdir -p runs/notebooks
	$(BIN)/jupyter execute --output='../runs/notebooks/{notebook_name}' $(NOTEBOOKS)
	$(BIN)/jupyter nbconvert --to=html --log-level=ERROR --HTMLExporter.require_js_url= --HTMLExporter.jquery_url= \
	--HTMLExporter.mathjax_url= $(NOTEBOOKS:%=runs/%)

docs: $(DOCS)/.ready ## build the documentation into runs/docs; a warning is an error
	NO_MKDOCS_2_WARNING=1 $(DOCS)/bin/mkdocs build --quiet

$(DOCS)/.ready: requirements/docs.txt | $(VENV)/.ready
	@$(UV) venv --quiet --clear --python "$$($(PYTHON) -c 'import sys; print(sys.executable)')" $(DOCS)
	@$(UV) pip install --quiet --python $(DOCS)/bin/python --require-hashes -r requirements/docs.txt
	@touch $@

lock: ## resolve the lock files again
	for version in 3.11 3.12 3.13; do \
	$(UV) pip compile setup.py --extra dev --python-version $$version --upgrade --quiet --generate-hashes --no-header \
	--no-emit-index-url --no-emit-find-links -o requirements/py$$(echo $$version | tr -d .).txt; done
	$(UV) pip compile requirements/docs.in --universal --python-version 3.11 --upgrade --quiet --generate-hashes --no-header \
	--no-emit-index-url --no-emit-find-links -o requirements/docs.txt

clean: ## remove the environment and the caches; runs stay
	rm -rf $(VENV) $(PEERS) $(TUNIX) $(DOCS) .uv .pytest_cache .ruff_cache
