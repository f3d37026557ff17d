#!/bin/sh
# Checks each file under examples/ with the checker of its own program. A missing program is printed and skipped;
# REQUIRE=1 makes that an error. systemd's checker is called if it is installed.
#
# The schemas of Kubernetes, Compose and CloudFormation come from three Python packages. This script installs them from
# PyPI into target/schemas (about 300 MB, once); without PyPI these checks are skipped.
set -u
cd "$(dirname "$0")/../examples" || exit 1
failed=0
missing=0

# try NAME PROGRAM ARGS...: prints one line, and the program's output if it fails.
try() {
    name=$1
    shift
    if ! command -v "$1" >/dev/null 2>&1; then
        echo "skipped  $name: $1 is not installed"
        missing=1
    elif said=$("$@" 2>&1); then
        echo "ok       $name"
    else
        printf 'FAILED   %s: %s\n%s\n' "$name" "$*" "$said"
        failed=1
    fi
}

scratch=$(mktemp -d) || exit 1
trap 'rm -rf "$scratch"' EXIT
mkdir "$scratch/logs"

try prometheus/scrape.yml promtool check config prometheus/scrape.yml
try prometheus/scrape-host.yml promtool check config prometheus/scrape-host.yml
try prometheus/alerts.yml promtool check rules prometheus/alerts.yml
try prometheus/alerts_test.yml promtool test rules prometheus/alerts_test.yml
try prometheus/textfile_alerts.yml promtool check rules prometheus/textfile_alerts.yml
try prometheus/textfile_alerts_test.yml promtool test rules prometheus/textfile_alerts_test.yml
try haproxy/haproxy.cfg haproxy -c -q -f haproxy/haproxy.cfg
try nginx/nginx.conf nginx -t -q -p "$scratch" -e stderr -g "pid $scratch/pid; error_log stderr;" -c "$PWD/nginx/nginx.conf"
try consul/service.hcl consul validate consul/service.hcl
try docker/compose.yaml docker-compose -f docker/compose.yaml config --quiet

# cron: five fields and a user, and then a command line that kapo accepts, with a job and a folder that exist here.
cron() {
    sed -n 's/^[0-9* ]\{9,\} root  kapo /kapo /p' cron/backup |
        sed "s|^kapo|${KAPO_BIN:-../target/kapo}|; s|/usr/local/bin/backup|true|; s|/var/lib/prometheus/node-exporter|$scratch|" \
            >"$scratch/cron"
    KAPO_INTERFACE=none sh -e "$scratch/cron" && promtool check metrics <"$scratch/backup.prom"
}
if [ -x "${KAPO_BIN:-../target/kapo}" ]; then
    if said=$(cron 2>&1); then
        echo "ok       cron/backup"
    else
        printf 'FAILED   cron/backup\n%s\n' "$said"
        failed=1
    fi
fi

schemas=$PWD/../target/schemas
# Other versions are installed again.
versions='kubernetes-validate==1.37.0 check-jsonschema==0.39.0 cfn-lint==1.58.0'
if [ "$(cat "$schemas/versions" 2>/dev/null)" != "$versions" ]; then
    rm -rf "$schemas"
    # shellcheck disable=SC2086  # a list of packages
    if said=$(python3 -m venv "$schemas" 2>&1 && "$schemas/bin/pip" install -q --disable-pip-version-check $versions 2>&1); then
        echo "$versions" >"$schemas/versions"
    else
        printf 'pip cannot install the schemas into target/schemas: %s\n' "$said" | tail -n 1
        rm -rf "$schemas"
    fi
fi
PATH=$PATH:$schemas/bin
for file in k8s/*.yaml; do
    try "$file (schema)" kubernetes-validate --strict --quiet "$file"
done
try "docker/compose.yaml (schema)" check-jsonschema --builtin-schema vendor.compose-spec docker/compose.yaml
try "ecs/service.yaml (schema)" cfn-lint ecs/service.yaml
for file in docker/compose.yaml ecs/*.yaml k8s/*.yaml prometheus/*.yml; do
    try "$file (as YAML)" yamllint -s -d '{extends: relaxed, rules: {line-length: disable}}' "$file"
done

[ "$failed" = 0 ] || exit 1
if [ "$missing" = 1 ] && [ "${REQUIRE:-0}" = 1 ]; then
    echo "some programs are not installed" >&2
    exit 1
fi
