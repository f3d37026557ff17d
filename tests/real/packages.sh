#!/usr/bin/env bash
# Tests the deb, rpm and apk of dist/: lintian checks them, and they are installed, run and removed in a Debian system
# and in an empty root for rpm.
#
# debootstrap creates the Debian system (40 s). DEBIAN_ROOT=DIR is a directory in which it is created, or reused.
# shellcheck source=tests/real/lib.sh
. "$(dirname "$0")/lib.sh"
need dpkg-deb debootstrap lintian rpm chroot
[ "$(id -u)" = 0 ] || skip_all "needs root"
cd "$ROOT"
version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
[ -e dist/SHA256SUMS ] || { echo "no dist/: scripts/dist.sh makes it" >&2; exit 1; }
machine=$(uname -m)
arch=$(dpkg --print-architecture)
other=arm64
[ "$arch" = amd64 ] || other=amd64

# --- deb ---
for each in amd64 arm64; do
    deb=dist/kapo_$version-1_$each.deb
    same "deb $each: architecture" "$each" "$(dpkg-deb -f "$deb" Architecture)"
    dpkg-deb -x "$deb" "$WORK/$each"
    same "deb $each: the program is that of this architecture" "$(sha256sum <"dist/kapo-linux-$each")" "$(sha256sum <"$WORK/$each/usr/bin/kapo")"
    same "deb $each: no service, nothing under /etc" "" "$(cd "$WORK/$each" && find etc lib usr/lib/systemd 2>/dev/null)"
    same "deb $each: nothing is needed beside it" "" "$(dpkg-deb -f "$deb" Depends)"
    lintian --allow-root -q --tag-display-limit 0 "$deb" >"$WORK/lintian" 2>&1 || true
    same "deb $each: lintian has no error and no warning" "" "$(cat "$WORK/lintian")"
done

debian=${DEBIAN_ROOT:-$WORK/debian}
[ -x "$debian/usr/bin/dpkg" ] || check "debootstrap" debootstrap --variant=minbase bookworm "$debian"
inside() { chroot "$debian" env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin "$@"; }
listing() { (cd "$debian" && find . -xdev \( -path ./proc -o -path ./dev -o -path ./var/log -o -path ./var/lib/dpkg -o -path ./tmp \) -prune -o -print | LC_ALL=C sort); }
listing >"$WORK/before"
cp "dist/kapo_$version-1_$arch.deb" "dist/kapo_$version-1_$other.deb" "$debian/tmp/"
check "dpkg -i in a minimal Debian" inside dpkg -i "/tmp/kapo_$version-1_$arch.deb"
matches "there, kapo --version" "^kapo $version" "$(inside kapo --version)"
got=0
inside kapo --interface 127.0.0.1 --port 0 -q run -- sh -c 'exit 7' >"$WORK/run" 2>&1 || got=$?
same "there, kapo run has the command's exit code" 7 "$got"
matches "there, a group kapo of the system" '^kapo:x:[1-9][0-9]{0,2}:$' "$(inside getent group kapo)"
same "there, dpkg finds nothing changed" "" "$(inside dpkg --verify kapo)"
check "there, the man page" inside test -s /usr/share/man/man1/kapo.1.gz
if command -v systemd-tmpfiles >/dev/null; then
    check "tmpfiles.d makes /run/kapo" systemd-tmpfiles --create --root "$debian" kapo.conf
    same "with its mode and group" "3775 0 $(inside getent group kapo | cut -d: -f3)" "$(stat -c '%a %u %g' "$debian/run/kapo")"
fi
check "dpkg -P" inside dpkg -P kapo
listing >"$WORK/after"
same "nothing is left but the group" "" "$(diff "$WORK/before" "$WORK/after" | grep '^[<>]' | grep -vE './etc/(group|gshadow)-?$' || true)"
same "no lintian override, no copyright is left" "" "$(inside find / -xdev -name '*kapo*' -not -path '/tmp/*' -not -path '/proc/*')"
got=0
inside dpkg -i "/tmp/kapo_$version-1_$other.deb" >"$WORK/other" 2>&1 || got=$?
matches "the package of another architecture is refused" 'does not match system' "$(cat "$WORK/other")"
inside dpkg -P kapo >/dev/null 2>&1 || true
rm -f "$debian"/tmp/kapo_*

# --- rpm ---
rpms() { rpm --root "$WORK/rpm" --dbpath /var/lib/rpm "$@" 2>&1 | grep -vE '^rpm: (RPM should not|However)' || true; }
mkdir -p "$WORK/rpm/var/lib/rpm"
for each in x86_64 aarch64; do
    same "rpm $each: architecture and licence" "$each MIT OR Apache-2.0" "$(rpm -qp --queryformat '%{ARCH} %{LICENSE}' "dist/kapo-$version-1.$each.rpm")"
done
same "rpm --root -i (without scripts: there is no shell)" "" "$(rpms -i --noscripts "dist/kapo-$version-1.$machine.rpm")"
matches "there, kapo --version" "^kapo $version" "$(chroot "$WORK/rpm" /usr/bin/kapo --version)"
same "rpm -V" "" "$(rpms -V kapo)"
same "rpm -e" "" "$(rpms -e --noscripts kapo)"
same "no file is left" "" "$(find "$WORK/rpm" -type f -not -path '*/var/lib/rpm/*')"
wrong=aarch64
[ "$machine" = x86_64 ] || wrong=x86_64
matches "the rpm of another architecture is refused" 'different architecture' "$(rpms -i --noscripts "dist/kapo-$version-1.$wrong.rpm")"

# --- apk: a tar of signature, control and data ---
for each in x86_64 aarch64; do
    mkdir -p "$WORK/apk-$each"
    tar -C "$WORK/apk-$each" -xzf "dist/kapo_$version-r1_$each.apk" 2>/dev/null
    same "apk $each: architecture" "arch = $each" "$(grep '^arch' "$WORK/apk-$each/.PKGINFO")"
    same "apk $each: the program" "$(sha256sum <"dist/kapo-linux-$(printf %s "$each" | sed 's/x86_64/amd64/; s/aarch64/arm64/')")" \
        "$(sha256sum <"$WORK/apk-$each/usr/bin/kapo")"
done
finish
