# `make help` lists the commands; CONTRIBUTING.md says when to use which.
SHELL := /bin/sh
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:

# Where it is set, every kernel start parses pandas again, and the book takes 2.5 times as long.
unexport PYTHONDONTWRITEBYTECODE
# A warning about a newer pip is noise in every log.
export PIP_DISABLE_PIP_VERSION_CHECK := 1
# Jupyter's old and new folders: says the new one, and with it the warning goes.
export JUPYTER_PLATFORM_DIRS := 1

BIN := .venv/bin
PY := $(BIN)/python
INSTALLED := .venv/installed-project
GROUPS := book test lab build
QUICK := not slow and not book and not browser

.PHONY: book test check mutants oracle fuzz notebooks fix accept speed lab lock help clean install

book: $(INSTALLED) ## install everything, execute every notebook, build _build/html/index.html
	rm -rf _build
	$(BIN)/jupyter-book build --all -W --keep-going .

test: check book ## install everything and run every check but mutants and oracle
	CHROMIUM=$$(tools/chromium.sh) && export CHROMIUM && $(PY) -m pytest -q -n 2 --dist loadscope -m "not ($(QUICK))"
	$(PY) -m pytest -q -n 2 --dist loadscope --nbval notebooks

check: $(INSTALLED) ## the quick gate: lint, types, ledger, typed numbers, pairs, stored outputs, the accepted export, unit tests
	$(BIN)/ruff check -q .
	$(BIN)/ruff format -q --check .
	$(BIN)/mypy
	$(PY) -m vlmmem.cite check
	$(PY) -m pytest -q -n 2 --dist worksteal -m "$(QUICK)"

mutants: $(INSTALLED) ## mutation testing of vlmmem/memory; every survivor is explained in tests/mutants.toml
	$(PY) tools/mutants.py

oracle: $(INSTALLED) ## compare with transformers in .venv-oracle; TORCH_INDEX=URL says where PyTorch's CPU build comes from
	$(PY) tools/oracle.py

fuzz: $(INSTALLED) ## give the readers N made-up and damaged files of each kind (N=20000)
	VLMMEM_FUZZ=$(or $(N),20000) $(PY) -m pytest -q -n 2 tests/test_fuzz.py

fix: $(INSTALLED) ## rewrite the readable values in prose from their source
	$(PY) -m vlmmem.cite fix

notebooks: $(INSTALLED) ## execute every notebook and write its .ipynb
	$(PY) tools/notebooks.py

accept: $(INSTALLED) ## accept a changed export: REASON='why the figures changed' becomes a line in CHANGELOG.md
	$(PY) -m vlmmem.cite accept "$$REASON"

speed: $(INSTALLED) ## measure what these commands take, for the status page (book/speed.json)
	$(PY) tools/speed.py

lab: $(INSTALLED) ## open the notebooks in JupyterLab
	$(BIN)/jupyter lab notebooks

lock: .venv/installed-lock ## resolve pyproject.toml into requirements.txt, for every supported Python; UPGRADE=--upgrade for newer versions
	# pip refuses a lock that leaves out the extras: --no-strip-extras
	$(BIN)/uv pip compile --quiet --universal --generate-hashes --no-strip-extras --no-emit-index-url --no-emit-find-links \
	  --python-version "$$(sed -n 's/^requires-python = ">=\([0-9.]*\),.*/\1/p' pyproject.toml)" \
	  --custom-compile-command "make lock" $(UPGRADE) $(GROUPS:%=--group %) pyproject.toml -o requirements.txt

install: $(INSTALLED) ## install everything into .venv

clean: ## remove what make made, but the environments
	rm -rf _build build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis

help: ## list these commands
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/\1\t\2/p' $(MAKEFILE_LIST) | while IFS="$$(printf '\t')" read -r name what; do \
	  printf 'make %-9s %s\n' "$$name" "$$what"; done

# Each stamp is newer than what it was made from, so that a second call is instant.
.venv/made:
	@tools/venv.sh .venv
	@touch $@

.venv/installed-lock: .venv/made requirements.txt
	@tools/install.sh .venv
	@touch $@

$(INSTALLED): .venv/installed-lock pyproject.toml
	$(PY) -m pip install --quiet --no-deps --no-build-isolation --no-index -e .
	@touch $@
