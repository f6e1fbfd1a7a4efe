# make demo, make serve, make test, make docs, make bench, make lint: each makes the environment .venv first, where it is missing or out of date.
#
# PYTHON=python3.12 chooses the interpreter. Where packages come from is pip's own configuration: on Linux, pip's
# default torch carries CUDA; to take a smaller build, set PIP_EXTRA_INDEX_URL in the environment.

PYTHON ?= python3
VENV := .venv
STAMP := $(VENV)/.installed
DEMO := demo
DOCS := build/docs
BENCH :=
SERVE :=

.PHONY: help install demo serve test docs bench lint format clean

help:
	@echo "make demo    explain digits, photographs and reviews, write $(DEMO)/index.html"
	@echo "make serve   open the web app on this machine; SERVE='--port 8000' and the like are options of relprop serve"
	@echo "make test    run the tests"
	@echo "make docs    build the book in English and Korean, every example run: $(DOCS)/index.html"
	@echo "make bench   measure what explanations cost, write benchmarks/results.md; BENCH=--quick is shorter"
	@echo "make lint    ruff and mypy"
	@echo "make format  let ruff format the code"
	@echo "make clean   remove the environment and all that was made"

install: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@echo "installing everything into $(VENV): 2.5 GB with a processor build of torch, some minutes"
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet -c constraints.txt -e ".[photos,plot,korean,keras,sklearn,captum,onnx,huggingface,peers,app,docs,dev]"
	@touch $(STAMP)

demo: $(STAMP)
	$(VENV)/bin/relprop demo --out $(DEMO)

serve: $(STAMP)
	$(VENV)/bin/relprop serve $(SERVE)

# One thread each: the workers share the processors as it is.
test: $(STAMP)
	OMP_NUM_THREADS=1 $(VENV)/bin/python -m pytest -n auto

# What cells gave is kept beside the pages, and nothing there notices that relprop has changed: built anew.
docs: $(STAMP)
	rm -rf $(DOCS)
	OMP_NUM_THREADS=1 $(VENV)/bin/python docs/build.py $(DOCS)

bench: $(STAMP)
	$(VENV)/bin/python -m benchmarks $(BENCH)

lint: $(STAMP)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

format: $(STAMP)
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

clean:
	rm -rf $(VENV) $(DEMO) dist build .pytest_cache .mypy_cache .ruff_cache .hypothesis
