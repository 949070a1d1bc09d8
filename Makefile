# Two commands set up everything:
#   make demo   an environment without torch, and a real song separated into demo/
#   make test   an environment with torch, and the whole suite

PYTHON ?= python3
# Name the CPU build here on machines without a GPU, where pip would otherwise fetch CUDA packages.
TORCH ?= torch==2.13.0
# This wheel holds a six-second excerpt of real music, whose licence (non-commercial) keeps it out of
# the repository; its own dependencies are not needed.
EXCERPT ?= stempeg==0.2.6
# TensorRT-RTX parses and builds engines without a GPU; kernel-lens contains TensorRT's headers
# (Apache-2.0), and its own dependencies are not needed.
TENSORRT ?= tensorrt-rtx==1.7.1.116
HEADERS ?= kernel-lens==2.0.1
# The tests compare metrics and lists of songs with single files of these.
REFERENCES ?= museval==0.4.1 musdb==0.4.3
# A compiler for the CUDA sources, where no CUDA toolkit is installed; all of one release.
NVCC ?= nvidia-cuda-nvcc~=13.0.0 nvidia-cuda-crt~=13.0.0 nvidia-nvvm~=13.0.0 \
	nvidia-cuda-runtime~=13.0.0 nvidia-cuda-cccl~=13.0.0
SONG ?=
# Test processes; some take 4 GiB each.
JOBS ?= 2

DEMO := .venv-demo
LOWEST := .venv-lowest
TEST := .venv-test
FIND_SONG := import importlib.util as u, pathlib as p; \
	print(next(p.Path(u.find_spec("stempeg").origin).parent.glob("data/*.mp4")))

# These call every package of the runtime, and need neither torch nor a compiler.
RUNTIME_TESTS := tests/runtime/audio tests/runtime/separation tests/runtime/songs \
	tests/cli/test_help.py tests/cli/test_completion.py tests/test_embedded_model.py \
	tests/test_python_guide.py

.PHONY: demo lowest test lint clean

demo:
	$(PYTHON) -m venv $(DEMO)
	rm -rf build/lib
	$(DEMO)/bin/pip install --quiet '.[av]'
	$(if $(SONG),,$(DEMO)/bin/pip install --quiet --no-deps $(EXCERPT))
	$(DEMO)/bin/bsm infer -o 'demo/{stem}.{ext}' \
		"$(or $(SONG),$$($(DEMO)/bin/python -c '$(FIND_SONG)'))"

# The runtime with the lowest versions that pyproject.toml declares, which have wheels for Python
# 3.10 and 3.11.
lowest:
	$(PYTHON) -m venv $(LOWEST)
	grep -oE '"[A-Za-z-]+>=[0-9.]+"' pyproject.toml | sed 's/"//g; s/>=/==/' > $(LOWEST)/lowest.txt
	rm -rf build/lib
	$(LOWEST)/bin/pip install --quiet --constraint $(LOWEST)/lowest.txt '.[av]' pytest-xdist
	$(LOWEST)/bin/pip install --quiet --no-deps $(EXCERPT)
	$(LOWEST)/bin/bsm doctor
	OMP_NUM_THREADS=1 $(LOWEST)/bin/pytest --numprocesses $(JOBS) -m "not slow and not gpu" \
		$(RUNTIME_TESTS)

$(TEST)/ready: pyproject.toml Makefile
	$(PYTHON) -m venv $(TEST)
	$(TEST)/bin/pip install --quiet $(TORCH)
	$(TEST)/bin/pip install --quiet '.[dev]'
	$(TEST)/bin/pip install --quiet --no-deps $(EXCERPT) $(HEADERS) $(REFERENCES)
	$(TEST)/bin/pip install --quiet $(TENSORRT)
	which nvcc || test -x /usr/local/cuda/bin/nvcc || $(TEST)/bin/pip install --quiet $(NVCC)
	touch $@

# An editable install: tests and type checker see the checkout. One test builds the wheel.
test lint: $(TEST)/ready
	rm -rf build
	$(TEST)/bin/pip install --quiet --force-reinstall --no-deps --editable . \
		--config-settings editable_mode=strict
	$(MAKE) --no-print-directory _$@

.PHONY: _test _lint
_test:
	OMP_NUM_THREADS=1 $(TEST)/bin/pytest --numprocesses $(JOBS) --dist loadfile --no-loadscope-reorder $(PYTEST)

_lint:
	$(TEST)/bin/ruff format --check .
	$(TEST)/bin/ruff check .
	$(TEST)/bin/clang-format --dry-run --Werror plugins/*/*.cpp plugins/*/*.h
	cd $(TEST) && bin/mypy --config-file ../pyproject.toml -p bsmamba2

clean:
	rm -rf $(DEMO) $(LOWEST) $(TEST) build demo *.egg-info
