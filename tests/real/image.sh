#!/usr/bin/env bash
# Tests the OCI archive of dist/: skopeo reads it, podman and Docker load it; used as ENTRYPOINT and with COPY --from.
# shellcheck source=tests/real/lib.sh
. "$(dirname "$0")/lib.sh"
need skopeo busybox python3
[ "$(id -u)" = 0 ] || skip_all "needs root"
version=$(sed -n 's/^version = "\(.*\)"/\1/p' "$ROOT/Cargo.toml" | head -n 1)
archive=$ROOT/dist/kapo-$version-oci.tar
[ -e "$archive" ] || { echo "no $archive: scripts/dist.sh makes it" >&2; exit 1; }
commit=$(git -C "$ROOT" rev-parse HEAD)
arch=$(uname -m | sed 's/x86_64/amd64/; s/aarch64/arm64/')

# --- skopeo: both machines, labels, one file ---
for each in amd64 arm64; do
    said=$(skopeo inspect --override-arch "$each" "oci-archive:$archive:$version" 2>&1 || true)
    matches "skopeo finds $each" "\"Architecture\": \"$each\"" "$said"
    matches "$each: labels" "org.opencontainers.image.revision\": \"$commit" "$said"
    matches "$each: labels" "org.opencontainers.image.version\": \"$version" "$said"
    skopeo copy -q --override-arch "$each" "oci-archive:$archive:$version" "dir:$WORK/$each" || not_ok "skopeo copies $each"
    layer=$(python3 -c 'import json, sys; print(json.load(open(sys.argv[1]))["layers"][0]["digest"].split(":")[1])' "$WORK/$each/manifest.json")
    same "$each: the image holds /kapo alone" "kapo" "$(tar -taf "$WORK/$each/$layer")"
    same "$each: which is the released binary" "$(sha256sum <"$ROOT/dist/kapo-linux-$each")" \
        "$(tar -xOf "$WORK/$each/$layer" kapo | sha256sum)"
done
check "skopeo copies the whole index" skopeo copy -q --all "oci-archive:$archive:$version" "oci:$WORK/all:kapo"

# Another image, which copies the program from this one.
mkdir "$WORK/other"
cp "$(readlink -f "$(command -v busybox)")" "$WORK/other/busybox"
cat >"$WORK/other/Dockerfile" <<P
FROM kapo:$version AS kapo
FROM scratch
COPY --from=kapo /kapo /kapo
COPY busybox /busybox
ENTRYPOINT ["/kapo", "run", "--"]
CMD ["/busybox", "sh", "-c", "exit 5"]
P

# tried LABEL: `engine` is a function that calls the current engine, COMMON its options for run.
tried() {
    local label=$1 got=0
    same "$label: architecture of the loaded image" "$arch" "$(engine image inspect --format '{{.Architecture}}' "kapo:$version" 2>&1)"
    matches "$label: as ENTRYPOINT" "^kapo $version" "$(engine run --rm "${COMMON[@]}" "kapo:$version" --version 2>&1)"
    engine run --rm "${COMMON[@]}" "kapo:$version" run -- /kapo check http://localhost:1 >"$WORK/entry" 2>&1 || got=$?
    same "$label: as ENTRYPOINT it runs a command and has its exit code" 1 "$got"
    if check "$label: COPY --from" engine build "${BUILD[@]}" -t other "$WORK/other"; then
        got=0
        engine run --rm "${COMMON[@]}" other >"$WORK/other.log" 2>&1 || got=$?
        same "$label: an image that took /kapo out of ours" 5 "$got"
    fi
}

podman_part() {
    local storage
    if ! command -v podman >/dev/null || ! command -v runc >/dev/null; then
        echo "# podman with runc is not installed: left out"
        return 0
    fi
    mkdir -p "$WORK/podman"
    for storage in overlay vfs; do
        PODMAN=(podman --root "$WORK/podman/root" --runroot "$WORK/podman/run" --tmpdir "$WORK/podman/tmp" --storage-driver "$storage"
            --cgroup-manager cgroupfs --runtime runc --events-backend file)
        if "${PODMAN[@]}" load -i "$archive" >"$WORK/podman.log" 2>&1; then break; fi
        rm -rf "$WORK/podman/root" "$WORK/podman/run"
    done
    engine() { "${PODMAN[@]}" "$@"; }
    matches "podman load" 'Loaded image' "$(cat "$WORK/podman.log")"
    engine tag "$(engine images -q | head -n 1)" "kapo:$version" || true
    COMMON=(--network none --ulimit nofile=1024:1024 --ulimit nproc=4096:4096)
    BUILD=(--pull=never)
    tried podman
}

docker_part() {
    if ! command -v dockerd >/dev/null || ! command -v docker >/dev/null; then
        echo "# docker is not installed: left out"
        return 0
    fi
    mkdir -p "$WORK/docker"
    # The engine runs in its own mount namespace, so that its mounts vanish with it.
    start dockerd unshare --mount --propagation private dockerd --data-root "$WORK/docker/root" --exec-root "$WORK/docker/exec" \
        --pidfile "$WORK/docker/pid" -H "unix://$WORK/docker/s" --storage-driver overlay2 --iptables=false --ip6tables=false --bridge=none
    dockerd=$PID
    engine() { docker -H "unix://$WORK/docker/s" "$@"; }
    if ! wait_until 20 engine info; then
        echo "# no Docker engine starts here: left out ($(tail -n 1 "$WORK/dockerd.log" | cut -c 1-200))"
        return 0
    fi
    matches "docker load" "Loaded image: kapo:$version" "$(engine load -i "$archive" 2>&1)"
    COMMON=(--network none)
    BUILD=(-q)
    export DOCKER_BUILDKIT=0
    tried Docker
}

dockerd=
# shellcheck disable=SC2317  # called by the trap in lib.sh
clean_more() {
    if [ -n "${PODMAN[*]-}" ]; then
        "${PODMAN[@]}" rm -fa --time 0 >/dev/null 2>&1 || true
        "${PODMAN[@]}" rmi -fa >/dev/null 2>&1 || true
        umount "$WORK/podman/root/overlay" 2>/dev/null || true
    fi
    if [ -n "$dockerd" ]; then
        kill -TERM "$dockerd" 2>/dev/null || true
        wait_until 15 is_gone "$dockerd" || true
    fi
}

podman_part
docker_part
finish
