# shellcheck shell=bash
# Boots Debian's kernels under qemu with an initramfs of our own. Sourced after lib.sh, by arm64.sh and kernels.sh.
#
# Packages are downloaded once to target/vm, by a private APT configuration that leaves this machine's alone.
VM=$ROOT/target/vm

# vm_apt SUITE ARCH COMMAND...: runs apt-get or apt-cache with separate lists, cache and architecture.
vm_apt() {
    local suite=$1 arch=$2 dir=$VM/$1-$2
    shift 2
    mkdir -p "$dir/lists/partial" "$dir/archives/partial" "$dir/etc/preferences.d" "$dir/etc/apt.conf.d"
    cat >"$dir/etc/apt.conf" <<P
Dir::State "$dir";
Dir::State::status "/dev/null";
Dir::State::lists "$dir/lists";
Dir::Cache "$dir";
Dir::Etc "$dir/etc";
Dir::Etc::Trusted "/etc/apt/trusted.gpg";
Dir::Etc::TrustedParts "/etc/apt/trusted.gpg.d";
APT::Architecture "$arch";
APT::Architectures { "$arch"; };
APT::Sandbox::User "root";
Acquire::Languages "none";
P
    # The mirror of this machine's own packages.
    local mirror
    # shellcheck disable=SC2016 # The format is for apt-get, not for the shell.
    mirror=$(env -u APT_CONFIG apt-get indextargets --format '$(SITE)' 'Created-By: Packages' |
        awk '/\/debian\/*$/ && !found++')
    echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror $suite main" >"$dir/etc/sources.list"
    APT_CONFIG=$dir/etc/apt.conf "$@"
}

# vm_get SUITE ARCH PACKAGE...: unpacks packages under $VM/SUITE-ARCH/root. A package `linux-image-cloud-ARCH` stands
# for the kernel on which it depends.
vm_get() {
    local suite=$1 arch=$2 dir=$VM/$1-$2 each name
    shift 2
    for each in "$@"; do
        [ ! -e "$dir/have-$each" ] || continue
        [ -e "$dir/have-lists" ] || vm_apt "$suite" "$arch" apt-get -q update >/dev/null
        touch "$dir/have-lists"
        name=$each
        case $each in
            linux-image-*) name=$(vm_apt "$suite" "$arch" apt-cache depends "$each" | sed -n 's/.*Depends: \(linux-image-[0-9][^ ]*\).*/\1/p' | head -n 1) ;;
        esac
        mkdir -p "$dir/debs" "$dir/root"
        (cd "$dir/debs" && rm -f "${name}"_*.deb && vm_apt "$suite" "$arch" apt-get -q download "$name" >/dev/null)
        dpkg-deb -x "$dir/debs/${name}"_*.deb "$dir/root"
        touch "$dir/have-$each"
    done
}

# vm_kernel SUITE ARCH: prints the path of the kernel that vm_get has unpacked.
vm_kernel() { printf '%s\n' "$VM/$1-$2/root/boot/vmlinuz-"* | tail -n 1; }

# vm_initramfs OUT FOLDER
vm_initramfs() { (cd "$2" && find . | LC_ALL=C sort | cpio -o -H newc -R 0:0 --quiet | gzip -1) >"$1"; }

# vm_boot LOG SECONDS ARCH KERNEL INITRAMFS COMMAND-LINE [QEMU-OPTION...]: boots, writes the console to LOG, and
# returns at the end of the machine.
vm_boot() {
    local log=$1 limit=$2 arch=$3 kernel=$4 initramfs=$5 line=$6 qemu
    shift 6
    case $arch in
        arm64) qemu=(qemu-system-aarch64 -M virt -cpu cortex-a57) line="console=ttyAMA0 $line" ;;
        amd64) qemu=(qemu-system-x86_64 -M pc -cpu max -accel tcg) line="console=ttyS0 $line" ;;
    esac
    timeout -k 5 "$limit" "${qemu[@]}" -m 512 -smp 2 -display none -monitor none -serial stdio -nic none -no-reboot "$@" \
        -kernel "$kernel" -initrd "$initramfs" -append "quiet panic=-1 $line" </dev/null 2>&1 | sed -u 's/\r//g' >"$log" || true
}

# vm_code LOG: prints the exit code of the machine's PID 1, from the last message of the kernel.
vm_code() { printf '%d' "0x$(sed -n 's/.*Attempted to kill init! exitcode=0x\([0-9a-f]*\)\([0-9a-f][0-9a-f]\)$/\1/p' "$1" | head -n 1)"; }

# vm_report NAME LOG: counts the `ok ...` and `not ok ...` lines of a script that ran inside.
vm_report() {
    local line
    while read -r line; do
        case $line in
            "ok "*) ok "$1: ${line#ok }" ;;
            "not ok "*) not_ok "$1: ${line#not ok }" ;;
        esac
    done <"$2"
    check "$1: the script inside came to its end" grep -q '^all done$' "$2" || tail -n 30 "$2"
}
