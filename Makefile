# The README's words: run, test, check, bench, lab.
#
# `make run` and `make test` need nothing but Python 3.11 or newer; they work as root and as a plain user, and with an
# existing virtual environment. Override PYTHON for another interpreter, VENV for another folder, ARGS for more words
# to the tool behind a target (make test ARGS='-k landlock').

PYTHON ?= python3
VENV ?= .venv
ARGS ?=
LAB ?= $(or $(KAVACH_LAB),$(HOME)/.cache/kavach-lab)
BIN := $(VENV)/bin

# The tests' tools: peers and tracers, a static busybox, compilers and runtimes that a sandbox must be able to run, and
# what boots a stock kernel.
LAB_APT := bubblewrap busybox-static strace hyperfine uidmap gcc libc6-dev git make nodejs \
	qemu-system-x86 lz4 xz-utils zstd redis-server chromium
# A node newer than the distribution's: its runtime probes newer system calls at start.
LAB_NODE := node@24

.PHONY: run test coverage check bench lab venv-run venv-test venv-dev
.DEFAULT_GOAL := run

run: venv-run
	$(BIN)/kavach run -- echo "hello from inside"

test: venv-test
	$(BIN)/python -m pytest tests --ignore=tests/bench $(ARGS)

# Left out: the soak tests, for what they compare (memory, descriptors, counts) the tracing itself changes; tests in a
# machine of their own, which sees another /tmp and cannot share the map. A failed test fails the target after the report.
coverage: venv-test
	@rm -f .coverage .coverage.*
	@$(BIN)/python tools/tracing/arc_map.py create
	@status=0; \
	PYTHONPATH="$(CURDIR)/tools/tracing$${PYTHONPATH:+:$$PYTHONPATH}" $(BIN)/python -m pytest tests --ignore=tests/bench \
		--ignore=tests/linux/test_soak_growth.py -m "not vm" $(ARGS) || status=$$?; \
	$(BIN)/python tools/tracing/arc_map.py collect; \
	$(BIN)/coverage combine --quiet; \
	$(BIN)/coverage report || status=$$?; \
	exit $$status

check: venv-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	PATH="$(abspath $(BIN)):$$PATH" $(BIN)/pyright --verifytypes kavach --ignoreexternal
	$(BIN)/lint-imports

# addopts is replaced, because pyproject.toml skips benchmarks in every other run.
bench: venv-test
	$(BIN)/python -m pytest -o addopts="-ra --strict-markers --strict-config --import-mode=importlib" \
		--benchmark-only tests/bench $(ARGS)

lab:
	@missing=""; for name in $(LAB_APT); do \
		dpkg-query -W -f='$${Status}' "$$name" 2>/dev/null | grep -q 'ok installed' || missing="$$missing $$name"; \
	done; \
	if [ -z "$$missing" ]; then echo "lab: every package is there"; \
	elif [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
		apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends $$missing; \
	else echo "lab: left out, needs root and apt-get:$$missing" >&2; fi
	@if [ -x "$(LAB)/node/node_modules/.bin/node" ]; then echo "lab: newer node is there"; \
	elif command -v npm >/dev/null; then \
		npm install --silent --no-fund --no-audit --prefix "$(LAB)/node" $(LAB_NODE); \
	else echo "lab: left out, needs npm: $(LAB_NODE)" >&2; fi

venv-run: EXTRA :=
venv-test: EXTRA := [test]
venv-dev: EXTRA := [test,dev]

# The stamp names the folder and pyproject.toml's checksum, so a moved tree or a new dependency installs again and an
# unchanged one costs nothing.
venv-run venv-test venv-dev:
	@set -eu; \
	stamp="$(VENV)/.kavach-$@"; want="$(CURDIR) $$(cksum < pyproject.toml)"; \
	if [ "$$(cat "$$stamp" 2>/dev/null)" = "$$want" ] && $(BIN)/python -c 'import kavach' 2>/dev/null; then exit 0; fi; \
	say() { echo "make: $$*" >&2; }; \
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || \
		{ say "$(PYTHON) is not Python 3.11 or newer; name one: make $(MAKECMDGOALS) PYTHON=python3.12"; exit 1; }; \
	if ! $(PYTHON) -c 'import venv, ensurepip' 2>/dev/null; then \
		if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
			apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq install -y python3-venv; \
		fi; \
		$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || \
			{ say "$(PYTHON) has no venv module; as root: apt-get install python3-venv"; exit 1; }; \
	fi; \
	if ! $(BIN)/python -m pip --version >/dev/null 2>&1; then \
		say "making $(VENV)"; \
		$(PYTHON) -m venv --clear "$(VENV)" || \
			{ say "cannot make $(VENV) here; name another folder: make $(MAKECMDGOALS) VENV=~/.venv-kavach"; exit 1; }; \
	fi; \
	[ -w "$(VENV)" ] || { say "$(VENV) belongs to somebody else; make $(MAKECMDGOALS) VENV=~/.venv-kavach"; exit 1; }; \
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.$(EXTRA)'; \
	printf '%s' "$$want" > "$$stamp"
