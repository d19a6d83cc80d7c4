# Everything runs from .venv, which the first target that needs it sets up.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
PEERS  := .peers
CLUSTER := .cluster
DOCS   := .docs

.PHONY: demo test lint types layers unit test-timm test-crash test-peers test-cluster gpu tables docs lock clean

demo: $(READY)
	$(BIN)/cpsam compare

test: lint types layers unit

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(READY)
	$(BIN)/pyrefly check

layers: $(READY)
	$(BIN)/lint-imports

# One thread a process: where processes share cores, threads that wait for each other lose more than they gain.
unit: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/pytest -n auto --dist loadgroup

# The lock pins every version by hash. Our own package and its build backend are in the environment already, so nothing else is fetched.
$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "cpsam needs Python >= 3.11; set PYTHON=...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check --quiet --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --disable-pip-version-check --quiet --no-deps --no-build-isolation --editable .
	@touch $(READY)

# Not in `make test`: it fetches timm's source distribution, which holds its tests.
test-timm: $(READY)
	$(BIN)/python tests/timm_suite.py

# Not in `make test`: some minutes of runs and studies that are killed, at every step and at every call of the save path.
test-crash: $(READY)
	$(BIN)/pytest tests/crash

# Not in `make test`: other people's layers, which lie beside .venv and leave it as the lock says.
test-peers: $(PEERS)/.ready
	PYTHONPATH=$(PEERS) $(BIN)/pytest tests/peers

$(PEERS)/.ready: requirements-peers.txt $(READY)
	rm -rf $(PEERS)
	$(BIN)/python -m pip install --disable-pip-version-check --quiet --no-deps --target $(PEERS) -r requirements-peers.txt
	@touch $@

# Not in `make test`: torchrun, srun and Ray (which lies beside .venv too), all really started on this machine.
test-cluster: $(CLUSTER)/.ready
	PYTHONPATH=$(CURDIR)/$(CLUSTER) $(BIN)/pytest tests/cluster

$(CLUSTER)/.ready: requirements-cluster.txt $(READY)
	rm -rf $(CLUSTER)
	$(BIN)/python -m pip install --disable-pip-version-check --quiet --no-deps --target $(CLUSTER) -r requirements-cluster.txt
	@touch $@

# Not in `make test`: nine minutes of one GPU. DATA=FOLDER names the folder in which cifar100/ lies.
gpu: $(READY)
	$(BIN)/python benchmarks/gpu.py --out docs/results/speed/gpu.json $(if $(DATA),--data "$(DATA)")

tables: $(READY)
	$(BIN)/python docs/tables.py

lock:  # needs uv
	uv pip compile pyproject.toml --extra dev --extra export --universal --python-version 3.11 --generate-hashes \
	  --no-emit-index-url --no-emit-find-links --no-header --no-annotate --constraint requirements.in -o requirements.lock

docs: $(DOCS)/.ready
	PYTHONPATH=$(DOCS) $(BIN)/python -m sphinx -W --keep-going -q docs docs/_build/html

$(DOCS)/.ready: requirements-docs.txt $(READY)
	rm -rf $(DOCS)
	$(BIN)/python -m pip install --disable-pip-version-check --quiet --target $(DOCS) -r requirements-docs.txt
	@touch $@

clean:
	rm -rf $(VENV) .pytest_cache .ruff_cache .import_linter_cache .hypothesis .timm $(PEERS) $(CLUSTER) $(DOCS)
