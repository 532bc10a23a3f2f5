# `make run` and `make test` set up everything they need. ARGS is passed to the command: make test ARGS="-k chat".

PYTHON ?= $(shell for python in python3 python3.11 python3.12 python3.13 python3.14; do \
	$$python -c "import sys; sys.exit(sys.version_info < (3, 11))" 2>/dev/null && echo $$python && break; done)
VENV := .venv
BIN := $(VENV)/bin
NODE_MODULES := node_modules/.package-lock.json
SECONDS := 600
PYTEST := $(if $(MEASURE),-m coverage run) -m pytest
# $(call at_once,4) runs four tests at once: most of them wait for something, so there may be more than cores. ARGS="-n 0"
# runs one after the other, as --pdb needs.
at_once = -n $1 --dist worksteal
SEED := 0

export PIP_DISABLE_PIP_VERSION_CHECK := 1
# Flush threads that wait go to sleep at once; otherwise they spin, and take time from other processes.
export OMP_WAIT_POLICY := passive

.PHONY: help run test build lint typecheck docs bench soak chaos sdist clean test-asan test-tsan coverage coverage-report \
	fuzz fuzz-engine fuzz-parser fuzz-handshake system clang compiler

help:  ## lists these targets
	@sed -n 's/^\([a-z-]*\):.*## /\1	/p' $(MAKEFILE_LIST) | expand -t 14

run: build  ## serves the demo chat at http://127.0.0.1:8765
	$(BIN)/fastws demo $(ARGS)

test: build system $(VENV)/.test $(addsuffix /$(NODE_MODULES),tests/howto/node tests/interop/node tests/pusher/node clients/js)  ## runs all tests
	$(BIN)/python $(PYTEST) $(call at_once,4) $(ARGS)

# This takes a few seconds if nothing has changed: setuptools and Cython check the files themselves.
build: $(VENV)/.run  ## builds the engine in place
	$(BIN)/python setup.py -q build_ext --inplace

lint: $(VENV)/.test  ## checks style and formatting with ruff
	$(BIN)/ruff check
	$(BIN)/ruff format --check

typecheck: build $(VENV)/.test  ## checks the types, and the stub of the engine
	$(BIN)/mypy
	$(BIN)/python -m mypy.stubtest fastws._core

# Warnings are errors, such as a link that leads nowhere, or a name in a docstring that there is not.
docs: build $(VENV)/.docs  ## builds the site in build/docs
	$(BIN)/python -m sphinx -b html -W --keep-going -q docs build/docs $(ARGS)

bench: build $(VENV)/.bench bench/peers/$(NODE_MODULES) bench/peers/socketio/$(NODE_MODULES)  ## compares fastws with its peers; ARGS=--quick is shorter
	$(BIN)/python -m bench $(ARGS)

soak: build $(VENV)/.test  ## tests for loss and leaks with 2,000 clients, for SECONDS
	$(BIN)/python -m tests.soak --seconds $(SECONDS) $(ARGS)

chaos: build $(VENV)/.test tests/interop/node/$(NODE_MODULES)  ## kills and cuts off nodes and Redis under 300 clients, for SECONDS
	$(BIN)/python -m tests.chaos --seconds $(SECONDS) --seed $(SEED) $(ARGS)

sdist: $(VENV)/.test  ## builds the source distribution, dist/*.tar.gz
	$(BIN)/python -m build --sdist

