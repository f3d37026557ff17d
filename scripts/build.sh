#!/usr/bin/env bash
# Builds the static release binary: target/kapo, or target/kapo-MACHINE if MACHINE (x86_64, aarch64) is another machine.
#
# With musl the binary has half the size and a third of the memory of static glibc. std is built from its sources
# (rustup component rust-src) without the code for backtraces, which takes 300 KB and which a stripped binary cannot use.
# If musl or these sources are missing, FALLBACK=1 builds a larger binary for this machine that works in the same way.
#
# The same commit produces the same bytes, whatever the directory, CARGO_HOME, TARGET_DIR and umask are, and the binary
# contains no path of the build machine.
set -eu
cd "$(dirname "$0")/.."
scripts/needs.sh

host=$(rustc -vV | sed -n 's/^host: //p')
machine=${MACHINE:-${host%%-*}}
sysroot=$(rustc --print sysroot)
target=$machine-unknown-linux-musl
out=target/kapo
[ "$machine" = "${host%%-*}" ] || out=target/kapo-$machine

has_target() { [ -d "$sysroot/lib/rustlib/$1/lib" ]; }
has_sources() { [ -f "$sysroot/lib/rustlib/src/rust/library/Cargo.lock" ]; }
has_lld() { [ -x "$sysroot/lib/rustlib/$host/bin/rust-lld" ]; }

# The commit that `kapo --version` prints after the version. Empty outside of a git checkout of kapo; a packager may
# set it.
commit() {
    [ "$(git rev-parse --show-toplevel 2>/dev/null)" = "$PWD" ] || return 0
    git describe --always --abbrev=12 --exclude='*' --dirty=-modified 2>/dev/null || true
}
export KAPO_COMMIT=${KAPO_COMMIT-$(commit)}

# A program at a fixed address needs no relocations at start, and one that aborts on panic no tables for unwinding.
# musl does not protect the relocated data of such a program (RELRO) either; without that segment it needs two pages
# (8 KiB) less.
flags="-C relocation-model=static -C force-unwind-tables=no -C relro-level=off"
# LLVM inlines each function that has only one caller, up to 3,000 instructions. The frames of the resulting functions
# are so large that each access to a variable takes three bytes more. With a cost of 50 instead of 5 for an instruction
# the limit is 300. The threshold of 60 then allows only the smallest of the other functions to be inlined. Together: 86
# KB less, and a start that is not slower.
flags="$flags -C llvm-args=-inline-threshold=60 -C llvm-args=-inline-instr-cost=50"
# The blocks of a function are ordered so that the fewest jumps are needed: 6 KB less. LLVM does this only for speed.
flags="$flags -C llvm-args=-apply-ext-tsp-for-size=true"
# Sequences of instructions that occur several times become functions: 13 KB less, and a start that is 2 % slower.
flags="$flags -C llvm-args=-enable-machine-outliner=always"
options=(build --release --locked --bin kapo)
if ! has_target "$target"; then
    target=$host
    flags="$flags -C target-feature=+crt-static"
    echo "build: linking libc of $host statically"
elif has_lld; then
    # Rust's own linker links the musl of every machine, and the same release of it produces the same bytes.
    linker=CARGO_TARGET_$(printf %s "$target" | tr 'a-z-' 'A-Z_')_LINKER
    export "$linker=rust-lld"
    # Identical functions are stored once: 3 KB less. No code of kapo compares the addresses of functions.
    flags="$flags -C link-arg=--icf=all"
    # The variables of libc that every start writes come first, beside other written data and before the arena. The
    # untouched rest of the arena is then at the end, and no further page is touched for them.
    flags="$flags -C link-arg=--symbol-ordering-file=scripts/link-order.txt -C link-arg=--no-warn-symbol-ordering"
    # Constants and code in one segment: a mapping less, and the start and the end of kapo take 5 us less. Constants can
    # then be executed, which gives an attacker who already controls a jump some more instructions to choose from.
    flags="$flags -C link-arg=--no-rosegment"
    # Data begins on a page of its own, so that data and heap together touch a page less: a start takes 10 us less. The
    # file is up to 4 KB larger; where pages may have 64 KiB (aarch64), it would be 50 KB.
    [ "$machine" != x86_64 ] || flags="$flags -C link-arg=-zseparate-loadable-segments"
fi
if has_sources && has_target "$target"; then
    # Building std and trimming paths are unstable features of cargo. The compiler and the sources are the stable ones.
    export RUSTC_BOOTSTRAP=1
    # A panic prints what has failed but not where: the locations of all possible panics take 29 KB.
    # No `{:?}` is printed for users: 2 KB.
    flags="$flags -Z location-detail=none -Z fmt-debug=none"
    options+=(-Z "build-std=std,panic_abort" -Z build-std-features=optimize_for_size)
    options+=(-Z trim-paths --config 'profile.release.trim-paths="all"')
else
    echo "build: std is not built from its sources: the binary will be over its size budget (make size)"
fi
# A separate target directory, because other flags would make a plain cargo build recompile everything each time.
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-target}/static
RUSTFLAGS="$flags" cargo "${options[@]}" --target "$target"

mkdir -p target
# Rename a new copy over the old one, because the old one may be running, and a reader must never see half a file.
cp "$CARGO_TARGET_DIR/$target/release/kapo" "$out.new"
chmod 755 "$out.new"
mv "$out.new" "$out"
echo "build: $out, $target, $(stat -c %s "$out") bytes"
