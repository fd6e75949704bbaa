# Every target does its own set-up in .venv, so that on a fresh machine one command is enough.
# VENV=0 builds against the torch of $(PYTHON) in place and installs nothing.
PYTHON ?= python3
VENV ?= .venv

ifeq ($(VENV),0)
BIN_PYTHON := $(PYTHON)
CLANG_FORMAT := clang-format
READY := build/.in-place
else
BIN_PYTHON := $(VENV)/bin/python
CLANG_FORMAT := $(VENV)/bin/clang-format
READY := $(VENV)/.built
DEV_PACKAGES := $(VENV)/.dev-packages
DOCS_PACKAGES := $(VENV)/.docs-packages
PEERS := $(VENV)/.peers
UV := $(VENV)/bin/uv pip install --quiet --python $(BIN_PYTHON)
endif

NATIVE_SOURCES := $(shell find csrc -name '*.h' -o -name '*.cpp' -o -name '*.cuh' -o -name '*.cu')
HARNESS_SOURCES := $(shell find tests/cuda_on_host tests/pretend_cuda -name '*.h' -o -name '*.cpp' -o -name '*.cu')
# Spinning OpenMP threads fight with each other on a busy machine.
export OMP_WAIT_POLICY ?= passive
# ccache, where it is installed, under the names of the compilers.
export PATH := $(addsuffix :,$(firstword $(wildcard /usr/lib/ccache /usr/lib64/ccache)))$(PATH)
# The extension and the test harness build side by side.
MAKEFLAGS += --jobs=2

PYTEST := $(BIN_PYTHON) -m pytest -n auto --maxprocesses=8 --dist=worksteal

.PHONY: demo test test-all peers harness docs bench lint cuda check-cuda gpu gpu-wheels clean

demo: $(READY)
	rm -rf demo
	$(BIN_PYTHON) examples/handwritten_digits.py --output demo

test: $(READY) $(DEV_PACKAGES) harness
	$(PYTEST)

# All tests, with those of the mark `exhaustive`; MARK=exhaustive runs those alone.
test-all: $(READY) $(DEV_PACKAGES) $(PEERS)
	PYTHONPATH=tests $(BIN_PYTHON) -m cuda_on_host.build --all
	$(PYTEST) -m "$(MARK)"

# Other decoders and language models, which tests and benchmarks compare with where they are installed.
peers: $(PEERS)

# What runs the CUDA kernels on a CPU, as far as `make test` needs it.
harness: $(DEV_PACKAGES)
	PYTHONPATH=tests $(BIN_PYTHON) -m cuda_on_host.build

docs: $(READY) $(DOCS_PACKAGES)
	$(BIN_PYTHON) tools/docs/charts.py
	$(BIN_PYTHON) tools/docs/lattice.py
	$(BIN_PYTHON) tools/docs/architecture.py
	DISABLE_MKDOCS_2_WARNING=true NO_MKDOCS_2_WARNING=true $(BIN_PYTHON) -m mkdocs build --strict

bench: $(READY)
	$(BIN_PYTHON) benchmarks/bench_ctc_loss.py
	$(BIN_PYTHON) benchmarks/bench_decode.py
	$(BIN_PYTHON) benchmarks/train_step.py

lint: $(DEV_PACKAGES)
	$(BIN_PYTHON) -m ruff check
	$(BIN_PYTHON) -m ruff format --check
	$(BIN_PYTHON) -m mypy
	$(CLANG_FORMAT) --dry-run -Werror $(NATIVE_SOURCES) $(HARNESS_SOURCES)
	$(BIN_PYTHON) tools/check_prose.py
	git ls-files -z | xargs -0 $(BIN_PYTHON) -m codespell_lib
	$(BIN_PYTHON) tools/mutation --check

# The CUDA library beside the others, also where torch is a CPU build; TORCH_CUDA_ARCH_LIST chooses the GPUs.
cuda: $(READY)
	CRNN_EXT_CUDA=1 $(BIN_PYTHON) setup.py --quiet build_ext --inplace

# Needs nvcc and no GPU: compiles against other releases of torch and CUDA, and audits the machine code.
check-cuda: $(READY)
	PYTHONPATH=tests $(BIN_PYTHON) -m cuda_compile

# Builds for the GPU that is here and runs what only a GPU can show; ONLY=tests,bench are parts of it, RESULTS=folder
# says where the results go (benchmarks/results), and REHEARSAL=1 tries all of it without a GPU. With what .venv has,
# or where there is none $(PYTHON): it needs no network.
gpu:
	$(or $(wildcard $(BIN_PYTHON)),$(PYTHON)) tools/gpu_check $(if $(REHEARSAL),--rehearsal) $(if $(ONLY),--only $(ONLY)) \
	  $(if $(RESULTS),--results $(RESULTS))

# Packages that tests need and a machine with a GPU may lack, for its Python: carried there in build/wheels, which
# `make gpu` looks into.
GPU_PYTHON ?= 3.12
gpu-wheels:
	rm -rf build/wheels
	$(or $(wildcard $(BIN_PYTHON)),$(PYTHON)) -m pip download --quiet --no-deps --only-binary=:all: --dest build/wheels \
	  --implementation cp --python-version $(GPU_PYTHON) \
	  --platform manylinux_2_28_x86_64 --platform manylinux2014_x86_64 \
	  pillow safetensors tqdm regex lmdb rapidfuzz pytest-xdist execnet

clean:
	rm -rf build dist *.egg-info crnn_ext/*.so $(VENV)/.built

# torch by pip, which also looks where pip is configured to look for a local build; everything else by uv.
$(VENV)/.demo-packages: requirements-demo.txt
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || \
	  { echo "$(PYTHON) has no venv module: install python3-venv" >&2; exit 1; }
	@echo "Setting up $(VENV): a minute or two"
	$(PYTHON) -m venv $(VENV)
	$(BIN_PYTHON) -m pip install --quiet --no-compile $(shell grep ^torch== requirements-demo.txt) uv
	$(UV) --requirement requirements-demo.txt
	@touch $@

$(VENV)/.dev-packages: requirements-dev.txt $(VENV)/.demo-packages
	$(UV) --requirement requirements-dev.txt
	@touch $@

$(VENV)/.docs-packages: requirements-docs.txt $(VENV)/.demo-packages
	$(UV) --constraint requirements-demo.txt --requirement requirements-docs.txt
	@touch $@

# Without their dependencies: pyctcdecode asks for an older numpy without need.
$(VENV)/.peers: benchmarks/requirements-peers.txt $(VENV)/.demo-packages
	$(UV) --no-deps --no-build-isolation --requirement benchmarks/requirements-peers.txt
	@touch $@

$(VENV)/.built: $(VENV)/.demo-packages setup.py pyproject.toml $(NATIVE_SOURCES)
	CRNN_EXT_CUDA=$${CRNN_EXT_CUDA:-0} $(BIN_PYTHON) -m pip install --quiet --no-build-isolation --no-deps --editable .
	@touch $@

build/.in-place: setup.py $(NATIVE_SOURCES)
	$(BIN_PYTHON) setup.py --quiet build_ext --inplace
	@mkdir -p build && touch $@
