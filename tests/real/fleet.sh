#!/usr/bin/env bash
# Tests of the page of `kapo fleet` in real Chromium and Firefox, without a display: states, sorting, filters, 10,000 rows,
# a lost server, hostile names, the keyboard, axe-core, real kapos. fleet.mjs has the tests.
#
# UPDATE_IMAGES=1 also makes docs/images/fleet.png.
# shellcheck source=tests/real/lib.sh
. "$(dirname "$0")/lib.sh"
# shellcheck source=tests/real/browser.sh
. "$(dirname "$0")/browser.sh"
need_browser
run_browser fleet.mjs
finish
