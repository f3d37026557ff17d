#!/usr/bin/env bash
# Builds all release files and checks them: names, checksums, reproducible bytes, archives, the bill of materials.
# packages.sh and image.sh then install and run them. FRESH=0 uses dist/ as it is.
# shellcheck source=tests/real/lib.sh
. "$(dirname "$0")/lib.sh"
need git python3 strings file
cd "$ROOT"

version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
commit=$(git rev-parse HEAD)
check "make dist" scripts/dist.sh
(umask 077 && DIST_DIR=$WORK/again scripts/dist.sh) >"$WORK/again.log" 2>&1 || tail -n 5 "$WORK/again.log"
same "a second time, with umask 077: the same bytes" "$(cat dist/SHA256SUMS)" "$(cat "$WORK/again/SHA256SUMS")"
check "SHA256SUMS" sh -c 'cd dist && sha256sum --strict -c SHA256SUMS'
same "SHA256SUMS names every file but itself" "$(cd dist && printf '%s\n' * | grep -v SHA256SUMS)" \
    "$(sed 's/^[0-9a-f]* [ *]//' dist/SHA256SUMS | LC_ALL=C sort)"
wanted="LICENSES.txt kapo-$version-1.aarch64.rpm kapo-$version-1.x86_64.rpm kapo-$version-linux-amd64.tar.gz
kapo-$version-linux-arm64.tar.gz kapo-$version-oci.tar kapo-$version.cdx.json kapo-linux-amd64 kapo-linux-arm64
kapo_$version-1_amd64.deb kapo_$version-1_arm64.deb kapo_$version-r1_aarch64.apk kapo_$version-r1_x86_64.apk"
# shellcheck disable=SC2086  # a list of words
same "the files of a release" "$(printf '%s\n' $wanted)" "$(sed 's/^[0-9a-f]* [ *]//' dist/SHA256SUMS | LC_ALL=C sort)"

# --- the binaries ---
matches "amd64 is static, for x86-64" 'x86-64.*statically linked' "$(file -b dist/kapo-linux-amd64)"
matches "arm64 is static, for aarch64" 'aarch64.*statically linked' "$(file -b dist/kapo-linux-arm64)"
for each in dist/kapo-linux-*; do
    paths=$(strings -n 4 "$each" | grep -F -e "$HOME/" -e "$ROOT" -e "${CARGO_HOME:-/.cargo/}" -e registry/src || true)
    same "${each#dist/}: no path of the build machine" "" "$(printf '%s' "$paths" | head -n 3)"
done
arch=$(uname -m | sed 's/x86_64/amd64/; s/aarch64/arm64/')
matches "kapo --version shows version and commit" "^kapo $version \\(${commit:0:12}(-modified)?\\)$" "$("dist/kapo-linux-$arch" --version)"

# --- the archives ---
for each in amd64 arm64; do
    name=kapo-$version-linux-$each
    tar -C "$WORK" -xzf "dist/$name.tar.gz"
    same "$name: the program is the released binary" "$(sha256sum <"dist/kapo-linux-$each")" "$(sha256sum <"$WORK/$name/bin/kapo")"
    for file in share/man/man1/kapo.1 share/bash-completion/completions/kapo share/zsh/site-functions/_kapo \
        share/fish/vendor_completions.d/kapo.fish LICENSE LICENSE-MIT LICENSE-APACHE LICENSES.txt README.md CHANGELOG.md \
        examples/systemd/job.socket; do
        [ -s "$WORK/$name/$file" ] || not_ok "$name holds $file"
    done
    same "$name: owners, and modes without group's or others' writing" "" \
        "$(tar -tvzf "dist/$name.tar.gz" --numeric-owner | grep -vE '^[d-]rw[x-]r-[x-]r-[x-] 0/0 ' || true)"
done

# --- the bill of materials and the licences ---
validator=target/tools/cyclonedx
[ -d "$validator/cyclonedx" ] || python3 -m pip install -q --disable-pip-version-check --root-user-action=ignore \
    --target "$validator" 'cyclonedx-python-lib[json-validation]==11.12.0' >"$WORK/pip.log" 2>&1 || tail -n 3 "$WORK/pip.log"
valid() {
    PYTHONPATH=$validator python3 - "$1" <<'P'
import sys
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

error = JsonStrictValidator(SchemaVersion.V1_5).validate_str(open(sys.argv[1]).read())
sys.exit(error and str(error))
P
}
sbom=dist/kapo-$version.cdx.json
check "the bill of materials is valid CycloneDX 1.5" valid "$sbom"
sed 's/"components": \[/"components": [7, /' "$sbom" >"$WORK/broken.json"
check "the validator refuses a broken one" sh -c "! $(declare -f valid); validator=$validator; ! valid $WORK/broken.json"
same "it names no path of this machine" "" "$(grep -nF -e "$HOME" -e "$ROOT" "$sbom" dist/LICENSES.txt | head -n 3)"
names=$(python3 -c 'import json, sys; print(*sorted(each["name"] for each in json.load(open(sys.argv[1]))["components"]))' "$sbom")
matches "it names crates, std and musl" 'httparse .*mio musl .*rustix .*std' "$names"
matches "it leaves out what only runs at compile time" '^[^ ]* [^!]*$' "$(printf '%s' "$names" | sed 's/serde_derive\|syn \|tempfile/!/')"
for each in $names; do
    grep -qE "(^|, | )$each [0-9]" dist/LICENSES.txt || not_ok "LICENSES.txt names $each"
done
finish
