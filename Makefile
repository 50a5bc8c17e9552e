# make run     environment, install, serve without a settings file, with the test page
# make test    everything that the tests need, then all tests; those of the rules once more on the .py files
# make check   what needs neither root nor other programs: style, types, and the tests of the rooms that need none
# make lint    style and types
# make format  style put right where ruff can
# make sanitize    the tests of the pump with AddressSanitizer and UndefinedBehaviorSanitizer in it
# make fuzz    FUZZ_SECONDS of hostile input, to the .py files: what is compiled leads no fuzzer
# make soak    a crowd of clients and strangers on one server for MINUTES; see tests/marathon
# make wheel   an sdist and, for each Python at hand, a wheel that other distributions can run, in dist/
# make deb     a Debian package for the distribution that this runs on, in dist/
# make test-debian   as root: the package built, installed, started and removed in bookworm and trixie; tests in both
# make image   as root: an image for containers, made from scratch, in dist/
# make test-image    as root: that, and a container of it tried out
# make environment   all that these need, in one go
# make help    these lines
PYTHON ?= python3
VENV ?= .venv
WORKERS ?= 2
FUZZ_SECONDS ?= 60
MINUTES ?= 60

SOURCES_OF_INSTALL := pyproject.toml setup.py scripts/environment \
	$(wildcard turnsvr/relay/compiled/*.pyx turnsvr/relay/compiled/*.pxd turnsvr/relay/compiled/*.h) \
	$(wildcard turnsvr/relay/compiled/*/*.pxi turnsvr/relay/*/*.py) \
	$(wildcard turnsvr/*.py turnsvr/stun/*.py turnsvr/turn/*.py turnsvr/net/*.py turnsvr/relay/*.py) \
	$(wildcard turnsvr/credentials/*.py) turnsvr/app/figures.py turnsvr/app/sessionlog.py
NPM_PACKAGES := tests/browser/node_modules/.package-lock.json
TESTS_OF_RULES := tests/stun tests/turn tests/net tests/credentials tests/test_limits.py tests/test_compiled_modules.py

# Rooms whose tests are of other programs, of whole machines, of packages or of speed.
UNCHECKED := bench browser interop lab packaging recipes stores

EXTRAS_OF_test := test
EXTRAS_OF_lint := test,lint
EXTRAS_OF_fuzz := test,fuzz

.PHONY: run install test check lint format sanitize fuzz soak environment help wheel deb test-debian image test-image

run: install
	$(VENV)/bin/turnsvr run --web

install: $(VENV)/.installed

test: $(VENV)/.installed-test $(NPM_PACKAGES)
	$(VENV)/bin/python -m pytest -n $(WORKERS)
	TURNSVR_RULES=interpreted $(VENV)/bin/python -m pytest -n $(WORKERS) $(TESTS_OF_RULES)

check: lint
	$(VENV)/bin/python -m pytest -n $(WORKERS) $(UNCHECKED:%=--ignore=tests/%)

sanitize: $(VENV)/.installed-test
	TURNSVR_SANITIZE=1 $(VENV)/bin/python -m pytest tests/relay/compiled/test_sanitized.py

fuzz: $(VENV)/.installed-fuzz
	TURNSVR_RULES=interpreted $(VENV)/bin/python -m tests.fuzz.run --seconds $(FUZZ_SECONDS)

soak: $(VENV)/.installed-test
	$(VENV)/bin/python -m tests.marathon --minutes $(MINUTES)

lint: $(VENV)/.installed-lint
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

format: $(VENV)/.installed-lint
	$(VENV)/bin/ruff check --fix-only .
	$(VENV)/bin/ruff format .

help:
	@sed -n '/^#/!q; s/^# //p' Makefile

wheel: $(VENV)/.installed-package
	scripts/wheels $(VENV) dist

deb:
	scripts/deb dist

test-debian:
	TESTS=rooms scripts/debian-roots bookworm trixie

image:
	scripts/image dist

test-image: image $(VENV)/.installed-test
	TURNSVR_IMAGE=$(CURDIR)/dist/turnsvr-image.tar $(VENV)/bin/python -m pytest tests/packaging/test_image.py

environment:
	PYTHON="$(PYTHON)" scripts/environment $(VENV) test,lint,fuzz
	@touch $(VENV)/.installed-fuzz $(VENV)/.installed-lint $(VENV)/.installed-test $(VENV)/.installed

# What drives the browsers. Without npm, or where it reaches no registry, the tests that need it are skipped.
$(NPM_PACKAGES): tests/browser/package-lock.json
	@if ! command -v npm >/dev/null; then echo "no npm: the tests with browsers will be skipped"; \
	elif ! npm ci --prefix tests/browser --no-audit --no-fund --loglevel=error; then \
		echo "npm failed: the tests with browsers will be skipped"; \
	else touch $@; fi

$(VENV)/.installed: $(SOURCES_OF_INSTALL)
	PYTHON="$(PYTHON)" scripts/environment $(VENV) web
	@touch $@

# The project is compiled once, for all of them; these add packages.
$(VENV)/.installed-test $(VENV)/.installed-lint $(VENV)/.installed-fuzz: $(VENV)/.installed-%: $(VENV)/.installed
	PYTHON="$(PYTHON)" scripts/environment --packages $(VENV) $(EXTRAS_OF_$*)
	@touch $@

$(VENV)/.installed-package: pyproject.toml scripts/environment
	PYTHON="$(PYTHON)" scripts/environment $(VENV) package
	@touch $@
