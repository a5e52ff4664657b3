# Every target makes what it needs first. To choose the Python: make venv PYTHON=python3.12

SHELL := /bin/bash
PYTHON ?= python3
# Arguments for train.py or pytest: make train ARGS="--seed=1", make test ARGS="-k lars"
ARGS ?=
# Test processes: each needs about 1 GB of memory.
JOBS ?= 2

VENV := .venv
PY := $(VENV)/bin/python
# Written when an installation is complete; while one runs, UNFINISHED stands instead.
STAMP := $(VENV)/.installed
UNFINISHED := $(VENV)/.unfinished
PYTEST := $(PY) -m pytest -n $(JOBS) --dist worksteal
# What runs on any backend of Keras: the tests, and the doctests of the floors that use keras.ops only.
ANY_BACKEND := tests $(wildcard $(addprefix tf_largebatch/,rules.py scaling.py recipes schedules costs plots.py study))

# Fails, and says why, where $(PYTHON) can't make the environments.
CHECK_PYTHON := version=$$($(PYTHON) -c 'import sys; print(sys.version.split()[0]); sys.exit(sys.version_info < (3, 11))' 2>/dev/null) \
	|| { echo "Python 3.11 or later is needed. '$(PYTHON)' is: $${version:-not found, or broken}." \
	"Name another one: make venv PYTHON=python3.11" >&2; exit 1; }; \
	$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null \
	|| { echo "'$(PYTHON)' cannot make virtual environments: its modules venv and ensurepip are missing." \
	"On Debian and Ubuntu: apt install python3-venv." \
	"Or name another one: make venv PYTHON=python3.11" >&2; exit 1; }

# Cloud TPU's last line of TensorFlow, in an environment of its own, and the tests that run there.
TPU_LINE := .venv-tpu-line
TPU_LINE_PY := $(TPU_LINE)/bin/python
# No keras-hub is there, so no networks of text, and no text.
ON_TPU_LINE := $(addprefix tests/,$(addprefix data/test_,augmentation.py batches.py buckets.py crops.py embedded.py \
	folders.py jpeg.py tfrecords.py) diagnostics optimizers schedules training test_layers.py \
	test_losses.py $(addprefix train/test_train_,diagnostics.py process.py refusals.py resume.py runs.py))

# The TPU compiler, and TensorFlow's build for TPUs: what compiles the training steps without a TPU.
TPU_CHECK := .venv-tpu-check
TPU_CHECK_PY := $(TPU_CHECK)/bin/python

# True where .venv has a Python that starts and is new enough, and nothing is plainly missing from it.
VENV_IS_SOUND := test ! -e $(UNFINISHED) && $(PY) -c 'import importlib.util, os, sys; \
	need = ["keras", "pip", "pytest", "tensorflow"] if os.path.exists("$(STAMP)") else ["pip"]; \
	sys.exit(sys.version_info < (3, 11) or not all(map(importlib.util.find_spec, need)))' 2>/dev/null

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help venv train test test-jax test-slow test-tpu-line bench tpu-check docs lint constraints clean

help: ## print this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-13s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

venv: $(STAMP) ## make .venv with all that the targets below need (about 4 GB)
	@echo "$(VENV) is ready."

train: $(STAMP) ## run train.py; flags in ARGS
	$(PY) train.py $(ARGS)

test: $(STAMP) ## run the default tests and the doctests, in random order; pytest's options in ARGS
	$(PYTEST) $(ARGS)

test-jax: $(STAMP) ## run the tests that need no TensorFlow on Keras' JAX backend
	KERAS_BACKEND=jax $(PYTEST) -m "not slow and not tensorflow" $(ANY_BACKEND) $(ARGS)

# pytest ends with 5 if no test was selected: no failure here.
test-slow: $(STAMP) ## run the slow tests
	$(PYTEST) -m slow $(ARGS) || test $$? -eq 5

test-tpu-line: $(TPU_LINE)/.installed ## run the tests of training with TensorFlow 2.19, Cloud TPU's last line (about 2 GB)
	$(TPU_LINE_PY) -m pytest -n $(JOBS) --dist worksteal $(ON_TPU_LINE) $(ARGS)

tpu-check: $(STAMP) $(TPU_CHECK)/.installed ## compile the training steps for TPUs, without one (3 GB, some 15 minutes); flags in ARGS
	PYTHONPATH=. $(PY) -m benchmarks.tpu_compile --tpu_python $(TPU_CHECK_PY) $(ARGS)

bench: $(STAMP) ## run the benchmarks, results to docs/results (half an hour); ARGS="scaling memory" chooses
	PYTHONPATH=. $(PY) benchmarks/all.py $(ARGS)

lint: $(STAMP) ## check style (ruff) and types (pyright)
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	PYRIGHT_PYTHON_IGNORE_WARNINGS=1 $(PY) -m pyright

docs: $(STAMP) ## build the documentation into build/docs; whatever is wrong with it is an error
	$(PY) -m docs.build $(ARGS)

constraints: $(STAMP) ## write the versions that .venv holds now to constraints.txt
	@$(PY) -m pip freeze --all --exclude-editable --exclude pip > $(VENV)/freeze.txt
	@head -2 constraints.txt | cat - $(VENV)/freeze.txt > $(VENV)/constraints.txt
	@mv $(VENV)/constraints.txt constraints.txt
	@touch $(STAMP)

clean: ## remove what the tools left behind; the environments and the results of training stay
	rm -rf build dist *.egg-info .pytest_cache .ruff_cache
	find . -name __pycache__ -not -path './$(VENV)*/*' -prune -exec rm -rf {} +

ifneq ($(shell $(VENV_IS_SOUND) && echo sound),sound)
.PHONY: $(STAMP)
endif

$(STAMP): constraints.txt setup.py pyproject.toml
	@if ! { $(VENV_IS_SOUND); }; then \
		if test -e $(VENV); then echo "$(VENV) is broken or was interrupted: making it again."; fi; \
		$(CHECK_PYTHON); \
		$(PYTHON) -m venv --clear $(VENV); \
	fi
	@rm -f $(STAMP)
	@touch $(UNFINISHED)
	@echo "Installing into $(VENV): about 1 GB to download the first time, some minutes."
	@$(PY) -m pip install --quiet --disable-pip-version-check -c constraints.txt setuptools
	@$(PY) -m pip install --quiet --disable-pip-version-check -c constraints.txt \
		--no-build-isolation --editable '.[dev]'
	@rm -f $(UNFINISHED)
	@touch $(STAMP)

ifneq ($(shell $(TPU_LINE_PY) -c 'import importlib.util as i; \
	print(all(map(i.find_spec, ["keras", "pytest", "tensorflow"])))' 2>/dev/null),True)
.PHONY: $(TPU_LINE)/.installed
endif

$(TPU_LINE)/.installed: constraints-tpu-line.txt
	@$(CHECK_PYTHON)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info >= (3, 13))' \
		|| { echo "TensorFlow 2.19 has no wheels for Python 3.13 and later." \
			"Name an older one: make test-tpu-line PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -m venv --clear $(TPU_LINE)
	@echo "Installing into $(TPU_LINE): about 1 GB to download the first time, some minutes."
	@$(TPU_LINE_PY) -m pip install --quiet --disable-pip-version-check --no-deps -r constraints-tpu-line.txt
	@$(TPU_LINE_PY) -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@$(TPU_LINE_PY) -m pip check
	@touch $@

ifneq ($(shell $(TPU_CHECK_PY) -c 'import importlib.util as i; \
	print(all(map(i.find_spec, ["jax", "keras_hub", "libtpu", "tensorflow"])))' 2>/dev/null),True)
.PHONY: $(TPU_CHECK)/.installed
endif

# keras-hub asks for tensorflow-text, which would bring a second TensorFlow; its networks don't need it.
$(TPU_CHECK)/.installed: constraints-tpu-check.txt
	@$(CHECK_PYTHON)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info >= (3, 14))' \
		|| { echo "tensorflow-tpu 2.20 has no wheels for Python 3.14 and later." \
			"Name an older one: make tpu-check PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -m venv --clear $(TPU_CHECK)
	@echo "Installing into $(TPU_CHECK): about 1 GB to download the first time, some minutes."
	@$(TPU_CHECK_PY) -m pip install --quiet --disable-pip-version-check --no-deps -r constraints-tpu-check.txt
	@missing=$$($(TPU_CHECK_PY) -m pip check | grep -v 'requires tensorflow-text'); \
		case "$$missing" in ''|'No broken requirements found.') ;; *) echo "$$missing" >&2; exit 1;; esac
	@touch $@
