# `make run` and `make test` do their own set-up, from nothing. ARGS goes to the command: make test ARGS="-k chat".

PYTHON ?= $(shell for python in python3 python3.11 python3.12 python3.13; do \
	$$python -c "import sys; sys.exit(sys.version_info < (3, 11))" 2>/dev/null && echo $$python && break; done)
VENV := .venv
BIN := $(VENV)/bin
ASAN := build/asan
TSAN := build/tsan
TRACED := build/traced
FUZZED := build/fuzzed
SECONDS := 600
# Other programs than Python have nothing to do with the engine's memory; of Autobahn's two runners kosoku suffices.
NOT_ENGINE := $(foreach name,browser docs house package,--ignore=tests/test_$(name).py) \
	--deselect=tests/test_autobahn.py::test_autobahns_own_suite_finds_nothing
# Of AddressSanitizer and UBSan. Python keeps memory until its end, so leaks are not looked for.
SANITIZED := PYTHONMALLOC=malloc ASAN_OPTIONS=detect_leaks=0:quarantine_size_mb=8 UBSAN_OPTIONS=print_stacktrace=1
# What ThreadSanitizer runs; one test moves more bytes than it can.
THREADED := $(foreach name,model threads fanout slow_readers,tests/test_$(name).py) --deselect=tests/test_fanout.py::$\
	test_members_that_vanish_or_stall_during_a_flush_cost_the_others_nothing

export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: run test build lint typecheck bench test-asan test-tsan soak fuzz coverage sdist clean system clang compiler

run: build
	$(BIN)/fastws serve $(ARGS)

test: build system $(VENV)/.test tests/node/node_modules/.package-lock.json
	$(BIN)/python -m pytest $(ARGS)

# Seconds where nothing changed: setuptools and Cython look at the files themselves.
build: $(VENV)/.run
	$(BIN)/python setup.py -q build_ext --inplace

lint: $(VENV)/.test
	$(BIN)/ruff check
	$(BIN)/ruff format --check

typecheck: build $(VENV)/.test
	$(BIN)/mypy
	$(BIN)/python -m mypy.stubtest fastws._core

bench: build $(VENV)/.bench bench/peers/node_modules/.package-lock.json
	$(BIN)/python -m bench $(ARGS)

# The engine's tests on a copy of the package whose engine ends the process at a bad access or undefined behaviour.
test-asan: build $(VENV)/.test tests/node/node_modules/.package-lock.json
	rm -rf $(ASAN)
	FASTWS_SANITIZE=address,undefined $(BIN)/python setup.py -q build --build-lib $(ASAN)
	cp -r pyproject.toml tests examples $(ASAN)
	cd $(ASAN) && PYTHONPATH=$(CURDIR)/$(ASAN) $(SANITIZED) \
		LD_PRELOAD="$$(gcc -print-file-name=libasan.so) $$(gcc -print-file-name=libubsan.so)" \
		$(CURDIR)/$(BIN)/python -m pytest -p no:cacheprovider $(NOT_ENGINE) $(ARGS)

# What flush threads do, with ThreadSanitizer, and two of them from two connections on. It watches the engine alone, for
# Python and uvloop are not built for it; that of gcc 12 cannot do with random addresses.
test-tsan: build $(VENV)/.test
	rm -rf $(TSAN)
	FASTWS_SANITIZE=thread $(BIN)/python setup.py -q build --build-lib $(TSAN)
	cp -r pyproject.toml tests $(TSAN)
	cd $(TSAN) && PYTHONPATH=$(CURDIR)/$(TSAN) TSAN_OPTIONS=halt_on_error=1 \
		LD_PRELOAD="$$(gcc -print-file-name=libtsan.so)" setarch -R \
		$(CURDIR)/$(BIN)/python -m pytest -p no:cacheprovider $(THREADED) $(ARGS)

# Two thousand clients come, talk, stall and vanish: nothing may be lost, and no memory be kept.
soak: build $(VENV)/.test
	$(BIN)/python -m tests.soak --seconds $(SECONDS) $(ARGS)

