#!/usr/bin/env bash
# Boots the real systemd with the units of examples/systemd/ enabled, and checks kapo from inside.
#
# It uses a private mount namespace, an overlay over / on a tmpfs, and systemd-nspawn, so nothing on this machine is
# changed or left over. Inside, a oneshot unit runs systemd-inside.sh, which writes a report to a file in the overlay
# and then powers off.
# shellcheck source=tests/real/lib.sh
. "$(dirname "$0")/lib.sh"
need unshare systemd-nspawn systemctl curl python3
[ "$(id -u)" = 0 ] || skip_all "needs root"

LIMIT=${LIMIT:-120}
name=kapo-real-$$

cat >"$WORK/boot.sh" <<'INNER'
set -eu
mount -t tmpfs tmpfs "$WORK/tmp"
mkdir "$WORK/tmp/upper" "$WORK/tmp/work" "$WORK/tmp/root"
root=$WORK/tmp/root
mount -t overlay overlay -o "lowerdir=/,upperdir=$WORK/tmp/upper,workdir=$WORK/tmp/work" "$root"

# Remove the services of this machine, and add a target that starts only the test.
rm -rf "$root"/etc/systemd/system "$root"/var/log/journal
mkdir -p "$root/etc/systemd/system/kapo-test.target.wants" "$root/kapo-test"
echo 0123456789abcdef0123456789abcdef >"$root/etc/machine-id"

install -m 755 "$KAPO" "$root/usr/local/bin/kapo"
install -m 755 "$ROOT/tests/real/systemd-inside.sh" "$root/kapo-test/inside.sh"
cp -r "$ROOT/examples/systemd/." "$root/etc/systemd/system/"
# Begin with Accept=no; the test installs Accept=yes later.
mv "$root/etc/systemd/system/job.socket.d/accept.conf" "$root/kapo-test/accept.conf"
ln -s ../worker.service ../job.socket ../watch.service "$root/etc/systemd/system/kapo-test.target.wants/"

cat >"$root/etc/systemd/system/kapo-test.target" <<'UNIT'
[Unit]
Requires=basic.target
After=basic.target
Wants=kapo-test.service
AllowIsolate=yes
UNIT
ln -s kapo-test.target "$root/etc/systemd/system/default.target"
cat >"$root/etc/systemd/system/kapo-test.service" <<UNIT
[Unit]
After=basic.target
[Service]
Type=oneshot
TimeoutStartSec=$LIMIT
ExecStart=/kapo-test/inside.sh
StandardOutput=file:/kapo-test/report
StandardError=file:/kapo-test/report
ExecStopPost=systemctl --force poweroff
UNIT
# Mask units that only delay the boot or that cannot work in a container.
for unit in systemd-networkd systemd-resolved systemd-timesyncd systemd-udevd systemd-udev-trigger systemd-logind \
    systemd-journal-flush systemd-update-utmp systemd-random-seed; do
    ln -s /dev/null "$root/etc/systemd/system/$unit.service"
done

code=0
timeout -k 5 "$((LIMIT + 20))" systemd-nspawn -q -D "$root" -b --register=no --keep-unit --private-network \
    --link-journal=no --console=pipe -M "$NAME" </dev/null >"$WORK/console" 2>&1 || code=$?
cp "$root/kapo-test/report" "$WORK/report" 2>/dev/null || true
cp "$root/kapo-test/journal" "$WORK/journal" 2>/dev/null || true
exit "$code"
INNER

mkdir "$WORK/tmp"
export WORK ROOT KAPO LIMIT
code=0
NAME=$name unshare --mount --propagation private bash "$WORK/boot.sh" || code=$?

if [ ! -s "$WORK/report" ]; then
    not_ok "systemd boots and runs the test (nspawn ended with $code)"
    tail -n 60 "$WORK/console" | sed 's/^/    /'
    finish
    exit
fi
cat "$WORK/report"
PASSED=$(grep -c '^ok ' "$WORK/report" || true)
FAILED=$(grep -c '^not ok ' "$WORK/report" || true)
if ! grep -q '^inside: all of it ran$' "$WORK/report"; then
    not_ok "the test inside came to its end"
fi
if [ "$FAILED" != 0 ] && [ -s "$WORK/journal" ]; then
    tail -n 60 "$WORK/journal" | sed 's/^/    /'
fi
finish
