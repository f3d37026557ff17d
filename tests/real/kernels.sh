#!/usr/bin/env bash
# Runs the unit and integration tests on other kernels under qemu: Debian 12's 6.1 and Debian 13's 6.12.
#
# The machine sees the root of this one, read-only, below an overlay in memory. KERNELS="bookworm" selects one kernel,
# FILTER='test(/notify/)' selects tests with a filter expression of nextest,
# CPUS=1 gives the machine one processor instead of two.
# shellcheck source=tests/real/lib.sh
. "$(dirname "$0")/lib.sh"
# shellcheck source=tests/real/vm.sh
. "$(dirname "$0")/vm.sh"
need qemu-system-x86_64 cpio dpkg-deb apt-get busybox cargo-nextest
[ "$(uname -m)" = x86_64 ] || skip_all "knows machines of x86-64 alone"
cd "$ROOT"

mkdir -p "$VM"
# The variable is compiled into the tests: they wait longer.
KAPO_TEST_EMULATED=1 cargo nextest archive --locked --lib --test it --test schema --archive-file "$VM/tests.tar.zst" >"$WORK/archive.log" 2>&1 ||
    { tail -n 20 "$WORK/archive.log"; exit 1; }
cat >"$VM/nextest.toml" <<'P'
[profile.default]
# The emulated processor is slow and runs two tests at a time, so a failed test is repeated.
retries = 1
slow-timeout = { period = "60s", terminate-after = 8 }
test-threads = 2
P

# A python3 of pyenv is a script that opens thousands of files, which takes half a minute in the machine.
python=$(python3 -c 'import os, sys; print(os.path.dirname(sys.executable))')

# machine SUITE: builds an initramfs that mounts this machine's root and runs the tests there.
machine() {
    local suite=$1 root=$VM/$1-amd64/root each modules
    rm -rf "$WORK/machine"
    mkdir -p "$WORK/machine/modules"
    cp "$(readlink -f "$(command -v busybox)")" "$WORK/machine/busybox"
    cp "$KAPO" "$WORK/machine/kapo"
    modules=$(find "$root" -path '*/modules/*/kernel' -type d | head -n 1)
    for each in virtio virtio_ring virtio_pci_legacy_dev virtio_pci_modern_dev virtio_pci netfs fscache 9pnet 9pnet_virtio 9p overlay; do
        find "$modules" -name "$each.ko" -exec cp {} "$WORK/machine/modules/" \;
        find "$modules" -name "$each.ko.xz" -exec cp {} "$WORK/machine/modules/" \;
    done
    for each in "$WORK"/machine/modules/*.xz; do [ ! -e "$each" ] || xz -d "$each"; done
    cat >"$WORK/machine/init" <<'P'
#!/busybox sh
/busybox mkdir -p /bin /proc /sys /dev /lower /upper /root
/busybox --install -s /bin
export PATH=/bin
mount -t proc proc /proc
mount -t devtmpfs dev /dev
# Load the modules in the order of their dependencies, which a few rounds find.
for round in 1 2 3 4 5; do for each in /modules/*; do insmod $each 2>/dev/null; done; done
mount -t 9p -o trans=virtio,version=9p2000.L,cache=loose,msize=512000,ro host /lower || poweroff -f
mount -t tmpfs tmpfs /upper
mkdir /upper/upper /upper/work
mount -t overlay -o lowerdir=/lower,upperdir=/upper/upper,workdir=/upper/work overlay /root || poweroff -f
mount -t proc proc /root/proc
mount -t sysfs sys /root/sys
mount -t devtmpfs dev /root/dev
ln -s /proc/self/fd /root/dev/fd
fd=0
for each in stdin stdout stderr; do ln -s fd/$((fd++)) /root/dev/$each; done
mkdir -p /root/dev/pts /root/dev/shm
mount -t devpts devpts /root/dev/pts
mount -t tmpfs tmpfs /root/dev/shm
mount -t tmpfs tmpfs /root/run
mount -t tmpfs tmpfs /root/tmp
chmod 1777 /root/tmp /root/dev/shm
mount -t cgroup2 cgroup /root/sys/fs/cgroup
# These must not be under /run or /tmp, because some tests mount over these.
mkdir -p /root/opt
cp /kapo /busybox /run-tests /root/opt/
ip link set lo up
echo "inside: $(uname -r)"
# Not chroot: a process that enters a mount namespace gets the root of that namespace, not the one of a chroot.
# The shell reaps orphans while it waits.
exec switch_root /root /opt/busybox sh -c '/bin/bash /opt/run-tests & wait $!; /opt/busybox poweroff -f'
P
    {
        printf 'export PATH=%q:%q HOME=%q KAPO_BIN=/opt/kapo KAPO_TEST_RESTARTS=300\ncd %q\n' "$python" "$PATH" "$HOME" "$ROOT"
        printf 'vm=%q filter=%q\n' "$VM" "${FILTER:-all()}"
        cat <<'P'
ulimit -n 20000
cargo nextest run --archive-file "$vm/tests.tar.zst" --workspace-remap "$PWD" --config-file "$vm/nextest.toml" \
    --no-fail-fast --color never --status-level pass --final-status-level flaky --failure-output immediate-final \
    -E "$filter" </dev/null 2>&1 | cat
code=${PIPESTATUS[0]}
if [ $code = 0 ]; then echo "ok tests"; else echo "not ok tests"; fi
echo "all done"
P
    } >"$WORK/machine/run-tests"
    chmod 755 "$WORK/machine/init" "$WORK/machine/run-tests" "$WORK/machine/busybox"
    vm_initramfs "$WORK/initramfs" "$WORK/machine"
}

for suite in ${KERNELS:-bookworm trixie}; do
    vm_get "$suite" amd64 linux-image-amd64
    machine "$suite"
    log=$WORK/$suite.log
    vm_boot "$log" "${LIMIT:-3000}" amd64 "$(vm_kernel "$suite" amd64)" "$WORK/initramfs" "rdinit=/init" -m 4096 -smp "${CPUS:-2}" \
        -fsdev local,id=host,path=/,security_model=none,readonly=on,multidevs=remap -device virtio-9p-pci,fsdev=host,mount_tag=host
    grep -aE '^inside|Summary|^ *(FLAKY|FAIL|TIMEOUT|TRY) ' "$log" || true
    vm_report "$suite" "$log"
    cp "$log" "$ROOT/target/vm/$suite.log"
done
finish
