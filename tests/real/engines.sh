# shellcheck shell=bash
# Starts private engines whose files are all under $WORK. Sourced after lib.sh; `clean_more` must call clean_engines.

PODMAN=()
DOCKERD=

# podman_starts: sets PODMAN to the command with its options, for the storage driver that works here. Containers need
# the options in PODMAN_RUN.
podman_starts() {
    local storage
    if ! command -v podman >/dev/null || ! command -v runc >/dev/null; then
        echo "# podman with runc is not installed: left out"
        return 1
    fi
    mkdir -p "$WORK/podman"
    : | tar -cf "$WORK/podman/empty.tar" -T -
    for storage in overlay vfs; do
        PODMAN=(podman --root "$WORK/podman/root" --runroot "$WORK/podman/run" --tmpdir "$WORK/podman/tmp" --storage-driver "$storage"
            --cgroup-manager cgroupfs --runtime runc --events-backend file)
        # A storage driver fails at its first use.
        if "${PODMAN[@]}" import -q "$WORK/podman/empty.tar" empty >"$WORK/podman.log" 2>&1; then
            "${PODMAN[@]}" rmi empty >/dev/null
            # shellcheck disable=SC2034  # for the script that sources this file
            PODMAN_RUN=(--network none --ulimit nofile=1024:1024 --ulimit nproc=4096:4096 --health-interval disable)
            return 0
        fi
        rm -rf "$WORK/podman/root" "$WORK/podman/run"
    done
    echo "# podman has no storage here: left out ($(tail -n 1 "$WORK/podman.log" | cut -c 1-200))"
    return 1
}

# docker_starts: starts an engine at $DOCKER_HOST, without a network of its own.
docker_starts() {
    if ! command -v dockerd >/dev/null || ! command -v docker >/dev/null; then
        echo "# docker is not installed: left out"
        return 1
    fi
    mkdir -p "$WORK/docker"
    # The engine runs in its own mount namespace, so that its mounts vanish with it.
    start dockerd unshare --mount --propagation private dockerd --data-root "$WORK/docker/root" --exec-root "$WORK/docker/exec" \
        --pidfile "$WORK/docker/pid" -H "unix://$WORK/docker/s" --storage-driver overlay2 --iptables=false --ip6tables=false --bridge=none
    DOCKERD=$PID
    export DOCKER_HOST=unix://$WORK/docker/s DOCKER_BUILDKIT=0
    if ! wait_until 20 docker info; then
        echo "# no Docker engine starts here: left out ($(tail -n 1 "$WORK/dockerd.log" | cut -c 1-200))"
        return 1
    fi
}

clean_engines() {
    if [ "${#PODMAN[@]}" != 0 ]; then
        "${PODMAN[@]}" rm -fa --time 0 >/dev/null 2>&1 || true
        "${PODMAN[@]}" rmi -fa >/dev/null 2>&1 || true
        # vfs and overlay storage keep a bind mount on their own directory.
        umount "$WORK/podman/root/overlay" 2>/dev/null || true
    fi
    if [ -n "$DOCKERD" ]; then
        docker ps -aq | xargs -r docker rm -f >/dev/null 2>&1 || true
        kill -TERM "$DOCKERD" 2>/dev/null || true
        wait_until 15 is_gone "$DOCKERD" || true
    fi
}
