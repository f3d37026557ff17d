#!/usr/bin/env bash
# Builds the program a second time in another directory, with another CARGO_HOME and umask, and compares the bytes.
#
# MACHINES="x86_64 aarch64" builds for both; the default is this machine. The binary must not contain a path of this
# machine.
# shellcheck source=tests/real/lib.sh
. "$(dirname "$0")/lib.sh"
need git cargo strings
cd "$ROOT"

cargo_home=${CARGO_HOME:-$HOME/.cargo}
second=$WORK/some-other-folder/kapo
# shellcheck disable=SC2030,SC2031  # each build has its own environment
build() {
    for machine in ${MACHINES:-$(uname -m)}; do
        MACHINE=$machine scripts/build.sh >"$WORK/build.log" 2>&1 || { tail -n 20 "$WORK/build.log"; return 1; }
    done
}
check "the first build" build

# Copy the sources on disk without .git. A variable passes the commit.
mkdir -p "$second" "$WORK/home"
git ls-files -coz --exclude-standard | while IFS= read -r -d '' each; do [ ! -e "$each" ] || printf '%s\0' "$each"; done |
    tar --null -T - -cf - | tar -C "$second" --no-same-permissions -xf -
# Copy the downloaded crates but not the unpacked sources, so that the second build needs no network.
mkdir "$WORK/home/registry"
for each in index cache; do
    [ ! -d "$cargo_home/registry/$each" ] || cp -r "$cargo_home/registry/$each" "$WORK/home/registry/"
done
commit=$(git describe --always --abbrev=12 --exclude='*' --dirty=-modified)
again() (
    umask 077
    cd "$second"
    # rustup's proxies stay in the path; only cargo's own directory differs.
    export CARGO_HOME=$WORK/home KAPO_COMMIT=$commit RUSTUP_HOME=${RUSTUP_HOME:-$HOME/.rustup}
    unset CARGO_TARGET_DIR
    build
)
check "a build in another folder, with another CARGO_HOME and umask 077" again

for machine in ${MACHINES:-$(uname -m)}; do
    name=kapo
    [ "$machine" = "$(uname -m)" ] || name=kapo-$machine
    [ -s "$second/target/$name" ] || continue
    same "$machine: both builds are the same bytes" "$(sha256sum <"$ROOT/target/$name")" "$(sha256sum <"$second/target/$name")"
    same "$machine: the file's mode does not follow the umask" 755 "$(stat -c %a "$second/target/$name")"
    found=$(strings -n 4 "$second/target/$name" | grep -F -e "$HOME/" -e "$ROOT" -e "$WORK" -e "$cargo_home" \
        -e "$(rustc --print sysroot)" -e registry/src || true)
    same "$machine: no path of the build machine is inside" "" "$(printf '%s' "$found" | head -n 5)"
done
finish
