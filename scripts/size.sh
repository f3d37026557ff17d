#!/usr/bin/env bash
# Fails if the static binary is larger than its budget. Lists what takes the space if cargo-bloat is installed.
set -eu
cd "$(dirname "$0")/.."

# The budget of version 0.2 with all features.
budget=$((640 * 1024))
binary=${KAPO_BIN:-target/kapo}
size=$(stat -c %s "$binary")
echo "size: $binary $size bytes of $budget ($((size * 100 / budget)) %)"
if [ -z "${CHECK_ONLY:-}" ] && cargo bloat --version >/dev/null 2>&1; then
    CARGO_PROFILE_RELEASE_STRIP=none cargo bloat --release --bin kapo --crates -n 20
fi
if [ "$size" -gt "$budget" ]; then
    echo "size: over the budget by $((size - budget)) bytes" >&2
    exit 1
fi
if command -v readelf >/dev/null && readelf -l "$binary" | grep -q 'program interpreter'; then
    echo "size: $binary is not static: it asks for a program interpreter" >&2
    exit 1
fi
