# Two commands on a fresh machine: `make report` and `make test`.
PYTHON ?= python3
PIP_FLAGS ?=
OUT ?= runs
BIN := .venv/bin

.PHONY: report test check clean

report: .venv/studies
	$(BIN)/lemmata run --all --profile quick --device cpu --out $(OUT)

test: .venv/test
	$(BIN)/python -m pytest --numprocesses auto --dist loadfile

check: .venv/test
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	mkdir -p build/typing/lemmata
	for package in analysis architectures reports studies; do ln -sfn ../../../$$package build/typing/lemmata/$$package; done
	MYPYPATH=build/typing $(BIN)/mypy --namespace-packages -p lemmata

.venv/studies .venv/test: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install $(PIP_FLAGS) -c constraints.txt --editable ".[$(@F)]"
	touch $@

clean:
	rm -rf .venv build
