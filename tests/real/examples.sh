#!/usr/bin/env bash
# Builds and starts the files of examples/docker and examples/k8s: with Docker and docker-compose, and with podman.
#
# No registry is needed: a Debian made by debootstrap, kept in target/debian-base.tar, stands for the base images
# (python:3-slim, gcc:14), and an image of target/kapo for kapo:VERSION. podman kube plays the Kubernetes files.
# shellcheck source=tests/real/lib.sh
. "$(dirname "$0")/lib.sh"
# shellcheck source=tests/real/engines.sh
. "$ROOT/tests/real/engines.sh"
need curl tar
[ "$(id -u)" = 0 ] || skip_all "needs root"
# shellcheck disable=SC2317  # called by the trap in lib.sh
clean_more() { clean_engines; }
# The files publish these ports.
for port in 8080 6666; do
    if (: </dev/tcp/127.0.0.1/$port) 2>/dev/null; then skip_all "port $port is in use"; fi
done

VERSION=$(sed -n 's/^version = "\(.*\)"/\1/p' "$ROOT/Cargo.toml" | head -n 1)
BASE=$ROOT/target/debian-base.tar
if [ ! -e "$BASE" ]; then
    command -v debootstrap >/dev/null || skip_all "debootstrap is not installed, and there is no $BASE"
    if ! debootstrap --variant=minbase --include=gcc,libc6-dev,python3 bookworm "$WORK/base" >"$WORK/debootstrap.log" 2>&1; then
        skip_all "debootstrap fails: $(tail -n 1 "$WORK/debootstrap.log")"
    fi
    rm -rf "$WORK"/base/var/cache/apt/archives/*.deb "$WORK"/base/var/lib/apt/lists/*
    tar -C "$WORK/base" -cf "$BASE.new" .
    mv "$BASE.new" "$BASE"
    rm -rf "$WORK/base"
fi
mkdir "$WORK/kapo"
cp "$KAPO" "$WORK/kapo/kapo"
printf 'FROM scratch\nCOPY kapo /kapo\nENTRYPOINT ["/kapo"]\n' >"$WORK/kapo/Dockerfile"
cp -r "$ROOT/examples/docker" "$WORK/docker-files"

# base_images: makes the images that the Dockerfiles begin with; `engine` is a function that calls the current engine.
base_images() {
    engine import "$BASE" debian-base >/dev/null 2>&1
    engine tag debian-base python:3-slim
    engine tag debian-base gcc:14
    engine build -q -t "kapo:$VERSION" "$WORK/kapo" >/dev/null 2>&1
}
is() { [ "$("${@:2}")" = "$1" ]; }
inspect() { engine inspect --format "$2" "$1"; }
logged() { engine logs "$1" 2>&1 | grep -q "$2"; }
ready() { curl -fsS --max-time 5 http://localhost:6666/readyz >/dev/null; }

drains() { curl -sS --max-time 5 http://localhost:6666/readyz | grep -q '^draining until'; }

# stops_without_a_loss ENGINE CONTAINER COMMAND...: a stop by the command drains, and cuts off no request.
stops_without_a_loss() {
    local label=$1 c=$2 stop slow ended
    shift 2
    start stop "$@"
    stop=$PID
    check "$label: a stop begins a drain" wait_until 10 drains
    same "$label: which answers new requests" hello "$(curl -sS --max-time 5 http://localhost:8080)"
    # Requests follow one another until one fails, so one of them is open when the stop signal comes. The time of the
    # failure is that of the beginning of its request.
    # shellcheck disable=SC2016  # for that shell
    start slow bash -c 'while began=$(date +%s%N) && curl -fsS --max-time 20 http://localhost:8080/slow >&2; do :; done; echo "$began" >"$0"' "$WORK/failure"
    slow=$PID
    check "$label: the stop ends" wait_until 40 is_gone "$stop"
    wait "$slow" || true
    ended=$(engine logs "$c" 2>&1 | sed -n 's/^time=\([^ ]*\) .*msg="drain ended".*/\1/p')
    matches "$label: the drain ended" Z "$ended"
    check "$label: no request that began before the stop signal fails" [ "$(cat "$WORK/failure")" -gt "$(date -d "$ended" +%s%N)" ]
}

