# make run: install into .venv and run the whole demo.  make test: install into .venv and run all tests.
# Left empty, the first Python 3.11 to 3.13 on the PATH makes .venv. Another one: make PYTHON=/path/to/python3.12 run
PYTHON ?=
VENV := .venv
BIN := $(VENV)/bin
CORES ?= all

.PHONY: run test test-slurm test-gpu look lint format schema lock clean

run: $(VENV)/.installed
	$(BIN)/snakemake --cores $(CORES)

test: $(VENV)/.installed
	$(BIN)/python -m pytest

# A real Slurm on this machine, with a cancelled and a requeued training. As root on Debian; installs slurm-wlm and munge.
test-slurm: $(VENV)/.installed .slurm/.installed
	$(BIN)/python tests/slurm/check.py

# Every path that runs on a GPU, on a real one. With PYTHON=... in that Python as it is, which needs the library's packages
# and no Snakemake; otherwise in .venv. ARGS="--only speed" chooses.
GIVEN := $(filter-out file default undefined,$(origin PYTHON))
test-gpu: $(if $(GIVEN),,$(VENV)/.installed)
	$(if $(GIVEN),$(PYTHON),$(BIN)/python) tests/gpu/check.py $(ARGS)

# The demo's pages in a headless Chromium (Debian: the package chromium): checked, and pictures of them taken.
look: $(VENV)/.installed
	$(BIN)/snakemake --cores $(CORES) -- report data_check
	for page in report data_check; do $(BIN)/python docs/look.py results/$$page.html results/pictures || exit 1; done

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/snakefmt --check Snakefile workflow
	PYTHONPATH=workflow/scripts $(BIN)/lint-imports --no-cache
	$(BIN)/python -m mypy
	$(BIN)/codespell
	$(BIN)/snakemake --lint

format: $(VENV)/.installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/snakefmt Snakefile workflow

# After a change of the configuration's models, or of the locked versions of timm and albumentations.
schema: $(VENV)/.installed
	PYTHONPATH=workflow/scripts $(BIN)/python docs/list_names.py
	PYTHONPATH=workflow/scripts $(BIN)/python -c "from foldvote.config.reference import write_all; write_all('.')"

# After a change of pyproject.toml: the lock, and the same in conda's form. One file for Linux x86-64 and aarch64 and macOS arm64, Python 3.11 to 3.13.
lock:
	uv pip compile --universal --python-version 3.11 --all-extras --no-header pyproject.toml -o requirements.lock
	(sed '/- pip:$$/q' envs/foldvote.yaml; sed -n 's/^[A-Za-z0-9].*/      - "&"/p' requirements.lock) > envs/foldvote.new
	mv envs/foldvote.new envs/foldvote.yaml

# The lock holds every package with its version, so nothing is left to resolve: pip installs just these, and the command
# `foldvote` of this folder.
$(VENV)/.installed: requirements.lock
	@sh envs/make_venv.sh $(VENV) "$(PYTHON)"
	$(BIN)/python -m pip install --disable-pip-version-check --no-deps -r requirements.lock
	$(BIN)/python -m pip install --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

# Beside the environment and not in it: a plugin makes every start of Snakemake slower.
.slurm/.installed: envs/slurm.txt $(VENV)/.installed
	rm -rf .slurm
	$(BIN)/python -m pip install --disable-pip-version-check --no-deps --target .slurm -r envs/slurm.txt
	@touch $@

clean:
	rm -rf $(VENV) .slurm .snakemake .pytest_cache .ruff_cache .mypy_cache .hypothesis
