#!/usr/bin/env bash
# Tests the OCI archive of dist/: skopeo reads it, podman and Docker load it; used as ENTRYPOINT and with COPY --from.
# shellcheck source=tests/real/lib.sh
. "$(dirname "$0")/lib.sh"
# shellcheck source=tests/real/engines.sh
. "$ROOT/tests/real/engines.sh"
need skopeo busybox python3
[ "$(id -u)" = 0 ] || skip_all "needs root"
version=$(sed -n 's/^version = "\(.*\)"/\1/p' "$ROOT/Cargo.toml" | head -n 1)
archive=$ROOT/dist/kapo-$version-oci.tar
[ -e "$archive" ] || { echo "no $archive: scripts/dist.sh makes it" >&2; exit 1; }
arch=$(uname -m | sed 's/x86_64/amd64/; s/aarch64/arm64/')
# The commit from which dist/ was built, which may not be the current one.
commit=$("$ROOT/dist/kapo-linux-$arch" --version | sed 's/.*(\([0-9a-f]*\).*/\1/')

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
    podman_starts || return 0
    engine() { "${PODMAN[@]}" "$@"; }
    engine load -i "$archive" >"$WORK/podman.log" 2>&1 || true
    matches "podman load" 'Loaded image' "$(cat "$WORK/podman.log")"
    engine tag "$(engine images -q | head -n 1)" "kapo:$version" || true
    COMMON=("${PODMAN_RUN[@]}")
    BUILD=(--pull=never)
    tried podman
}

docker_part() {
    docker_starts || return 0
    engine() { docker "$@"; }
    matches "docker load" "Loaded image: kapo:$version" "$(engine load -i "$archive" 2>&1)"
    COMMON=(--network none)
    BUILD=(-q)
    tried Docker
}

# shellcheck disable=SC2317  # called by the trap in lib.sh
clean_more() { clean_engines; }

podman_part
docker_part
finish
