# Each target does everything that it needs on a fresh machine, the environment in .venv included.

PYTHON ?= python3
JOBS ?= 2
VENV := .venv
RUN := $(VENV)/bin
PIP := $(RUN)/python -m pip --disable-pip-version-check
EXTRAS := demo,fast,int8,onnx,xray,test,dev

# What the wheel is made of; folders too, so that a removed file counts as a change.
SOURCES := $(shell find medimg3d -not -name '*.pyc' -not -name __pycache__) pyproject.toml README.md LICENSE
TORCH := $(VENV)/.torch
INSTALLED := $(VENV)/.medimg3d

# An editable install, or none at all, is replaced by the wheel whatever the stamp says.
SITE := $(VENV)/lib/python3*/site-packages
ifneq ($(wildcard $(SITE)/__editable__*medimg3d*),)
$(INSTALLED): FORCE
else ifeq ($(wildcard $(SITE)/medimg3d-*.dist-info),)
$(INSTALLED): FORCE
endif

.DEFAULT_GOAL := help
.PHONY: help demo test check bench bench-training clean FORCE
.DELETE_ON_ERROR:

help: ## Show these targets
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1	/' | expand -t 24

demo: $(INSTALLED) ## Segment both hippocampi of a real MRI and write pictures and a report
	@$(RUN)/medimg3d demo

# The tests run in an empty folder, so that they import the installed wheel and not the checkout. A worker that dies is
# not begun anew: the name of its test is what one wants to know, and pytest-xdist may wait for ever after it.
test: $(INSTALLED) ## Run all tests against the installed wheel (JOBS=2 at once)
	@rm -rf $(VENV)/empty && mkdir $(VENV)/empty
	@if [ -n "$$MEDIMG3D_DATA" ]; then MEDIMG3D_DATA=$$(cd "$$MEDIMG3D_DATA" && pwd) || exit 1; fi; \
	cd $(VENV)/empty && MEDIMG3D_TEST_INSTALLED=1 OMP_NUM_THREADS=1 \
	../bin/python -m pytest -c ../../pyproject.toml --rootdir ../.. -n $(JOBS) --dist loadfile --max-worker-restart 0 ../../tests

check: $(INSTALLED) ## Check style, types and layers
	$(RUN)/python -m ruff check .
	$(RUN)/python -m ruff format --check .
	$(RUN)/python -m mypy
	$(RUN)/lint-imports

bench: $(INSTALLED) ## Measure prediction against stock MONAI: JSON lines and a table (hours; QUICK=1 to try)
	@$(RUN)/python benchmarks/run_all.py $(if $(QUICK),--quick)

bench-training: $(INSTALLED) ## Measure training against plain MONAI and PyTorch; JSON lines
	@for name in training_throughput film_throughput; do \
		echo "benchmarks/$$name.py" >&2; $(RUN)/python "benchmarks/$$name.py" || exit 1; \
	done

clean: ## Remove the environment and what tools left behind
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# pip is what comes last into a new environment: without it, one was interrupted.
$(RUN)/pip:
	@command -v $(PYTHON) >/dev/null || { echo "Found no $(PYTHON); medimg3d needs Python 3.10 or newer. Name yours: make PYTHON=python3.12 demo" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { echo "Found $$($(PYTHON) --version 2>&1); medimg3d needs Python 3.10 or newer. Name yours: make PYTHON=python3.12 demo" >&2; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { echo "$(PYTHON) cannot make environments; install its venv package (Debian, Ubuntu: apt install python3-venv)." >&2; exit 1; }
	@echo "Making the environment in $(VENV)" >&2
	@$(PYTHON) -m venv $(VENV)

$(TORCH): constraints.txt | $(RUN)/pip
	@echo "Installing PyTorch (the largest part; some minutes on a slow line)" >&2
	@$(PIP) install -c constraints.txt "$$(grep '^torch==' constraints.txt)"
	@touch $@

# The wheel is built from a copy: no build/ or egg-info in the checkout, nothing stale in the wheel.
$(INSTALLED): $(TORCH) $(SOURCES)
	@echo "Installing medimg3d and what it needs" >&2
	@rm -rf $(VENV)/build && mkdir -p $(VENV)/build
	@cp -R medimg3d pyproject.toml README.md LICENSE $(VENV)/build
	@find $(VENV)/build -name __pycache__ -type d -prune -exec rm -rf {} +
	@$(PIP) wheel --quiet --no-deps --wheel-dir $(VENV)/build/dist $(VENV)/build
	@$(PIP) uninstall --quiet --yes medimg3d 2>/dev/null
	@$(PIP) install --quiet -c constraints.txt "$$(echo $(VENV)/build/dist/*.whl)[$(EXTRAS)]"
	@touch $@

FORCE:
