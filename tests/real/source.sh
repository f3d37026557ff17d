#!/usr/bin/env bash
# Tests the source build on a machine with only a Rust toolchain and make: each missing requirement causes one clear line.
#
# A minimal Debian system from debootstrap (DEBIAN_ROOT=DIR reuses one) with this machine's toolchain and sources mounted,
# in separate mount and network namespaces. The requirements are then added one at a time.
# shellcheck source=tests/real/lib.sh
. "$(dirname "$0")/lib.sh"
need debootstrap unshare chroot rustup
[ "$(id -u)" = 0 ] || skip_all "needs root"
cd "$ROOT"

debian=${DEBIAN_ROOT:-$WORK/debian}
[ -x "$debian/usr/bin/dpkg" ] || check "debootstrap" debootstrap --variant=minbase bookworm "$debian"
sysroot=$(rustc --print sysroot)
cargo_home=${CARGO_HOME:-$HOME/.cargo}
mkdir -p "$WORK/sources" "$WORK/toolchain" "$WORK/upper" "$WORK/work" "$WORK/root" "$WORK/crates"
git ls-files -coz --exclude-standard | while IFS= read -r -d '' each; do [ ! -e "$each" ] || printf '%s\0' "$each"; done |
    tar --null -T - -cf - | tar -C "$WORK/sources" -xf -
cp -r "$cargo_home/registry" "$WORK/crates/"

# inside COMMAND: runs in the Debian system and discards its changes. PREPARE runs before that, outside, with $root
# set.
inside() {
    rm -rf "$WORK/upper" "$WORK/work"
    mkdir "$WORK/upper" "$WORK/work"
    export WORK debian sysroot PREPARE COMMAND=$1
    # shellcheck disable=SC2016  # for the shell in the namespaces
    unshare --mount --net --propagation private bash -eu -c '
        root=$WORK/root
        mount -t overlay overlay -o "lowerdir=$debian,upperdir=$WORK/upper,workdir=$WORK/work" "$root"
        mkdir -p "$root/rust" "$root/src" "$root/cargo"
        mount --bind "$sysroot" "$root/rust"
        mount --bind "$WORK/sources" "$root/src"
        mount -t proc proc "$root/proc"
        mount --bind /dev "$root/dev"
        eval "$PREPARE"
        cd "$root"
        exec chroot "$root" env -i PATH=/rust/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root CARGO_HOME=/cargo sh -c "cd /src && $COMMAND"
    ' 2>&1
}
# shellcheck disable=SC2016  # for the shell in the namespaces
crates='cp -r "$WORK/crates/registry" "$root/cargo/"'
# Replace the programs of the minimal Debian system with those of this machine.
# shellcheck disable=SC2016
whole_usr='for each in usr lib lib64 bin sbin etc/alternatives; do [ ! -e "/$each" ] || [ -L "$root/$each" ] || mount --rbind "/$each" "$root/$each"; done'

# one_line NAME PATTERN OUTPUT: checks that there is one such line from kapo's scripts, and that cargo compiled
# nothing.
one_line() {
    matches "$1" "^kapo: $2" "$3"
    same "$1: nothing was compiled before" "" "$(printf '%s\n' "$3" | grep -c Compiling | grep -v '^0$' || true)"
}

PREPARE=$crates
said=$(inside 'make' || true)
matches "without make the shell says so" 'make: (command )?not found' "$said"
said=$(inside 'scripts/build.sh' || true)
one_line "without a C compiler" 'no C compiler: .*apt-get install gcc libc6-dev' "$said"
said=$(inside 'scripts/needs.sh curl' || true)
one_line "without curl (make demo)" 'no curl .*apt-get install curl' "$said"
PREPARE=:
said=$(inside 'scripts/build.sh' || true)
one_line "without crates and CA certificates" 'no CA certificates: .*apt-get install ca-certificates' "$said"
same "two missing things are two lines" 2 "$(printf '%s\n' "$said" | grep -c '^kapo: ')"
PREPARE="$crates; mount -t tmpfs tmpfs \"\$root/rust\"; : "
said=$(inside 'scripts/build.sh' || true)
one_line "without a toolchain" 'no Rust toolchain: .*rustup' "$said"
PREPARE="$crates; $whole_usr; mount -t tmpfs tmpfs \"\$root/rust/lib/rustlib/$(uname -m)-unknown-linux-musl\""
said=$(inside 'scripts/build.sh' || true)
one_line "without the musl target" 'no Rust target [a-z0-9_]*-unknown-linux-musl: rustup target add' "$said"
PREPARE="$crates; $whole_usr; mount -t tmpfs tmpfs \"\$root/rust/lib/rustlib/src\""
said=$(inside 'scripts/build.sh' || true)
one_line "without the sources of std" 'no sources of std: rustup component add rust-src' "$said"

# With all requirements and without a network: the build and its demonstration.
PREPARE="$crates; $whole_usr"
said=$(inside 'ip link set lo up; make demo' || true)
matches "with make, a C compiler and curl: make demo" '^143$' "$said"
matches "its binary is that of musl" 'unknown-linux-musl, [0-9]* bytes' "$said"
finish