# Each target for so many SECONDS, in which libFuzzer makes inputs of those that reached something new, and keeps these
# for the next time. An input that fails lies in build/fuzzed afterwards; in tests/fuzz/corpus it becomes a test.
fuzz: clang $(VENV)/.fuzz
	@command -v clang >/dev/null || { echo "Fuzzing needs clang: apt-get install clang libclang-rt-dev" >&2; exit 1; }
	CC=clang FASTWS_SANITIZE=fuzzer-no-link,address,undefined $(BIN)/python setup.py -q build --build-lib $(FUZZED)
	rm -rf $(FUZZED)/tests
	cp -r tests $(FUZZED)
	mkdir -p $(FUZZED)/parser $(FUZZED)/handshake
	cd $(FUZZED) && for target in parser handshake; do \
		PYTHONPATH=$(CURDIR)/$(FUZZED) $(SANITIZED) \
		LD_PRELOAD="$$($(CURDIR)/$(BIN)/python -c 'import atheris; print(atheris.path())')/asan_with_fuzzer.so" \
		$(CURDIR)/$(BIN)/python -m tests.fuzz $$target -max_total_time=$(SECONDS) -max_len=2048 -timeout=10 \
			-verbosity=0 -print_final_stats=1 -dict=tests/fuzz/corpus/$$target.dict $(ARGS) $$target tests/fuzz/corpus/$$target \
		|| exit 1; done

# Lines of Python and of the engine that the tests reach; on a copy, too, whose engine tells each of its lines.
coverage: build $(VENV)/.test
	rm -rf $(TRACED) && mkdir -p $(TRACED)
	cp -r setup.py pyproject.toml fastws tests examples $(TRACED)
	cd $(TRACED) && FASTWS_COVERAGE=1 $(CURDIR)/$(BIN)/python setup.py -q build_ext --inplace
	-cd $(TRACED) && PYTHONPATH=$(CURDIR)/$(TRACED) $(CURDIR)/$(BIN)/coverage run -m pytest \
		-p no:cacheprovider $(NOT_ENGINE) $(ARGS)
	cd $(TRACED) && $(CURDIR)/$(BIN)/coverage report

sdist: $(VENV)/.test
	$(BIN)/python -m build --sdist

clean:
	rm -rf build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis fastws/*.so fastws/_core.c

$(VENV)/bin/python: | compiler
	$(if $(PYTHON),,$(error fastws needs Python 3.11 or newer, and found none))
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q --upgrade "pip>=25.1"

# setuptools warns, each time, of what an editable install is.
$(VENV)/.run $(VENV)/.test $(VENV)/.bench: export PYTHONWARNINGS = ignore:Editable installation

# The engine is built first, where later builds find its parts; the editable install takes it from there.
$(VENV)/.run: pyproject.toml setup.py | $(VENV)/bin/python
	$(BIN)/pip install -q --group dev
	$(BIN)/python setup.py -q build_ext --inplace
	$(BIN)/pip install -q --no-build-isolation -e ".[server]"
	touch $@

$(VENV)/.test: $(VENV)/.run
	$(BIN)/pip install -q --no-build-isolation -e ".[test]"
	touch $@

$(VENV)/.fuzz: $(VENV)/.test
	$(BIN)/pip install -q --group fuzz
	touch $@

$(VENV)/.bench: $(VENV)/.run
	$(BIN)/pip install -q --no-build-isolation -e ".[bench]"
	touch $@

# Without npm pytest names the tests that it skips for it.
%/node_modules/.package-lock.json: %/package.json | system
	! command -v npm >/dev/null || npm --prefix $* install --silent --no-audit --no-fund --no-package-lock
	@! test -e $@ || touch $@

# On Debian, as root, what is missing comes by apt-get; elsewhere pytest names the tests that it skips for it.
APT_INSTALL = if [ -n "$$missing" ] && [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	echo "apt-get installs $$missing"; apt-get update -qq && \
	DEBIAN_FRONTEND=noninteractive apt-get install -qqy --no-install-recommends $$missing >/dev/null; fi

compiler:
	@missing=""; \
	command -v gcc >/dev/null || missing="gcc libc6-dev"; \
	$(PYTHON) -c "import ensurepip, os, sysconfig; os.stat(sysconfig.get_path('include') + '/Python.h')" 2>/dev/null \
		|| missing="$$missing python3-dev python3-venv"; \
	$(APT_INSTALL)

system:
	@missing=""; \
	command -v npm >/dev/null || missing="nodejs npm"; \
	command -v chromium >/dev/null || missing="$$missing chromium"; \
	command -v redis-server >/dev/null || missing="$$missing redis-server"; \
	$(APT_INSTALL)

clang:
	@missing=""; \
	command -v clang >/dev/null || missing="clang libclang-rt-dev"; \
	$(APT_INSTALL)