clean:  ## removes build products, but not .venv
	rm -rf build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis fastws/*.so fastws/backplane/*.so fastws/_core.c

# Variants: the package and its tests, copied to build/NAME, with an engine built in another way.

# $(call variant,NAME,SWITCHES) creates the copy; setup.py describes the switches.
define variant
	rm -rf build/$1/fastws build/$1/tests
	$2 $(BIN)/python setup.py -q build --build-lib build/$1
	cp -r pyproject.toml tests examples build/$1
endef

# $(call inside,NAME) is the prefix of a command that runs in the copy, $(PYTHON_THERE) its Python.
inside = cd build/$1 && PYTHONPATH=$(CURDIR)/build/$1
PYTHON_THERE := $(CURDIR)/$(BIN)/python

# $(call runtimes,NAME...) loads gcc's runtime libraries of these sanitizers into a Python built without them.
runtimes = LD_PRELOAD="$(foreach name,$1,$$(gcc -print-file-name=lib$(name).so))"

# A sanitizer that finds something writes to the real stderr and ends the process, without a word from pytest.
IN_SIGHT := -p no:cacheprovider --capture=sys

# Python frees some memory only when it exits, or never, so leaks are not checked.
ASAN := FASTWS_SANITIZE=address,undefined $(if $(MEASURE),FASTWS_COVERAGE=1)
ASAN_ENVIRONMENT := PYTHONMALLOC=malloc ASAN_OPTIONS=detect_leaks=0:quarantine_size_mb=8 \
	UBSAN_OPTIONS=print_stacktrace=1

# The tests in these folders reveal nothing (or nothing new) about the engine's memory, since they test what is above it.
# Of Autobahn's two runners, kosoku suffices, and of the cases of compression some. Chromium does not run with a sanitizer.
ABOVE_ENGINE := access asgi browser chaos clients cluster coming_from command demo deploy/test_files.py django hooks \
	house howto pusher soak standalone v1 web workers \
	$(patsubst tests/%,%,$(filter-out %/test_push_parser.py,$(wildcard tests/backplane/test_*.py)))
ENGINE_TESTS := $(patsubst %,--ignore=tests/%,$(ABOVE_ENGINE)) \
	--deselect=tests/protocol/test_autobahn.py::test_autobahns_own_suite_finds_nothing \
	--deselect=tests/protocol/test_autobahn.py::test_kosoku_finds_nothing_in_any_compressed_messages \
	--deselect=tests/interop/test_compression.py::test_chromium

test-asan: build $(VENV)/.test tests/interop/node/$(NODE_MODULES)  ## runs the engine's tests with AddressSanitizer and UBSan
	$(call variant,asan,$(ASAN))
	$(call inside,asan) $(ASAN_ENVIRONMENT) $(call runtimes,asan ubsan) \
		$(PYTHON_THERE) -m pytest $(call at_once,3) $(IN_SIGHT) $(ENGINE_TESTS) $(ARGS)

# ThreadSanitizer watches only the engine, since Python and uvloop are not built for it. One test moves more bytes than
# it can handle. gcc 12's cannot cope with address randomisation. It also guesses the size of a module's thread-local data
# from the bytes before them, which glibc no longer writes, and now and then dies of what it finds there.
THREAD_TESTS := $(patsubst %,tests/channels/test_%.py,fanout model threads) tests/limits/test_slow_readers.py \
	--deselect=tests/channels/test_fanout.py::test_members_that_vanish_or_stall_during_a_flush_cost_the_others_nothing

test-tsan: build $(VENV)/.test  ## runs the tests of the flush threads with ThreadSanitizer
	$(call variant,tsan,FASTWS_SANITIZE=thread)
	$(call inside,tsan) TSAN_OPTIONS=halt_on_error=1:intercept_tls_get_addr=0 $(call runtimes,tsan) setarch -R \
		$(PYTHON_THERE) -m pytest $(IN_SIGHT) $(THREAD_TESTS) $(ARGS)

FUZZER := FASTWS_SANITIZE=fuzzer-no-link,address,undefined

# libFuzzer derives inputs from those that reached something new, and keeps these in build/fuzz for the next run. An input
# that fails is left there; copied to tests/fuzz/corpus, it becomes a test.
fuzz: fuzz-parser fuzz-handshake  ## fuzzes the parser and the handshake, each for SECONDS; SEED=1 makes it repeatable
fuzz-parser fuzz-handshake: fuzz-%: fuzz-engine
	mkdir -p build/fuzz/$*
	$(call inside,fuzz) $(ASAN_ENVIRONMENT) \
		LD_PRELOAD="$$($(PYTHON_THERE) -c 'import atheris; print(atheris.path())')/asan_with_fuzzer.so" \
		$(PYTHON_THERE) -m tests.fuzz $* -max_total_time=$(SECONDS) -seed=$(SEED) -max_len=2048 -timeout=10 -verbosity=0 \
			-print_final_stats=1 -dict=tests/fuzz/corpus/$*.dict $(ARGS) $* tests/fuzz/corpus/$*

fuzz-engine: clang $(VENV)/.fuzz
	@command -v clang >/dev/null || { echo "Fuzzing needs clang: apt-get install clang libclang-rt-dev" >&2; exit 1; }
	$(call variant,fuzz,CC=clang $(FUZZER))

# The minimum coverage in percent: of the Python layer's lines and branches, and of the engine's lines. The floors are
# slightly below the actual coverage, because some tests are random. The Python layer is measured by `test`, the engine
# by `test-asan`, both with MEASURE=1; that costs less than running the tests once more. What runs in processes of its own
# (nodes that are killed, workers, their supervisor) is tested, but not measured.
PYTHON_FLOOR := 95
ENGINE_FLOOR := 96
COUNTERS := build/*-coverage-address-undefined/temp/build/cython/coverage-address-undefined/fastws/_core.gcda

coverage:  ## shows which lines the tests reach; fails below the floors
	rm -f .coverage .coverage.* $(COUNTERS)
	$(MAKE) test test-asan MEASURE=1
	$(MAKE) coverage-report

coverage-report:
	$(BIN)/coverage combine -q
	$(BIN)/coverage report --precision=2 --show-missing --skip-covered --fail-under=$(PYTHON_FLOOR)
	$(BIN)/python tools/engine_coverage.py $(COUNTERS) --fail-under $(ENGINE_FLOOR)

$(VENV)/bin/python: | compiler
	$(if $(PYTHON),,$(error fastws needs Python 3.11 or newer; set PYTHON to its path))
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q --upgrade "pip>=25.1"

# setuptools warns about every editable install.
$(VENV)/.run $(VENV)/.test: export PYTHONWARNINGS = ignore:Editable installation

# The engine is built first, where later builds find its parts, and where the editable install picks it up.
$(VENV)/.run: pyproject.toml setup.py | $(VENV)/bin/python
	$(BIN)/pip install -q --group dev
	$(BIN)/python setup.py -q build_ext --inplace
	$(BIN)/pip install -q --no-build-isolation -e ".[server]"
	touch $@

$(VENV)/.test: $(VENV)/.run
	$(BIN)/pip install -q --no-build-isolation -e ".[django,hooks,jwt,metrics,redis,reload,server,sessions]" --group test
	touch $@

# The docstrings are those of every part, so every extra has to be there.
$(VENV)/.docs: $(VENV)/.test
	$(BIN)/pip install -q --group docs
	touch $@

$(VENV)/.fuzz: $(VENV)/.test
	$(BIN)/pip install -q --group fuzz
	touch $@

$(VENV)/.bench: $(VENV)/.run
	$(BIN)/pip install -q --group bench
	touch $@

# Without npm, pytest skips the tests that need it, and names them.
%/node_modules/.package-lock.json: %/package.json | system
	! command -v npm >/dev/null || npm --prefix $* install --silent --no-audit --no-fund --no-package-lock
	@! test -e $@ || touch $@

# On Debian, as root, apt-get installs what is missing; elsewhere pytest skips the tests that need it, and names them.
APT_INSTALL = if [ -n "$$missing" ] && [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	echo "apt-get installs $$missing"; apt-get update -qq && \
	DEBIAN_FRONTEND=noninteractive apt-get install -qqy --no-install-recommends $$missing >/dev/null; fi

compiler:
	@missing=""; \
	command -v gcc >/dev/null || missing="gcc libc6-dev"; \
	echo "#include <zlib.h>" | gcc -E -o /dev/null - 2>/dev/null || missing="$$missing zlib1g-dev"; \
	$(PYTHON) -c "import ensurepip, os, sysconfig; os.stat(sysconfig.get_path('include') + '/Python.h')" 2>/dev/null \
		|| missing="$$missing python3-dev python3-venv"; \
	$(APT_INSTALL)

system: | compiler
	@missing=""; \
	command -v npm >/dev/null || missing="nodejs npm"; \
	command -v chromium >/dev/null || missing="$$missing chromium"; \
	command -v redis-server >/dev/null || missing="$$missing redis-server"; \
	command -v nginx >/dev/null || test -x /usr/sbin/nginx || missing="$$missing nginx-light"; \
	test -e /usr/lib/nginx/modules/ngx_stream_module.so || missing="$$missing libnginx-mod-stream"; \
	command -v php >/dev/null || missing="$$missing php-cli php-curl"; \
	$(APT_INSTALL)

clang: | system
	@missing=""; \
	command -v clang >/dev/null || missing="clang libclang-rt-dev"; \
	$(APT_INSTALL)
