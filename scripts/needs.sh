#!/usr/bin/env bash
# Checks the requirements of a build: scripts/needs.sh [PROGRAM...]. Prints one line for each missing thing.
#
# MACHINE=aarch64 checks the requirements for that machine. FALLBACK=1 accepts a toolchain without musl (for this machine
# only) or without the sources of std.
set -eu
cd "$(dirname "$0")/.."

larger="or make FALLBACK=1 for a binary of 1.9 MB"
missing=0
lacks() {
    echo "kapo: $1" >&2
    missing=1
}

for program in "$@"; do
    command -v "$program" >/dev/null || lacks "no $program (Debian: apt-get install $program)"
done

if ! command -v cargo >/dev/null || ! command -v rustc >/dev/null; then
    lacks "no Rust toolchain: cargo and rustc 1.95 or newer, see https://rustup.rs"
    exit 1
fi
host=$(rustc -vV | sed -n 's/^host: //p')
target=${MACHINE:-${host%%-*}}-unknown-linux-musl
sysroot=$(rustc --print sysroot)
object=${CARGO_TARGET_DIR:-target}/static/$target/release/kapo

has_target() { [ -d "$sysroot/lib/rustlib/$target/lib" ]; }
has_sources() { [ -f "$sysroot/lib/rustlib/src/rust/library/Cargo.lock" ]; }

# The places where cargo, rustup and their TLS library look for certificates.
has_certificates() {
    local each
    for each in "${SSL_CERT_FILE:-}" "${CARGO_HTTP_CAINFO:-}" /etc/ssl/certs/ca-certificates.crt /etc/ssl/cert.pem \
        /etc/pki/tls/certs/ca-bundle.crt /etc/ssl/ca-bundle.pem; do
        [ -z "$each" ] || [ ! -s "$each" ] || return 0
    done
    return 1
}

# If a complete build exists, the linker works, and a trial link would only take time.
if [ ! -e "$object" ]; then
    trial=$(mktemp -d)
    trap 'rm -rf "$trial"' EXIT
    linker=CARGO_TARGET_$(printf %s "$host" | tr 'a-z-' 'A-Z_')_LINKER
    linker=${!linker:-cc}
    if ! command -v "$linker" >/dev/null; then
        lacks "no C compiler: cargo links build scripts with $linker (Debian: apt-get install gcc libc6-dev)"
    elif ! echo 'fn main() {}' | rustc -C "linker=$linker" --crate-name trial -o "$trial/trial" - >"$trial/log" 2>&1; then
        lacks "$linker cannot link a program, are libc's headers and objects installed? (Debian: apt-get install libc6-dev)"
        grep -aE 'ld|error' "$trial/log" | tail -n 3 >&2 || true
    fi
fi

# rustup needs certificates for its downloads, so they are checked first.
downloads() {
    if command -v rustup >/dev/null && ! { has_target && has_sources; }; then return 0; fi
    ! cargo fetch -q --locked --offline --target "$target" >/dev/null 2>&1
}
if downloads; then
    has_certificates || lacks "no CA certificates: cargo and rustup cannot download (Debian: apt-get install ca-certificates)"
fi
[ "$missing" = 0 ] || exit 1

if command -v rustup >/dev/null; then
    has_target || rustup -q target add "$target" >/dev/null 2>&1 || true
    has_sources || rustup -q component add rust-src >/dev/null 2>&1 || true
fi
# Without musl, the fallback links the libc of this machine, which no other machine can use.
if [ "${MACHINE:-${host%%-*}}" != "${host%%-*}" ]; then
    has_target || lacks "no Rust target $target: rustup target add $target"
elif [ "${FALLBACK:-0}" != 1 ]; then
    has_target || lacks "no Rust target $target: rustup target add $target, $larger"
fi
[ "${FALLBACK:-0}" = 1 ] || has_sources || lacks "no sources of std: rustup component add rust-src, $larger"
[ "$missing" = 0 ]
