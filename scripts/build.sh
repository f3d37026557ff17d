#!/usr/bin/env bash
# Builds the static release binary and puts it at target/kapo.
#
# musl where its target is installed or can be added: half the size and a third of the memory of static glibc.
# With std's sources (rustup component rust-src) std is built anew without the code that prints backtraces, which
# nobody sees in a stripped binary and which is 300 KB, nearly half of all: `make size` holds the result to its budget.
# Where musl or the sources cannot be had, the binary is larger and does the same work.
set -eu
cd "$(dirname "$0")/.."

machine=$(rustc -vV | sed -n 's/^host: \([^-]*\)-.*/\1/p')
sysroot=$(rustc --print sysroot)
musl=$machine-unknown-linux-musl
gnu=$machine-unknown-linux-gnu

has_target() { [ -d "$sysroot/lib/rustlib/$1/lib" ]; }
has_sources() { [ -f "$sysroot/lib/rustlib/src/rust/library/Cargo.lock" ]; }

if command -v rustup >/dev/null; then
    has_target "$musl" || rustup -q target add "$musl" || true
    has_sources || rustup -q component add rust-src || true
fi

# A program that stands at a fixed address needs no relocations at start, and one that aborts on panic no tables for
# unwinding.
flags="-C relocation-model=static -C force-unwind-tables=no"
options=(build --release --locked --bin kapo)
if has_target "$musl"; then
    target=$musl
else
    echo "build: no $musl here; linking glibc statically instead (larger, and more memory for each instance)"
    target=$gnu
    flags="$flags -C target-feature=+crt-static"
fi
if has_sources && [ "$target" = "$musl" ]; then
    # Building std is not a stable feature of cargo; it is the same compiler and the same sources.
    export RUSTC_BOOTSTRAP=1
    options+=(-Z "build-std=std,panic_abort" -Z build-std-features=)
else
    echo "build: std's sources or musl are missing: the binary will be over its size budget (make size)"
fi
# A folder of its own: other flags than those of a plain cargo build would make each rebuild all of the other's.
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-target}/static
RUSTFLAGS="$flags" cargo "${options[@]}" --target "$target"

mkdir -p target
# A copy under another name first: the old one may be running, and a reader never sees half a file.
cp "$CARGO_TARGET_DIR/$target/release/kapo" target/.kapo.new
mv target/.kapo.new target/kapo
echo "build: target/kapo, $target, $(stat -c %s target/kapo) bytes"
