# One virtual environment, made by the first target that needs it. PYTHON names the interpreter.
PYTHON ?= python3.11
VENV   ?= .venv
MODE   ?= ensemble
SEEDS  ?= 0
OUT    ?= runs/demo-$(MODE)
WORKERS ?= 2
BIN     = $(VENV)/bin
STAMP   = $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-long lint format proto bench bench-privacy bench-audit bench-selection bench-train bench-growth bench-fuzz bench-ensemble bench-dp-sgd bench-serve bench-faults bench-soak constraints clean

help: ## This list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-15s %s\n", $$1, $$2}'

setup: $(STAMP) ## Virtual environment with everything that any target needs

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@

demo: setup ## Train, serve, teach, audit on the embedded data (MODE=ensemble|dp-sgd, SEEDS=0,1,2)
	$(BIN)/python -m examples.demo --mode $(MODE) --seeds $(SEEDS) --out $(OUT)

test: setup lint ## What CI runs: every check, and every test but the long ones (WORKERS=2: files at once)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --max-worker-restart 0 --dist loadfile --no-loadscope-reorder

test-long: setup ## The tests that take minutes
	$(BIN)/python -m pytest -m long --timeout 3600

lint: setup ## ruff, mypy, the layering contract, stale stubs
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python .ci/check_stubs.py

format: setup ## Let ruff mend what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

proto: setup ## Generate the stubs from protos/teacher.proto
	$(BIN)/python -m grpc_tools.protoc -I. --python_out=. --pyi_out=. --grpc_python_out=. protos/teacher.proto

bench: bench-privacy ## Speed: noise, accounting, ledger, stacked teachers
	$(BIN)/python -m benchmarks.ensemble

bench-privacy: setup ## Noise, accounting and ledger: figures beside their peers and goals
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.privacy

bench-audit: setup ## Attacks on the service and its answers, beside what is claimed (minutes)
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.mechanism
	$(BIN)/python -m benchmarks.membership

bench-ensemble: setup ## Teachers stacked and one after another, training and answering
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.ensemble

bench-dp-sgd: setup ## DP-SGD in each mode, beside plain SGD and Opacus's own ways
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.dp_sgd

bench-faults: setup ## The service under eleven faults, and whether the promise was kept (minutes)
	$(BIN)/python -m benchmarks.faults

bench-soak: setup ## Twenty minutes of overload by clients that come, go, die and cancel; books and memory afterwards
	$(BIN)/python -m benchmarks.soak

bench-selection: setup ## Seconds of each query selection, beside the textbook's k-centre (a minute)
	$(BIN)/python -m benchmarks.selection

bench-growth: setup ## Large public sets: seconds and memory at 10^4, 10^5 and 10^6 samples (10 GB of disk)
	$(BIN)/python -m benchmarks.growth

bench-fuzz: setup ## 100,000 hostile requests and 10,000 connections against the running service (minutes)
	$(BIN)/python -m benchmarks.fuzz

bench-serve: setup ## The service beside the bare model and LitServe, all on (OPTIONS="--precisions float32 --turns 4": shorter)
	$(PYTHON) -m venv --system-site-packages $(VENV)/litserve
	$(BIN)/python -c "import site; print(site.getsitepackages()[0])" > $$(echo $(VENV)/litserve/lib/python*/site-packages)/beside.pth
	$(VENV)/litserve/bin/python -m pip install --quiet litserve aiohttp
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.serve --litserve $(VENV)/litserve/bin/python $(OPTIONS)

bench-train: setup ## Training steps beside mdistiller's (REPOSITORIES=DIR, where its clone lies) and the bare student
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.train $(if $(REPOSITORIES),--repositories $(REPOSITORIES))

constraints: setup ## Write the versions that are installed to constraints.txt
	$(BIN)/python -m pip freeze --exclude-editable | grep -E '^[A-Za-z0-9_.-]+==' > constraints.txt

clean: ## Remove the environment and every run
	rm -rf $(VENV) runs build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
