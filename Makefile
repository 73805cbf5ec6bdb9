# make demo   a study of handwritten digits, with and without tampering, and its report
# make test   lint, types, doctests, README blocks, tests
# make test-loss, test-training, test-data, test-studies ...   the tests of one room
# make slow   the tests that make test leaves out, but for those of make faults
# make faults runs that are killed at every moment, resumed and compared
# make docs   the documentation as a site, into docs/_build
# make chaos  the same with faults drawn by a seed, as long as is asked for
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
MINUTES ?= 60
DEVICE ?= cuda

.PHONY: demo test test-versions lint types pytest slow faults chaos fuzz bench bench-page gpu-check gpu-study docs dist pictures reference architecture clean

demo: $(STAMP)-demo
	$(BIN)/sgt demo

test: lint types pytest

lint: $(STAMP)-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: $(STAMP)-dev
	$(BIN)/mypy

# One thread a process: two workers on two cores, and small nets, are faster without more.
pytest: $(STAMP)-dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2

# One room's: a folder of tests, and the doctests of the room of that name.
test-%: $(STAMP)-dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 tests/$* $(wildcard src/softmax_gradient_tampering/$*)

# The declared versions of Python and torch, with the interpreters at hand; gigabytes are loaded.
test-versions: $(STAMP)-dev
	OMP_NUM_THREADS=1 $(BIN)/python tests/versions.py

# Products of many cases, each of which make test tries a part of.
slow: $(STAMP)-dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --ignore=tests/faults -m slow --durations=10

# Kills, full disks and lost processes, all of them: some ten minutes.
faults: $(STAMP)-dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/faults -m "slow or not slow" --durations=0

# Configurations and faults drawn by seed, each run resumed and compared; MINUTES=0 is one seed.
chaos: $(STAMP)-dev
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.faults.chaos --minutes $(MINUTES) $(addprefix --seed=,$(SEED))

# Hostile command lines, YAML, names and checkpoints, made anew as long as is asked for.
fuzz: $(STAMP)-dev
	$(BIN)/python tests/training/fuzz.py --minutes $(MINUTES)

bench: $(STAMP)-dev
	$(BIN)/python benchmarks/bench_step.py
	$(BIN)/python benchmarks/bench_import.py
	$(BIN)/python benchmarks/bench_report.py
	$(BIN)/python benchmarks/bench_study.py
	$(BIN)/python benchmarks/bench_loss.py
	$(BIN)/python benchmarks/bench_linear.py

# The site, into docs/_build: every warning, lost link and missing reference is an error.
docs: $(STAMP)-dev
	$(BIN)/python -m sphinx --fail-on-warning --keep-going -q -c docs -d docs/_build/.cache . docs/_build/site
	@echo "docs/_build/site/docs/index.html"

# The sdist and the wheel into dist/, looked through and tried.
dist: $(STAMP)-release
	$(BIN)/python tools/check_dist.py

# The pictures of the documentation, from the code and from committed results.
pictures: $(STAMP)-dev
	$(BIN)/python tools/draw_pictures.py

# The pages of commands and settings, from the commands' own help.
reference: $(STAMP)-dev
	$(BIN)/python tools/write_reference.py

# The list of files in docs/architecture.md, from the modules' first lines.
architecture:
	$(PYTHON) tools/list_modules.py

# docs/benchmarks.md and its pictures, from the files in benchmarks/results alone.
bench-page:
	PYTHONPATH=src $(PYTHON) benchmarks/write_page.py

# On a machine with a GPU, torch and Triton: nothing is installed, and other packages' losses are
# measured where they are there. DEVICE=cpu tries the check itself. Writes benchmarks/results.
gpu-check:
	PYTHONPATH=src $(PYTHON) benchmarks/gpu_check.py --device $(DEVICE)

# On the same machine: CIFAR-10 of the folder DATA, with and without normalisation, in ten minutes.
gpu-study:
	PYTHONPATH=src $(PYTHON) tools/study_on_gpu.py $(DATA) --seconds $(or $(SECONDS),600)

$(STAMP)-demo: pyproject.toml constraints.txt
	test -d $(VENV) || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet -c constraints.txt -e ".[train,study]"
	touch $@

$(STAMP)-dev: pyproject.toml constraints.txt
	test -d $(VENV) || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet -c constraints.txt -e ".[dev]"
	touch $@

$(STAMP)-release: pyproject.toml constraints.txt
	test -d $(VENV) || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet -c constraints.txt -e ".[release]"
	touch $@

clean:
	rm -rf $(VENV)
