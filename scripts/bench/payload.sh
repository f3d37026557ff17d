#!/usr/bin/env bash
# Builds the smallest static program, target/bench/payload, and prints its path.
set -eu
cd "$(dirname "$0")/../.."
mkdir -p target/bench
rustc --edition 2024 -O -C panic=abort -C strip=symbols -C relocation-model=static -C target-feature=+crt-static \
    -C link-arg=-nostartfiles -C link-arg=-nostdlib -C link-arg=-static -o target/bench/payload scripts/bench/payload.rs
echo "$PWD/target/bench/payload"
