#!/usr/bin/env bash
# Tests of the page /ui in real Chromium and Firefox, without a display: each state is reached without a reload, light,
# dark and narrow, hostile text is not executed, axe-core finds nothing. ui.mjs has the tests.
#
# UPDATE_IMAGES=1 also makes docs/images/ui.png.
# shellcheck source=tests/real/lib.sh
. "$(dirname "$0")/lib.sh"
# shellcheck source=tests/real/browser.sh
. "$(dirname "$0")/browser.sh"
need python3
need_browser
# A limit for the plots, if a cgroup can be created.
# shellcheck disable=SC2317  # called by the trap in lib.sh
clean_more() { remove_memory_cgroup; }
if [ "$(id -u)" = 0 ] && memory_cgroup 268435456; then
    export LIMITED=$WORK/inside
fi
run_browser ui.mjs
finish
