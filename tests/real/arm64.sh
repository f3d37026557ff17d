#!/usr/bin/env bash
# Boots an arm64 machine under qemu with Debian's kernel: with kapo as PID 1, and with kapo under a small init.
# KAPO_ARM64 is the path of the binary (target/kapo-aarch64).
# shellcheck source=tests/real/lib.sh
. "$(dirname "$0")/lib.sh"
# shellcheck source=tests/real/vm.sh
. "$(dirname "$0")/vm.sh"
need qemu-system-aarch64 cpio dpkg-deb apt-get
binary=${KAPO_ARM64:-$ROOT/target/kapo-aarch64}
[ -x "$binary" ] || { echo "no $binary: MACHINE=aarch64 scripts/build.sh" >&2; exit 1; }
vm_get bookworm arm64 linux-image-cloud-arm64 busybox-static
kernel=$(vm_kernel bookworm arm64)

mkdir "$WORK/machine"
cp "$binary" "$WORK/machine/kapo"
cp "$VM/bookworm-arm64/root/bin/busybox" "$WORK/machine/busybox"
cp "$ROOT/tests/real/inside-machine.sh" "$WORK/machine/inside"
chmod 755 "$WORK"/machine/*
vm_initramfs "$WORK/initramfs" "$WORK/machine"

vm_boot "$WORK/pid1.log" 160 arm64 "$kernel" "$WORK/initramfs" "rdinit=/kapo -- run /inside"
vm_report "kapo is PID 1" "$WORK/pid1.log"
same "the machine ends with the command's exit code" 42 "$(vm_code "$WORK/pid1.log")"
vm_boot "$WORK/init.log" 160 arm64 "$kernel" "$WORK/initramfs" "rdinit=/inside"
vm_report "under a small init" "$WORK/init.log"
finish
