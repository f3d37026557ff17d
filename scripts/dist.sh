#!/usr/bin/env bash
# Packs binary, man page, completions, examples and licences into dist/kapo-VERSION-MACHINE-linux.tar.gz.
# The same commit gives the same bytes: names sorted, owner 0, the commit's time.
set -eu
cd "$(dirname "$0")/.."

version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
name=kapo-$version-$(uname -m)-linux
stage=$(mktemp -d)
trap 'rm -rf "$stage"' EXIT

install -D -m 755 target/kapo "$stage/$name/bin/kapo"
scripts/install-docs.sh install "$stage/$name/share"
for each in README.md CHANGELOG.md LICENSE LICENSE-MIT LICENSE-APACHE examples; do
    if [ -e "$each" ]; then cp -r "$each" "$stage/$name/"; fi
done

mkdir -p dist
when=$(git log -1 --format=%ct 2>/dev/null || echo 0)
tar -C "$stage" --sort=name --owner=0 --group=0 --numeric-owner --mtime="@$when" -cf - "$name" | gzip -9n >"dist/$name.tar.gz"
(cd dist && sha256sum "$name.tar.gz" >"$name.tar.gz.sha256" && cat "$name.tar.gz.sha256")