docker_part() {
    local c
    docker_starts || return 0
    engine() { docker "$@"; }
    base_images || { not_ok "Docker: the base images"; return 0; }
    if ! command -v docker-compose >/dev/null; then
        echo "# docker-compose is not installed: left out"
        return 0
    fi
    compose() { docker-compose -p examples -f "$WORK/docker-files/compose.yaml" "$@"; }
    check "docker-compose builds both images" compose build
    # Compose waits for the health check of web before it starts the worker.
    check "docker-compose starts the worker when web is healthy" compose up -d
    check "Docker: the worker is healthy" wait_until 30 is healthy inspect examples_worker_1 '{{.State.Health.Status}}'
    matches "Docker: web has started before the worker" true "$(started_before examples_web_1 examples_worker_1)"
    same "Docker: web answers" hello "$(curl -sS --max-time 5 http://localhost:8080)"
    check "Docker: kapo answers on the host" ready
    same "Docker: read-only, without capabilities, unprivileged" "true [ALL] 65534:65534" \
        "$(inspect examples_web_1 '{{.HostConfig.ReadonlyRootfs}} {{.HostConfig.CapDrop}} {{.Config.User}}')"
    matches "Docker: kapo logs has the output" 'listening on 8080' "$(engine exec examples_web_1 kapo logs)"
    stops_without_a_loss Docker examples_web_1 docker stop --time 40 examples_web_1
    check "Docker: web finishes by itself" logged examples_web_1 finished
    check "Docker: the worker stops" docker stop examples_worker_1
    same "Docker: both with exit code 0" "0 0" \
        "$(inspect examples_web_1 '{{.State.ExitCode}}') $(inspect examples_worker_1 '{{.State.ExitCode}}')"
    compose rm -f >/dev/null 2>&1

    # What a restart policy makes of a time to live.
    restarts() { [ "$(inspect "$1" '{{.RestartCount}}')" -ge 2 ]; }
    run() { engine run -d --network none --name "$@" >/dev/null; }
    run always --restart always -e KAPO_TTL=0.3-0.5 examples_worker
    run always-success --restart unless-stopped -e KAPO_TTL=0.3-0.5 -e KAPO_SUCCESS_EXIT=TTL examples_worker
    run failure --restart on-failure -e KAPO_TTL=0.3-0.5 examples_worker
    run failure-success --restart on-failure -e KAPO_TTL=0.3-0.5 -e KAPO_SUCCESS_EXIT=TTL examples_worker
    run supervised --restart on-failure -e KAPO_TTL=0.3-0.5 -e KAPO_WAIT=0.1 examples_web
    for c in always always-success failure; do
        check "Docker: a TTL restarts the container: $c" wait_until 30 restarts "$c"
    done
    check "Docker: on-failure and --success-exit TTL: the container has ended" wait_until 20 is exited inspect failure-success '{{.State.Status}}'
    same "Docker: with 0, and no restart" "0 0" "$(inspect failure-success '{{.State.ExitCode}} {{.RestartCount}}')"
    check "Docker: supervise starts the command again" wait_until 20 logged supervised 'restarts=2'
    same "Docker: and the engine sees nothing" "running 0" "$(inspect supervised '{{.State.Status}} {{.RestartCount}}')"
    run once -e KAPO_TTL=0.3-0.5 examples_worker
    check "Docker: without a policy the container has ended" wait_until 20 is exited inspect once '{{.State.Status}}'
    same "Docker: with 124" 124 "$(inspect once '{{.State.ExitCode}}')"

    # The command is killed, kapo is not, and starts it again.
    run memory --memory 48m --memory-swap 48m -e KAPO_WAIT=0.1 examples_web python3 -c 'a = []
while True: a.append(bytearray(1 << 20))'
    check "Docker: memory limit: the run ends with oom-kill" wait_until 30 logged memory 'reason=oom-kill'
    same "Docker: and the container runs on" running "$(inspect memory '{{.State.Status}}')"
}
started_before() {
    [[ $(inspect "$1" '{{.State.StartedAt}}') < $(inspect "$2" '{{.State.StartedAt}}') ]] && echo true
}

podman_part() {
    local name=web-pod-0-web
    podman_starts || return 0
    engine() { "${PODMAN[@]}" "$@"; }
    base_images || { not_ok "podman: the base images"; return 0; }
    check "podman builds the slim image" engine build --format docker --pull=never -t example.org/web:1 "$WORK/docker-files"
    check "podman builds the scratch image" engine build --format docker --pull=never -f "$WORK/docker-files/Dockerfile.scratch" -t worker "$WORK/docker-files"
    engine run -d --name worker "${PODMAN_RUN[@]}" --read-only --cap-drop all --security-opt no-new-privileges worker >/dev/null 2>&1
    check "podman: the scratch image, read-only and unprivileged" wait_until 20 engine exec worker /kapo check
    engine stop --time 20 worker >/dev/null 2>&1
    same "podman: a stop lets the worker finish" 0 "$(inspect worker '{{.State.ExitCode}}')"

    if ! command -v catatonit >/dev/null && [ ! -x /usr/libexec/podman/catatonit ] && [ ! -x /usr/lib/podman/catatonit ]; then
        echo "# catatonit is not installed: pods are left out"
        return 0
    fi
    # Without a network of its own: the ports are those of the host. podman takes the limits from a file.
    printf '[containers]\ndefault_ulimits = ["nofile=1024:1024", "nproc=4096:4096"]\n' >"$WORK/containers.conf"
    mkdir "$WORK/kube"
    sed -e 's/replicas: 2/replicas: 1/' -e '/^          ports:/,/containerPort: 6666/d' -e 's/port: kapo/port: 6666/' \
        -e 's/^    spec:/    spec:\n      hostNetwork: true/' -e 's/^\( *\)image: .*/&\n\1imagePullPolicy: Never/' \
        "$ROOT/examples/k8s/deployment.yaml" >"$WORK/kube/deployment.yaml"
    export CONTAINERS_CONF=$WORK/containers.conf
    cd "$WORK/kube"
    check "podman plays the Deployment" engine play kube deployment.yaml
    check "podman: kapo in the pod is ready" wait_until 20 ready
    same "podman: read-only and unprivileged" "true 65534" "$(inspect "$name" '{{.HostConfig.ReadonlyRootfs}} {{.Config.User}}')"
    stops_without_a_loss podman "$name" "${PODMAN[@]}" pod stop --time 40 web-pod-0
    check "podman: web finishes by itself" logged "$name" finished
}

docker_part
podman_part
finish
