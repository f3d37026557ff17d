# Every target is a line or two; what is longer stands in scripts/. Begin with `make demo`, then `make check`.

PREFIX ?= /usr/local
DESTDIR ?=
BIN := target/kapo
export KAPO_BIN ?= $(CURDIR)/$(BIN)

.PHONY: all build demo test check docs bench size fuzz real install uninstall dist clean

all: build

# The static release binary, always at target/kapo whatever target it was built for.
build:
	@scripts/build.sh

# Wraps a command, asks for its status by curl, ends it.
demo:
	@scripts/needs.sh curl
	@scripts/build.sh
	@scripts/demo.sh

test: build
	@scripts/check.sh test

# Everything the automatic checks run. One step alone: scripts/check.sh clippy (names: scripts/check.sh --list)
check:
	@scripts/check.sh

# Rewrites what is generated from the options table: man page, completions, tables in README.md and docs/.
docs:
	UPDATE_DOCS=1 cargo test --test docs

# Side by side with tini, nginx, cat, ts and others. One part alone: make bench PARTS="spawn http"
bench: build
	@scripts/bench.sh $(PARTS)

size: build
	@scripts/size.sh

# make fuzz FUZZ_SECONDS=600 for a longer run of each target.
fuzz:
	@FUZZ_SECONDS=$${FUZZ_SECONDS:-60} scripts/check.sh fuzz

# Against the real systemd, podman, Prometheus, HAProxy and HTTP clients; what people install; other kernels and
# machines. One alone: tests/real/haproxy.sh
real: build
	@scripts/check.sh real dist long

install: build
	install -D -m 755 $(BIN) $(DESTDIR)$(PREFIX)/bin/kapo
	@scripts/install-docs.sh install "$(DESTDIR)$(PREFIX)/share"

uninstall:
	rm -f $(DESTDIR)$(PREFIX)/bin/kapo
	@scripts/install-docs.sh uninstall "$(DESTDIR)$(PREFIX)/share"

# Everything that people install, for x86_64 and aarch64, into dist/.
dist:
	@scripts/dist.sh

clean:
	cargo clean
	rm -rf dist fuzz/target fuzz/corpus fuzz/artifacts
