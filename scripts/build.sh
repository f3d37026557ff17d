#!/usr/bin/env bash
# Builds the static release binary and puts it at target/kapo.
#
# musl where its target is installed or can be added: half the size and a third of the memory of static glibc.
# Where it cannot be had, glibc linked statically does the same work.
set -eu
cd "$(dirname "$0")/.."

machine=$(rustc -vV | sed -n 's/^host: \([^-]*\)-.*/\1/p')
musl=$machine-unknown-linux-musl
gnu=$machine-unknown-linux-gnu

has_target() { [ -d "$(rustc --print sysroot)/lib/rustlib/$1/lib" ]; }

if ! has_target "$musl" && command -v rustup >/dev/null; then
    echo "build: the target $musl is not installed; trying rustup target add"
    rustup target add "$musl" || true
fi

if has_target "$musl"; then
    target=$musl
    cargo build --release --locked --bin kapo --target "$target"
else
    echo "build: no $musl here; linking glibc statically instead (larger, and more memory for each instance)"
    target=$gnu
    RUSTFLAGS="-C target-feature=+crt-static -C relocation-model=static" \
        cargo build --release --locked --bin kapo --target "$target"
fi

out=${CARGO_TARGET_DIR:-target}/$target/release/kapo
mkdir -p target
# A copy under another name first: the old one may be running, and a reader never sees half a file.
cp "$out" target/.kapo.new
mv target/.kapo.new target/kapo
echo "build: target/kapo, $target, $(stat -c %s target/kapo) bytes"
