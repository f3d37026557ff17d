#!/usr/bin/env bash
# Fails if the static binary is larger than its budget.
#
# scripts/size.sh          the size and the budget
# scripts/size.sh --parts  also the bytes of code and constants by module, from a build with symbols (nm, python3)
set -eu
cd "$(dirname "$0")/.."

# The budget of version 0.2 with all features.
budget=$((640 * 1024))
binary=${KAPO_BIN:-target/kapo}
size=$(stat -c %s "$binary")
echo "size: $binary $size bytes of $budget ($((size * 100 / budget)) %)"
if [ "${1:-}" = --parts ]; then
    # A build of its own, because build.sh writes target/kapo.
    saved=$(mktemp)
    cp -p "$binary" "$saved"
    CARGO_PROFILE_RELEASE_STRIP=none CARGO_TARGET_DIR=target/parts scripts/build.sh >/dev/null
    nm -S -C target/kapo | python3 -c '
import collections, re, sys
parts = collections.Counter()
for line in sys.stdin:
    fields = line.split(" ", 3)
    # Without the memory that is only reserved (bss).
    if len(fields) < 4 or fields[2] in "bB":
        continue
    path = re.search(r"\bkapo::(\w+)(?:::(\w+))?", fields[3])
    crate = re.match(r"<?&?(?:mut )?(\w+)::", fields[3])
    if path:
        name = "::".join(part for part in path.groups() if part)
    else:
        name = "crate " + crate.group(1) if crate else "musl and constants"
    parts[name] += int(fields[1], 16)
for name, size in parts.most_common(40):
    print(f"{size:>8} {name}")
'

    mv "$saved" target/kapo
fi
if [ "$size" -gt "$budget" ]; then
    echo "size: over the budget by $((size - budget)) bytes" >&2
    exit 1
fi
if command -v readelf >/dev/null && readelf -l "$binary" | grep -q 'program interpreter'; then
    echo "size: $binary is not static: it asks for a program interpreter" >&2
    exit 1
fi
